//! Committing: races, ambiguous outcomes, and what is refused.
#![allow(clippy::unwrap_used, clippy::panic)]

mod common;

use std::collections::BTreeSet;
use std::sync::Arc;

use common::*;
use stele_model::{Digest, ErrorKind};
use stele_store::{Tier, keys};
use stele_table::{CommitKind, Error, Options, Outcome, Refusal, TableLog, TableState};

/// Commits `n` until it wins, under a fresh operation id per plan; the version it took.
async fn win(log: &TableLog, mut state: Arc<TableState>, n: u64) -> (u64, Arc<TableState>) {
    for attempt in 0..200 {
        let mut commit = simple(n);
        commit.operation = operation(n * 1000 + attempt);
        let planned = state.version;
        match log.commit(&state, commit).await.unwrap() {
            Outcome::Committed(next) => return (planned + 1, next),
            Outcome::Moved(next) => {
                assert!(next.version > planned, "moved to nowhere");
                state = next;
            }
        }
    }
    panic!("{n} never won");
}

async fn race(store: &Watched) {
    store.log().load_or_create(T0).await.unwrap();
    let writers = (0..4u64).map(|writer| {
        let log = store.log();
        tokio::spawn(async move {
            let mut state = log.load().await.unwrap().unwrap();
            let mut versions = Vec::new();
            for round in 0..15 {
                let (version, next) = win(&log, state, 1 + writer * 15 + round).await;
                versions.push(version);
                state = next;
            }
            versions
        })
    });
    let mut versions = BTreeSet::new();
    for writer in writers.collect::<Vec<_>>() {
        versions.extend(writer.await.unwrap());
    }
    assert_eq!(versions.len(), 60, "each slot has one winner");
    let log = store.log();
    let state = log.load().await.unwrap().unwrap();
    assert_eq!(state.files.len(), 60);
    assert_eq!((state.totals.batches, state.totals.rows), (60, 600));
    let rows = log.ledger_rows(&state).await.unwrap();
    let batches: BTreeSet<Digest> = rows.iter().map(|row| row.batch).collect();
    assert_eq!(
        (rows.len(), batches.len()),
        (60, 60),
        "no batch is lost or doubled"
    );
    let from_log = log.load_from_log().await.unwrap().unwrap();
    assert_eq!(from_log, state);
    let mut merges = 0;
    for version in 1..=state.version {
        let entry = log.entry(version).await.unwrap().unwrap();
        merges += u64::from(entry.kind() == CommitKind::Ledger);
    }
    assert_eq!(state.version, 60 + merges);
    // A merge that loses its slot to a writer is left to the next commit, so races make it rarer.
    assert!(merges >= 1, "60 commits made no ledger commit");
}

