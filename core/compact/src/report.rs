//! What jobs say of their work: for `/status`, `/admin/settle` and the command line.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::plan::ExpireAsks;

/// What one run of absorb, seal or consolidate did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Report {
    /// Commits made.
    pub commits: u64,
    /// Times the table had moved and the job planned again.
    pub replans: u64,
    /// L0 objects consumed.
    pub objects: u64,
    /// Batches consumed, duplicates not counted.
    pub batches: u64,
    /// Batches that the ledger already knew.
    pub batches_duplicate: u64,
    /// Of the objects, those of nothing but duplicates.
    pub ghosts: u64,
    /// L0 objects that could not be decoded and were left.
    pub damaged: u64,
    /// Windows sealed.
    pub windows_sealed: u64,
    /// Of them, windows that had been sealed before.
    pub windows_resealed: u64,
    /// Sample rows read (consolidate: rows of any resolution).
    pub rows_in: u64,
    /// Sample rows written.
    pub rows_out: u64,
    /// Rows dropped because the same sample was there.
    pub duplicates: u64,
    /// Rows dropped because a greater value was there.
    pub overridden: u64,
    /// Rows dropped because their day had expired.
    pub expired: u64,
    /// Rollup rows written.
    pub rollup_rows: u64,
    /// Files added to the table.
    pub files_added: u64,
    /// Files removed from the table.
    pub files_removed: u64,
    /// Bytes read from the store, outputs read back included.
    pub read_bytes: u64,
    /// Bytes of files written.
    pub written_bytes: u64,
    /// Whether the deadline stopped the run before the work was done.
    pub stopped: bool,
    /// Whether rollups are paused, so that nothing was sealed.
    pub paused: bool,
}

impl Report {
    /// Adds the work of another run.
    pub fn add(&mut self, other: &Self) {
        self.commits += other.commits;
        self.replans += other.replans;
        self.objects += other.objects;
        self.batches += other.batches;
        self.batches_duplicate += other.batches_duplicate;
        self.ghosts += other.ghosts;
        self.damaged += other.damaged;
        self.windows_sealed += other.windows_sealed;
        self.windows_resealed += other.windows_resealed;
        self.rows_in += other.rows_in;
        self.rows_out += other.rows_out;
        self.duplicates += other.duplicates;
        self.overridden += other.overridden;
        self.expired += other.expired;
        self.rollup_rows += other.rollup_rows;
        self.files_added += other.files_added;
        self.files_removed += other.files_removed;
        self.read_bytes += other.read_bytes;
        self.written_bytes += other.written_bytes;
        self.stopped |= other.stopped;
        self.paused |= other.paused;
    }
}

/// The part of a settle that is running.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Stage {
    /// L0 objects become open files.
    Absorb,
    /// Open files become raw files and rollups.
    Seal,
    /// Small sealed files become larger ones.
    Consolidate,
}

/// How far a settle has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Progress {
    /// What is running.
    pub stage: Stage,
    /// Objects, windows or files done in this stage.
    pub done: u64,
    /// Of so many known now.
    pub total: u64,
}

/// What a settle left undone, and why.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Left {
    /// L0 objects that are not absorbed (accepted while settling, or the deadline came).
    pub objects: u64,
    /// Windows with open rows that have not closed yet.
    pub windows_not_closed: u64,
    /// The start of the earliest of them, µs.
    pub not_closed_since_us: Option<i64>,
    /// Closed windows that are still open (rollups are paused, or the deadline came).
    pub windows_not_sealed: u64,
    /// The start of the earliest of them, µs.
    pub not_sealed_since_us: Option<i64>,
    /// Whether rollups are paused: then no window is sealed.
    pub paused: bool,
}

/// What a settle did and what it left.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct SettleReport {
    /// All absorbs.
    pub absorb: Report,
    /// All seals.
    pub seal: Report,
    /// All consolidations.
    pub consolidate: Report,
    /// What is not sealed.
    pub left: Left,
    /// The table's version at the end.
    pub version: u64,
    /// Whether nothing that could be settled was left.
    pub complete: bool,
}

