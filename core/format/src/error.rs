//! What can go wrong between rows and bytes.

use stele_model::digest::Digest;
use stele_model::{ErrorKind, Window};

/// The result of this crate's functions.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// A failure to read or write stored bytes.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Rows were pushed out of order: a defect of the caller.
    #[error("rows must ascend strictly by (metric, tags, ts): {metric} {tags} at {ts_us} us")]
    Unsorted {
        /// The metric of the offending row.
        metric: String,
        /// Its tags.
        tags: String,
        /// Its timestamp, or the start of its bin.
        ts_us: i64,
    },
    /// An L0 object must hold at least one row.
    #[error("a batch without rows cannot be stored")]
    Empty,
    /// A batch with rows of hours that no name of an object says.
    #[error(
        "the hours {first} to {last} of a batch are not all within 0 to {}",
        Window::LAST.0
    )]
    Hours {
        /// The hour of its earliest row.
        first: i32,
        /// The hour of its latest row.
        last: i32,
    },
    /// More than the format can count.
    #[error("{what} is {value}, more than {max}")]
    TooLarge {
        /// What was counted.
        what: &'static str,
        /// How many there were.
        value: u64,
        /// How many there may be.
        max: u64,
    },
    /// Bytes that no writer of this crate made.
    #[error("stored bytes are damaged: {what}")]
    Corrupt {
        /// The first thing found wrong.
        what: &'static str,
    },
    /// Bytes or rows whose digest is not the recorded one.
    #[error("stored bytes are damaged: the digest of {what} is {found}, not {expected}")]
    DigestMismatch {
        /// What the digest covers.
        what: &'static str,
        /// The recorded digest.
        expected: Digest,
        /// The digest of what was found.
        found: Digest,
    },
    /// The Parquet library refused the bytes.
    #[error("the Parquet metadata or a page cannot be read or written")]
    Parquet(#[from] parquet::errors::ParquetError),
    /// The compressor refused the bytes.
    #[error("a page cannot be compressed or decompressed")]
    Compression(#[source] std::io::Error),
    /// Arrow refused the columns: a defect of ours.
    #[error("the columns do not form a record batch")]
    Arrow(#[from] arrow::error::ArrowError),
    /// A stored quantile sketch cannot be read.
    #[error("stored bytes are damaged")]
    Sketch(#[from] stele_model::sketch::SketchError),
}

impl Error {
    /// How callers must treat the failure.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Corrupt { .. }
            | Self::DigestMismatch { .. }
            | Self::Parquet(_)
            | Self::Compression(_)
            | Self::Sketch(_) => ErrorKind::Corrupt,
            Self::TooLarge { .. } => ErrorKind::TooLarge,
            Self::Empty | Self::Hours { .. } => ErrorKind::Malformed,
            Self::Unsorted { .. } | Self::Arrow(_) => ErrorKind::Internal,
        }
    }

    pub(crate) const fn corrupt(what: &'static str) -> Self {
        Self::Corrupt { what }
    }
}
