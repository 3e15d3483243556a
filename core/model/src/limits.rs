//! Every limit of the ingest path in one struct, checked before allocation.
//!
//! The table in README.md and `/status` is generated from [`Limits::table`].

use serde::Serialize;

use crate::time::{DAY_US, MINUTE_US};

/// What a tenant's retention of raw samples leaves to be accepted. The default is everything.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct RawRetention {
    /// Days that raw samples are kept; `None` for ever.
    pub days: Option<u32>,
    /// Samples before this instant may have expired under an earlier, shorter retention, µs.
    pub expired_before_us: Option<i64>,
}

impl RawRetention {
    /// The earliest timestamp that has not passed the retention at `now_us`, µs.
    #[must_use]
    pub fn timestamp_us_min(&self, now_us: i64) -> Option<i64> {
        let kept = self.days.map(|days| i64::from(days) * DAY_US);
        let kept_us = kept.map(|kept| now_us.saturating_sub(kept));
        kept_us.max(self.expired_before_us)
    }
}

/// The limits of one request and of a process. All are inclusive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of a request body as sent.
    pub body_bytes_max: u64,
    /// Bytes of a request body after decompression.
    pub unpacked_bytes_max: u64,
    /// Unpacked bytes per compressed byte, checked above 1 MiB unpacked.
    pub unpack_ratio_max: u64,
    /// Samples of one request.
    pub samples_max: u64,
    /// Bytes of the names and tags of all distinct series of one request: a few short lines
    /// can name very many long series.
    pub series_bytes_max: u64,
    /// Tags of one sample.
    pub tags_max: u64,
    /// Bytes of a metric name.
    pub metric_bytes_max: u64,
    /// Bytes of a tag name.
    pub tag_name_bytes_max: u64,
    /// Bytes of a tag value.
    pub tag_value_bytes_max: u64,
    /// The earliest accepted timestamp, µs since the epoch.
    pub timestamp_us_min: i64,
    /// How far ahead of the clock a timestamp may be, µs.
    pub future_us_max: i64,
    /// The tenant's retention of raw samples: set per request from its settings, at most 60 s
    /// old. What would expire at once is refused.
    pub raw_retention: RawRetention,
    /// Request bytes being worked on at once in one process.
    pub in_flight_bytes_max: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            body_bytes_max: 10 << 20,
            unpacked_bytes_max: 64 << 20,
            unpack_ratio_max: 200,
            samples_max: 1_000_000,
            series_bytes_max: 64 << 20,
            tags_max: 64,
            metric_bytes_max: 512,
            tag_name_bytes_max: 128,
            tag_value_bytes_max: 1024,
            timestamp_us_min: 946_684_800_000_000,
            future_us_max: 10 * MINUTE_US,
            raw_retention: RawRetention::default(),
            in_flight_bytes_max: 128 << 20,
        }
    }
}

/// One row of the table of limits.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Limit {
    /// The stable name, unit last.
    pub name: &'static str,
    /// The value in the name's unit.
    pub value: i64,
    /// What it bounds and what a sender gets beyond it.
    pub meaning: &'static str,
}

impl Limits {
    /// All limits, in the order a request meets them.
    #[must_use]
    pub fn table(&self) -> Vec<Limit> {
        let row = |name, value, meaning| Limit {
            name,
            value,
            meaning,
        };
        let size = |n: u64| i64::try_from(n).unwrap_or(i64::MAX);
        vec![
            row(
                "body_bytes_max",
                size(self.body_bytes_max),
                "bytes of a request body as sent; 413",
            ),
            row(
                "in_flight_bytes_max",
                size(self.in_flight_bytes_max),
                "request bytes worked on at once; 503 with Retry-After",
            ),
            row(
                "unpacked_bytes_max",
                size(self.unpacked_bytes_max),
                "bytes of a body after decompression; 413",
            ),
            row(
                "unpack_ratio_max",
                size(self.unpack_ratio_max),
                "unpacked bytes per compressed byte, above 1 MiB; 413",
            ),
            row(
                "samples_max",
                size(self.samples_max),
                "samples of one request; 413",
            ),
            row(
                "series_bytes_max",
                size(self.series_bytes_max),
                "bytes of the names and tags of all distinct series of one request; 413",
            ),
            row(
                "tags_max",
                size(self.tags_max),
                "tags of one sample; the sample is refused",
            ),
            row(
                "metric_bytes_max",
                size(self.metric_bytes_max),
                "bytes of a metric name; the sample is refused",
            ),
            row(
                "tag_name_bytes_max",
                size(self.tag_name_bytes_max),
                "bytes of a tag name; the sample is refused",
            ),
            row(
                "tag_value_bytes_max",
                size(self.tag_value_bytes_max),
                "bytes of a tag value; the sample is refused",
            ),
            row(
                "timestamp_us_min",
                self.timestamp_us_min,
                "earliest timestamp (2000-01-01), µs since the epoch; the sample is refused",
            ),
            row(
                "future_us_max",
                self.future_us_max,
                "µs a timestamp may be ahead of the clock; the sample is refused",
            ),
        ]
    }
}
