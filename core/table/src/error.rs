//! What can go wrong with a table: the store, damaged stored bytes, a commit that must not be.

use stele_model::{Digest, ErrorKind, time};

use crate::fence::{Fence, Fenced};
use crate::pin::PinName;
use crate::retention::Kept;

/// The result of everything here.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// A failure of the table.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The store failed.
    #[error(transparent)]
    Store(#[from] stele_store::Error),
    /// A stored object is missing, damaged or contradicts another.
    #[error("{key}: {damage}")]
    Corrupt {
        /// The object, relative to the tenant.
        key: String,
        /// What is wrong with it.
        #[source]
        damage: Damage,
    },
    /// The commit would break an invariant and was not written.
    #[error("commit {operation} refused: {refusal}")]
    Refused {
        /// The refused operation.
        operation: String,
        /// Which rule it breaks.
        #[source]
        refusal: Refusal,
    },
    /// The table is another writer's, or not yet this one's: nothing was written.
    #[error(transparent)]
    Fenced(Fenced),
    /// A fence that would go back.
    #[error("a fence for {asked} would follow one for {known}")]
    FencedLater {
        /// The fence there is.
        known: Fence,
        /// The one that was to be committed.
        asked: Fence,
    },
    /// The store never said whether the entry exists. It may appear later, only with these bytes
    /// and only as this version: refresh and plan again under a fresh operation id.
    #[error("commit {operation}: outcome of version {version} is unknown")]
    Unresolved {
        /// The operation whose outcome is unknown.
        operation: String,
        /// The version it was written to.
        version: u64,
        /// The last answer of the store.
        #[source]
        source: stele_store::Error,
    },
    /// Reading the log took so long that sweep may have passed beneath it.
    #[error("reading the log took {} s of at most {} s", took_us / 1_000_000, limit_us / 1_000_000)]
    Slow {
        /// How long the last attempt took, µs.
        took_us: i64,
        /// How long it may take: a quarter of the history, µs.
        limit_us: i64,
    },
    /// A retention beyond what may be set.
    #[error("a retention of {days} days for {resolution} is not within 1 to {days_max} days")]
    RetentionDays {
        /// The resolution.
        resolution: &'static str,
        /// What was asked for, days.
        days: u32,
        /// The most that may be set, days.
        days_max: u32,
    },
    /// A resolution would be forgotten before a finer one.
    #[error(
        "{resolution} would be kept {kept}, and the finer {finer} {finer_kept}: keep it as long"
    )]
    RetentionOrder {
        /// The resolution.
        resolution: &'static str,
        /// How long it would be kept.
        kept: Kept,
        /// The next finer resolution.
        finer: &'static str,
        /// How long that would be kept.
        finer_kept: Kept,
    },
    /// No name for a snapshot.
    #[error(
        "{name:?} is not 1 to 64 of a-z, 0-9, _ and - with a letter, as the name of a snapshot must be"
    )]
    PinName {
        /// What was given, shortened.
        name: String,
    },
    /// Nothing that names a version of the table.
    #[error("{text:?} is no version, no time (RFC 3339) and no name of a snapshot")]
    AsOf {
        /// What was given, shortened.
        text: String,
    },
    /// A note that is too long.
    #[error("a note of {bytes} bytes is longer than {bytes_max}")]
    PinNote {
        /// Its length, bytes.
        bytes: usize,
        /// The greatest length, bytes.
        bytes_max: usize,
    },
    /// Nothing was ever absorbed.
    #[error("there is no table yet: nothing was ever absorbed")]
    NoTable,
    /// No snapshot has this name.
    #[error("no snapshot {name}: {}", known(*count, nearest))]
    NoSnapshot {
        /// The name asked for.
        name: PinName,
        /// How many snapshots there are.
        count: usize,
        /// Some of their names, those most like it first.
        nearest: Vec<PinName>,
    },
    /// A version that does not exist yet.
    #[error("version {version} does not exist: the newest is {newest}")]
    FutureVersion {
        /// The version asked for.
        version: u64,
        /// The newest one.
        newest: u64,
    },
    /// A version that is not kept any more.
    #[error("version {version} has expired: swept; the oldest kept without a snapshot is {oldest}")]
    Swept {
        /// The version asked for.
        version: u64,
        /// The oldest version of the history.
        oldest: u64,
    },
    /// A time of which no version is kept.
    #[error(
        "{} has expired: swept; the oldest version kept without a snapshot is {oldest} of {}",
        time::rfc3339(*us), time::rfc3339(*oldest_us)
    )]
    SweptTime {
        /// The time asked for, µs.
        us: i64,
        /// The oldest version of the history.
        oldest: u64,
        /// When that was committed, µs.
        oldest_us: i64,
    },
    /// Others kept winning the race for the next object of a chain.
    #[error("{key}: others kept changing it")]
    Contended {
        /// The chain's prefix.
        key: String,
    },
}

impl Error {
    /// What the failure means to a caller.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Store(source) => source.kind(),
            Self::Corrupt { .. } => ErrorKind::Corrupt,
            Self::Refused { .. } => ErrorKind::Internal,
            Self::FencedLater { .. } => ErrorKind::Conflict,
            Self::RetentionDays { .. }
            | Self::RetentionOrder { .. }
            | Self::PinName { .. }
            | Self::AsOf { .. }
            | Self::PinNote { .. } => ErrorKind::Malformed,
            Self::NoTable
            | Self::NoSnapshot { .. }
            | Self::FutureVersion { .. }
            | Self::Swept { .. }
            | Self::SweptTime { .. } => ErrorKind::NotFound,
            // The work is for another process, or for later; nothing is lost by waiting.
            Self::Fenced(_)
            | Self::Unresolved { .. }
            | Self::Slow { .. }
            | Self::Contended { .. } => ErrorKind::Unavailable,
        }
    }

    pub(crate) fn corrupt(key: impl Into<String>, damage: Damage) -> Self {
        let key = key.into();
        Self::Corrupt { key, damage }
    }

    pub(crate) fn refused(operation: &str, refusal: Refusal) -> Self {
        Self::Refused {
            operation: operation.to_owned(),
            refusal,
        }
    }
}

