//! Why a batch was not acknowledged.

use stele_model::{ErrorKind, L0Name};

/// The result of every call of this crate.
pub type Result<T> = std::result::Result<T, Error>;

/// A batch that is not acknowledged.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The batch could not be encoded.
    #[error("the batch cannot be encoded")]
    Encode(#[source] stele_format::Error),
    /// The store did not take the object, or it is not known whether it did.
    #[error("the batch could not be stored")]
    Store(#[source] stele_store::Error),
    /// The name of the batch is taken by an object with other samples.
    #[error("l0/{name} holds other samples than its name says")]
    NameTaken {
        /// The object.
        name: L0Name,
        /// Why it cannot be read, if it cannot.
        #[source]
        source: Option<stele_format::Error>,
    },
}

impl Error {
    /// What the sender should do. Whatever a store says of our own request ("not found" for a
    /// missing bucket, "denied" for a rotated key) is no fault of the samples: they are to be
    /// sent again.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Encode(source) => match source.kind() {
                ErrorKind::TooLarge => ErrorKind::TooLarge,
                _ => ErrorKind::Internal,
            },
            Self::Store(_) => ErrorKind::Unavailable,
            Self::NameTaken { .. } => ErrorKind::Corrupt,
        }
    }
}
