//! Files of samples: `raw` and `open` of the table.

use std::sync::Arc;

use bytes::Bytes;
use stele_model::{Series, WindowSet};

use crate::EncodedFile;
use crate::error::{Error, Result};
use crate::filter::Filter;
use crate::sample::{SampleChunk, SampleRow, SampleSource};

/// Writes one file of samples.
#[derive(Default)]
pub struct SampleWriter {}

impl SampleWriter {
    /// A writer without rows.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds rows that ascend strictly by (metric, tags, ts) after all rows before them.
    ///
    /// # Errors
    /// [`Error::Unsorted`] when they do not.
    pub fn push(&mut self, _series: &Series, _rows: &[SampleRow]) -> Result<()> {
        Ok(())
    }

    /// About how large the file would be if it were finished now.
    #[must_use]
    pub fn bytes_so_far(&self) -> usize {
        0
    }

    /// The file; `None` when no row was pushed.
    ///
    /// # Errors
    /// When a page cannot be compressed or the metadata not be written.
    pub fn finish(self) -> Result<Option<EncodedFile>> {
        Ok(None)
    }
}

/// Reads one file of samples from its bytes, row group by row group.
pub struct SampleReader {
    filter: Filter,
}

impl SampleReader {
    /// Checks the object's own digest and reads its metadata.
    ///
    /// # Errors
    /// [`Error::Corrupt`] or [`Error::DigestMismatch`] when the bytes are not what was written.
    pub fn open(_bytes: Bytes) -> Result<Self> {
        Err(Error::Empty)
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
}

impl SampleSource for SampleReader {
    fn next_chunk(&mut self) -> Result<Option<SampleChunk>> {
        Ok(None)
    }
}
