//! Samples that come one by one, already split into name, tags, time and value: held to the same
//! limits as every protocol, and gathered into rows.

use stele_model::{Extra, Limits, Rejections, Row, Rows, tags};

use crate::check::{Builder, TimeRange, check_metric, check_tags};
use crate::{Decoded, Error};

/// One sample as a file or another store has it.
#[derive(Debug, Clone, Copy)]
pub struct Loose<'a> {
    /// The metric's name.
    pub metric: &'a str,
    /// µs since the epoch.
    pub ts_us: i64,
    /// The value, any bit pattern.
    pub value: f64,
    /// What it carries besides.
    pub extra: Option<Extra>,
}

/// Gathers samples within the limits of one request.
#[derive(Debug)]
pub struct Assembler<'l> {
    limits: &'l Limits,
    range: TimeRange,
    out: Builder,
    rejections: Rejections,
}

impl<'l> Assembler<'l> {
    /// An empty one; timestamps are accepted up to `now_us` and the limits' margin.
    #[must_use]
    pub fn new(now_us: i64, limits: &'l Limits) -> Self {
        Self {
            limits,
            range: TimeRange::new(now_us, limits),
            out: Builder::new(limits),
            rejections: Rejections::default(),
        }
    }

    /// Samples kept so far.
    #[must_use]
    pub fn len(&self) -> usize {
        self.out.rows.rows.len()
    }

    /// Whether no sample was kept yet.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Refuses the item at `position`.
    pub fn refuse(&mut self, position: u64, reason: impl FnOnce() -> String) {
        self.rejections.push(position, reason);
    }

    /// Keeps a sample, or refuses it with the reason. `pairs` are its tags in any order; they
    /// are left sorted.
    ///
    /// # Errors
    /// [`Error::Samples`] and [`Error::SeriesBytes`] when there are too many for one request.
    pub fn push(
        &mut self,
        position: u64,
        sample: Loose<'_>,
        pairs: &mut [(&str, &str)],
    ) -> Result<(), Error> {
        pairs.sort_unstable();
        let checked = check_metric(sample.metric, self.limits)
            .and_then(|()| check_tags(pairs, self.limits))
            .map_err(|fault| fault.to_string())
            .and_then(|()| self.check_time(sample.ts_us))
            .and_then(|()| check_summary(sample.extra.as_ref()));
        if let Err(reason) = checked {
            self.rejections.push(position, || reason);
            return Ok(());
        }
        let series = self.out.series_of(sample.metric, &tags::canonical(pairs))?;
        self.out.positions.note(self.len(), 1, position);
        match sample.extra {
            None => self.out.push(series, sample.ts_us, sample.value),
            Some(extra) => {
                self.out
                    .push_with(series, sample.ts_us, sample.value, extra)?;
                Ok(())
            }
        }
    }

    fn check_time(&self, ts_us: i64) -> Result<(), String> {
        match self.range.contains(ts_us) {
            true => Ok(()),
            false => Err(self.range.reason(ts_us)),
        }
    }

    /// What was kept and what was refused.
    #[must_use]
    pub fn finish(self) -> Decoded {
        Decoded {
            rows: self.out.rows,
            rejections: self.rejections,
            positions: self.out.positions,
        }
    }
}

fn check_summary(extra: Option<&Extra>) -> Result<(), String> {
    let Some(summary) = extra.and_then(|extra| extra.summary) else {
        return Ok(());
    };
    if summary.count < 1 {
        return Err(format!("count {} is less than 1", summary.count));
    }
    if let (Some(min), Some(max)) = (summary.min, summary.max)
        && min > max
    {
        return Err(format!("min {min} is greater than max {max}"));
    }
    Ok(())
}

