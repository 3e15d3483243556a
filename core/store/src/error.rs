//! What can go wrong between us and a store.

use std::path::PathBuf;

use stele_model::ErrorKind;

use crate::probe::Capability;

/// The result of every call of this crate.
pub type Result<T> = std::result::Result<T, Error>;

/// A failed store operation. Messages name the URL or key, never credentials.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The URL names no store we can open. The text is the URL without user and password.
    #[error("{url:?} is not a store: {why}")]
    Url {
        /// What was given, without credentials.
        url: String,
        /// What is expected instead.
        why: &'static str,
    },
    /// The settings of an S3 store do not fit together.
    #[error("cannot configure the store {url}")]
    Configure {
        /// The store's URL.
        url: String,
        /// What `object_store` refused.
        #[source]
        source: Box<object_store::Error>,
    },
    /// The local directory cannot be used.
    #[error("cannot use the directory {} as a store", path.display())]
    Directory {
        /// The directory.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// No object has this key.
    #[error("no object {key}")]
    NotFound {
        /// The key, relative to the tenant (or to the tier for control objects).
        key: String,
    },
    /// A key that may only ever hold one content holds another.
    #[error("{key} already holds {found_bytes} other bytes than the {wanted_bytes} to be written")]
    KeyHoldsOther {
        /// The key.
        key: String,
        /// The size of what was to be written.
        wanted_bytes: u64,
        /// The size of what is there.
        found_bytes: u64,
    },
    /// An object ends before the range that was asked for.
    #[error("{key} ends after {found_bytes} of the {wanted_bytes} bytes asked for")]
    Short {
        /// The key.
        key: String,
        /// The length of the range.
        wanted_bytes: u64,
        /// What the store had of it.
        found_bytes: u64,
    },
    /// Whether a PUT landed could not be learned; it may still land later.
    #[error("the outcome of writing {key} is unknown after {attempts} attempts")]
    Unknown {
        /// The key.
        key: String,
        /// How often the PUT was tried.
        attempts: u32,
        /// The last failure.
        #[source]
        source: Box<object_store::Error>,
    },
    /// Any other failure of one request.
    #[error("cannot {operation} {key}")]
    Request {
        /// `get`, `list`, `put`, `head` or `delete`.
        operation: &'static str,
        /// The key or prefix.
        key: String,
        /// What the store said.
        #[source]
        source: Box<object_store::Error>,
    },
    /// A tier set cannot be read.
    #[error("the tier set {key} is damaged: {why}")]
    Epoch {
        /// Its key.
        key: String,
        /// What is wrong with it.
        why: String,
    },
    /// An object says something else than it was written with.
    #[error("{key} is damaged: {why}")]
    Damaged {
        /// Its key.
        key: String,
        /// What is wrong with it.
        why: String,
    },
    /// The epoch is taken by another set.
    #[error(
        "{url} holds another tier set of epoch {epoch}: someone else changed the tiers; look again"
    )]
    EpochTaken {
        /// The epoch.
        epoch: u64,
        /// The tier.
        url: String,
    },
    /// Two tiers hold different sets of one epoch.
    #[error("{one} and {other} hold different tier sets of epoch {epoch}")]
    EpochConflict {
        /// The epoch.
        epoch: u64,
        /// A tier.
        one: String,
        /// Another.
        other: String,
    },
    /// The primary did not say that there is no newer set than the one that was found.
    #[error(
        "tier {tier}, the primary of the newest tier set that was found (epoch {epoch}), does not \
         answer: nothing is written or deleted before it says that there is no newer one"
    )]
    Unconfirmed {
        /// The epoch.
        epoch: u64,
        /// Its primary.
        tier: String,
    },
    /// Several stores were named, and none holds a tier set.
    #[error("{stores} stores were named and none of them holds a tier set: name one store")]
    NoTierSet {
        /// How many.
        stores: usize,
    },
    /// A set that cannot be, or a change that the rules forbid.
    #[error(transparent)]
    TierSet(#[from] crate::tiers::TierSetError),
    /// The store lacks something that correctness rests on.
    #[error("the store fails {which}: {why}")]
    Incapable {
        /// What it lacks.
        which: Capability,
        /// What was seen.
        why: String,
    },
}

impl Error {
    /// The kind a caller acts on.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Url { .. } | Self::Configure { .. } | Self::NoTierSet { .. } => {
                ErrorKind::Malformed
            }
            Self::NotFound { .. } => ErrorKind::NotFound,
            Self::KeyHoldsOther { .. }
            | Self::Short { .. }
            | Self::Epoch { .. }
            | Self::Damaged { .. }
            | Self::EpochConflict { .. } => ErrorKind::Corrupt,
            Self::EpochTaken { .. } | Self::TierSet(_) => ErrorKind::Conflict,
            Self::Incapable { .. } => ErrorKind::Internal,
            Self::Unknown { .. } | Self::Directory { .. } | Self::Unconfirmed { .. } => {
                ErrorKind::Unavailable
            }
            Self::Request { source, .. } => request_kind(source),
        }
    }

    pub(crate) fn request(operation: &'static str, key: &str, source: object_store::Error) -> Self {
        match source {
            object_store::Error::NotFound { .. } => Self::NotFound {
                key: key.to_owned(),
            },
            source => Self::Request {
                operation,
                key: key.to_owned(),
                source: Box::new(source),
            },
        }
    }
}

/// Denied credentials are ours, not the sender's: the sender should try again.
fn request_kind(source: &object_store::Error) -> ErrorKind {
    use object_store::Error as E;
    match source {
        E::NotFound { .. } => ErrorKind::NotFound,
        E::InvalidPath { .. }
        | E::NotSupported { .. }
        | E::NotImplemented { .. }
        | E::UnknownConfigurationKey { .. } => ErrorKind::Internal,
        _ => ErrorKind::Unavailable,
    }
}
