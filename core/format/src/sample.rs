//! The unit in which rows stream from readers through the merge to writers.

use std::sync::Arc;

use stele_model::{Aggregate, Extra, Series};

use crate::error::Result;

/// One sample of a known series.
#[derive(Debug, Clone, Copy)]
pub struct SampleRow {
    /// µs since the epoch, UTC.
    pub ts_us: i64,
    /// The value, any bit pattern.
    pub value: f64,
    /// What few samples carry besides.
    pub extra: Extra,
}

/// Rows of one series, ascending by time; a long series may come in several chunks.
#[derive(Debug, Clone)]
pub struct SampleChunk {
    /// The series all rows belong to.
    pub series: Arc<Series>,
    /// Never empty; ascending by (ts, merge order), strictly by ts out of [`crate::Merge`].
    pub rows: Vec<SampleRow>,
}

/// Bins of one series, strictly ascending by start; a long series may come in several chunks.
#[derive(Debug, Clone)]
pub struct RollupChunk {
    /// The series all bins belong to.
    pub series: Arc<Series>,
    /// (start of the bin in µs, its aggregate); never empty.
    pub bins: Vec<(i64, Aggregate)>,
}

/// Samples ascending by (metric, tags, ts).
pub trait SampleSource: Send {
    /// The next rows; `None` at the end.
    ///
    /// # Errors
    /// When stored bytes are damaged. After an error the source must not be used again.
    fn next_chunk(&mut self) -> Result<Option<SampleChunk>>;
}

/// Bins ascending by (metric, tags, start).
pub trait RollupSource: Send {
    /// The next bins; `None` at the end.
    ///
    /// # Errors
    /// When stored bytes are damaged. After an error the source must not be used again.
    fn next_chunk(&mut self) -> Result<Option<RollupChunk>>;
}

impl<S: SampleSource + ?Sized> SampleSource for Box<S> {
    fn next_chunk(&mut self) -> Result<Option<SampleChunk>> {
        (**self).next_chunk()
    }
}

impl<S: RollupSource + ?Sized> RollupSource for Box<S> {
    fn next_chunk(&mut self) -> Result<Option<RollupChunk>> {
        (**self).next_chunk()
    }
}
