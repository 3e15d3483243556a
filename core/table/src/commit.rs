//! What a commit is, and the rules it must meet before anything is written (I4, I5, I7).

use std::collections::{BTreeSet, HashSet};
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use stele_model::{Day, Digest, L0Name, RowsHash, sabotaged};

use crate::error::Refusal;
use crate::expired::{Change, Expired};
use crate::file::FileEntry;
use crate::restored::Restored;
use crate::state::TableState;

/// The name of one exact list of actions: 32 lower-case hex digits, random, never used again, not
/// even by a re-plan of the same work.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct OperationId(pub String);

/// What a commit does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum CommitKind {
    /// Version 0; written by the table itself.
    Create,
    /// L0 objects become open files.
    Absorb,
    /// Open rows of closed windows become sealed files.
    Seal,
    /// Sealed files become larger ones, row for row.
    Consolidate,
    /// Notes which L0 objects and removed files no longer exist; changes no row.
    Sweep,
    /// A period of one resolution is past its retention.
    Expire,
    /// A pinned version comes back, and what was consumed since is revoked.
    Restore,
    /// Merges the ledger and precedes a checkpoint; written by the table itself.
    Ledger,
    /// Says whose compactors commit from here on; written by the table itself.
    Fence,
}

impl CommitKind {
    /// The name in the log.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Create => "create",
            Self::Absorb => "absorb",
            Self::Seal => "seal",
            Self::Consolidate => "consolidate",
            Self::Sweep => "sweep",
            Self::Expire => "expire",
            Self::Restore => "restore",
            Self::Ledger => "ledger",
            Self::Fence => "fence",
        }
    }
}

/// One L0 object a commit consumes, whole.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConsumedObject {
    /// Its name.
    #[serde(with = "crate::codec::text")]
    pub name: L0Name,
    /// The store's time of it, µs: the receive time of its rows.
    pub stored_us: i64,
    /// Every batch in it.
    pub batches: Vec<ConsumedBatch>,
}

impl ConsumedObject {
    /// Whether it holds a batch, and each is filed under a day that its name covers: a batch
    /// filed elsewhere would never be recognised again.
    pub(crate) fn check(&self) -> Result<(), &'static str> {
        if self.batches.is_empty() {
            return Err("consumed without a batch");
        }
        let days = self.name.first.day()..=self.name.last.day();
        match self.batches.iter().all(|batch| days.contains(&batch.day)) {
            true => Ok(()),
            false => Err("a batch is filed under a day that the name does not cover"),
        }
    }
}

/// One batch of a consumed object.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConsumedBatch {
    /// Its digest.
    pub digest: Digest,
    /// The UTC day of its greatest timestamp: where the ledger files it.
    pub day: Day,
    /// Its rows.
    pub rows: u64,
    /// The multiset hash of its rows.
    pub hash: RowsHash,
    /// The operation that consumed the batch before; its rows are then not counted again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub duplicate_of: Option<String>,
}

/// Where the rows of a commit went; all counts and hashes are of samples, taken from the re-read
/// output, never of rollup rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Conservation {
    /// Rows of the removed `open` and `raw` files and of the consumed batches that are no
    /// duplicates.
    pub rows_in: u64,
    /// Rows of the added `open` and `raw` files.
    pub rows_out: u64,
    /// Rows that were the same sample again.
    pub duplicates: u64,
    /// Rows that lost against another value at the same (series, ts).
    pub overridden: u64,
    /// Rows of a period that has expired.
    pub expired: u64,
    /// The hash of the rows in.
    pub hash_in: RowsHash,
    /// The hash of the rows out.
    pub hash_out: RowsHash,
    /// The hash of the duplicates, the overridden and the expired.
    pub hash_dropped: RowsHash,
}

impl Conservation {
    /// Whether rows in = rows out + duplicates + overridden + expired, and the hashes agree (I4).
    ///
    /// # Errors
    /// [`Refusal::Conservation`] with both sides.
    pub fn check(&self) -> Result<(), Refusal> {
        let dropped = u128::from(self.duplicates) + u128::from(self.overridden);
        let right = u128::from(self.rows_out) + dropped + u128::from(self.expired);
        equal(
            "rows in and rows out + dropped",
            u128::from(self.rows_in),
            right,
        )?;
        let hashes = self.hash_out.union(self.hash_dropped);
        equal("hash in and hash out + dropped", self.hash_in, hashes)
    }
}

