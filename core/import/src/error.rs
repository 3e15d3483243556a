//! Why a file cannot be imported. A single bad sample is a rejection, not an error.

use std::path::PathBuf;

use stele_model::ErrorKind;

/// The result of everything here.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// A file that cannot be read as what it was said to be.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file cannot be opened or read.
    #[error("{}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// Reading went wrong on the way.
    #[error("the file cannot be read on")]
    Io(#[from] std::io::Error),
    /// A line that is longer than a part may be.
    #[error("line {line} is longer than {limit} bytes")]
    Line {
        /// The line, from 1.
        line: u64,
        /// The limit in bytes.
        limit: usize,
    },
    /// The text is no CSV.
    #[error("not readable as CSV: {0}")]
    Csv(#[from] ::csv::Error),
    /// The bytes are no Parquet file, or a damaged one.
    #[error("not readable as Parquet: {0}")]
    Parquet(#[from] ::parquet::errors::ParquetError),
    /// A column has a type that cannot be converted.
    #[error("a column cannot be read: {0}")]
    Arrow(#[from] arrow::error::ArrowError),
    /// A column that was asked for is not there.
    #[error("there is no column {name:?} for {what}; the file has {}", has.join(", "))]
    NoColumn {
        /// The column's name.
        name: String,
        /// What it was to be.
        what: &'static str,
        /// The columns there are, the first 50.
        has: Vec<String>,
    },
    /// A limit of one part.
    #[error(transparent)]
    Wire(#[from] stele_wire::Error),
}

impl Error {
    /// What a caller needs to know of it.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Read { .. } | Self::Io(_) => ErrorKind::NotFound,
            Self::Line { .. } => ErrorKind::TooLarge,
            Self::Csv(_) | Self::Parquet(_) | Self::Arrow(_) | Self::NoColumn { .. } => {
                ErrorKind::Malformed
            }
            Self::Wire(source) => source.kind(),
        }
    }
}
