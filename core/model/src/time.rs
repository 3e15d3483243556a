//! Instants as µs since the epoch, and their RFC 3339 text. No clock is read here.

use chrono::{DateTime, SecondsFormat, Utc};

/// One second in µs.
pub const SECOND_US: i64 = 1_000_000;
/// One minute in µs.
pub const MINUTE_US: i64 = 60 * SECOND_US;
/// One hour in µs: the length of a window.
pub const HOUR_US: i64 = 60 * MINUTE_US;
/// One day in µs: the length of a period.
pub const DAY_US: i64 = 24 * HOUR_US;

/// RFC 3339 in UTC with six decimals and `Z`; the number itself when no calendar date fits it.
#[must_use]
pub fn rfc3339(ts_us: i64) -> String {
    DateTime::<Utc>::from_timestamp_micros(ts_us).map_or_else(
        || format!("{ts_us}us"),
        |t| t.to_rfc3339_opts(SecondsFormat::Micros, true),
    )
}

/// µs since the epoch of an RFC 3339 text; finer digits are floored to the µs.
#[must_use]
pub fn parse_rfc3339(text: &str) -> Option<i64> {
    DateTime::parse_from_rfc3339(text)
        .ok()
        .map(|t| t.timestamp_micros())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rfc3339_text_has_six_decimals_and_round_trips() {
        assert_eq!(rfc3339(1), "1970-01-01T00:00:00.000001Z");
        assert_eq!(parse_rfc3339("1970-01-01T01:00:00.0000019+01:00"), Some(1));
        assert_eq!(parse_rfc3339("yesterday"), None);
    }
}