fn equal<T: PartialEq + ToString>(what: &'static str, left: T, right: T) -> Result<(), Refusal> {
    if left == right {
        return Ok(());
    }
    Err(Refusal::Conservation {
        what,
        left: left.to_string(),
        right: right.to_string(),
    })
}

/// One planned commit.
#[derive(Debug, Clone, PartialEq)]
pub struct Commit {
    /// Its name.
    pub operation: OperationId,
    /// What it does.
    pub kind: CommitKind,
    /// Files that become live. Their objects exist and were re-read.
    pub add: Vec<FileEntry>,
    /// Paths of live files that stop being live.
    pub remove: Vec<String>,
    /// L0 objects whose rows are in `add`, or expired.
    pub consumed: Vec<ConsumedObject>,
    /// Digests of objects in [`TableState::unswept`] that a LIST *begun after* that state was
    /// loaded no longer showed.
    pub gone: Vec<Digest>,
    /// Paths in [`TableState::removed`] and keys in [`crate::LedgerState::retired`] whose objects
    /// were deleted.
    pub forget_removed: Vec<String>,
    /// What has expired from this commit on; of an expire, and of nothing else.
    pub expired: Option<Expired>,
    /// The version that comes back; of a restore, and of nothing else, whose conservation is
    /// all zeroes: what it brings back is checked against that version's own sums.
    pub restored: Option<Restored>,
    /// Where its rows went.
    pub conservation: Conservation,
    /// The committer's clock, µs.
    pub timestamp_us: i64,
}

impl Commit {
    /// A commit that changes nothing yet.
    #[must_use]
    pub fn new(operation: OperationId, kind: CommitKind, timestamp_us: i64) -> Self {
        Self {
            operation,
            kind,
            add: Vec::new(),
            remove: Vec::new(),
            consumed: Vec::new(),
            gone: Vec::new(),
            forget_removed: Vec::new(),
            expired: None,
            restored: None,
            conservation: Conservation::default(),
            timestamp_us,
        }
    }

    /// The batches that become effective with this commit, and their days.
    pub(crate) fn effective(&self) -> impl Iterator<Item = &ConsumedBatch> {
        let batches = self.consumed.iter().flat_map(|object| &object.batches);
        batches.filter(|batch| batch.duplicate_of.is_none())
    }

    /// Checks every rule that needs no look into the ledger.
    pub(crate) fn check(&self, on: &TableState) -> Result<(), Refusal> {
        if self.operation.0.parse::<Digest>().is_err() {
            return Err(Refusal::OperationId(self.operation.0.clone()));
        }
        if matches!(
            self.kind,
            CommitKind::Create | CommitKind::Ledger | CommitKind::Fence
        ) {
            return Err(Refusal::Kind);
        }
        if !on.exists() {
            return Err(Refusal::NoTable);
        }
        self.check_files(on)?;
        self.check_consumed(on)?;
        self.check_forgotten(on)?;
        self.change().check(on)?;
        self.check_restored(on)?;
        if self.restored.is_some() || sabotaged!(Unconserved) {
            return Ok(());
        }
        self.conservation.check()?;
        self.check_rows(on)
    }

