//! The invariants that need no look into the store, each a named function.

use std::collections::{BTreeMap, BTreeSet};

use stele_model::{Digest, Resolution, RowsHash};
use stele_table::{FileKind, LedgerRow, TableState, View};

use super::Violation;
use super::registry::{Registry, l0_name};
use crate::fault::relative;
use crate::memory::MemoryStore;
use crate::oracle::{Rollups, Samples};

pub(super) type Checked = Result<(), Violation>;

/// I1: at the moment of the ack an object with the batches is there, or they are consumed.
pub(super) fn i1_durable_ack(registry: &Registry, batches: &[Digest]) -> Checked {
    let is_there = |batch: &Digest| registry.has_landed(batch) || registry.was_lost(batch);
    match batches.iter().find(|batch| !is_there(batch)) {
        None => Ok(()),
        Some(batch) => {
            let what = format!("batch {batch} was acknowledged and never landed");
            Err(Violation::new("I1 durable ack", what))
        }
    }
}

/// I2 and I3 at one instant: exactly the merge of everything that has landed.
pub(super) fn i2_exactly_once_and_i3_no_invention(expected: &Samples, got: &Samples) -> Checked {
    match expected.first_difference(got) {
        None => Ok(()),
        Some(what) => Err(Violation::new("I2 exactly once, I3 no invention", what)),
    }
}

/// The cheap half of I2, when the log and L0 are as they were: nothing new has landed unseen.
pub(super) fn i2_every_listed_object_is_expected(view: &View, registry: &Registry) -> Checked {
    let unknown = view.l0.iter().find(|object| {
        let batches = registry.batches_of(&object.name.digest);
        !batches.iter().all(|batch| registry.has_landed(batch))
    });
    match unknown {
        None => Ok(()),
        Some(object) => Err(Violation::new("I3 no invention", object.name)),
    }
}

/// I2, I3 and I13 for a query that ran while others did: between what had landed when it began
/// and what had landed when it ended; or an error.
pub(super) fn i2_a_query_is_complete(least: &Samples, most: &Samples, got: &Samples) -> Checked {
    match least.first_violation(most, got) {
        None => Ok(()),
        Some(what) => Err(Violation::new(
            "I2/I3/I13 a query is complete or fails",
            what,
        )),
    }
}

/// I4: the sums of the log are those of the batches that were sent and the files that are live.
pub(super) fn i4_conservation(
    state: &TableState,
    effective: &BTreeSet<Digest>,
    registry: &Registry,
) -> Checked {
    const NAME: &str = "I4 conservation";
    let totals = &state.totals;
    let (mut rows, mut hash) = (0, RowsHash::default());
    for batch in effective {
        let Some(sent) = registry.rows(batch) else {
            let what = format!("batch {batch} in the ledger was never sent");
            return Err(Violation::new(NAME, what));
        };
        rows += sent.len() as u64;
        hash = hash.union(stele_format::rows_hash(sent));
    }
    let raw = FileKind::Sealed(Resolution::Raw);
    let live = state.files_of(FileKind::Open).chain(state.files_of(raw));
    let (live_rows, live_hash) = live.fold((0, RowsHash::default()), |(rows, hash), file| {
        (rows + file.stats.rows, hash.union(file.stats.rows_hash))
    });
    let dropped = totals.duplicates + totals.overridden + totals.expired;
    let pairs = [
        ("rows consumed", totals.rows, rows),
        (
            "rows live",
            totals.rows - dropped.min(totals.rows),
            live_rows,
        ),
        ("batches", totals.batches, effective.len() as u64),
    ];
    if let Some((what, log, real)) = pairs.iter().find(|(_, log, real)| log != real) {
        let what = format!("{what}: the log says {log}, it is {real}");
        return Err(Violation::new(NAME, what));
    }
    if totals.hash != hash || totals.hash.without(totals.hash_dropped) != live_hash {
        return Err(Violation::new(NAME, "the hashes disagree"));
    }
    Ok(())
}

