//! Publishing what a job made: one strict commit, tried again on a newer version as long as the
//! plan still holds there.

use std::collections::BTreeSet;
use std::sync::Arc;

use stele_format::MergeTally;
use stele_model::{Day, Digest, sabotaged};
use stele_store::keys;
use stele_table::{
    Commit, CommitKind, Conservation, ConsumedObject, FileEntry, OperationId, Outcome, TableState,
};

use crate::compactor::Compactor;
use crate::error::{Error, Result};
use crate::plan::{ExpirePlan, SealPlan};
use crate::report::Report;

/// In a draft's `duplicate_of`: the batch is effective in this very commit.
pub(crate) const THIS_OPERATION: &str = "this";

/// A commit without an operation id: what every attempt has in common.
#[derive(Debug)]
pub(crate) struct Draft {
    pub kind: CommitKind,
    pub add: Vec<FileEntry>,
    pub remove: Vec<String>,
    pub consumed: Vec<ConsumedObject>,
    pub gone: Vec<Digest>,
    pub forget_removed: Vec<String>,
    pub conservation: Conservation,
    /// For a seal: sealed coverage must still be as planned.
    pub seal: Option<SealPlan>,
    /// For an expire: nothing else may have come to be in its period.
    pub expire: Option<ExpirePlan>,
}

impl Draft {
    pub fn new(kind: CommitKind) -> Self {
        Self {
            kind,
            add: Vec::new(),
            remove: Vec::new(),
            consumed: Vec::new(),
            gone: Vec::new(),
            forget_removed: Vec::new(),
            conservation: Conservation::default(),
            seal: None,
            expire: None,
        }
    }

    /// Drops what `state` already knows to be gone.
    pub fn keep_what_is_new(&mut self, state: &TableState) {
        self.gone
            .retain(|digest| state.unswept.contains_key(digest));
        let removed = state.removed.iter().map(|file| &file.path);
        let retired = state.ledger.retired.iter().map(|object| &object.key);
        let known: BTreeSet<&String> = removed.chain(retired).collect();
        self.forget_removed.retain(|path| known.contains(path));
    }

    fn commit(&self, id: String, timestamp_us: i64) -> Commit {
        let mut commit = Commit::new(OperationId(id), self.kind, timestamp_us);
        commit.add.clone_from(&self.add);
        commit.remove.clone_from(&self.remove);
        commit.consumed.clone_from(&self.consumed);
        for batch in commit.consumed.iter_mut().flat_map(|o| &mut o.batches) {
            if batch.duplicate_of.as_deref() == Some(THIS_OPERATION) {
                batch.duplicate_of = Some(commit.operation.0.clone());
            }
        }
        commit.gone.clone_from(&self.gone);
        commit.forget_removed.clone_from(&self.forget_removed);
        commit.expired = self.expire.as_ref().map(|plan| plan.to);
        commit.conservation = self.conservation;
        commit
    }

    /// The batches that would become effective.
    fn effective(&self) -> Vec<(Digest, Day)> {
        let batches = self.consumed.iter().flat_map(|object| &object.batches);
        let effective = batches.filter(|batch| batch.duplicate_of.is_none());
        effective.map(|batch| (batch.digest, batch.day)).collect()
    }

    /// Whether all it rests on, the ledger apart, is so in `state` too.
    fn holds_on(&self, state: &TableState) -> bool {
        let tombs: BTreeSet<&str> = state.removed.iter().map(|f| f.path.as_str()).collect();
        let free = |file: &FileEntry| {
            !state.files.contains_key(&file.path)
                && !tombs.contains(file.path.as_str())
                && !state.expired.holds_file(file)
        };
        let unconsumed = |object: &ConsumedObject| !state.unswept.contains_key(&object.name.digest);
        let forgettable = |path: &String| {
            tombs.contains(path.as_str()) || state.ledger.retired.iter().any(|r| r.key == *path)
        };
        self.remove
            .iter()
            .all(|path| state.files.contains_key(path))
            && self.add.iter().all(free)
            && self.consumed.iter().all(unconsumed)
            && self
                .gone
                .iter()
                .all(|digest| state.unswept.contains_key(digest))
            && self.forget_removed.iter().all(forgettable)
            && self
                .seal
                .as_ref()
                .is_none_or(|plan| plan.still_covers(state))
            && self
                .expire
                .as_ref()
                .is_none_or(|plan| plan.still_holds(state))
    }
}

