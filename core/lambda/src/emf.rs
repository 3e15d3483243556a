//! Metrics for CloudWatch, as JSON lines on standard output (its embedded metric format).

use std::io::Write;

use serde_json::{Map, Value, json};
use stele_model::Clock;

/// The namespace of all of them.
pub const NAMESPACE: &str = "Stele";

/// What a value counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unit {
    /// Things.
    Count,
    /// Bytes.
    Bytes,
    /// Seconds.
    Seconds,
    /// Milliseconds.
    Milliseconds,
}

/// A name, what it counts, and how much.
pub type Metric = (&'static str, Unit, u64);

/// The line for `metrics` under one dimension.
#[must_use]
pub fn line(now_us: i64, dimension: (&str, &str), metrics: &[Metric]) -> String {
    let named: Vec<Value> = metrics
        .iter()
        .map(|(name, unit, _)| json!({"Name": name, "Unit": format!("{unit:?}")}))
        .collect();
    let mut fields: Map<String, Value> = metrics
        .iter()
        .map(|(name, _, value)| ((*name).to_owned(), json!(value)))
        .collect();
    fields.insert(dimension.0.to_owned(), json!(dimension.1));
    let about = json!({
        "Timestamp": now_us.div_euclid(1000),
        "CloudWatchMetrics": [{
            "Namespace": NAMESPACE, "Dimensions": [[dimension.0]], "Metrics": named,
        }],
    });
    fields.insert("_aws".to_owned(), about);
    Value::Object(fields).to_string()
}

/// Writes them. Metrics that cannot be written must not fail what they are about.
pub fn write(clock: &dyn Clock, dimension: (&str, &str), metrics: &[Metric]) {
    let line = line(clock.now_us(), dimension, metrics);
    if let Err(error) = writeln!(std::io::stdout().lock(), "{line}") {
        tracing::warn!(%error, "metrics were lost");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_what_cloudwatch_reads() {
        let metrics = [("Requests", Unit::Count, 1), ("Lag", Unit::Seconds, 7)];
        let line = line(1_700_000_000_123_456, ("Function", "ingest"), &metrics);
        let read: Value = serde_json::from_str(&line).unwrap();
        let expected = json!({
            "_aws": {
                "Timestamp": 1_700_000_000_123_i64,
                "CloudWatchMetrics": [{
                    "Namespace": "Stele",
                    "Dimensions": [["Function"]],
                    "Metrics": [
                        {"Name": "Requests", "Unit": "Count"},
                        {"Name": "Lag", "Unit": "Seconds"},
                    ],
                }],
            },
            "Function": "ingest",
            "Requests": 1,
            "Lag": 7,
        });
        assert_eq!(read, expected);
    }
}
