//! The limits every decoder applies to a sample, with reasons that name value and limit.

use std::collections::HashMap;
use std::fmt;

use stele_model::time::rfc3339;
use stele_model::{Extra, Kind, Limits, NO_EXTRA, Positions, Row, Rows, Series, Window};

use crate::Error;

/// Text of the sender in a message: cut to 40 characters, control characters escaped.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Quoted<'a>(pub &'a [u8]);

impl fmt::Display for Quoted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // 160 bytes hold at least 40 characters.
        let head = String::from_utf8_lossy(&self.0[..self.0.len().min(160)]);
        let text: String = head.chars().take(40).collect();
        write!(f, "{text:?}")?;
        if text.len() < head.len() || self.0.len() > 160 {
            f.write_str("…")?;
        }
        Ok(())
    }
}

/// Why one sample's name or tags are refused.
#[derive(Debug, Clone, Copy, thiserror::Error)]
pub(crate) enum NameFault<'a> {
    #[error("the metric has no name")]
    NoMetric,
    #[error("metric name {} has {len} bytes, over the limit of {limit} (metric_bytes_max)",
            Quoted(name.as_bytes()))]
    Metric {
        name: &'a str,
        len: usize,
        limit: u64,
    },
    #[error("{count} tags are over the limit of {limit} (tags_max)")]
    Tags { count: usize, limit: u64 },
    #[error("a tag has no name")]
    NoTagName,
    #[error("tag name {} has {len} bytes, over the limit of {limit} (tag_name_bytes_max)",
            Quoted(name.as_bytes()))]
    TagName {
        name: &'a str,
        len: usize,
        limit: u64,
    },
    #[error("tag {} has no value", Quoted(name.as_bytes()))]
    NoTagValue { name: &'a str },
    #[error("the value of tag {} has {len} bytes, over the limit of {limit} (tag_value_bytes_max)",
            Quoted(name.as_bytes()))]
    TagValue {
        name: &'a str,
        len: usize,
        limit: u64,
    },
    #[error("tag {} stands twice", Quoted(name.as_bytes()))]
    TagTwice { name: &'a str },
}

/// Whether a count of texts or bytes is beyond its limit.
pub(crate) fn over(len: usize, limit: u64) -> bool {
    u64::try_from(len).unwrap_or(u64::MAX) > limit
}

pub(crate) fn check_metric<'a>(name: &'a str, limits: &Limits) -> Result<(), NameFault<'a>> {
    let (len, limit) = (name.len(), limits.metric_bytes_max);
    if name.is_empty() {
        return Err(NameFault::NoMetric);
    }
    if over(len, limit) {
        return Err(NameFault::Metric { name, len, limit });
    }
    Ok(())
}

/// Checks `pairs`, which must be sorted by name.
pub(crate) fn check_tags<'a>(
    pairs: &[(&'a str, &'a str)],
    limits: &Limits,
) -> Result<(), NameFault<'a>> {
    if over(pairs.len(), limits.tags_max) {
        let (count, limit) = (pairs.len(), limits.tags_max);
        return Err(NameFault::Tags { count, limit });
    }
    for (i, &(name, value)) in pairs.iter().enumerate() {
        if name.is_empty() {
            return Err(NameFault::NoTagName);
        }
        if over(name.len(), limits.tag_name_bytes_max) {
            let (len, limit) = (name.len(), limits.tag_name_bytes_max);
            return Err(NameFault::TagName { name, len, limit });
        }
        if value.is_empty() {
            return Err(NameFault::NoTagValue { name });
        }
        if over(value.len(), limits.tag_value_bytes_max) {
            let (len, limit) = (value.len(), limits.tag_value_bytes_max);
            return Err(NameFault::TagValue { name, len, limit });
        }
        if i > 0 && pairs[i - 1].0 == name {
            return Err(NameFault::TagTwice { name });
        }
    }
    Ok(())
}

/// The accepted timestamps of one request, both ends included, µs.
#[derive(Debug, Clone, Copy)]
pub(crate) struct TimeRange {
    pub min_us: i64,
    pub max_us: i64,
    min: Earliest,
}

/// What sets the earliest timestamp.
#[derive(Debug, Clone, Copy)]
enum Earliest {
    Limit,
    /// The tenant's retention of raw samples, days.
    Retention(u32),
    /// An earlier, shorter retention.
    Expired,
}

