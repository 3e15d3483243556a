//! Files of rollups: `60s`, `15m` and `60m` of the table.

use std::sync::Arc;

use bytes::Bytes;
use stele_model::{Aggregate, Series, WindowSet};

use crate::EncodedFile;
use crate::error::{Error, Result};
use crate::filter::Filter;
use crate::sample::{RollupChunk, RollupSource};

/// Writes one file of bins of one resolution.
pub struct RollupWriter {
    _sketch: bool,
}

impl RollupWriter {
    /// A writer without bins; `sketch` says whether the file has a sketch column.
    #[must_use]
    pub fn new(sketch: bool) -> Self {
        Self { _sketch: sketch }
    }

    /// Adds a bin that ascends strictly by (metric, tags, start) after all bins before it.
    ///
    /// # Errors
    /// [`Error::Unsorted`] when it does not.
    pub fn push(&mut self, _series: &Series, _bin_start_us: i64, _a: &Aggregate) -> Result<()> {
        Ok(())
    }

    /// About how large the file would be if it were finished now.
    #[must_use]
    pub fn bytes_so_far(&self) -> usize {
        0
    }

    /// The file; `None` when no bin was pushed.
    ///
    /// # Errors
    /// When a page cannot be compressed or the metadata not be written.
    pub fn finish(self) -> Result<Option<EncodedFile>> {
        Ok(None)
    }
}

/// Reads one file of rollups from its bytes, row group by row group.
pub struct RollupReader {
    filter: Filter,
}

impl RollupReader {
    /// Checks the object's own digest and reads its metadata.
    ///
    /// # Errors
    /// [`Error::Corrupt`] or [`Error::DigestMismatch`] when the bytes are not what was written.
    pub fn open(_bytes: Bytes) -> Result<Self> {
        Err(Error::Empty)
    }

    /// Keeps only bins that start in these windows.
    #[must_use]
    pub fn with_windows(mut self, windows: WindowSet) -> Self {
        self.filter.add_windows(&windows);
        self
    }

    /// Keeps only bins that start in `[lo, hi)` µs.
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

    /// Leaves the sketches unread: every aggregate comes without one.
    #[must_use]
    pub fn without_sketch(self) -> Self {
        self
    }
}

impl RollupSource for RollupReader {
    fn next_chunk(&mut self) -> Result<Option<RollupChunk>> {
        Ok(None)
    }
}
