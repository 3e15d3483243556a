//! Line protocol, native JSON and Librato's bodies.

use std::collections::HashSet;

use stele_model::{Kind, Limits, Rows, Series, tags};
use stele_wire::assemble::pairs;
use stele_wire::{Decoded, Precision, influx, json, librato as old};

use crate::NOW_US;

/// Limits small enough to be met by a fuzzer's input.
fn tight() -> Limits {
    Limits {
        samples_max: 8,
        series_bytes_max: 200,
        tags_max: 3,
        metric_bytes_max: 12,
        tag_name_bytes_max: 6,
        tag_value_bytes_max: 9,
        ..Limits::default()
    }
}

/// The first byte chooses precision and limits.
pub fn line_protocol(data: &[u8]) {
    let Some((choice, body)) = data.split_first() else {
        return;
    };
    let precision = Precision::ALL[usize::from(choice & 7) % Precision::ALL.len()];
    let limits = limits(*choice);
    let Ok(decoded) = influx::decode(body, precision, NOW_US, &limits) else {
        return;
    };
    check(&decoded, &limits);
    agree(decoded.rows);
}

/// The first byte chooses the limits.
pub fn native_json(data: &[u8]) {
    let Some((choice, body)) = data.split_first() else {
        return;
    };
    let limits = limits(*choice);
    let Ok(decoded) = json::decode(body, NOW_US, &limits) else {
        return;
    };
    check(&decoded, &limits);
    agree(decoded.rows);
}

/// The first byte chooses the form and the limits.
pub fn librato(data: &[u8]) {
    let Some((choice, body)) = data.split_first() else {
        return;
    };
    let limits = limits(*choice);
    let decode = match choice & 3 {
        0 => old::metrics,
        1 => old::measurements,
        _ => old::metrics_form,
    };
    let Ok(decoded) = decode(body, NOW_US, &limits) else {
        return;
    };
    keeps(&decoded, &limits);
    let mut gauges = HashSet::new();
    for row in &decoded.rows.rows {
        let extra = decoded.rows.extra(row);
        assert!(row.value.is_finite() && extra.rank.is_none());
        if let Some(summary) = extra.summary {
            let rest = [summary.min, summary.max, summary.sum_squares];
            assert!(summary.count > 0 && summary.sum.is_finite());
            assert!(rest.into_iter().flatten().all(f64::is_finite));
        }
        // Of gauges those of one name, tags and time are one.
        if extra.kind == Kind::Gauge {
            assert!(gauges.insert((row.series, row.ts_us)));
        }
    }
    // Nothing of one request depends on anything else.
    let again = decode(body, NOW_US, &limits).expect("it was decoded");
    assert_eq!(format!("{again:?}"), format!("{decoded:?}"));
}

fn limits(choice: u8) -> Limits {
    if choice & 0x80 == 0 {
        Limits::default()
    } else {
        tight()
    }
}

/// [`keeps`], of plain samples alone.
pub fn check(decoded: &Decoded, limits: &Limits) {
    keeps(decoded, limits);
    assert!(decoded.rows.extras.is_empty());
    assert!(decoded.rows.rows.iter().all(|row| !row.value.is_nan()));
}