impl TimeRange {
    pub(crate) fn new(now_us: i64, limits: &Limits) -> Self {
        let (raw, limit_us) = (limits.raw_retention, limits.timestamp_us_min);
        let kept_us = raw.timestamp_us_min(now_us);
        let min = match (kept_us, raw.days) {
            (Some(kept_us), _) if kept_us <= limit_us => Earliest::Limit,
            (None, _) => Earliest::Limit,
            (kept_us, _) if kept_us == raw.expired_before_us => Earliest::Expired,
            (_, Some(days)) => Earliest::Retention(days),
            (_, None) => Earliest::Expired,
        };
        Self {
            min_us: kept_us.map_or(limit_us, |kept_us| kept_us.max(limit_us)),
            // Not even a clock that is centuries wrong lets a sample in that no reader would find.
            max_us: now_us
                .saturating_add(limits.future_us_max)
                .min(Window::LAST.end_us() - 1),
            min,
        }
    }

    pub(crate) fn contains(self, ts_us: i64) -> bool {
        (self.min_us..=self.max_us).contains(&ts_us)
    }

    /// Why `ts_us` is refused.
    pub(crate) fn reason(self, ts_us: i64) -> String {
        let at = rfc3339(ts_us);
        if ts_us < self.min_us {
            let limit = rfc3339(self.min_us);
            match self.min {
                Earliest::Limit => format!("timestamp {at} is before {limit} (timestamp_us_min)"),
                Earliest::Retention(days) => {
                    format!("timestamp {at} is before {limit} (raw retention of {days} days)")
                }
                Earliest::Expired => format!(
                    "timestamp {at} is before {limit} (expired under an earlier raw retention)"
                ),
            }
        } else {
            let limit = rfc3339(self.max_us);
            format!("timestamp {at} is after {limit} (future_us_max)")
        }
    }
}

/// Rows under construction, within the limits of the request as a whole.
#[derive(Debug)]
pub(crate) struct Builder {
    pub rows: Rows,
    pub positions: Positions,
    /// Metric to canonical tags to dictionary entry, of [`Builder::series_of`].
    known: HashMap<String, HashMap<String, u32>>,
    /// The extra of plain samples of each kind, once there is one.
    plain: [Option<u32>; 3],
    samples_max: usize,
    samples_limit: u64,
    series_bytes: u64,
    series_bytes_max: u64,
}

impl Builder {
    pub(crate) fn new(limits: &Limits) -> Self {
        Self {
            rows: Rows::default(),
            positions: Positions::default(),
            known: HashMap::new(),
            plain: [None; 3],
            samples_max: usize::try_from(limits.samples_max).unwrap_or(usize::MAX),
            samples_limit: limits.samples_max,
            series_bytes: 0,
            series_bytes_max: limits.series_bytes_max,
        }
    }

    /// Adds a dictionary entry and returns its index. Both texts are copied only when they fit.
    pub(crate) fn series(&mut self, metric: String, tags: &str) -> Result<u32, Error> {
        let bytes = u64::try_from(metric.len() + tags.len()).unwrap_or(u64::MAX);
        self.series_bytes = self.series_bytes.saturating_add(bytes);
        if self.series_bytes > self.series_bytes_max {
            let limit = self.series_bytes_max;
            return Err(Error::SeriesBytes { limit });
        }
        let index = u32::try_from(self.rows.series.len()).map_err(|_| self.too_many())?;
        let tags = tags.to_owned();
        self.rows.series.push(Series { metric, tags });
        Ok(index)
    }

    /// The dictionary entry of a series, added when it is new.
    pub(crate) fn series_of(&mut self, metric: &str, tags: &str) -> Result<u32, Error> {
        if let Some(known) = self.known.get(metric).and_then(|m| m.get(tags)) {
            return Ok(*known);
        }
        let index = self.series(metric.to_owned(), tags)?;
        let of_metric = self.known.entry(metric.to_owned()).or_default();
        of_metric.insert(tags.to_owned(), index);
        Ok(index)
    }