#[tokio::test]
async fn racing_writers_take_distinct_versions_and_lose_nothing() {
    race(&Watched::new()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn racing_writers_on_local_files_take_distinct_versions_and_lose_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let tier = Tier::open(dir.path().to_str().unwrap(), &[]).unwrap();
    race(&Watched::over(tier.object_store())).await;
}

#[tokio::test]
async fn an_error_after_the_effect_is_resolved_as_our_own_commit() {
    let store = Watched::new();
    let log = store.log();
    let state = table(&log, 3).await;
    store.fail(&keys::log_entry(4), &[Fault::AfterEffect]);
    let next = committed(&log, &state, simple(4)).await;
    assert_eq!(next.version, 4);
    assert_eq!(store.log().load().await.unwrap().unwrap(), next);
}

#[tokio::test]
async fn an_error_before_the_effect_is_put_again_until_it_exists() {
    let store = Watched::new();
    let log = store.log();
    let state = table(&log, 3).await;
    store.fail(&keys::log_entry(4), &[Fault::BeforeEffect; 6]);
    store.fail("ledger/", &[Fault::AfterEffect, Fault::BeforeEffect]);
    let next = committed(&log, &state, simple(4)).await;
    assert_eq!(next.version, 4);
}

#[tokio::test]
async fn an_outcome_that_stays_unknown_is_an_error_and_a_fresh_plan_succeeds() {
    let store = Watched::new();
    let log = store.log();
    let state = table(&log, 3).await;
    store.fail(&keys::log_entry(4), &[Fault::BeforeEffect; 12]);
    let error = log.commit(&state, simple(4)).await.unwrap_err();
    assert!(
        matches!(error, Error::Unresolved { version: 4, .. }),
        "{error}"
    );
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    let state = log.refresh(&state).await.unwrap();
    let mut again = simple(4);
    again.operation = operation(1004);
    assert_eq!(committed(&log, &state, again).await.version, 4);
}

#[tokio::test]
async fn a_commit_planned_on_an_older_version_moves_and_leaves_no_trace() {
    let store = Watched::new();
    let log = store.log();
    let old = table(&log, 2).await;
    let new = committed(&log, &old, simple(3)).await;
    let Outcome::Moved(moved) = store.log().commit(&old, simple(4)).await.unwrap() else {
        panic!("two commits of one version");
    };
    assert_eq!(moved, new);
}

#[tokio::test]
async fn a_lost_head_or_a_failed_ledger_merge_does_not_undo_a_commit() {
    let store = Watched::new();
    let log = store.log();
    let state = table(&log, 18).await;
    store.fail(keys::HEADS, &[Fault::BeforeEffect; 4]);
    store.fail("ledger/day-", &[Fault::BeforeEffect; 4]);
    let state = committed(&log, &state, simple(19)).await;
    assert_eq!((state.version, state.ledger.manifest_version), (19, 0));
    let state = committed(&log, &state, simple(20)).await;
    assert_eq!((state.version, state.ledger.manifest_version), (21, 21));
    assert!(state.ledger.recent.is_empty());
    assert_eq!(store.log().load().await.unwrap().unwrap(), state);
}

fn refusal(error: Error) -> Refusal {
    match error {
        Error::Refused { refusal, .. } => refusal,
        other => panic!("{other}"),
    }
}

#[tokio::test]
async fn a_batch_is_effective_once_before_and_after_the_ledger_is_merged() {
    let store = Watched::new();
    let log = store.log();
    let mut state = table(&log, 30).await;
    assert!(!state.ledger.recent.is_empty() && !state.ledger.days.is_empty());
    for (n, known) in [(100, 2), (101, 29)] {
        let again = object(n, batch(known, 10));
        let fresh = store.log();
        let error = fresh.commit(&state, absorb(n, vec![again.clone()])).await;
        let Refusal::Consumed {
            batch,
            operation: by,
        } = refusal(error.unwrap_err())
        else {
            panic!("accepted twice");
        };
        assert_eq!((batch, &by), (digest(known), &operation(known).0));
        let mut marked = again;
        marked.batches[0].duplicate_of = Some(by);
        state = committed(&log, &state, absorb(n, vec![marked])).await;
    }
    assert_eq!(
        (state.totals.batches, state.totals.duplicate_batches),
        (30, 2)
    );
    let ask = [
        (digest(2), day()),
        (digest(29), day()),
        (digest(999), day()),
    ];
    // Nor may it be a duplicate of what is effective nowhere: its rows would be lost.
    let mut nowhere = object(102, batch(999, 10));
    nowhere.batches[0].duplicate_of = Some(operation(2).0);
    let error = log.commit(&state, absorb(102, vec![nowhere])).await;
    assert!(matches!(
        refusal(error.unwrap_err()),
        Refusal::NotConsumed { .. }
    ));
    let known = store.log().ledger_lookup(&state, &ask).await.unwrap();
    assert_eq!(known.get(&digest(2)), Some(&operation(2).0));
    assert_eq!(known.get(&digest(29)), Some(&operation(29).0));
    assert_eq!(known.len(), 2);
}

#[tokio::test]
async fn rows_that_are_not_conserved_are_refused_and_nothing_is_written() {
    let store = Watched::new();
    let log = store.log();
    let state = table(&log, 2).await;
    store.requests();
    let mut lost = simple(3);
    lost.conservation.rows_out -= 1;
    let mut swapped = simple(4);
    swapped.conservation.hash_in.add(1);
    swapped.conservation.hash_out.add(1);
    let mut hidden = simple(5);
    hidden.add[0].stats.rows -= 1;
    hidden.conservation.rows_out -= 1;
    hidden.conservation.rows_in -= 1;
    for bad in [lost, swapped, hidden] {
        let error = log.commit(&state, bad).await.unwrap_err();
        assert!(matches!(refusal(error), Refusal::Conservation { .. }));
    }
    assert_eq!(store.requests(), Vec::<String>::new());
}

#[tokio::test]
async fn a_file_name_is_used_once_while_anything_of_it_may_exist() {
    let store = Watched::new();
    let log = store.log();
    let state = table(&log, 2).await;
    let sealed = committed(&log, &state, seal(3, &state)).await;
    let live = simple(1).add.remove(0);
    let mut again = simple(4);
    again.add[0].path.clone_from(&live.path);
    let error = log.commit(&state, again.clone()).await.unwrap_err();
    assert!(matches!(refusal(error), Refusal::File { .. }), "live");
    let error = log.commit(&sealed, again.clone()).await.unwrap_err();
    assert!(
        matches!(refusal(error), Refusal::File { .. }),
        "removed, perhaps not deleted"
    );
    let swept = committed(&log, &sealed, sweep(5, &sealed)).await;
    assert!(swept.removed.is_empty() && swept.unswept.is_empty());
    committed(&log, &swept, again).await;
}

#[tokio::test]
async fn what_is_not_there_cannot_be_removed_forgotten_or_gone() {
    let store = Watched::new();
    let log = store.log();
    let state = table(&log, 2).await;
    let mut remove = sweep(3, &TableState::default());
    remove.remove = vec!["resolution=raw/period=2026-11-22/x.parquet".to_owned()];
    let mut forget = sweep(4, &TableState::default());
    forget.forget_removed = vec!["x".to_owned()];
    let mut gone = sweep(5, &TableState::default());
    gone.gone = vec![digest(77)];
    let mut twice = sweep(6, &state);
    twice.gone.push(digest(1));
    for bad in [remove, forget, gone, twice] {
        let error = log.commit(&state, bad).await.unwrap_err();
        let refusal = refusal(error);
        let fits = matches!(
            refusal,
            Refusal::File { .. } | Refusal::Tombstone { .. } | Refusal::Object { .. }
        );
        assert!(fits, "{refusal}");
    }
    let absent = Arc::new(TableState::default());
    let error = log.commit(&absent, simple(9)).await.unwrap_err();
    assert!(matches!(refusal(error), Refusal::NoTable));
}

#[tokio::test]
async fn a_batch_filed_under_a_day_its_object_does_not_cover_is_refused() {
    let store = Watched::new();
    let log = store.log();
    let state = table(&log, 1).await;
    let mut astray = simple(2);
    astray.consumed[0].batches[0].day.0 -= 1;
    let mut empty = simple(3);
    empty.consumed[0].batches.clear();
    for bad in [astray, empty] {
        let error = log.commit(&state, bad).await.unwrap_err();
        assert!(matches!(refusal(error), Refusal::Object { .. }));
    }
}

#[tokio::test]
async fn an_operation_id_cannot_name_two_lists_of_actions() {
    let store = Watched::new();
    let log = store.log();
    let state = table(&log, 2).await;
    let mut other = simple(3);
    other.operation = operation(2);
    let error = log.commit(&state, other).await.unwrap_err();
    assert!(matches!(refusal(error), Refusal::OperationReused));
}

/// A writer that slept for longer than the history, while sweep deleted the entries after the
/// version it knows: the next slot is free again, and must not be taken.
#[tokio::test]
async fn a_writer_that_slept_through_sweep_cannot_take_a_swept_slot() {
    let store = Watched::new();
    let (old, state) = outgrown(&store).await;
    for version in 0..state.ledger.manifest_version {
        store.remove(&keys::log_entry(version)).await;
    }
    // Its clock does not show it: the missing predecessor gives it away after the PUT.
    let Outcome::Moved(newest) = store.log().commit(&old, simple(101)).await.unwrap() else {
        panic!("took a swept slot");
    };
    assert!(newest == state, "version {}", newest.version);
    assert_eq!(store.log().load_from_log().await.unwrap().unwrap(), state);
    // Its clock shows how long it slept: read cold, nothing written.
    store.clock.advance(Options::default().history_us);
    store.requests();
    let Outcome::Moved(newest) = store.log().commit(&old, simple(100)).await.unwrap() else {
        panic!("took a swept slot");
    };
    assert!(newest == state, "version {}", newest.version);
    assert!(
        store
            .requests()
            .iter()
            .all(|request| !request.starts_with("PUT"))
    );
}

/// As above, but it slept within the commit, and its predecessor is back: a PUT of the same bytes
/// that was on its way for a day. Only the time tells.
#[tokio::test]
async fn a_commit_that_took_longer_than_a_quarter_of_the_history_is_not_believed() {
    let store = Watched::new();
    let (old, state) = outgrown(&store).await;
    let base = state.ledger.manifest_version;
    let swept = (0..base).filter(|version| *version != 5);
    let swept = swept.map(keys::log_entry).collect();
    let slow = store.log();
    assert_eq!(slow.refresh(&old).await.unwrap(), state);
    let put = format!("PUT {}", keys::log_entry(6));
    store.sleep_before(put, Options::default().history_us, swept);
    let Outcome::Moved(newest) = slow.commit(&old, simple(101)).await.unwrap() else {
        panic!("believed in a version below the sweep");
    };
    assert_eq!(newest, state);
    assert_eq!(slow.newest_seen().unwrap(), state);
}

/// It wrote its entry and slept until others had gone on and swept that, too.
#[tokio::test]
async fn a_commit_that_was_swept_before_it_was_read_back_is_no_damage() {
    let store = Watched::new();
    let slow = store.log();
    let on = table(&slow, 5).await;
    let other = Watched::new();
    let state = table(&other.log(), 25).await;
    let read_back = format!("GET {}", keys::log_entry(6));
    store.sleep_before(read_back, Options::default().history_us, Vec::new());
    store.adopt_in_sleep(&other, state.ledger.manifest_version);
    let Outcome::Moved(newest) = slow.commit(&on, simple(6)).await.unwrap() else {
        panic!("believed in what it could not read back");
    };
    assert_eq!(newest, state);
}

/// Between "there is no table" and the PUT of version 0 others made it, filled it and swept.
#[tokio::test]
async fn a_table_that_was_created_meanwhile_is_the_one_that_counts() {
    let store = Watched::new();
    let slow = store.log();
    let (create, other) = (format!("PUT {}", keys::log_entry(0)), Watched::new());
    let state = table(&other.log(), 25).await;
    let base = state.ledger.manifest_version;
    store.sleep_before(create, Options::default().history_us, Vec::new());
    store.adopt_in_sleep(&other, base);
    let loaded = slow.load_or_create(T0 + 7 * MINUTE).await.unwrap();
    assert_eq!(loaded, state);
}

/// Delta's time of creation is in milliseconds.
#[tokio::test]
async fn a_table_is_created_in_the_millisecond_and_gets_a_head() {
    let store = Watched::new();
    let state = store.log().load_or_create(T0 + 1_999).await.unwrap();
    assert_eq!(state.meta.created_us, T0 + 1_000);
    let heads = store.tenant().list(keys::HEADS).await.unwrap();
    assert_eq!(heads.len(), 1);
    assert_eq!(heads[0].key, keys::head(0));
}

/// The head of a version is for whoever committed it to write.
#[tokio::test]
async fn whoever_finds_that_others_made_the_table_writes_no_head() {
    let store = Watched::new();
    let (create, other) = (format!("PUT {}", keys::log_entry(0)), Watched::new());
    let state = table(&other.log(), 5).await;
    store.sleep_before(create, 0, Vec::new());
    store.adopt_in_sleep(&other, 0);
    assert_eq!(store.log().load_or_create(T0).await.unwrap(), state);
    let requests = store.requests();
    let is_head = |request: &&String| request.starts_with(&format!("PUT {}", keys::HEADS));
    assert_eq!(requests.iter().find(is_head), None);
}
