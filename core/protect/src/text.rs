//! Words for findings.

use std::error::Error;

use stele_model::Series;
use stele_model::time::rfc3339;

/// An error and its sources in one line.
pub(crate) fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.ends_with(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        source = cause.source();
    }
    text
}

/// One bin of one series.
pub(crate) fn place(series: &Series, ts_us: i64) -> String {
    format!("{} {} at {}", series.metric, series.tags, rfc3339(ts_us))
}
