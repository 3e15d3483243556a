//! Why a batch was not acknowledged.

use std::sync::Arc;

use stele_model::{ErrorKind, L0Name, TierId};

/// The result of every call of this crate.
pub type Result<T> = std::result::Result<T, Error>;

/// A batch that is not acknowledged.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The batch could not be encoded.
    #[error("the batch cannot be encoded")]
    Encode(#[source] stele_format::Error),
    /// The task that encoded the batch did not come to its end.
    #[error("the batch was not encoded")]
    Worker(#[source] tokio::task::JoinError),
    /// The store did not take the object, or it is not known whether it did.
    #[error("the batch could not be stored")]
    Store(#[source] stele_store::Error),
    /// A tier that must hold the batch does not, or it is not known whether it does.
    #[error("the batch could not be stored on tier {tier}")]
    Tier {
        /// The tier.
        tier: TierId,
        /// Why.
        #[source]
        source: Box<Error>,
    },
    /// A tier failed a moment ago and is not tried again yet.
    #[error("tier {tier} failed a moment ago")]
    TierPaused {
        /// The tier.
        tier: TierId,
    },
    /// The store of a tier is not the one that was added.
    #[error("tier {tier} holds no tier set: is it the store that was added, and mounted?")]
    TierForeign {
        /// The tier.
        tier: TierId,
    },
    /// Writing took longer than a tier set may be acted on, again and again.
    #[error("the tier set was out of date after each of {rounds} attempts")]
    Slow {
        /// How many.
        rounds: u32,
    },
    /// The marker of a key says something else on a mirror.
    #[error("{key} is another marker on tier {tier}")]
    MarkerDiffers {
        /// The marker's key in the store.
        key: String,
        /// The mirror.
        tier: TierId,
    },
    /// The name of the batch is taken by an object with other samples.
    #[error("l0/{name} holds other samples than its name says")]
    NameTaken {
        /// The object.
        name: L0Name,
        /// Why it cannot be read, if it cannot.
        #[source]
        source: Option<stele_format::Error>,
    },
    /// The object that was to hold this batch and others is not known to be stored.
    #[error(transparent)]
    Group(Arc<Error>),
    /// The text is no idempotency key.
    #[error("an Idempotency-Key is {bytes_min} to {bytes_max} visible ASCII characters")]
    KeyText {
        /// The fewest characters.
        bytes_min: usize,
        /// The most characters.
        bytes_max: usize,
    },
    /// The key came with another body before.
    #[error("the Idempotency-Key was used with another body, route or parameter before")]
    KeyReused,
    /// The key is too old to be sent again.
    #[error(
        "the Idempotency-Key is {age_secs} s old, over the limit of {age_secs_max} s; \
         nothing is acknowledged"
    )]
    KeyOld {
        /// The age of its marker.
        age_secs: i64,
        /// The greatest age.
        age_secs_max: i64,
    },
    /// The marker of a key could not be read or written.
    #[error("the marker of the Idempotency-Key could not be stored")]
    Marker(#[source] stele_store::Error),
    /// The marker of a key is damaged.
    #[error("{key} is no marker of an Idempotency-Key")]
    MarkerDamaged {
        /// The marker's key in the store.
        key: String,
        /// What is wrong with it.
        #[source]
        source: serde_json::Error,
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
            Self::Worker(source) if source.is_panic() => ErrorKind::Internal,
            Self::Worker(_) | Self::Store(_) | Self::Marker(_) => ErrorKind::Unavailable,
            Self::TierPaused { .. } | Self::TierForeign { .. } | Self::Slow { .. } => {
                ErrorKind::Unavailable
            }
            Self::NameTaken { .. } | Self::MarkerDamaged { .. } | Self::MarkerDiffers { .. } => {
                ErrorKind::Corrupt
            }
            Self::Tier { source, .. } => source.kind(),
            Self::Group(source) => source.kind(),
            Self::KeyText { .. } => ErrorKind::Malformed,
            Self::KeyReused => ErrorKind::Contradiction,
            Self::KeyOld { .. } => ErrorKind::Conflict,
        }
    }

    /// Whether it is the fault of a store alone, not of what it holds.
    pub(crate) fn is_of_store(&self) -> bool {
        self.kind() == ErrorKind::Unavailable
    }
}
