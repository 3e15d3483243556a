//! Sweep: the one place that deletes, and only what the log names as superseded.
//!
//! A run first gathers everything it needs to know (the store's time, the table, complete
//! listings); any error there ends it before anything is deleted. Ages are taken by the store's
//! clock, where an object has one, and our own clock must agree with it. What it deletes:
//!
//! - an L0 object, when the commit that consumed it is older than the grace;
//! - a table file that stopped being live longer than the history ago and is not live again;
//! - log entries and checkpoints before the newest checkpoint that is older than the history,
//!   and ledger objects that only such entries name;
//! - all but the newest heads;
//! - markers of idempotency keys that no ingestor accepts any more.
//!
//! While there is a pin, no table file, log entry or ledger object is deleted. Data files that no
//! log entry ever named are left alone: a commit in flight looks the same.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use futures::future::join_all;
use stele_model::time::MINUTE_US;
use stele_model::{Digest, L0Name};
use stele_store::{L0Object, ObjectInfo, keys};
use stele_table::{CommitKind, TableState};

use crate::commit::{Draft, Published};
use crate::compactor::Compactor;
use crate::error::{Error, Result};
use crate::options::Budget;
use crate::report::{Report, SweepReport};

/// Our clock and the store's may differ by this much.
const SKEW_US_MAX: u64 = 60_000_000;
/// Objects deleted at the same time.
const DELETES: usize = 32;
/// Where snapshots will be.
const PINS: &str = "pins";

/// What a run gathered before it deletes anything.
struct Gathered {
    now_us: i64,
    state: Arc<TableState>,
    l0: Vec<L0Object>,
    log: Vec<ObjectInfo>,
    heads: Vec<ObjectInfo>,
    markers: Vec<ObjectInfo>,
    /// When the markers were listed, µs by our clock.
    markers_us: i64,
    pins: u64,
    /// The newest checkpoint that loads, if any.
    checkpoint: Option<u64>,
}

/// One thing to delete.
enum Doomed {
    L0 { name: L0Name, version: u64 },
    File { path: String, size_bytes: u64 },
    Ledger { key: String },
    Entry { key: String },
    Head { key: String },
}

impl Doomed {
    /// The key, relative to the tenant.
    fn key(&self) -> String {
        match self {
            Self::L0 { name, .. } => format!("{}/{name}", keys::L0),
            Self::File { path, .. } => keys::data_file(path),
            Self::Ledger { key } | Self::Entry { key } | Self::Head { key } => key.clone(),
        }
    }
}

impl Compactor {
    /// Deletes what nothing needs any more; see the module's text.
    ///
    /// # Errors
    /// The store's and the table's, and [`Error::Skew`]; when they come before the first
    /// deletion, nothing was deleted.
    pub async fn sweep(&self, budget: &Budget) -> Result<SweepReport> {
        let _turn = self.sweeping.lock().await;
        let mut report = SweepReport::default();
        let Some(gathered) = self.gather().await? else {
            return Ok(report);
        };
        report.pins = gathered.pins;
        let mut doomed = self.doomed_objects(&gathered, &mut report);
        self.delete_markers(&gathered, budget, &mut report).await?;
        if gathered.pins == 0 {
            self.doomed_files(&gathered, &mut doomed, &mut report);
            self.doomed_log(&gathered, &mut doomed);
        }
        doomed_heads(&gathered, self.options.heads_kept, &mut doomed);
        let mut draft = Draft::new(CommitKind::Sweep);
        draft.gone = missing(&gathered);
        let mut doomed = doomed.into_iter().peekable();
        while doomed.peek().is_some() {
            if self.is_past(budget) {
                report.stopped = true;
                break;
            }
            let some: Vec<Doomed> = doomed.by_ref().take(DELETES).collect();
            self.delete_some(some, &mut draft, &mut report).await?;
        }
        self.note_deleted(draft, &mut report).await?;
        Ok(report)
    }

    /// The store's time, with which our own clock must agree: what is forgotten depends on it.
    pub(crate) async fn store_now_us(&self) -> Result<i64> {
        let now_us = self.store.tier().now_us().await?;
        let skew_us = now_us.abs_diff(self.clock.now_us());
        if skew_us > SKEW_US_MAX {
            return Err(Error::Skew {
                skew_us,
                skew_us_max: SKEW_US_MAX,
            });
        }
        Ok(now_us)
    }