/// The snapshots there are instead of one that is not.
fn known(count: usize, nearest: &[PinName]) -> String {
    let names: Vec<&str> = nearest.iter().map(PinName::as_str).collect();
    match count {
        0 => "there are none".to_owned(),
        n if n == names.len() => format!("there are {}", names.join(", ")),
        n => format!("of {n}, the nearest names are {}", names.join(", ")),
    }
}

/// What is wrong with stored bytes.
#[derive(Debug, thiserror::Error)]
pub enum Damage {
    /// The log names the object and it does not exist.
    #[error("named by the log, but missing")]
    Missing,
    /// The log goes on after a version that is absent.
    #[error("version {missing} is absent, version {exists} exists")]
    Gap {
        /// The absent version.
        missing: u64,
        /// A later version that exists.
        exists: u64,
    },
    /// The bytes are not the ones the log named.
    #[error("digest {got}, expected {expected}")]
    Digest {
        /// The digest of the bytes read.
        got: Digest,
        /// The digest the log names.
        expected: Digest,
    },
    /// The bytes are no JSON of the expected shape.
    #[error("not the expected JSON")]
    Json(#[from] serde_json::Error),
    /// The bytes do not decompress.
    #[error("not decompressible")]
    Zstd(#[from] std::io::Error),
    /// Unpacked, the bytes are over the limit.
    #[error("more than {limit_bytes} bytes unpacked")]
    TooLarge {
        /// The limit in bytes.
        limit_bytes: u64,
    },
    /// The checkpoint is no readable Parquet file.
    #[error("not a readable checkpoint")]
    Parquet(#[from] parquet::errors::ParquetError),
    /// The checkpoint's columns cannot be read.
    #[error("not a readable checkpoint")]
    Arrow(#[from] arrow::error::ArrowError),
    /// A value is missing or has no valid form.
    #[error("{field}: {value:?} is not valid")]
    Value {
        /// The field.
        field: &'static str,
        /// The value found, shortened.
        value: String,
    },
    /// The entry was not written as the version it is stored as.
    #[error("holds version {got}, expected {expected}")]
    Version {
        /// The version inside.
        got: u64,
        /// The version its key says.
        expected: u64,
    },
    /// The entry does not continue the entry before it.
    #[error("continues entry {got}, but the one before is {expected}")]
    Chain {
        /// The digest the entry names.
        got: Digest,
        /// The digest of the entry before.
        expected: Digest,
    },
    /// A removed file is not live, or an added one is already known (I7).
    #[error("{path}: {what}")]
    File {
        /// The path, relative to the table.
        path: String,
        /// What is wrong with it.
        what: &'static str,
    },
    /// An entry does not conserve rows (I4).
    #[error("rows are not conserved: {0}")]
    Conservation(#[source] Box<Refusal>),
    /// An entry touches an expired period.
    #[error("expired periods are not respected: {0}")]
    Expiry(#[source] Box<Refusal>),
    /// Two stored accounts of one thing differ.
    #[error("{what} disagrees with what the log adds up to")]
    Disagrees {
        /// The thing.
        what: &'static str,
    },
}

impl Damage {
    pub(crate) fn value(field: &'static str, value: &str) -> Self {
        let value = value.chars().take(80).collect();
        Self::Value { field, value }
    }
}

/// Why a commit was not written.
#[derive(Debug, thiserror::Error)]
pub enum Refusal {
    /// The operation id is not 32 lower-case hex digits.
    #[error("operation id {0:?} is not 32 lower-case hex digits")]
    OperationId(String),
    /// The id was already used for other bytes.
    #[error("the operation id was already used for other actions")]
    OperationReused,
    /// Only the table itself writes this kind.
    #[error("commits of this kind are the table's own")]
    Kind,
    /// A file entry that breaks a rule.
    #[error("file {path:?}: {what}")]
    File {
        /// The path, relative to the table.
        path: String,
        /// The broken rule.
        what: &'static str,
    },
    /// An L0 object that breaks a rule.
    #[error("L0 object {object}: {what}")]
    Object {
        /// The object's name.
        object: String,
        /// The broken rule.
        what: &'static str,
    },
    /// The batch is already effective (I5).
    #[error("batch {batch} was already consumed by {operation}")]
    Consumed {
        /// The batch's digest.
        batch: Digest,
        /// The operation it is effective in.
        operation: String,
    },
    /// The batch counts as a duplicate of one that is not effective there: its rows would be lost.
    #[error("batch {batch} is no duplicate: it is not effective where the commit says")]
    NotConsumed {
        /// The batch's digest.
        batch: Digest,
    },
    /// A tombstone that does not exist.
    #[error("{path:?} is no removed file and no retired ledger object")]
    Tombstone {
        /// The path or key.
        path: String,
    },
    /// Rows are not conserved (I4).
    #[error("{what}: {left} on one side, {right} on the other")]
    Conservation {
        /// Which equation fails.
        what: &'static str,
        /// Its left side.
        left: String,
        /// Its right side.
        right: String,
    },
    /// It breaks a rule of expiry.
    #[error("{what}")]
    Expiry {
        /// The broken rule.
        what: &'static str,
    },
    /// The state it was planned on is no table.
    #[error("planned on a table that does not exist")]
    NoTable,
}
