//! Canonical rows in memory as a source of the merge.

use std::ops::Range;
use std::sync::Arc;

use stele_model::{Extra, Rows, Series, WindowSet};

use crate::error::Result;
use crate::filter::Filter;
use crate::sample::{SampleChunk, SampleRow, SampleSource};
use crate::sample_file::CHUNK_ROWS;

/// A source over canonical [`Rows`], such as an L0 batch. Rows may repeat in it.
pub struct MemorySource {
    rows: Rows,
    filter: Filter,
    /// The first row not yet looked at.
    at: usize,
    /// Kept ranges of the current run, last first.
    pending: Vec<Range<usize>>,
    series: Arc<Series>,
}

impl MemorySource {
    /// A source of all rows, which must be canonical.
    #[must_use]
    pub fn new(rows: Rows) -> Self {
        Self {
            rows,
            filter: Filter::default(),
            at: 0,
            pending: Vec::new(),
            series: Arc::default(),
        }
    }

    /// Keeps only rows of these windows.
    #[must_use]
    pub fn with_windows(mut self, windows: WindowSet) -> Self {
        self.filter.add_windows(&windows);
        self
    }

    /// Keeps only rows with a timestamp in `[lo, hi)` µs.
    #[must_use]
    pub fn with_ts_range(mut self, lo: i64, hi: i64) -> Self {
        self.filter.add_ts_range(lo, hi);
        self
    }

    /// Keeps only series for which the predicate holds.
    #[must_use]
    pub fn with_series(mut self, keep: Arc<dyn Fn(&Series) -> bool + Send + Sync>) -> Self {
        self.filter.add_series(keep);
        self
    }

    /// Steps to the next series with a kept row; `false` at the end.
    fn next_run(&mut self) -> bool {
        while let Some(first) = self.rows.rows.get(self.at) {
            let series = first.series;
            let rest = &self.rows.rows[self.at..];
            let n = rest.iter().take_while(|row| row.series == series).count();
            let start = self.at;
            self.at += n;
            let series = std::mem::take(&mut self.rows.series[series as usize]);
            if !self.filter.keeps_series(&series) {
                continue;
            }
            let rows = &self.rows.rows[start..start + n];
            let kept = self.filter.kept(n, |i| rows[i].ts_us);
            if kept.is_empty() {
                continue;
            }
            let shift = |range: Range<usize>| start + range.start..start + range.end;
            self.pending = kept.into_iter().rev().map(shift).collect();
            self.series = Arc::new(series);
            return true;
        }
        false
    }
}

impl SampleSource for MemorySource {
    fn next_chunk(&mut self) -> Result<Option<SampleChunk>> {
        let range = match self.pending.pop() {
            Some(range) => range,
            None if self.next_run() => return self.next_chunk(),
            None => return Ok(None),
        };
        let end = range.end.min(range.start + CHUNK_ROWS);
        if end < range.end {
            self.pending.push(end..range.end);
        }
        let extras = &self.rows.extras;
        let rows = self.rows.rows[range.start..end]
            .iter()
            .map(|row| SampleRow {
                ts_us: row.ts_us,
                value: row.value,
                extra: match extras.get(row.extra as usize) {
                    Some(extra) => *extra,
                    None => Extra::default(),
                },
            });
        Ok(Some(SampleChunk {
            series: Arc::clone(&self.series),
            rows: rows.collect(),
        }))
    }
}
