//! What can go wrong in a job or a merge read.

use stele_model::{Digest, ErrorKind};

/// The result of this crate's functions.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// A failure of a compaction job or of the merge reader.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The store failed.
    #[error("the object store failed")]
    Store(#[source] stele_store::Error),
    /// An object of the view is gone: a sweep ran since the view was read. The caller reads a new
    /// view and starts again.
    #[error("{key} is gone: read a new view and start again")]
    Gone {
        /// The key, relative to the tenant.
        key: String,
        /// What the store said.
        #[source]
        source: stele_store::Error,
    },
    /// The log, the ledger or a commit failed.
    #[error("the table failed")]
    Table(#[from] stele_table::Error),
    /// A file could not be written or merged.
    #[error("cannot write or merge rows")]
    Format(#[from] stele_format::Error),
    /// An object does not hold what its name or the log says.
    #[error("{key} does not hold what was written to it")]
    Object {
        /// The key, relative to the tenant.
        key: String,
        /// What is wrong with it.
        #[source]
        source: stele_format::Error,
    },
    /// Files that must be disjoint hold the same sample.
    #[error("{path} and its neighbours hold {rows} rows twice; sealed files must be disjoint")]
    NotDisjoint {
        /// One of the files.
        path: String,
        /// Rows found twice.
        rows: u64,
    },
    /// The outputs of a job do not add up to its inputs.
    #[error("{job} would turn {rows_in} rows into {rows_out} ({dropped} dropped): refused")]
    NotConserved {
        /// The job.
        job: &'static str,
        /// Rows read.
        rows_in: u64,
        /// Rows written.
        rows_out: u64,
        /// Rows dropped with a reason.
        dropped: u64,
    },
    /// Raw samples would expire and their rollups are not what they fold to. Nothing expires.
    #[error(
        "{period} does not expire: its {resolution} rollups are not those of its samples: {what}"
    )]
    Unproven {
        /// The period.
        period: String,
        /// The rollups' resolution.
        resolution: &'static str,
        /// The first difference.
        what: String,
    },
    /// A sweep would delete something that a live version or a pin holds: a defect. Nothing is.
    #[error("a sweep would delete {key}, which is live: refused")]
    Live {
        /// The key, relative to the tenant.
        key: String,
    },
    /// The plan is not the one that was confirmed.
    #[error("the plan is {plan}, not {confirmed}: look at it again")]
    OtherPlan {
        /// The hash of the plan.
        plan: Digest,
        /// The hash that was confirmed.
        confirmed: Digest,
    },
    /// There is nothing to confirm.
    #[error("no deletion waits to be confirmed")]
    NothingAsked,
    /// Other compactors took the next version every time.
    #[error("the table moved during each of {attempts} attempts to commit")]
    Contended {
        /// Attempts made.
        attempts: u32,
    },
    /// The clocks differ too much to decide about deletion.
    #[error(
        "our clock and the store's differ by {skew_us} µs; at most {skew_us_max} allows to forget"
    )]
    Skew {
        /// The difference, µs.
        skew_us: u64,
        /// The limit, µs.
        skew_us_max: u64,
    },
}

impl Error {
    /// What a caller must tell apart.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Store(source) => source.kind(),
            Self::Gone { .. } => ErrorKind::NotFound,
            Self::Table(source) => source.kind(),
            Self::Format(source) | Self::Object { source, .. } => source.kind(),
            Self::NotDisjoint { .. } | Self::Unproven { .. } => ErrorKind::Corrupt,
            Self::NotConserved { .. } | Self::Live { .. } => ErrorKind::Internal,
            Self::OtherPlan { .. } | Self::NothingAsked => ErrorKind::Conflict,
            Self::Contended { .. } | Self::Skew { .. } => ErrorKind::Unavailable,
        }
    }

    /// Whether an object of the view was swept meanwhile, so that a new view may succeed.
    #[must_use]
    pub fn is_gone(&self) -> bool {
        matches!(self, Self::Gone { .. })
    }
}

impl From<stele_store::Error> for Error {
    fn from(source: stele_store::Error) -> Self {
        Self::Store(source)
    }
}
