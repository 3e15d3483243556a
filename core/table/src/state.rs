//! A version of the table in memory.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use stele_model::{Digest, L0Name, RowsHash, WindowSet};

use crate::expired::Expired;
use crate::fence::Fence;
use crate::file::{FileEntry, FileKind};
use crate::restored::Revoked;

/// One version of the table: cheap to clone, never changed in place.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct TableState {
    /// The version of the entry it ends with.
    pub version: u64,
    /// That entry's commit time, µs by the committer's clock.
    pub timestamp_us: i64,
    /// The digest of that entry's bytes.
    pub entry_digest: Digest,
    /// That entry's operation id; empty when there is no table yet ([`TableState::exists`]).
    pub operation: String,
    /// What stays the same for the table's life.
    pub meta: TableMeta,
    /// The live files by path.
    pub files: BTreeMap<String, Arc<FileEntry>>,
    /// Consumed L0 objects not yet known to be gone, by [`L0Name::digest`].
    pub unswept: BTreeMap<Digest, Unswept>,
    /// Where the ledger is.
    pub ledger: LedgerState,
    /// Sums over all commits.
    pub totals: Totals,
    /// Files no longer live whose objects may still exist, oldest removal first.
    pub removed: Vec<RemovedFile>,
    /// Which periods have expired.
    pub expired: Expired,
    /// What restores in place took back, oldest first.
    pub revoked: Vec<Revoked>,
    /// Whose compactors commit after it; `None` before the first promotion.
    pub fence: Option<Fence>,
}

/// What is fixed when a table is created.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct TableMeta {
    /// The Delta table id.
    pub id: String,
    /// When it was created, µs.
    pub created_us: i64,
}

/// A consumed L0 object that may still exist.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unswept {
    /// Its name.
    #[serde(with = "crate::codec::text")]
    pub name: L0Name,
    /// The time of the commit that consumed it, µs.
    pub committed_us: i64,
    /// The version that consumed it.
    pub version: u64,
}

/// A file that is no longer live.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RemovedFile {
    /// Its path, relative to `table/`.
    pub path: String,
    /// Its size.
    pub size_bytes: u64,
    /// The time of the commit that removed it, µs.
    pub removed_us: i64,
}

/// Where the ledger of a version is: operations not yet merged, and merged segments by day.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct LedgerState {
    /// Operations after the last ledger commit that consumed something, oldest first.
    pub recent: Vec<LedgerOperation>,
    /// Merged segments by day (`YYYY-MM-DD` of a batch's greatest timestamp).
    pub days: BTreeMap<String, Vec<LedgerSegment>>,
    /// The manifest of the last ledger commit; empty before the first.
    pub manifest: Option<LedgerObject>,
    /// The version of the last ledger commit; 0 before the first.
    pub manifest_version: u64,
    /// Ledger objects that later ones replace, for sweep.
    pub retired: Vec<Retired>,
}

/// A ledger object named by the log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LedgerObject {
    /// Its key, relative to the tenant.
    pub key: String,
    /// The digest of its bytes.
    pub digest: Digest,
    /// Its size.
    pub size_bytes: u64,
}

/// What one operation consumed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LedgerOperation {
    /// Its id.
    pub operation: String,
    /// Its version.
    pub version: u64,
    /// Its ledger file.
    pub object: LedgerObject,
    /// Batches in it, duplicates included.
    pub batches: u64,
}

/// Merged ledger rows of one day.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LedgerSegment {
    /// Its file.
    pub object: LedgerObject,
    /// Batches in it, duplicates included.
    pub batches: u64,
}

/// A ledger object (operation file, segment or manifest) that a later one replaces.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Retired {
    /// Its key, relative to the tenant.
    pub key: String,
    /// Its size.
    pub size_bytes: u64,
    /// The time of the commit that replaced it, µs. Entries older than that may still name it:
    /// delete it only after those entries.
    pub retired_us: i64,
}

/// Sums over all commits of the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Totals {
    /// L0 objects consumed.
    pub objects: u64,
    /// Batches that became effective.
    pub batches: u64,
    /// Batches that were duplicates of an effective one.
    pub duplicate_batches: u64,
    /// Rows of the effective batches.
    pub rows: u64,
    /// The hash of the rows of the effective batches.
    pub hash: RowsHash,
    /// Rows dropped as the same sample again.
    pub duplicates: u64,
    /// Rows dropped because another value won.
    pub overridden: u64,
    /// Rows dropped because their period expired.
    pub expired: u64,
    /// The hash of all dropped rows: the live samples' hash is `hash` without it.
    pub hash_dropped: RowsHash,
}

impl TableState {
    /// Whether there is a table at all; a tenant that was never absorbed has none.
    #[must_use]
    pub fn exists(&self) -> bool {
        !self.operation.is_empty()
    }

    /// The live files of one kind, in path order.
    pub fn files_of(&self, kind: FileKind) -> impl Iterator<Item = &Arc<FileEntry>> {
        let prefix = format!("resolution={}/", kind.partition());
        self.files
            .range(prefix.clone()..)
            .take_while(move |(path, _)| path.starts_with(&prefix))
            .map(|(_, file)| file)
    }

    /// The windows that an `open` file covers.
    #[must_use]
    pub fn open_windows_of_files(&self) -> WindowSet {
        let mut windows = WindowSet::new();
        self.files_of(FileKind::Open)
            .for_each(|file| windows.extend(&file.windows));
        windows
    }
}