    /// Adds a plain sample.
    #[inline]
    pub(crate) fn push(&mut self, series: u32, ts_us: i64, value: f64) -> Result<(), Error> {
        if self.rows.rows.len() >= self.samples_max {
            return Err(self.too_many());
        }
        let extra = NO_EXTRA;
        self.rows.rows.push(Row {
            ts_us,
            value,
            series,
            extra,
        });
        Ok(())
    }

    /// Adds a sample that carries `extra` and returns the index of its row.
    pub(crate) fn push_with(
        &mut self,
        series: u32,
        ts_us: i64,
        value: f64,
        extra: Extra,
    ) -> Result<usize, Error> {
        self.push(series, ts_us, value)?;
        let row = self.rows.rows.len() - 1;
        self.set(row, value, extra);
        Ok(row)
    }

    /// Replaces the value and the extra of a row.
    pub(crate) fn set(&mut self, row: usize, value: f64, extra: Extra) {
        let before = self.rows.extra(&self.rows.rows[row]);
        let own = self.rows.rows[row].extra;
        let own = if before.summary.is_some() {
            own
        } else {
            NO_EXTRA
        };
        let index = self.extra(own, extra);
        let row = &mut self.rows.rows[row];
        row.value = value;
        row.extra = index;
    }

    /// The index of `extra`: `own` when that is an entry of one row only, which it then replaces.
    fn extra(&mut self, own: u32, extra: Extra) -> u32 {
        let plain = extra.rank.is_none() && extra.summary.is_none();
        if plain && extra.kind == Kind::Unknown {
            return NO_EXTRA;
        }
        let shared = self.plain[extra.kind as usize].filter(|_| plain);
        if let Some(shared) = shared {
            return shared;
        }
        if let Some(entry) = self.rows.extras.get_mut(own as usize) {
            *entry = extra;
            return own;
        }
        // There are no more entries than rows and kinds, and rows are fewer than 2^32 - 3.
        let index = u32::try_from(self.rows.extras.len()).unwrap_or(NO_EXTRA);
        self.rows.extras.push(extra);
        if plain {
            self.plain[extra.kind as usize] = Some(index);
        }
        index
    }

    fn too_many(&self) -> Error {
        Error::Samples {
            limit: self.samples_limit,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_later_of_limit_retention_and_expiry_is_the_earliest_timestamp() {
        use stele_model::RawRetention;
        use stele_model::time::{DAY_US, HOUR_US};

        let now_us = 20_779 * DAY_US;
        let reason = |days, expired_before_us| {
            let raw_retention = RawRetention {
                days,
                expired_before_us,
            };
            let limits = Limits {
                raw_retention,
                ..Limits::default()
            };
            let range = TimeRange::new(now_us, &limits);
            assert!(range.contains(range.min_us) && !range.contains(range.min_us - 1));
            range.reason(range.min_us - 1)
        };
        assert!(reason(None, None).ends_with("2000-01-01T00:00:00.000000Z (timestamp_us_min)"));
        assert!(reason(Some(36_500), None).ends_with("(timestamp_us_min)"));
        let kept = reason(Some(30), None);
        assert_eq!(
            kept,
            "timestamp 2026-10-22T23:59:59.999999Z is before 2026-10-23T00:00:00.000000Z \
             (raw retention of 30 days)"
        );
        assert_eq!(reason(Some(30), Some(now_us - 31 * DAY_US)), kept);
        let expired = "(expired under an earlier raw retention)";
        assert!(reason(Some(30), Some(now_us - HOUR_US)).ends_with(expired));
        assert!(reason(None, Some(now_us - DAY_US)).ends_with(expired));
    }

    #[test]
    fn a_clock_centuries_ahead_accepts_nothing_that_no_reader_finds() {
        let range = TimeRange::new(i64::MAX, &Limits::default());
        let end_us = Window::LAST.end_us();
        assert!(range.contains(end_us - 1) && !range.contains(end_us));
    }

    #[test]
    fn quoted_text_is_cut_and_escaped() {
        assert_eq!(Quoted(b"a\nb").to_string(), "\"a\\nb\"");
        assert_eq!(
            Quoted(&[b'x'; 41]).to_string(),
            format!("\"{}\"…", "x".repeat(40))
        );
        assert_eq!(
            Quoted(&[b'x'; 40]).to_string(),
            format!("\"{}\"", "x".repeat(40))
        );
        assert!(Quoted(&[0xff; 3]).to_string().contains('\u{fffd}'));
    }
}