    fn change(&self) -> Change<'_> {
        Change {
            kind: self.kind,
            add: &self.add,
            remove: &self.remove,
            to: self.expired,
            rows_expired: self.conservation.expired,
            objects: self.consumed.len() as u64,
        }
    }

    fn check_files(&self, on: &TableState) -> Result<(), Refusal> {
        let refuse = |path: &str, what| {
            let path = path.to_owned();
            Err(Refusal::File { path, what })
        };
        let mut seen = HashSet::new();
        for path in &self.remove {
            if !on.files.contains_key(path) {
                return refuse(path, "removed, but not live");
            }
            if !seen.insert(path) {
                return refuse(path, "removed twice");
            }
        }
        let tombs: HashSet<_> = on.removed.iter().map(|file| &file.path).collect();
        for file in &self.add {
            if let Err(what) = file.check() {
                return refuse(&file.path, what);
            }
            // A restore brings the very files back; their pin has kept them.
            let is_back = self.kind == CommitKind::Restore;
            let is_tomb = tombs.contains(&file.path) && !is_back;
            if on.files.contains_key(&file.path) || is_tomb {
                return refuse(&file.path, "added, but the name is already used");
            }
            if !seen.insert(&file.path) {
                return refuse(&file.path, "added twice");
            }
        }
        Ok(())
    }

    fn check_consumed(&self, on: &TableState) -> Result<(), Refusal> {
        let refuse = |object: String, what| Err(Refusal::Object { object, what });
        let mut objects = HashSet::new();
        let mut batches = HashSet::new();
        for object in &self.consumed {
            let digest = object.name.digest;
            if on.unswept.contains_key(&digest) || !objects.insert(digest) {
                return refuse(object.name.to_string(), "already consumed");
            }
            if let Err(what) = object.check() {
                return refuse(object.name.to_string(), what);
            }
        }
        for batch in self.effective() {
            if !batches.insert(batch.digest) {
                return Err(Refusal::Consumed {
                    batch: batch.digest,
                    operation: self.operation.0.clone(),
                });
            }
        }
        Ok(())
    }

    fn check_forgotten(&self, on: &TableState) -> Result<(), Refusal> {
        let mut gone = HashSet::new();
        for digest in &self.gone {
            if !on.unswept.contains_key(digest) || !gone.insert(digest) {
                return Err(Refusal::Object {
                    object: digest.to_string(),
                    what: "gone, but not among the unswept (or twice)",
                });
            }
        }
        let known: BTreeSet<&String> = on
            .removed
            .iter()
            .map(|file| &file.path)
            .chain(on.ledger.retired.iter().map(|object| &object.key))
            .collect();
        match self
            .forget_removed
            .iter()
            .find(|path| !known.contains(path))
        {
            Some(path) => Err(Refusal::Tombstone { path: path.clone() }),
            None => Ok(()),
        }
    }

    fn check_rows(&self, on: &TableState) -> Result<(), Refusal> {
        let removed = self.remove.iter().filter_map(|path| on.files.get(path));
        let removed: Vec<_> = removed.map(AsRef::as_ref).collect();
        let consumed: Vec<_> = self.effective().collect();
        check_rows(&self.conservation, &removed, &consumed, &self.add)
    }
}

/// The counts claimed must be those of the very files and effective batches that are named.
pub(crate) fn check_rows(
    claim: &Conservation,
    removed: &[&FileEntry],
    consumed: &[&ConsumedBatch],
    added: &[FileEntry],
) -> Result<(), Refusal> {
    let (mut rows_in, mut hash_in) = (0u128, RowsHash::default());
    let (mut rows_out, mut hash_out) = (0u128, RowsHash::default());
    for file in removed.iter().filter(|file| file.kind.holds_samples()) {
        rows_in += u128::from(file.stats.rows);
        hash_in = hash_in.union(file.stats.rows_hash);
    }
    for batch in consumed {
        rows_in += u128::from(batch.rows);
        hash_in = hash_in.union(batch.hash);
    }
    for file in added.iter().filter(|file| file.kind.holds_samples()) {
        rows_out += u128::from(file.stats.rows);
        hash_out = hash_out.union(file.stats.rows_hash);
    }
    equal(
        "rows in: claimed and named",
        u128::from(claim.rows_in),
        rows_in,
    )?;
    equal(
        "rows out: claimed and named",
        u128::from(claim.rows_out),
        rows_out,
    )?;
    equal("hash in: claimed and named", claim.hash_in, hash_in)?;
    equal("hash out: claimed and named", claim.hash_out, hash_out)
}

/// How a commit ended.
#[derive(Debug, Clone)]
pub enum Outcome {
    /// The commit is part of the log. The state includes it, and possibly a ledger commit after
    /// it.
    Committed(Arc<TableState>),
    /// Someone else took the version; nothing of this commit will ever take effect. Plan again on
    /// this state under a fresh operation id.
    Moved(Arc<TableState>),
}
