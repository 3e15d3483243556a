//! Sweep: the one place that deletes, and only what the log names as superseded.
//!
//! A run first gathers everything it needs to know (the store's time, the table, complete
//! listings); any error there ends it before anything is deleted. Ages are taken by the store's
//! clock, where an object has one, and our own clock must agree with it. What it deletes:
//!
//! - an L0 object, when the commit that consumed it is older than the grace;
//! - a table file that had stopped being live in the newest version that is older than the
//!   history, is not live again, and is in no pinned version;
//! - log entries and checkpoints before the newest checkpoint that is older than the history,
//!   and ledger objects that only such entries name, unless a pinned version needs them;
//! - pins that were dropped longer than the history ago, or that nobody can have acknowledged;
//! - all but the newest heads;
//! - markers of idempotency keys that no ingestor accepts any more.
//!
//! A pin that cannot be read, or whose version cannot be loaded, ends a run before anything is
//! deleted. Data files that no log entry ever named are left alone: a commit in flight looks the
//! same.

mod gather;
mod pins;

use std::collections::BTreeSet;

use futures::future::join_all;
use stele_model::time::MINUTE_US;
use stele_model::{Digest, L0Name};
use stele_store::{ObjectInfo, keys};
use stele_table::{CommitKind, TableState};

use crate::commit::{Draft, Published};
use crate::compactor::Compactor;
use crate::error::{Error, Result};
use crate::options::Budget;
use crate::report::{Report, SweepReport};

use gather::Gathered;
pub(crate) use pins::PinCache;

/// Our clock and the store's may differ by this much.
const SKEW_US_MAX: u64 = 60_000_000;
/// Objects deleted at the same time.
const DELETES: usize = 32;

/// One thing to delete.
enum Doomed {
    L0 {
        name: L0Name,
        version: u64,
    },
    File {
        path: String,
        size_bytes: u64,
        removed_us: i64,
    },
    Ledger {
        key: String,
    },
    Entry {
        key: String,
    },
    Head {
        key: String,
    },
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
        report.pins = gathered.pinned.count;
        let mut doomed = self.doomed_objects(&gathered, &mut report);
        self.delete_markers(&gathered, budget, &mut report).await?;
        if !self.delete_pins(&gathered, &mut report).await? {
            report.stopped = true;
            return Ok(report);
        }
        self.doomed_files(&gathered, &mut doomed, &mut report);
        self.doomed_log(&gathered, &mut doomed, &mut report);
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
        // Removed again, it has a new history.
        Doomed::File {
            path, removed_us, ..
        } => {
            let is_it = |file: &stele_table::RemovedFile| {
                file.path == *path && file.removed_us == *removed_us
            };
            state.removed.iter().any(is_it) && !state.files.contains_key(path)
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
        Doomed::File {
            path, size_bytes, ..
        } => {
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
