//! Why a text is not planned. A message names the value and the limit and may be shown to the
//! sender; it never repeats what a refused statement says.

use sqlparser::tokenizer::TokenizerError;
use stele_model::ErrorKind;

/// The result of this crate's functions.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// A text that must not be planned.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The SQL text is too long.
    #[error("the SQL text has {bytes} bytes, the limit is {limit}")]
    TooLong {
        /// Bytes of the text.
        bytes: usize,
        /// Bytes allowed.
        limit: usize,
    },
    /// The SQL text is within its length but would cost too much to parse or plan.
    #[error("the query has {value} {what}, the limit is {limit}")]
    TooComplex {
        /// What was counted.
        what: &'static str,
        /// How many there are.
        value: usize,
        /// How many are allowed.
        limit: usize,
    },
    /// Something that is not a read of the tables.
    #[error("{what} is not allowed: a query is one SELECT, WITH, EXPLAIN, SHOW TABLES or DESCRIBE")]
    NotAllowed {
        /// The refused construct.
        what: String,
    },
    /// A regular expression that is none, or too large.
    #[error("a regular expression cannot be used: {0}")]
    Pattern(#[source] regex::Error),
    /// A time zone that does not exist.
    #[error("there is no time zone {name:?}; a name is like Europe/Zurich or +01:00")]
    NoSuchZone {
        /// The name as written.
        name: String,
    },
    /// A text that is not even tokens: a quote or a comment that does not end.
    #[error("{0}")]
    NoTokens(#[source] TokenizerError),
}

impl Error {
    /// The kind, which alone decides the HTTP status.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::TooLong { .. } => ErrorKind::TooLarge,
            Self::TooComplex { .. } => ErrorKind::Unexecutable,
            Self::NotAllowed { .. }
            | Self::Pattern(_)
            | Self::NoSuchZone { .. }
            | Self::NoTokens(_) => ErrorKind::InvalidQuery,
        }
    }
}

pub(crate) fn not_allowed(what: impl Into<String>) -> Error {
    Error::NotAllowed { what: what.into() }
}

pub(crate) fn limit(what: &'static str, value: usize, limit: usize) -> Result<()> {
    if value > limit {
        return Err(Error::TooComplex { what, value, limit });
    }
    Ok(())
}