/// What an expire removed from the table, and what it waits for. The objects are deleted by sweep,
/// after the history.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct ExpireReport {
    /// Commits made.
    pub commits: u64,
    /// Times the table had moved and the job planned again.
    pub replans: u64,
    /// Days whose raw samples expired.
    pub days: u64,
    /// Raw samples that expired.
    pub rows: u64,
    /// Rollup rows recomputed from them and found equal, bit for bit.
    pub rollup_rows_verified: u64,
    /// Files removed from the table, of any resolution.
    pub files_removed: u64,
    /// Their bytes.
    pub files_removed_bytes: u64,
    /// Bytes read from the store.
    pub read_bytes: u64,
    /// Why the next period does not expire, though it is due.
    pub waits: Option<ExpireWaits>,
    /// What must be confirmed before the next period expires.
    #[serde(default)]
    pub asks: Option<ExpireAsks>,
    /// Why nothing expires, or nothing more.
    #[serde(default)]
    pub refused: Option<DeletionRefused>,
    /// Whether the deadline stopped the run before the work was done.
    pub stopped: bool,
    /// Whether rollups are paused, so that nothing expires.
    pub paused: bool,
}

/// Why a period that is due does not expire yet.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ExpireWaits {
    /// The retention was set less than an hour ago.
    Setting {
        /// When it was set, µs by the store's clock.
        since_us: i64,
    },
    /// An L0 object covers the period and is not absorbed.
    L0 {
        /// Its name.
        object: String,
    },
    /// An open file covers the period: some of its rows are not sealed.
    Open {
        /// Its path, relative to the table.
        path: String,
    },
}

/// What a sweep deleted, and why it kept what it kept.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct SweepReport {
    /// L0 objects deleted.
    pub objects_deleted: u64,
    /// Superseded table files deleted.
    pub files_deleted: u64,
    /// Their bytes, as the log says.
    pub files_deleted_bytes: u64,
    /// Ledger objects deleted that others replaced.
    pub ledger_deleted: u64,
    /// Log entries and checkpoints deleted.
    pub entries_deleted: u64,
    /// Old heads deleted.
    pub heads_deleted: u64,
    /// Markers of idempotency keys deleted.
    pub markers_deleted: u64,
    /// Commits that note what is gone.
    pub commits: u64,
    /// L0 objects that are superseded but still within the grace.
    pub objects_waiting: u64,
    /// Table files that are superseded but still within the history.
    pub files_waiting: u64,
    /// Table files past the history that only pins keep.
    pub files_pinned: u64,
    /// Their bytes, as the log says.
    pub files_pinned_bytes: u64,
    /// Log entries and checkpoints past the history that only pins keep.
    pub entries_pinned: u64,
    /// Ledger objects past the history that only pins keep.
    pub ledger_pinned: u64,
    /// Pins that keep their version.
    pub pins: u64,
    /// Pins deleted: dropped long enough ago, or never acknowledged.
    pub pins_deleted: u64,
    /// L0 objects past the grace that another tier has neither absorbed nor in its own L0.
    #[serde(default)]
    pub objects_unwitnessed: u64,
    /// Table files past the history that another tier cannot do without yet.
    #[serde(default)]
    pub files_unwitnessed: u64,
    /// Names that are gone here and stay in the log until they are gone on every tier.
    #[serde(default)]
    pub names_kept: u64,
    /// Other tiers whose logs do not prove that they have all of this one.
    #[serde(default)]
    pub behind: Vec<String>,
    /// Whether the deadline stopped the run before the work was done.
    pub stopped: bool,
    /// Why nothing was deleted, or nothing more.
    #[serde(default)]
    pub refused: Option<DeletionRefused>,
}

/// Why nothing is deleted, and nothing expires.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DeletionRefused {
    /// Deletion is frozen.
    Frozen {
        /// The other tier on which it is; absent when on this one.
        tier: Option<String>,
        /// Why.
        reason: String,
        /// Since when, µs.
        since_us: i64,
    },
    /// A tier, or which tiers there are, cannot be read.
    Unreadable {
        /// The tier; absent when it is not known which there are.
        tier: Option<String>,
        /// What failed.
        error: String,
    },
    /// A damaged snapshot was dropped, and the drop can still be taken back.
    DamagedPin {
        /// Its name.
        name: String,
    },
    /// The logs of two tiers are not the same log.
    Diverged {
        /// The other tier.
        tier: String,
        /// The version of which they hold other entries.
        version: u64,
    },
}

impl fmt::Display for DeletionRefused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Frozen { tier, reason, .. } => {
                let on = tier.as_ref().map(|tier| format!(" on tier {tier}"));
                let on = on.unwrap_or_default();
                write!(f, "deletion is frozen{on}: {reason}")
            }
            Self::Unreadable { tier, error } => match tier {
                Some(tier) => write!(f, "tier {tier} cannot be read: {error}"),
                None => write!(f, "which tiers there are is not known: {error}"),
            },
            Self::DamagedPin { name } => {
                write!(
                    f,
                    "snapshot {name} is damaged, and dropped not long enough ago"
                )
            }
            Self::Diverged { tier, version } => {
                write!(f, "the log of tier {tier} holds another entry {version}")
            }
        }
    }
}
