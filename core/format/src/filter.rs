//! What a reader keeps: rows of some windows, of a time range, of some series.

use std::sync::Arc;

use stele_model::{Series, WindowSet};

/// Decides which series are read; called once per series and row group.
pub type SeriesPredicate = Arc<dyn Fn(&Series) -> bool + Send + Sync>;

/// The conditions of one reader; all must hold.
#[derive(Clone, Default)]
pub(crate) struct Filter {
    /// Disjoint half-open µs ranges, ascending; `None` keeps every time.
    ranges: Option<Vec<(i64, i64)>>,
    series: Option<SeriesPredicate>,
}

impl Filter {
    pub fn add_windows(&mut self, windows: &WindowSet) {
        self.intersect(&windows.ranges_us());
    }

    pub fn add_ts_range(&mut self, lo: i64, hi: i64) {
        self.intersect(&[(lo, hi)]);
    }

    pub fn add_series(&mut self, predicate: SeriesPredicate) {
        self.series = Some(match self.series.take() {
            None => predicate,
            Some(first) => Arc::new(move |series| first(series) && predicate(series)),
        });
    }

    /// Whether rows of `series` are kept.
    pub fn keeps_series(&self, series: &Series) -> bool {
        self.series
            .as_ref()
            .is_none_or(|predicate| predicate(series))
    }

    /// Whether any instant of `[lo, hi]` is kept.
    pub fn keeps_any(&self, lo: i64, hi: i64) -> bool {
        self.ranges.as_ref().is_none_or(|ranges| {
            let at = ranges.partition_point(|range| range.1 <= lo);
            ranges.get(at).is_some_and(|range| range.0 <= hi)
        })
    }

    /// Whether there is a predicate on series at all.
    pub fn judges_series(&self) -> bool {
        self.series.is_some()
    }

    /// The kept index ranges of `n` ascending timestamps.
    pub fn kept(&self, n: usize, ts_us: impl Fn(usize) -> i64) -> Vec<std::ops::Range<usize>> {
        let Some(ranges) = &self.ranges else {
            return std::iter::once(0..n).collect();
        };
        if n == 0 {
            return Vec::new();
        }
        let (first, last) = (ts_us(0), ts_us(n - 1));
        let mut kept = Vec::new();
        let mut from = 0;
        for (lo, hi) in &ranges[ranges.partition_point(|range| range.1 <= first)..] {
            if *lo > last {
                break;
            }
            let start = partition_point(from, n, |i| ts_us(i) < *lo);
            let end = partition_point(start, n, |i| ts_us(i) < *hi);
            if start < end {
                kept.push(start..end);
            }
            from = end;
        }
        kept
    }

    fn intersect(&mut self, with: &[(i64, i64)]) {
        let Some(mine) = &self.ranges else {
            self.ranges = Some(with.iter().copied().filter(|r| r.0 < r.1).collect());
            return;
        };
        let mut both = Vec::new();
        for a in mine {
            for b in with {
                let (lo, hi) = (a.0.max(b.0), a.1.min(b.1));
                if lo < hi {
                    both.push((lo, hi));
                }
            }
        }
        self.ranges = Some(both);
    }
}

fn partition_point(mut lo: usize, mut hi: usize, before: impl Fn(usize) -> bool) -> usize {
    while lo < hi {
        let mid = lo + (hi - lo) / 2;
        if before(mid) {
            lo = mid + 1;
        } else {
            hi = mid;
        }
    }
    lo
}
