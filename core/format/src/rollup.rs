//! The fold from samples to 60 s bins, to 15 min bins, to 60 min bins.
//!
//! Queries over open windows use this fold too, so an answer has the same bits before and after
//! the windows are sealed.

use stele_model::{Aggregate, Resolution, Series};

use crate::error::Result;
use crate::file::unsorted;
use crate::sample::SampleRow;

/// Takes the bins of a [`Rollup`].
pub trait RollupSink {
    /// One finished bin; those of one resolution arrive ascending by (series, start).
    ///
    /// # Errors
    /// Whatever the sink cannot do.
    fn bin(
        &mut self,
        resolution: Resolution,
        series: &Series,
        bin_start_us: i64,
        aggregate: &Aggregate,
    ) -> Result<()>;
}

/// A bin being filled.
type Open = Option<(i64, Aggregate)>;

/// Folds samples of one series after the other into the bins of all three resolutions.
pub struct Rollup {
    sketch: bool,
    /// The series being folded and its last timestamp.
    series: Option<(Series, i64)>,
    /// By [`Resolution::ROLLUPS`].
    open: [Open; 3],
}

impl Rollup {
    /// A fold that has seen nothing; `sketch` says whether bins keep a quantile sketch.
    #[must_use]
    pub fn new(sketch: bool) -> Self {
        Self {
            sketch,
            series: None,
            open: [None, None, None],
        }
    }

    /// Folds in rows that ascend strictly by (series, ts) after all rows before them.
    ///
    /// # Errors
    /// [`crate::Error::Unsorted`] when they do not, and what the sink returns.
    pub fn push(
        &mut self,
        series: &Series,
        rows: &[SampleRow],
        sink: &mut dyn RollupSink,
    ) -> Result<()> {
        let Some(first) = rows.first() else {
            return Ok(());
        };
        match &self.series {
            Some((last, ts_us)) if last == series => {
                if *ts_us >= first.ts_us {
                    return Err(unsorted(series, first.ts_us));
                }
            }
            Some((last, _)) if last > series => return Err(unsorted(series, first.ts_us)),
            _ => {
                self.close(0, sink)?;
                self.series = Some((series.clone(), first.ts_us));
            }
        }
        let mut rows = rows;
        while let Some(first) = rows.first() {
            let start = bin_start(first.ts_us, 0);
            let end = start.saturating_add(bin_us(0));
            if self.open[0].as_ref().is_none_or(|open| open.0 != start) {
                self.close_until(0, start, sink)?;
            }
            let (_, bin) =
                self.open[0].get_or_insert_with(|| (start, Aggregate::empty(self.sketch)));
            let n = rows.iter().take_while(|row| row.ts_us < end).count().max(1);
            let (now, later) = rows.split_at(n);
            for row in now {
                bin.push(row.ts_us, row.value, &row.extra);
            }
            rows = later;
        }
        if let (Some((_, ts_us)), Some(last)) = (&mut self.series, last_ts(&self.open)) {
            *ts_us = last;
        }
        Ok(())
    }

    /// Emits the bins still open.
    ///
    /// # Errors
    /// What the sink returns.
    pub fn finish(mut self, sink: &mut dyn RollupSink) -> Result<()> {
        self.close(0, sink)
    }

    /// Closes every open bin of the series, finest first.
    fn close(&mut self, level: usize, sink: &mut dyn RollupSink) -> Result<()> {
        for at in level..self.open.len() {
            self.emit(at, sink)?;
        }
        Ok(())
    }

    /// Closes the bins that end at or before `ts_us`, a bin's start in the finest resolution.
    fn close_until(&mut self, level: usize, ts_us: i64, sink: &mut dyn RollupSink) -> Result<()> {
        for at in level..self.open.len() {
            let other = |open: &(i64, Aggregate)| open.0 != bin_start(ts_us, at);
            if self.open[at].as_ref().is_some_and(other) {
                self.emit(at, sink)?;
            }
        }
        Ok(())
    }

    /// Hands one bin to the sink and folds it into the next coarser resolution.
    fn emit(&mut self, at: usize, sink: &mut dyn RollupSink) -> Result<()> {
        let (Some((start, bin)), Some((series, _))) = (self.open[at].take(), &self.series) else {
            return Ok(());
        };
        sink.bin(Resolution::ROLLUPS[at], series, start, &bin)?;
        if at + 1 < self.open.len() {
            let coarse = bin_start(start, at + 1);
            match &mut self.open[at + 1] {
                Some((_, open)) => open.merge(&bin),
                empty => {
                    let mut open = Aggregate::empty(self.sketch);
                    open.merge(&bin);
                    *empty = Some((coarse, open));
                }
            }
        }
        Ok(())
    }
}

fn last_ts(open: &[Open; 3]) -> Option<i64> {
    open[0].as_ref().map(|(_, bin)| bin.last_ts_us)
}

fn bin_us(level: usize) -> i64 {
    Resolution::ROLLUPS[level].bin_us().unwrap_or(1)
}

/// The start of the bin that holds `ts_us`.
fn bin_start(ts_us: i64, level: usize) -> i64 {
    ts_us.saturating_sub(ts_us.rem_euclid(bin_us(level)))
}