/// I5: each batch is effective in at most one row. Answers which are.
pub(super) fn i5_single_consumption(ledger: &[LedgerRow]) -> Result<BTreeSet<Digest>, Violation> {
    const NAME: &str = "I5 single consumption";
    let mut effective: BTreeMap<Digest, &str> = BTreeMap::new();
    for row in ledger.iter().filter(|row| row.duplicate_of.is_none()) {
        if let Some(before) = effective.insert(row.batch, &row.operation) {
            let what = format!(
                "{} is effective in {before} and {}",
                row.batch, row.operation
            );
            return Err(Violation::new(NAME, what));
        }
    }
    for row in ledger {
        let Some(of) = row.duplicate_of.as_deref() else {
            continue;
        };
        let target = effective.get(&row.batch).copied();
        if target != Some(of) {
            let what = format!(
                "{} is a duplicate of {of}, effective in {target:?}",
                row.batch
            );
            return Err(Violation::new(NAME, what));
        }
    }
    Ok(effective.into_keys().collect())
}

/// I6: an L0 object only once its batches are consumed; a data file only once it is not live.
pub(super) fn i6_only_superseded_objects_were_deleted(
    deleted: &[object_store::path::Path],
    state: &TableState,
    effective: &BTreeSet<Digest>,
    registry: &Registry,
) -> Checked {
    for path in deleted {
        let key = relative(path.as_ref());
        if let Some(name) = l0_name(path) {
            let batches = registry.batches_of(&name.digest);
            if let Some(batch) = batches.iter().find(|batch| !effective.contains(batch)) {
                let what = format!("{key} was deleted and batch {batch} is not consumed");
                return Err(Violation::new("I6 safe delete", what));
            }
        }
        if let Some(file) = key.strip_prefix("table/")
            && state.files.contains_key(file)
        {
            let what = format!("the live file {key} was deleted");
            return Err(Violation::new("I6 safe delete", what));
        }
    }
    Ok(())
}

/// I7: what a create-only key held once is all it ever holds.
///
/// Delta fixes the names of log entries, and no store can refuse a name that was deleted. So a
/// writer that slept for longer than the history can re-create an entry that sweep deleted: its
/// commit does not count, no reader follows it (the other invariants would tell), and sweep
/// deletes it. It must lie below the entries of the history, never among them. A key's marker may
/// come again after its sweep: then the key begins anew; and so may the name of a snapshot.
pub(super) fn i7_no_key_has_two_contents(
    store: &MemoryStore,
    root: &str,
    swept_below: u64,
) -> Checked {
    let is_below = |key: &object_store::path::Path| {
        let version = stele_store::keys::log_entry_version(relative(key.as_ref()));
        version.is_some_and(|version| version < swept_below)
    };
    let is_free_again = |key: &object_store::path::Path| {
        let key = relative(key.as_ref());
        key.starts_with("idem/") || key.starts_with("pins/")
    };
    let reused = store.reused_keys().into_iter();
    let reused = reused.filter(|key| key.as_ref().starts_with(root));
    match reused
        .filter(|key| !is_free_again(key))
        .find(|key| !is_below(key))
    {
        None => Ok(()),
        Some(key) => Err(Violation::new(
            "I7 no key reuse",
            format!("{key} held two contents"),
        )),
    }
}

/// I9: the rollups of a view are the naive fold of its samples, and what was frozen before.
pub(super) fn i9_rollup_truth(
    samples: &Samples,
    frozen: &Rollups,
    rollups: &Rollups,
    resolution: Resolution,
) -> Checked {
    let mut expected = samples.rollups(resolution, true);
    expected.add_before(i64::MAX, frozen);
    match expected.first_difference(rollups) {
        None => Ok(()),
        Some(what) => {
            let what = format!("{}: {what}", resolution.table());
            Err(Violation::new("I9 rollup truth", what))
        }
    }
}
