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
mod others;
mod pins;
mod plan;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;

use futures::future::join_all;
use stele_model::time::MINUTE_US;
use stele_model::{Digest, L0Name, chain};
use stele_store::keys;
use stele_table::{CommitKind, TableState};

use crate::commit::{Draft, Published};
use crate::compactor::Compactor;
use crate::error::{Error, Result};
use crate::freeze::freezes;
use crate::options::Budget;
use crate::report::{DeletionRefused, Report, SweepReport};

use gather::{Gather, Gathered};
use others::Others;
pub(crate) use pins::PinCache;
use plan::check_live;
pub use plan::{Planned, SweepPlan};

/// Our clock and the store's may differ by this much.
const SKEW_US_MAX: u64 = 60_000_000;
/// Objects deleted at the same time.
const DELETES: usize = 32;
/// The longest run: whoever freezes deletion waits so long, and for one request's timeout, before
/// counting on it.
pub const SWEEP_US_MAX: i64 = 15 * MINUTE_US;

/// One thing to delete.
enum Doomed {
    L0 {
        name: L0Name,
        version: u64,
        size_bytes: u64,
    },
    File {
        path: String,
        size_bytes: u64,
        removed_us: i64,
    },
    Ledger {
        key: String,
        size_bytes: u64,
    },
    Entry {
        key: String,
        size_bytes: u64,
    },
    Head {
        key: String,
        size_bytes: u64,
    },
}

/// What a doomed object is.
#[derive(Clone, Copy)]
enum Swept {
    L0,
    File,
    Ledger,
    Log,
    Head,
}

impl Doomed {
    fn kind(&self) -> Swept {
        match self {
            Self::L0 { .. } => Swept::L0,
            Self::File { .. } => Swept::File,
            Self::Ledger { .. } => Swept::Ledger,
            Self::Entry { .. } => Swept::Log,
            Self::Head { .. } => Swept::Head,
        }
    }

    fn size_bytes(&self) -> u64 {
        match self {
            Self::L0 { size_bytes, .. }
            | Self::File { size_bytes, .. }
            | Self::Ledger { size_bytes, .. }
            | Self::Entry { size_bytes, .. }
            | Self::Head { size_bytes, .. } => *size_bytes,
        }
    }

    /// The key, relative to the tenant.
    fn key(&self) -> String {
        match self {
            Self::L0 { name, .. } => format!("{}/{name}", keys::L0),
            Self::File { path, .. } => keys::data_file(path),
            Self::Ledger { key, .. } | Self::Entry { key, .. } | Self::Head { key, .. } => {
                key.clone()
            }
        }
    }
}

impl Compactor {
    /// Deletes what nothing needs any more; see the module's text. Where deletion is frozen, or
    /// another tier cannot be read, it deletes nothing and the report says why.
    ///
    /// # Errors
    /// The store's and the table's, and [`Error::Skew`]; when they come before the first
    /// deletion, nothing was deleted.
    pub async fn sweep(&self, budget: &Budget) -> Result<SweepReport> {
        let _turn = self.sweeping.lock().await;
        let began_us = self.clock.now_us();
        let mut report = SweepReport::default();
        let mut gathered = match self.gather_or_freeze().await? {
            Gather::Ready(gathered) => gathered,
            Gather::NoTable => return Ok(report),
            Gather::Refused(refused) => {
                tracing::warn!(tenant = %self.store.tenant(), %refused, "nothing is swept");
                report.refused = Some(refused);
                return Ok(report);
            }
        };
        let doomed = self.doomed(&gathered, &mut report);
        if let Err(error) = check_live(&doomed, &gathered) {
            self.freeze(&error).await;
            return Err(error);
        }
        self.delete_markers(&gathered, budget, &mut report).await?;
        if !self.delete_pins(&gathered, &mut report).await? {
            report.stopped = true;
            return Ok(report);
        }
        let mut draft = Draft::new(CommitKind::Sweep);
        draft.gone = missing(&gathered);
        let mut doomed = doomed.into_iter().peekable();
        while doomed.peek().is_some() {
            let took_us = self.clock.now_us().saturating_sub(began_us);
            if self.is_past(budget) || took_us > SWEEP_US_MAX {
                report.stopped = true;
                break;
            }
            // Whoever freezes deletion waits for one run at most, and mostly for one group.
            let frozen = match self.own_freeze().await? {
                None => gathered.others.frozen().await?,
                own => own,
            };
            if frozen.is_some() {
                report.refused = frozen;
                break;
            }
            gathered.others.refresh().await?;
            let some: Vec<Doomed> = doomed.by_ref().take(DELETES).collect();
            self.delete_some(some, &gathered.others, &mut draft, &mut report)
                .await?;
        }
        self.note_deleted(draft, &gathered.others, &mut report)
            .await?;
        Ok(report)
    }