    async fn gather(&self) -> Result<Option<Gathered>> {
        let now_us = self.store_now_us().await?;
        let pins = self.store.list(PINS).await?.len() as u64;
        // Cold: no deletion is ever planned on what a process merely remembers.
        let Some(state) = self.log.load().await? else {
            return Ok(None);
        };
        self.remember(&state);
        // After the state, so that an object missing here is known to be gone.
        let l0 = self.store.l0_list().await?;
        let log = self.store.list(keys::LOG).await?;
        let heads = self.store.list(keys::HEADS).await?;
        let checkpoint = self.log.checkpoint_version().await?;
        let markers_us = self.clock.now_us();
        let markers = self.store.list(keys::IDEM).await?;
        Ok(Some(Gathered {
            now_us,
            state,
            l0,
            log,
            heads,
            markers,
            markers_us,
            pins,
            checkpoint,
        }))
    }

    /// Consumed objects past the grace.
    fn doomed_objects(&self, gathered: &Gathered, report: &mut SweepReport) -> Vec<Doomed> {
        let grace_us = self.options.sweep_grace_us;
        let written: BTreeMap<u64, i64> = entries(&gathered.log).collect();
        let mut doomed = Vec::new();
        for object in &gathered.l0 {
            let Some(consumed) = gathered.state.unswept.get(&object.name.digest) else {
                continue;
            };
            // An entry no longer listed was swept: it is older than the history.
            let version = consumed.version;
            let since_us = written.get(&version).copied();
            let since_us = since_us.unwrap_or(consumed.committed_us);
            if since_us.saturating_add(grace_us) <= gathered.now_us {
                let name = object.name;
                doomed.push(Doomed::L0 { name, version });
            } else {
                report.objects_waiting += 1;
            }
        }
        doomed
    }

    /// Never shorter than what readers of the log count on.
    fn history_us(&self) -> i64 {
        self.options.history_us.max(self.log.options().history_us)
    }

    fn doomed_files(
        &self,
        gathered: &Gathered,
        doomed: &mut Vec<Doomed>,
        report: &mut SweepReport,
    ) {
        let history_us = self.history_us();
        for file in &gathered.state.removed {
            if file.removed_us.saturating_add(history_us) > gathered.now_us {
                report.files_waiting += 1;
            } else if !gathered.state.files.contains_key(&file.path) {
                doomed.push(Doomed::File {
                    path: file.path.clone(),
                    size_bytes: file.size_bytes,
                });
            }
        }
    }

    /// Entries and checkpoints before the newest checkpoint that is older than the history: every
    /// version of the history can still be loaded from it.
    fn doomed_log(&self, gathered: &Gathered, doomed: &mut Vec<Doomed>) {
        let history_us = self.history_us();
        let is_old =
            |object: &ObjectInfo| object.modified_us.saturating_add(history_us) <= gathered.now_us;
        let checkpoints = gathered.log.iter().filter(|object| is_old(object));
        let first_kept = checkpoints
            .filter_map(|object| keys::checkpoint_version(&object.key))
            .filter(|version| gathered.checkpoint.is_some_and(|newest| *version <= newest))
            .max()
            .unwrap_or(0);
        for object in gathered.log.iter().filter(|object| is_old(object)) {
            let version = keys::log_entry_version(&object.key)
                .or_else(|| keys::checkpoint_version(&object.key));
            if version.is_some_and(|version| version < first_kept) {
                doomed.push(Doomed::Entry {
                    key: object.key.clone(),
                });
            }
        }
        // Entries from `first_kept` on may name ledger objects retired after they were written.
        let kept_us = entries(&gathered.log)
            .filter(|(version, _)| *version >= first_kept)
            .map(|(_, modified_us)| modified_us)
            .min()
            .unwrap_or(i64::MIN);
        for object in &gathered.state.ledger.retired {
            let unnamed = object.retired_us.saturating_add(5 * MINUTE_US) <= kept_us;
            if unnamed && object.retired_us.saturating_add(history_us) <= gathered.now_us {
                doomed.push(Doomed::Ledger {
                    key: object.key.clone(),
                });
            }
        }
    }

    /// Deletes the markers of old keys, and soon after they were listed: once another sweep has
    /// deleted one, its key may be used anew.
    async fn delete_markers(
        &self,
        gathered: &Gathered,
        budget: &Budget,
        report: &mut SweepReport,
    ) -> Result<()> {
        let keep_us = self.options.marker_keep_us;
        let is_old = |marker: &&ObjectInfo| {
            let name = marker.key.strip_prefix(keys::IDEM);
            let name = name.and_then(|name| name.strip_prefix('/'));
            let is_marker = name.is_some_and(|name| name.parse::<Digest>().is_ok());
            is_marker && marker.modified_us.saturating_add(keep_us) <= gathered.now_us
        };
        let old: Vec<&ObjectInfo> = gathered.markers.iter().filter(is_old).collect();
        for some in old.chunks(DELETES) {
            let since_us = self.clock.now_us().saturating_sub(gathered.markers_us);
            if since_us > MINUTE_US || self.is_past(budget) {
                report.stopped = true;
                return Ok(());
            }
            let deletes = some.iter().map(|marker| self.store.delete(&marker.key));
            for deleted in join_all(deletes).await {
                deleted?;
                report.markers_deleted += 1;
            }
        }
        Ok(())
    }

