//! The end of a drill: what was acknowledged, against what can be read.

use std::collections::BTreeMap;

use anyhow::{Context, ensure};
use axum::Router;
use serde::Serialize;
use serde_json::{Map, Value};
use stele_model::Resolution;

use super::load::{Bin, Load};
use super::reader::{ask, number};

/// Rows of one answer.
const ROWS: usize = 100_000;

/// One resolution at the end.
#[derive(Debug, Clone, Serialize)]
pub struct Checked {
    /// The resolution.
    pub resolution: &'static str,
    /// Rows that were read.
    pub rows: u64,
    /// Samples in them.
    pub samples: u64,
}

/// Reads every resolution and compares each row with what was acknowledged.
///
/// # Errors
/// Names the first row that is missing, too much or different.
pub async fn everything(sql: &Router, load: &Load) -> anyhow::Result<Vec<Checked>> {
    let mut checked = vec![raw(sql, load).await?];
    for resolution in Resolution::ROLLUPS {
        checked.push(rollup(sql, load, resolution).await?);
    }
    Ok(checked)
}

/// All rows of a query that is ordered by metric and ts, in pages by metric.
async fn rows(sql: &Router, columns: &str, table: &str) -> anyhow::Result<Vec<Map<String, Value>>> {
    let mut all = Vec::new();
    for series in 0..super::load::SERIES {
        let text = format!(
            "SELECT metric, CAST(ts AS BIGINT) AS us, {columns} FROM {table} \
             WHERE metric = 'drill_{series}' ORDER BY ts"
        );
        let (rows, _) = ask(sql, &text)
            .await
            .context("reading everything at the end")?;
        ensure!(
            rows.len() < ROWS,
            "a series of {} rows is too long for a drill",
            rows.len()
        );
        all.extend(rows);
    }
    Ok(all)
}

fn key(row: &Map<String, Value>) -> Option<(u32, i64)> {
    let metric = row.get("metric")?.as_str()?;
    let series = metric.strip_prefix("drill_")?.parse().ok()?;
    Some((series, number(row, "us")?))
}

async fn raw(sql: &Router, load: &Load) -> anyhow::Result<Checked> {
    let table = Resolution::Raw.table();
    let rows = rows(sql, "value", table).await?;
    let mut wanted = load.samples();
    let samples = wanted.len() as u64;
    for row in &rows {
        let key = key(row).with_context(|| format!("{table} holds a strange row: {row:?}"))?;
        let value = wanted.remove(&key);
        ensure!(
            value.is_some() && value == number(row, "value"),
            "{table}: {row:?} was acknowledged as {value:?}, or is there twice"
        );
    }
    ensure!(
        wanted.is_empty(),
        "{table} lacks {} acknowledged samples, first {:?}",
        wanted.len(),
        wanted.first_key_value()
    );
    Ok(Checked {
        resolution: Resolution::Raw.partition(),
        rows: rows.len() as u64,
        samples,
    })
}

async fn rollup(sql: &Router, load: &Load, resolution: Resolution) -> anyhow::Result<Checked> {
    let table = resolution.table();
    let rows = rows(sql, "\"count\", \"sum\", \"min\", \"max\"", table).await?;
    let mut wanted: BTreeMap<(u32, i64), Bin> = load.bins(resolution);
    let mut samples = 0;
    for row in &rows {
        let key = key(row).with_context(|| format!("{table} holds a strange row: {row:?}"))?;
        let got = |name| number(row, name).unwrap_or(i64::MIN);
        let got = Bin {
            count: got("count"),
            sum: got("sum"),
            min: got("min"),
            max: got("max"),
        };
        let bin = wanted.remove(&key);
        ensure!(
            bin == Some(got),
            "{table}: {row:?} should be {bin:?}, or is there twice"
        );
        samples += u64::try_from(got.count).unwrap_or(0);
    }
    ensure!(
        wanted.is_empty(),
        "{table} lacks {} bins, first {:?}",
        wanted.len(),
        wanted.first_key_value()
    );
    Ok(Checked {
        resolution: resolution.partition(),
        rows: rows.len() as u64,
        samples,
    })
}
