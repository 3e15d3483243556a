//! Replication: the table of one tenant, copied to another tier as a prefix of its log.
//!
//! ```text
//! pins ──► data files, ledger ──► entry n ──► entry n + 1 …        heads and checkpoints: shortcuts
//! ```
//!
//! Entry n is created at the target only after everything it names is there, and only when entry
//! n - 1 at the target is the source's, byte for byte: so at every instant the target holds a
//! version of the source, or none. Every object is compared with the digest that the log names
//! before it is put. Nothing is deleted, and no deletion is copied. A run that was interrupted is
//! begun again, and finds what it copied before.

mod fetch;
mod follow;
mod fresh;
mod l0;
mod pins;
mod settings;
mod tier;

use std::collections::HashSet;
use std::sync::{Mutex, MutexGuard, PoisonError};

use stele_model::{Digest, ErrorKind, L0Name, TenantId};
use stele_table::{PinName, TableLog};

use crate::restore::CopyProgress;
use crate::snapshot::SnapshotError;
use fetch::Copier;

pub use l0::{L0Report, copy_l0, return_l0};
pub use settings::{SettingsReport, copy_control, copy_settings};
pub use tier::{TenantCopied, TierOptions, TierProgress, TierReport, replicate_tier};

/// How often a first copy is planned again because the source moved on beneath it.
const PLANS_MAX: u32 = 5;

/// Why something could not be replicated.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReplicateError {
    /// One of the tables cannot be read.
    #[error(transparent)]
    Table(#[from] stele_table::Error),
    /// A store failed.
    #[error("an object store failed")]
    Store(#[from] stele_store::Error),
    /// A snapshot could not be brought back at the target.
    #[error("a snapshot could not be brought back at the target")]
    Undelete(#[source] Box<SnapshotError>),
    /// The target's log is not a prefix of the source's, nor the other way round.
    #[error(
        "the logs of tenant {tenant} have diverged at version {version}: the source's entry is \
         {source_entry}, the target's {target_entry}"
    )]
    Diverged {
        /// The tenant.
        tenant: TenantId,
        /// The first version known to differ.
        version: u64,
        /// The digest of the source's entry.
        source_entry: Digest,
        /// The digest of the target's.
        target_entry: Digest,
    },
    /// The source no longer keeps what follows the target's newest version.
    #[error(
        "the target of tenant {tenant} is at version {version}, and the source's log begins at \
         {oldest}: copy the tenant to an empty tier"
    )]
    Behind {
        /// The tenant.
        tenant: TenantId,
        /// The target's newest version.
        version: u64,
        /// The oldest version from which on the source has every entry.
        oldest: u64,
    },
    /// An object that the log needs is not at the source.
    #[error("the source does not hold {key}, which version {version} needs")]
    Gone {
        /// Its key, relative to the tenant.
        key: String,
        /// The version.
        version: u64,
    },
    /// An object does not hold the bytes that the log names.
    #[error("{side} holds other bytes as {key}: digest {found}, the log names {expected}")]
    Differs {
        /// `the source` or `the target`.
        side: &'static str,
        /// Its key, relative to the tenant.
        key: String,
        /// The digest of its bytes.
        found: Digest,
        /// The digest it should have.
        expected: Digest,
    },
    /// A key that names the same thing on both sides holds another there.
    #[error("{key} is {source_digest} at the source and {target_digest} at the target")]
    Other {
        /// The key, relative to the tenant, or to the tier for its own objects.
        key: String,
        /// The digest of the source's bytes.
        source_digest: Digest,
        /// The digest of the target's.
        target_digest: Digest,
    },
    /// An L0 object does not hold what its name says.
    #[error("{key} is not an accepted batch as its name says")]
    L0 {
        /// Its key, relative to the tenant.
        key: String,
        /// What is wrong with it.
        #[source]
        source: Box<stele_format::Error>,
    },
    /// An L0 object whose batches make another name.
    #[error("{key} holds the batches of {name}")]
    Misnamed {
        /// Its key, relative to the tenant.
        key: String,
        /// The name it should have.
        name: L0Name,
    },
    /// What was copied does not load as what was read.
    #[error("the copied table of tenant {tenant} is not version {version} of the source")]
    OtherTable {
        /// The tenant.
        tenant: TenantId,
        /// The version.
        version: u64,
    },
    /// The log of a first copy took so long that its oldest entries would seem to be stray ones.
    #[error("copying the log took {} s of at most {} s", took_us / 1_000_000, limit_us / 1_000_000)]
    Slow {
        /// How long it took, µs.
        took_us: i64,
        /// The limit: a quarter of the history, µs.
        limit_us: i64,
    },
}

