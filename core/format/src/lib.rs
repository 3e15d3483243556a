//! Samples and rollups as bytes: digests, Parquet files, and the merge and fold over them.
//!
//! `wire` hands over [`Rows`](stele_model::Rows); [`batch`] makes them a batch with a digest, and
//! [`l0::encode`] its object. Compaction reads objects back ([`l0::decode`], [`SampleReader`]),
//! brings them together ([`Merge`]), folds them ([`Rollup`]) and writes files ([`SampleWriter`],
//! [`RollupWriter`]); queries use the same readers and [`to_arrow`].
//!
//! Everything is a function of bytes in memory: no network, no async, no clock. The stored bytes
//! are described in `core/notes/physical-format.md`.

#![cfg_attr(test, allow(clippy::unwrap_used, clippy::panic))]

mod check;
mod chunk;
mod codec;
mod column;
mod digest;
mod error;
mod file;
mod filter;
pub mod l0;
mod memory;
mod merge;
mod page_sums;
mod page_writer;
mod pages;
mod rollup;
mod rollup_blocks;
mod rollup_file;
mod rollup_merge;
mod sample;
mod sample_blocks;
mod sample_columns;
mod sample_file;
mod scale;
pub mod schema;
pub mod to_arrow;
mod truth;
mod waiting;

pub use check::{SampleOrRollup, check_file};
pub use digest::{batch, batch_digest, content_digest, row_hash, rows_hash, series_hash};
pub use error::{Error, Result};
pub use filter::SeriesPredicate;
pub use memory::MemorySource;
pub use merge::{Merge, MergeTally};
pub use page_sums::PageSums;
pub use rollup::{Rollup, RollupSink};
pub use rollup_file::{RollupReader, RollupWriter};
pub use rollup_merge::RollupMerge;
pub use sample::{RollupChunk, RollupSource, SampleChunk, SampleRow, SampleSource};
pub use sample_file::{SampleReader, SampleWriter};
pub use stele_model::FileStats;
pub use truth::{Compared, RollupTruth};

/// A finished file: its bytes, and what the log says of it.
#[derive(Debug, Clone)]
pub struct EncodedFile {
    /// The whole object.
    pub bytes: bytes::Bytes,
    /// Taken from what was written, not from what was meant to be written.
    pub stats: FileStats,
}
