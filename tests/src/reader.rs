//! Asks in SQL over HTTP and compares what comes with the oracle.

use anyhow::{Context, Result, ensure};

use crate::csv::Table;
use crate::oracle::{Bin, Oracle, Present, Rollup, Sample, same_rollup};
use crate::server::post;

/// The three rollup tables, finest first.
pub const ROLLUPS: [&str; 3] = ["rollup_60s", "rollup_15m", "rollup_60m"];

/// Whatever answers `POST /sql`.
#[derive(Debug, Clone, Copy)]
pub struct Reader<'a> {
    /// Without a slash at its end.
    pub url: &'a str,
}

impl Reader<'_> {
    /// Asks in SQL and returns the body in `format`.
    ///
    /// # Errors
    /// When the answer is not 200, or ends before its end.
    pub fn sql(&self, query: &str, format: &str) -> Result<String> {
        let path = format!("/sql?format={format}");
        let reply = post(self.url, &path, query.as_bytes())?;
        ensure!(
            reply.status == 200,
            "{query}: {} {}",
            reply.status,
            reply.body
        );
        Ok(reply.body)
    }

    /// Asks in SQL for one number.
    ///
    /// # Errors
    /// When the answer is not one number.
    pub fn sql_number(&self, query: &str) -> Result<i64> {
        let table = Table::parse(&self.sql(query, "csv")?)?;
        let cell = table.rows.first().and_then(|row| row.first());
        let cell = cell.with_context(|| format!("{query}: no row"))?;
        cell.parse().with_context(|| format!("{query}: {cell:?}"))
    }

    /// Every sample.
    ///
    /// # Errors
    /// When the query fails.
    pub fn samples(&self) -> Result<Vec<Sample>> {
        let query = "SELECT metric, tags, CAST(ts AS BIGINT) AS us, value FROM samples";
        read_samples(&self.sql(query, "csv")?)
    }

    /// Every row of one of [`ROLLUPS`].
    ///
    /// # Errors
    /// When the query fails or a bin is there twice.
    pub fn rollup(&self, table: &str) -> Result<Rollup> {
        let query = format!(
            "SELECT metric, tags, CAST(ts AS BIGINT) AS us, \"count\", \"sum\", \"min\", \"max\", \
             \"first\", \"last\", sum_squares, increase FROM {table}"
        );
        read_rollup(&self.sql(&query, "csv")?)
    }

    /// Checks `samples` and the three rollups against `oracle`, row by row and bit by bit, and
    /// that counts agree with rows.
    ///
    /// # Errors
    /// The first difference.
    pub fn check_tables(&self, oracle: &Oracle) -> Result<Present> {
        let present = oracle.check(&self.samples()?)?;
        let rows = i64::try_from(present.len())?;
        let counted = self.sql_number("SELECT count(*) FROM samples")?;
        ensure!(counted == rows, "count(*) is {counted}, rows are {rows}");
        for (table, want) in ROLLUPS.iter().zip(present.rollups()) {
            same_rollup(table, &self.rollup(table)?, &want)?;
            let total = format!("SELECT CAST(sum(\"count\") AS BIGINT) FROM {table}");
            let total = self.sql_number(&total)?;
            ensure!(total == rows, "{table} counts {total}, samples are {rows}");
        }
        Ok(present)
    }
}

/// Reads samples of the columns metric, tags, us and value.
///
/// # Errors
/// When a column is missing or a field does not parse.
pub fn read_samples(csv: &str) -> Result<Vec<Sample>> {
    let table = Table::parse(csv)?;
    let sample = |row: &Vec<String>| {
        Ok(Sample {
            series: series(&table, row)?,
            ts_us: table.number(row, "us")?.context("a sample without time")?,
            value: table
                .number(row, "value")?
                .context("a sample without value")?,
        })
    };
    table.rows.iter().map(sample).collect()
}

/// Reads rollup rows of the columns metric, tags, us and those of [`Bin`].
///
/// # Errors
/// When a column is missing, a field does not parse or a bin is there twice.
pub fn read_rollup(csv: &str) -> Result<Rollup> {
    let table = Table::parse(csv)?;
    let mut rollup = Rollup::new();
    for row in &table.rows {
        let figure = |column: &str| {
            let value = table.number(row, column)?;
            value.with_context(|| format!("{row:?} has no {column}"))
        };
        let bin = Bin {
            count: table.number(row, "count")?.context("a bin without count")?,
            sum: figure("sum")?,
            min: figure("min")?,
            max: figure("max")?,
            first: figure("first")?,
            last: figure("last")?,
            sum_squares: figure("sum_squares")?,
            increase: figure("increase")?,
        };
        let start = table.number(row, "us")?.context("a bin without time")?;
        let before = rollup.insert((series(&table, row)?, start), bin);
        ensure!(before.is_none(), "there twice: {row:?}");
    }
    Ok(rollup)
}

fn series(table: &Table, row: &[String]) -> Result<(String, String)> {
    let text = |column| table.text(row, column).map(str::to_owned);
    Ok((text("metric")?, text("tags")?))
}
