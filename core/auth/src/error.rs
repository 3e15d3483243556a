//! Why a token was not made, read or accepted. No message ever holds a secret.

use std::sync::Arc;

use stele_model::ErrorKind;

use crate::record::TokenId;

/// The result of every call of this crate.
pub type Result<T> = std::result::Result<T, Error>;

/// A failed operation on tokens.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// What was presented is no token that this store knows. Why is not told.
    #[error("the token is not valid")]
    Invalid,
    /// The token was valid once; only who holds it learns that.
    #[error("token {id} is revoked")]
    Revoked {
        /// The token.
        id: TokenId,
    },
    /// What is known of the tokens is too old to act on.
    #[error("the tokens could not be read for {limit_secs} s: nothing is allowed until they are")]
    Stale {
        /// The greatest age, seconds.
        limit_secs: i64,
        /// The last failure to read them.
        #[source]
        source: Option<Arc<stele_store::Error>>,
    },
    /// No token has this id.
    #[error("there is no token {id}")]
    NotFound {
        /// The id.
        id: TokenId,
    },
    /// The text is no id. It is not repeated: it may be a token, pasted by mistake.
    #[error("this is no token id: expected the 16 hex digits that `list` shows")]
    NotAnId,
    /// No scope was asked for.
    #[error("a token needs at least one scope: ingest, query or admin")]
    NoScope,
    /// A word that is no scope.
    #[error("{scope:?} is no scope: expected ingest, query or admin")]
    UnknownScope {
        /// The word.
        scope: String,
    },
    /// The note is too long.
    #[error("the note has {bytes} bytes, over the limit of {limit}")]
    Note {
        /// Its length.
        bytes: usize,
        /// The limit.
        limit: usize,
    },
    /// The token's object is not what was written.
    #[error("token {id} is damaged")]
    Damaged {
        /// The token.
        id: TokenId,
        /// What is wrong.
        #[source]
        source: Damage,
    },
    /// The source of randomness failed.
    #[error("no randomness for a token")]
    Entropy(#[source] Arc<std::io::Error>),
    /// The id is taken by another token: the source of randomness repeats itself.
    #[error("token {id} exists already")]
    Taken {
        /// The id.
        id: TokenId,
    },
    /// The store failed.
    #[error("the store of the tokens failed")]
    Store(#[source] Arc<stele_store::Error>),
}

/// What is wrong with a token's object.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Damage {
    /// It is no JSON of the known form. The text is not repeated.
    #[error("it is not the JSON of a token (line {line}, column {column})")]
    Form {
        /// Where reading stopped, from 1.
        line: usize,
        /// The column, from 1.
        column: usize,
    },
    /// A bit of it is another than was written.
    #[error("its check is not that of its text")]
    Check,
    /// A newer program wrote it.
    #[error("it has format version {version}; this program knows {known}")]
    Version {
        /// Its version.
        version: u64,
        /// The version this program writes.
        known: u64,
    },
    /// It names another token than its key.
    #[error("it is the object of another token")]
    OtherId,
    /// Its hash is not 64 hex digits.
    #[error("its sha256 is not 64 hex digits")]
    Hash,
    /// Its tenant is no tenant name.
    #[error("its tenant is no tenant name")]
    Tenant,
    /// It has no scope.
    #[error("it has no scope")]
    NoScope,
    /// It was listed and could not be found.
    #[error("it was listed and is gone")]
    Gone,
}

impl Error {
    /// The kind a caller acts on.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Invalid | Self::Revoked { .. } => ErrorKind::Unauthenticated,
            Self::Stale { .. } | Self::Entropy(_) => ErrorKind::Unavailable,
            Self::NotFound { .. } => ErrorKind::NotFound,
            Self::NotAnId | Self::NoScope | Self::UnknownScope { .. } | Self::Note { .. } => {
                ErrorKind::Malformed
            }
            Self::Damaged { .. } => ErrorKind::Corrupt,
            Self::Taken { .. } => ErrorKind::Internal,
            Self::Store(source) => source.kind(),
        }
    }
}

impl From<stele_store::Error> for Error {
    fn from(source: stele_store::Error) -> Self {
        Self::Store(Arc::new(source))
    }
}