    /// Gathers; what fails twice in the same way is no passing fault and freezes deletion, as do
    /// logs that have diverged.
    async fn gather_or_freeze(&self) -> Result<Gather> {
        let gathered = match self.gather(true).await {
            Err(first) if freezes(&first) => match self.gather(true).await {
                Err(again) if chain(&again) == chain(&first) => {
                    self.freeze(&again).await;
                    return Err(again);
                }
                other => other?,
            },
            other => other?,
        };
        if let Gather::Refused(refused @ DeletionRefused::Diverged { .. }) = &gathered {
            self.freeze_for(&refused.to_string()).await;
        }
        Ok(gathered)
    }

    /// Everything that may go, in the order in which it goes.
    fn doomed(&self, gathered: &Gathered, report: &mut SweepReport) -> Vec<Doomed> {
        report.pins = gathered.pinned.count;
        report.behind = gathered.others.behind(gathered.state.version);
        let mut doomed = self.doomed_objects(gathered, report);
        self.doomed_files(gathered, &mut doomed, report);
        self.doomed_log(gathered, &mut doomed, report);
        doomed_heads(gathered, self.options.heads_kept, &mut doomed);
        doomed
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
        let old = self.old_markers(gathered);
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
        others: &Others,
        draft: &mut Draft,
        report: &mut SweepReport,
    ) -> Result<()> {
        let Some(state) = self.newest_state().await? else {
            return Ok(());
        };
        let some: Vec<Doomed> = some
            .into_iter()
            .filter(|one| is_doomed(one, &state, others))
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

    /// Notes in the log what no longer exists on any tier. When the table moves under it, the
    /// next run does. A log that is a copy notes nothing: it is told by the one it copies.
    async fn note_deleted(
        &self,
        mut draft: Draft,
        others: &Others,
        report: &mut SweepReport,
    ) -> Result<()> {
        if draft.gone.is_empty() && draft.forget_removed.is_empty() {
            return Ok(());
        }
        let names = draft.gone.len() + draft.forget_removed.len();
        let Some(state) = self.newest_state().await?.filter(|_| others.may_commit) else {
            report.names_kept += names as u64;
            return Ok(());
        };
        draft.keep_what_is_new(&state);
        let names = draft.gone.len() + draft.forget_removed.len();
        others.gone_everywhere(&mut draft.gone);
        draft.forget_removed = others.absent_names(draft.forget_removed).await;
        let noted = draft.gone.len() + draft.forget_removed.len();
        report.names_kept += (names - noted) as u64;
        if noted == 0 {
            return Ok(());
        }
        let mut commits = Report::default();
        if let Published::Stale(_) = self.publish(state, &draft, &mut commits).await? {
            tracing::debug!("deleted objects will be noted by the next sweep");
        }
        report.commits += commits.commits;
        Ok(())
    }
}

/// Whether the newest state still says so of what is named there.
fn is_doomed(one: &Doomed, state: &TableState, others: &Others) -> bool {
    match one {
        // Removed again, it has a new history.
        Doomed::File {
            path, removed_us, ..
        } => {
            let is_it = |file: &stele_table::RemovedFile| {
                file.path == *path && file.removed_us == *removed_us
            };
            let is_here = state.removed.iter().any(is_it) && !state.files.contains_key(path);
            is_here && others.let_file_go(path, *removed_us, state)
        }
        Doomed::Ledger { key, .. } => {
            let is_here = state.ledger.retired.iter().any(|object| object.key == *key);
            is_here && others.let_ledger_go(key, state)
        }
        // Sent again after its deletion, it may have been consumed again, and has a new grace.
        Doomed::L0 { name, version, .. } => {
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
        Doomed::Ledger { key, .. } => {
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
        size_bytes: object.size_bytes,
    }));
}
