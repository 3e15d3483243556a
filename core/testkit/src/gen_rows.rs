//! Random rows around the edges that matter: few series, timestamps at the borders of minutes and
//! windows, duplicates, conflicts, late samples, and every odd float.

use stele_model::time::{HOUR_US, MINUTE_US, SECOND_US};
use stele_model::{Extra, Kind, NO_EXTRA, Row, Rows, Series, Summary, tags};

use crate::rng::Rng;

/// Samples remembered for duplicates and conflicts.
const REMEMBERED_MAX: usize = 64;

/// A source of random rows. Two of one seed give the same rows.
#[derive(Debug, Clone)]
pub struct RowGen {
    rng: Rng,
    series: Vec<Series>,
    sent: Vec<Sent>,
}

#[derive(Debug, Clone, Copy)]
struct Sent {
    series: usize,
    ts_us: i64,
    value: f64,
    extra: Extra,
}

impl RowGen {
    /// Rows of at most `series` series.
    #[must_use]
    pub fn new(rng: Rng, series: usize) -> Self {
        let series = (0..series.max(1)).map(|n| {
            let metric = ["cpu.idle", "cpu.user", "disk.free"][n % 3].to_owned();
            let host = format!("h{}", n / 3);
            let tags = match n {
                0 => tags::canonical(&[]),
                _ => tags::canonical(&[("host", &host), ("quote", "\"\\é")]),
            };
            Series { metric, tags }
        });
        Self {
            rng,
            series: series.collect(),
            sent: Vec::new(),
        }
    }

    /// Between 1 and `rows_max` rows with timestamps up to `now_us` and at most `late_hours`
    /// before it; not canonical.
    pub fn rows(&mut self, now_us: i64, late_hours: i64, rows_max: usize) -> Rows {
        let count = 1 + self.rng.below(rows_max.max(1));
        let mut rows = Rows {
            series: self.series.clone(),
            ..Rows::default()
        };
        // A batch mostly stays near one time, as a scrape does.
        let base_us = self.timestamp(now_us, late_hours);
        for _ in 0..count {
            let sent = self.sample(base_us, now_us, late_hours);
            self.remember(sent);
            push(&mut rows, sent);
        }
        rows
    }

    fn sample(&mut self, base_us: i64, now_us: i64, late_hours: i64) -> Sent {
        if !self.sent.is_empty() && self.rng.chance(25) {
            let mut again = self.sent[self.rng.below(self.sent.len())];
            if self.rng.chance(50) {
                again.value = self.value();
            }
            return again;
        }
        let ts_us = match self.rng.below(10) {
            0 => self.timestamp(now_us, late_hours),
            1..5 => base_us + self.rng.between(0, 90) * SECOND_US,
            _ => base_us + self.rng.between(0, 3 * MINUTE_US),
        };
        Sent {
            series: self.rng.below(self.series.len()),
            ts_us: ts_us.min(now_us),
            value: self.value(),
            extra: self.extra(),
        }
    }

    fn remember(&mut self, sent: Sent) {
        if self.sent.len() < REMEMBERED_MAX {
            self.sent.push(sent);
        } else {
            let at = self.rng.below(REMEMBERED_MAX);
            self.sent[at] = sent;
        }
    }

    fn timestamp(&mut self, now_us: i64, late_hours: i64) -> i64 {
        let hours_ago = match self.rng.below(4) {
            0 if late_hours > 0 => self.rng.between(0, late_hours),
            _ => 0,
        };
        let around_us = now_us - hours_ago * HOUR_US;
        let window_us = around_us - around_us.rem_euclid(HOUR_US);
        let ts_us = match self.rng.below(6) {
            0 => window_us + self.rng.between(-2, 2),
            1 => window_us + self.rng.between(0, 3) * 15 * MINUTE_US + self.rng.between(-1, 0),
            2 => window_us + self.rng.between(0, 59) * MINUTE_US + self.rng.between(-1, 0),
            _ => around_us - self.rng.between(0, 5 * MINUTE_US),
        };
        ts_us.min(now_us)
    }

    fn value(&mut self) -> f64 {
        let rng = &mut self.rng;
        match rng.below(12) {
            0 => rng.pick(&[
                f64::NAN,
                // Prometheus' stale marker.
                f64::from_bits(0x7ff0_0000_0000_0002),
                -f64::NAN,
                f64::INFINITY,
                f64::NEG_INFINITY,
                -0.0,
                0.0,
                f64::MIN_POSITIVE / 4.0,
                f64::MAX,
                9_007_199_254_740_993.0,
            ]),
            1..5 => rng.between(-3, 60) as f64,
            5..9 => rng.between(-500, 99_999) as f64 / 100.0,
            _ => f64::from_bits(rng.next_u64() >> 12 | 0x3ff0_0000_0000_0000),
        }
    }

    fn extra(&mut self) -> Extra {
        let rng = &mut self.rng;
        let mut extra = Extra::default();
        match rng.below(12) {
            0 => extra.kind = rng.pick(&[Kind::Gauge, Kind::Counter]),
            1 => {
                let count = rng.between(1, 4);
                let (min, max) = (rng.between(-9, 0) as f64, rng.between(0, 9) as f64);
                extra.summary = Some(Summary {
                    count,
                    sum: rng.between(-9, 9) as f64 / 8.0,
                    min: rng.chance(50).then_some(min),
                    max: rng.chance(50).then_some(max),
                    sum_squares: rng.chance(50).then_some(max * max),
                });
            }
            2 if rng.chance(20) => extra.rank = Some(1),
            _ => {}
        }
        extra
    }
}

fn push(rows: &mut Rows, sent: Sent) {
    let plain = sent.extra.kind == Kind::Unknown
        && sent.extra.rank.is_none()
        && sent.extra.summary.is_none();
    let extra = if plain {
        NO_EXTRA
    } else {
        rows.extras.push(sent.extra);
        u32::try_from(rows.extras.len() - 1).expect("few extras")
    };
    rows.rows.push(Row {
        ts_us: sent.ts_us,
        value: sent.value,
        series: u32::try_from(sent.series).expect("few series"),
        extra,
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_hit_the_edges_that_matter() {
        let now_us = 400_000 * HOUR_US + 7 * MINUTE_US;
        let mut gen_rows = RowGen::new(Rng::new(1), 4);
        let mut rows: Vec<(i64, u64)> = Vec::new();
        let mut summaries = 0;
        for _ in 0..200 {
            let some = gen_rows.rows(now_us, 30, 12);
            rows.extend(some.rows.iter().map(|r| (r.ts_us, r.value.to_bits())));
            summaries += some.extras.iter().filter(|e| e.summary.is_some()).count();
        }
        let any = |wanted: &dyn Fn(&(i64, u64)) -> bool| rows.iter().any(wanted);
        assert!(any(&|(ts, _)| ts % HOUR_US == 0));
        assert!(any(&|(ts, _)| ts % HOUR_US == HOUR_US - 1));
        assert!(any(&|(ts, _)| *ts < now_us - 20 * HOUR_US));
        assert!(!any(&|(ts, _)| *ts > now_us));
        assert!(any(&|(_, bits)| *bits == (-0.0f64).to_bits()));
        assert!(any(&|(_, bits)| *bits == 0x7ff0_0000_0000_0002));
        assert!(summaries > 10);
        let mut again: Vec<_> = rows.clone();
        again.sort_unstable();
        again.dedup();
        assert!(again.len() < rows.len(), "some samples are sent twice");
    }
}