/// Every accepted sample keeps every limit and every rule of rows.
fn keeps(decoded: &Decoded, limits: &Limits) {
    let (rows, refused) = (&decoded.rows, &decoded.rejections);
    assert!(rows.len() as u64 <= limits.samples_max);
    let bytes: usize = rows
        .series
        .iter()
        .map(|s| s.metric.len() + s.tags.len())
        .sum();
    assert!(bytes as u64 <= limits.series_bytes_max);
    for series in &rows.series {
        assert!((1..=limits.metric_bytes_max).contains(&(series.metric.len() as u64)));
        let pairs = pairs(&series.tags).expect("tags are an object of texts");
        assert!(pairs.len() as u64 <= limits.tags_max);
        for (name, value) in &pairs {
            assert!((1..=limits.tag_name_bytes_max).contains(&(name.len() as u64)));
            assert!((1..=limits.tag_value_bytes_max).contains(&(value.len() as u64)));
            assert_eq!(tags::get(&series.tags, name).as_deref(), Some(&**value));
        }
        let mut borrowed: Vec<(&str, &str)> = pairs.iter().map(|(k, v)| (&**k, &**v)).collect();
        borrowed.sort_unstable();
        assert_eq!(tags::canonical(&borrowed), series.tags);
    }
    let times = limits.timestamp_us_min..=NOW_US + limits.future_us_max;
    for row in &rows.rows {
        assert!((row.series as usize) < rows.series.len());
        assert!(times.contains(&row.ts_us));
    }
    assert!(refused.total >= refused.named.len() as u64);
    assert_eq!(refused.is_empty(), refused.named.is_empty());
    assert!(
        refused
            .named
            .iter()
            .all(|refused| !refused.reason.is_empty())
    );
}

/// The rows written in either protocol are the rows.
fn agree(rows: Rows) {
    if rows.is_empty() {
        return;
    }
    let limits = Limits::default();
    let finite = rows.rows.iter().all(|row| row.value.is_finite());
    let lines = as_lines(&rows);
    let text = finite.then(|| as_json(&rows));
    let samples = samples(rows);
    if let Some(text) = text {
        let again = json::decode(text.as_bytes(), NOW_US, &limits).expect("it is ours");
        same(again, &samples, &text);
    }
    if let Some(lines) = lines {
        let unit = Precision::Microseconds;
        let again = influx::decode(lines.as_bytes(), unit, NOW_US, &limits);
        same(again.expect("it is ours"), &samples, &lines);
    }
}

type Samples = Vec<(Series, i64, u64)>;

/// The samples in canonical order, bit for bit.
fn samples(mut rows: Rows) -> Samples {
    rows.canonicalize();
    let of = |row: &stele_model::Row| {
        let series = rows.series[row.series as usize].clone();
        (series, row.ts_us, row.value.to_bits())
    };
    rows.rows.iter().map(of).collect()
}

fn same(again: Decoded, before: &Samples, text: &str) {
    let refused = &again.rejections;
    assert!(refused.is_empty(), "{text}: {refused:?}");
    assert!(samples(again.rows) == *before, "{text}");
}

fn as_json(rows: &Rows) -> String {
    let samples = rows.rows.iter().map(|row| {
        let Series { metric, tags } = &rows.series[row.series as usize];
        let metric = serde_json::Value::from(metric.as_str());
        let (ts, value) = (row.ts_us, row.value);
        format!(r#"{{"metric":{metric},"tags":{tags},"ts":{ts},"value":{value:?}}}"#)
    });
    format!(
        "{{\"samples\":[{}]}}",
        samples.collect::<Vec<_>>().join(",")
    )
}

/// `None` when line protocol cannot say a name or a value.
fn as_lines(rows: &Rows) -> Option<String> {
    let mut out = String::new();
    for row in &rows.rows {
        let Series { metric, tags } = &rows.series[row.series as usize];
        out += &escaped(metric, ", ")?;
        for (name, value) in tags::iter(tags) {
            out += &format!(",{}={}", escaped(&name, ",= ")?, escaped(&value, ",= ")?);
        }
        let value = row.value;
        if !value.is_finite() {
            return None;
        }
        out += &format!(" value={value:?} {}\n", row.ts_us);
    }
    Some(out)
}

fn escaped(text: &str, escapable: &str) -> Option<String> {
    let sayable = |c: char| !matches!(c, '\\' | '\n' | '\r' | '\t' | '\0');
    if text.starts_with('#') || !text.chars().all(sayable) {
        return None;
    }
    let mut out = String::new();
    for c in text.chars() {
        if escapable.contains(c) {
            out.push('\\');
        }
        out.push(c);
    }
    Some(out)
}