impl ReplicateError {
    /// The kind a caller acts on.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Table(source) => source.kind(),
            Self::Store(source) => source.kind(),
            Self::Undelete(source) => source.kind(),
            Self::Diverged { .. } | Self::Behind { .. } | Self::Other { .. } => ErrorKind::Conflict,
            Self::Gone { .. }
            | Self::Differs { .. }
            | Self::L0 { .. }
            | Self::Misnamed { .. }
            | Self::OtherTable { .. } => ErrorKind::Corrupt,
            Self::Slow { .. } => ErrorKind::Unavailable,
        }
    }
}

impl From<SnapshotError> for ReplicateError {
    fn from(source: SnapshotError) -> Self {
        Self::Undelete(Box::new(source))
    }
}

type Result<T, E = ReplicateError> = std::result::Result<T, E>;

/// How to copy. Keep one per pair of tiers in a process: it remembers what need not be looked at
/// again.
#[derive(Debug)]
pub struct ReplicateOptions {
    /// The most bytes of data files, ledger and log read from the source per second; `None`
    /// without a limit.
    pub bytes_per_second: Option<u64>,
    /// Objects copied at once; each is held in memory whole.
    pub copies: usize,
    /// Tenant and digest of pins that are whole at the target.
    whole_pins: Mutex<HashSet<(TenantId, Digest)>>,
}

impl Default for ReplicateOptions {
    fn default() -> Self {
        Self::new(None, 4)
    }
}

impl ReplicateOptions {
    /// So many bytes per second at most, and so many objects at once (at least one).
    #[must_use]
    pub fn new(bytes_per_second: Option<u64>, copies: usize) -> Self {
        Self {
            bytes_per_second,
            copies: copies.max(1),
            whole_pins: Mutex::default(),
        }
    }

    fn whole_pins(&self) -> MutexGuard<'_, HashSet<(TenantId, Digest)>> {
        let pins = &self.whole_pins;
        pins.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What a run did.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ReplicateReport {
    /// The source's newest version when it was read; `None` when it has no table.
    pub source_version: Option<u64>,
    /// The target's newest version afterwards. It may be greater: a target that has been promoted.
    pub target_version: Option<u64>,
    /// Objects copied, of all kinds.
    pub copied: u64,
    /// Their bytes.
    pub copied_bytes: u64,
    /// Objects that were there already, with the same bytes.
    pub skipped: u64,
    /// Log entries appended to a table that was there.
    pub entries: u64,
    /// Snapshots copied.
    pub pins_copied: u64,
    /// Snapshots dropped or withdrawn at the target, as at the source.
    pub pins_marked: u64,
    /// Snapshots brought back at the target, as at the source.
    pub pins_undeleted: u64,
    /// Live snapshots of the source that the target cannot hold (yet): damaged, its name still
    /// taken by a dropped one, come so late that the target's sweep would not know it was ever
    /// acknowledged, or of a version whose log the target has swept.
    pub pins_missing: Vec<PinName>,
}

/// Copies what the table at `target` lacks of the one at `source`: its snapshots, and its log with
/// everything that names, up to the newest version that was there when it began. Interrupted, it
/// goes on where it stopped. Nothing else may commit at the target meanwhile.
///
/// The L0 objects are copied by [`copy_l0`], settings by [`copy_settings`].
///
/// # Errors
/// [`ReplicateError::Diverged`], [`ReplicateError::Behind`]: never copied over;
/// [`ReplicateError::Differs`], [`ReplicateError::Gone`]: damage, never copied; else the stores'
/// and the tables'.
pub async fn replicate(
    source: &TableLog,
    target: &TableLog,
    options: &ReplicateOptions,
    progress: &(dyn Fn(CopyProgress) + Sync),
) -> Result<ReplicateReport> {
    let mut report = ReplicateReport::default();
    let copier = Copier::new(source, target, options, progress);
    let Some(newest) = newest(source).await? else {
        return Ok(report);
    };
    report.source_version = Some(newest.version);
    let pins = pins::copy(source, target, &mut report).await?;
    let is_first = target.newest_seen().is_none();
    let on = match fresh::state_of(target).await? {
        Some(state) => {
            if is_first {
                fresh::mend_shortcuts(target, &state).await?;
            }
            state
        }
        None => match fresh::begin(&copier).await? {
            Some(state) => state,
            None => fresh::copy(&copier, &pins).await?,
        },
    };
    let state = follow::follow(&copier, &newest, on, &mut report).await?;
    pins::complete(&copier, &pins, &state, &mut report).await?;
    report.target_version = Some(state.version);
    copier.tell_of(&mut report);
    Ok(report)
}

/// The newest version, from the one this process has seen if any.
async fn newest(log: &TableLog) -> Result<Option<std::sync::Arc<stele_table::TableState>>> {
    Ok(match log.newest_seen() {
        Some(known) => Some(log.refresh(&known).await?),
        None => log.load().await?,
    })
}
