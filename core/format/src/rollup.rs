//! The fold from samples to 60 s bins, to 15 min bins, to 60 min bins.

use stele_model::{Aggregate, Resolution, Series};

use crate::error::Result;
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

/// Folds samples of one series after the other into the bins of all three resolutions.
pub struct Rollup {
    _sketch: bool,
}

impl Rollup {
    /// A fold that has seen nothing; `sketch` says whether bins keep a quantile sketch.
    #[must_use]
    pub fn new(sketch: bool) -> Self {
        Self { _sketch: sketch }
    }

    /// Folds in rows that ascend strictly after all rows before them.
    ///
    /// # Errors
    /// What the sink returns.
    pub fn push(
        &mut self,
        _series: &Series,
        _rows: &[SampleRow],
        _sink: &mut dyn RollupSink,
    ) -> Result<()> {
        Ok(())
    }

    /// Emits the bins still open.
    ///
    /// # Errors
    /// What the sink returns.
    pub fn finish(self, _sink: &mut dyn RollupSink) -> Result<()> {
        Ok(())
    }
}