/// How publishing ended.
#[derive(Debug)]
pub(crate) enum Published {
    /// The draft is in the log.
    Committed(Arc<TableState>),
    /// The table moved and the draft no longer holds: plan again on this state.
    Stale(Arc<TableState>),
}

/// What a merge did, as a commit states it.
pub(crate) fn conservation(tally: &MergeTally) -> Conservation {
    Conservation {
        rows_in: tally.rows_in,
        rows_out: tally.rows_out,
        duplicates: tally.duplicates,
        overridden: tally.overridden,
        expired: 0,
        hash_in: tally.hash_in,
        hash_out: tally.hash_out,
        hash_dropped: tally.hash_duplicates.union(tally.hash_overridden),
    }
}

/// The sum of two merges.
pub(crate) fn add_conservation(sum: &mut Conservation, one: &Conservation) {
    sum.rows_in += one.rows_in;
    sum.rows_out += one.rows_out;
    sum.duplicates += one.duplicates;
    sum.overridden += one.overridden;
    sum.expired += one.expired;
    sum.hash_in = sum.hash_in.union(one.hash_in);
    sum.hash_out = sum.hash_out.union(one.hash_out);
    sum.hash_dropped = sum.hash_dropped.union(one.hash_dropped);
}

impl Compactor {
    /// Commits `draft` as planned on `base`, under a fresh operation id for every attempt.
    ///
    /// # Errors
    /// [`Error::Contended`] when others were faster every time; else the table's.
    pub(crate) async fn publish(
        &self,
        base: Arc<TableState>,
        draft: &Draft,
        report: &mut Report,
    ) -> Result<Published> {
        let mut planned_on = base;
        for _ in 0..self.options.attempts_max {
            let commit = draft.commit(self.ids.operation_id(), self.clock.now_us());
            let committed = self.log.commit(&planned_on, commit).await;
            if committed.is_err() && sabotaged!(CleanUpAmbiguous) {
                for file in &draft.add {
                    self.store.delete(&keys::data_file(&file.path)).await?;
                }
            }
            match committed? {
                Outcome::Committed(state) => {
                    self.remember(&state);
                    count(draft, report);
                    return Ok(Published::Committed(state));
                }
                Outcome::Moved(state) => {
                    report.replans += 1;
                    self.remember(&state);
                    // A duplicate may be of a batch that is revoked by now.
                    let is_restored = state.revoked != planned_on.revoked;
                    let is_stale = is_restored
                        || !draft.holds_on(&state)
                        || self.knows_any(&state, draft).await?;
                    if is_stale && !sabotaged!(RetryUnplanned) {
                        return Ok(Published::Stale(state));
                    }
                    planned_on = state;
                }
            }
        }
        Err(Error::Contended {
            attempts: self.options.attempts_max,
        })
    }

    async fn knows_any(&self, state: &TableState, draft: &Draft) -> Result<bool> {
        let batches = draft.effective();
        if batches.is_empty() {
            return Ok(false);
        }
        Ok(!self.log.ledger_lookup(state, &batches).await?.is_empty())
    }
}

fn count(draft: &Draft, report: &mut Report) {
    report.commits += 1;
    report.files_added += draft.add.len() as u64;
    report.files_removed += draft.remove.len() as u64;
    report.duplicates += draft.conservation.duplicates;
    report.overridden += draft.conservation.overridden;
    report.expired += draft.conservation.expired;
    report.rows_in += draft.conservation.rows_in;
    report.rows_out += draft.conservation.rows_out;
}