/// Holds rows that somebody else encoded to the limits of a request. Positions are those of the
/// rows, from 0. Nobody may claim a rank: `rank` is what every kept row gets.
///
/// # Errors
/// As [`Assembler::push`].
pub fn recheck(
    rows: &Rows,
    rank: Option<i32>,
    now_us: i64,
    limits: &Limits,
) -> Result<Decoded, Error> {
    let mut all = Assembler::new(now_us, limits);
    for (position, row) in (0..).zip(&rows.rows) {
        let Some(series) = rows.series.get(row.series as usize) else {
            all.refuse(position, || format!("series {} is not named", row.series));
            continue;
        };
        let Some(pairs) = pairs(&series.tags) else {
            all.refuse(position, || {
                "its tags are not an object of texts".to_owned()
            });
            continue;
        };
        let mut pairs: Vec<(&str, &str)> = pairs.iter().map(|(k, v)| (&**k, &**v)).collect();
        let sample = Loose {
            metric: &series.metric,
            ts_us: row.ts_us,
            value: row.value,
            extra: ranked(rows, row, rank),
        };
        all.push(position, sample, &mut pairs)?;
    }
    Ok(all.finish())
}

fn ranked(rows: &Rows, row: &Row, rank: Option<i32>) -> Option<Extra> {
    let extra = Extra {
        rank,
        ..rows.extra(row)
    };
    let is_plain = rank.is_none() && extra.summary.is_none() && extra.kind == Default::default();
    (!is_plain).then_some(extra)
}

/// The pairs of a JSON object of texts, in the order they stand.
#[must_use]
pub fn pairs(tags: &str) -> Option<Vec<(String, String)>> {
    let map: serde_json::Map<String, serde_json::Value> = serde_json::from_str(tags).ok()?;
    let pairs = map.into_iter().map(|(name, value)| match value {
        serde_json::Value::String(value) => Some((name, value)),
        _ => None,
    });
    pairs.collect()
}

#[cfg(test)]
mod tests {
    use stele_model::{NO_EXTRA, Series, Summary};

    use super::*;

    const NOW_US: i64 = 1_795_000_000_000_000;

    fn rows(tags: &str, ts_us: i64, extras: Vec<Extra>) -> Rows {
        let extra = if extras.is_empty() { NO_EXTRA } else { 0 };
        Rows {
            series: vec![Series {
                metric: "m".to_owned(),
                tags: tags.to_owned(),
            }],
            rows: vec![Row {
                ts_us,
                value: 1.0,
                series: 0,
                extra,
            }],
            extras,
        }
    }

    fn reason(rows: &Rows) -> String {
        let decoded = recheck(rows, None, NOW_US, &Limits::default()).unwrap();
        assert!(decoded.rows.is_empty());
        decoded.rejections.named[0].reason.clone()
    }

    #[test]
    fn foreign_rows_are_held_to_every_limit() {
        assert_eq!(
            reason(&rows("{\"a\":1}", NOW_US, Vec::new())),
            "its tags are not an object of texts"
        );
        assert!(reason(&rows("{}", 0, Vec::new())).contains("timestamp_us_min"));
        let long = format!("{{\"a\":\"{}\"}}", "x".repeat(2000));
        assert!(reason(&rows(&long, NOW_US, Vec::new())).contains("tag_value_bytes_max"));
        let summary = |count, min, max| Extra {
            summary: Some(Summary {
                count,
                sum: 1.0,
                min,
                max,
                sum_squares: None,
            }),
            ..Extra::default()
        };
        let refused = reason(&rows("{}", NOW_US, vec![summary(0, None, None)]));
        assert_eq!(refused, "count 0 is less than 1");
        let refused = reason(&rows("{}", NOW_US, vec![summary(1, Some(2.0), Some(1.0))]));
        assert_eq!(refused, "min 2 is greater than max 1");
    }

    #[test]
    fn tags_become_canonical_and_a_claimed_rank_is_replaced() {
        let claimed = Extra {
            rank: Some(9),
            ..Extra::default()
        };
        let given = rows("{\"b\":\"2\", \"a\":\"1\"}", NOW_US, vec![claimed]);
        let plain = recheck(&given, None, NOW_US, &Limits::default()).unwrap();
        assert_eq!(plain.rows.series[0].tags, "{\"a\":\"1\",\"b\":\"2\"}");
        assert_eq!(plain.rows.rows[0].extra, NO_EXTRA);
        let ranked = recheck(&given, Some(1), NOW_US, &Limits::default()).unwrap();
        assert_eq!(ranked.rows.extra(&ranked.rows.rows[0]).rank, Some(1));
    }
}
