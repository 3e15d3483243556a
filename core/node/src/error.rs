//! What can go wrong when the parts are put together or set to work.

use stele_model::ErrorKind;

/// Shorthand.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// A failure of a job, or a setting that cannot be.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Of the store.
    #[error(transparent)]
    Store(#[from] stele_store::Error),
    /// Of a compaction job.
    #[error(transparent)]
    Compact(#[from] stele_compact::Error),
    /// Of the work on tiers.
    #[error(transparent)]
    Migrate(#[from] stele_protect::MigrateError),
    /// Of a snapshot.
    #[error(transparent)]
    Snapshot(#[from] stele_protect::SnapshotError),
    /// Of the table.
    #[error(transparent)]
    Table(#[from] stele_table::Error),
    /// A running query could lose the objects it reads.
    #[error(
        "the sweep grace of {grace_secs} s is under twice the query deadline of {deadline_secs} s"
    )]
    Grace {
        /// The grace, seconds.
        grace_secs: i64,
        /// The deadline, seconds.
        deadline_secs: i64,
    },
    /// A running query could lose the files it reads.
    #[error("the history of {history_secs} s is under the sweep grace of {grace_secs} s")]
    History {
        /// The history, seconds.
        history_secs: i64,
        /// The grace, seconds.
        grace_secs: i64,
    },
    /// A rung that no ladder has.
    #[error("{text:?}: {part:?} is none of hourly=N, daily=N, weekly=N and monthly=N")]
    Rung {
        /// The whole text.
        text: String,
        /// The part.
        part: String,
    },
    /// A rung without a number.
    #[error("{text:?}: {part:?} says no number of snapshots to keep")]
    Kept {
        /// The whole text.
        text: String,
        /// The part.
        part: String,
        /// Why.
        source: std::num::ParseIntError,
    },
    /// A rung that keeps too many.
    #[error("{text:?}: {part:?} is over {max}, the most of a kind")]
    TooMany {
        /// The whole text.
        text: String,
        /// The part.
        part: String,
        /// The limit.
        max: u32,
    },
    /// A snapshot would not hold what was acknowledged before it.
    #[error(
        "{damaged} L0 objects cannot be read: a snapshot would not hold them; `stele verify` names them"
    )]
    NotWhole {
        /// Objects.
        damaged: u64,
    },
    /// Stored bytes are not what was written.
    #[error("{what}")]
    Damaged {
        /// How much, and the first.
        what: String,
    },
    /// A snapshot would not hold what was acknowledged before it.
    #[error("the time was over before everything was absorbed that a snapshot must hold")]
    OutOfTime,
}

impl Error {
    /// What a caller must tell apart.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Store(source) => source.kind(),
            Self::Compact(source) => source.kind(),
            Self::Migrate(source) => source.kind(),
            Self::Snapshot(source) => source.kind(),
            Self::Table(source) => source.kind(),
            Self::NotWhole { .. } | Self::Damaged { .. } => ErrorKind::Corrupt,
            Self::OutOfTime => ErrorKind::Unavailable,
            Self::Grace { .. }
            | Self::History { .. }
            | Self::Rung { .. }
            | Self::Kept { .. }
            | Self::TooMany { .. } => ErrorKind::Malformed,
        }
    }
}