    /// Deletes a few things at once. What another sweep has dealt with meanwhile is left alone:
    /// once its removal is forgotten, its name may be used again.
    async fn delete_some(
        &self,
        some: Vec<Doomed>,
        draft: &mut Draft,
        report: &mut SweepReport,
    ) -> Result<()> {
        let Some(state) = self.newest_state().await? else {
            return Ok(());
        };
        let some: Vec<Doomed> = some
            .into_iter()
            .filter(|one| is_doomed(one, &state))
            .collect();
        let deletes = some
            .iter()
            .map(|one| async move { self.store.delete(&one.key()).await });
        for (one, deleted) in some.iter().zip(join_all(deletes).await) {
            deleted?;
            note(one, &state, draft, report);
        }
        Ok(())
    }

    /// Notes in the log what no longer exists. When the table moves under it, the next run does.
    async fn note_deleted(&self, mut draft: Draft, report: &mut SweepReport) -> Result<()> {
        if draft.gone.is_empty() && draft.forget_removed.is_empty() {
            return Ok(());
        }
        let Some(state) = self.newest_state().await? else {
            return Ok(());
        };
        draft.keep_what_is_new(&state);
        let mut commits = Report::default();
        if let Published::Stale(_) = self.publish(state, &draft, &mut commits).await? {
            tracing::debug!("deleted objects will be noted by the next sweep");
        }
        report.commits += commits.commits;
        Ok(())
    }
}

/// Whether the newest state still says so of what is named there.
fn is_doomed(one: &Doomed, state: &TableState) -> bool {
    match one {
        Doomed::File { path, .. } => {
            let is_removed = state.removed.iter().any(|file| file.path == *path);
            is_removed && !state.files.contains_key(path)
        }
        Doomed::Ledger { key } => state.ledger.retired.iter().any(|object| object.key == *key),
        // Sent again after its deletion, it may have been consumed again, and has a new grace.
        Doomed::L0 { name, version } => {
            let consumed = state.unswept.get(&name.digest);
            consumed.is_some_and(|consumed| consumed.version == *version)
        }
        Doomed::Entry { .. } | Doomed::Head { .. } => true,
    }
}

/// Counts a deletion, and drafts what the log must learn of it.
fn note(one: &Doomed, state: &TableState, draft: &mut Draft, report: &mut SweepReport) {
    match one {
        Doomed::L0 { name, .. } => {
            report.objects_deleted += 1;
            if state.unswept.contains_key(&name.digest) {
                draft.gone.push(name.digest);
            }
        }
        Doomed::File { path, size_bytes } => {
            report.files_deleted += 1;
            report.files_deleted_bytes += size_bytes;
            draft.forget_removed.push(path.clone());
        }
        Doomed::Ledger { key } => {
            report.ledger_deleted += 1;
            draft.forget_removed.push(key.clone());
        }
        Doomed::Entry { .. } => report.entries_deleted += 1,
        Doomed::Head { .. } => report.heads_deleted += 1,
    }
}

/// Consumed objects that the LIST no longer shows.
fn missing(gathered: &Gathered) -> Vec<Digest> {
    let listed: BTreeSet<Digest> = gathered
        .l0
        .iter()
        .map(|object| object.name.digest)
        .collect();
    let unswept = gathered.state.unswept.keys();
    unswept
        .filter(|digest| !listed.contains(*digest))
        .copied()
        .collect()
}

fn doomed_heads(gathered: &Gathered, kept: usize, doomed: &mut Vec<Doomed>) {
    // Newest first by name.
    let heads = gathered
        .heads
        .iter()
        .filter(|object| keys::head_version(&object.key).is_some());
    doomed.extend(heads.skip(kept).map(|object| Doomed::Head {
        key: object.key.clone(),
    }));
}

/// The listed log entries: version and when the store says it was written.
fn entries(log: &[ObjectInfo]) -> impl Iterator<Item = (u64, i64)> {
    log.iter()
        .filter_map(|object| Some((keys::log_entry_version(&object.key)?, object.modified_us)))
}
