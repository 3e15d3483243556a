//! What sweep deletes where there are several tiers: each test has a tier that lacks one thing.
#![allow(clippy::unwrap_used, clippy::panic)]

mod common;

use std::sync::Arc;

use common::tiers::{
    Told, copy, has, pin, relative, replicate, sweep, sweep_mirror, told, with, with_garbage,
};
use common::{ALL, DAY0, World, hour, sample};
use stele_compact::{DeletionRefused, SweepReport};
use stele_model::time::{DAY_US, HOUR_US};
use stele_model::{Clock, Digest};
use stele_store::keys;
use stele_table::{
    Commit, CommitKind, FileEntry, OperationId, Outcome, Restored, deletion_frozen,
    set_deletion_frozen,
};
use stele_testkit::{Fault, FaultWorld, KeyClass, Operation, Plan};

fn nothing_of_the_table(report: &SweepReport) -> bool {
    let report = report.clone();
    (report.files_deleted, report.ledger_deleted) == (0, 0) && report.entries_deleted == 0
}

#[tokio::test]
async fn an_object_stays_until_every_tier_has_it_or_has_absorbed_it() {
    let mut primary = World::new();
    let mirror = primary.beside();
    let a = primary.accept(hour("cpu", 9)).await;
    let b = primary.accept(hour("mem", 9)).await;
    primary.compactor(1).absorb(&ALL).await.unwrap();
    primary.clock.advance(HOUR_US);
    // The mirror lacks both: neither its L0 nor its ledger has them.
    let report = sweep(&primary, &mirror).await;
    assert_eq!((report.objects_deleted, report.objects_unwitnessed), (0, 2));
    assert_eq!(report.behind, ["mirror"]);
    // It has one in its L0. The log goes on naming it as unswept, because the mirror holds it.
    copy(&primary, &mirror, &format!("l0/{a}")).await;
    let report = sweep(&primary, &mirror).await;
    assert_eq!((report.objects_deleted, report.objects_unwitnessed), (1, 1));
    assert_eq!((report.names_kept, report.commits), (1, 0));
    assert!(!has(&primary, &format!("l0/{a}")) && has(&primary, &format!("l0/{b}")));
    // Its log has the entry that consumed the other.
    replicate(&primary, &mirror, 1).await;
    let report = sweep(&primary, &mirror).await;
    assert_eq!((report.objects_deleted, report.objects_unwitnessed), (1, 0));
    assert_eq!((report.names_kept, report.commits), (1, 1));
    assert_eq!(primary.state().await.unswept.len(), 1);
    // The mirror deletes its own by its own log, and writes nothing to it.
    let report = sweep_mirror(&primary, &mirror).await;
    assert_eq!((report.objects_waiting, report.objects_deleted), (1, 0));
    primary.clock.advance(HOUR_US);
    let report = sweep_mirror(&primary, &mirror).await;
    assert_eq!((report.objects_deleted, report.commits), (1, 0));
    assert_eq!(mirror.state().await.version, 1);
    // Now it is gone everywhere, and the primary's log says so.
    let report = sweep(&primary, &mirror).await;
    assert_eq!((report.names_kept, report.commits), (0, 1));
    assert!(primary.state().await.unswept.is_empty());
    primary.check("at the end").await;
}

#[tokio::test]
async fn one_of_two_mirrors_without_the_object_is_enough_to_keep_it() {
    let mut primary = World::new();
    let (one, two) = (primary.beside(), primary.beside());
    let object = primary.accept(hour("cpu", 9)).await;
    primary.compactor(1).absorb(&ALL).await.unwrap();
    copy(&primary, &one, &format!("l0/{object}")).await;
    primary.clock.advance(HOUR_US);
    let compactor = with(&primary, told(true, &[("one", &one), ("two", &two)]));
    let report = compactor.sweep(&ALL).await.unwrap();
    assert_eq!((report.objects_deleted, report.objects_unwitnessed), (0, 1));
    replicate(&primary, &two, 1).await;
    let report = compactor.sweep(&ALL).await.unwrap();
    assert_eq!((report.objects_deleted, report.objects_unwitnessed), (1, 0));
}

#[tokio::test]
async fn nothing_of_the_table_goes_while_a_tier_has_no_table() {
    let primary = with_garbage().await;
    let mirror = primary.beside();
    for key in relative(&primary, keys::L0) {
        copy(&primary, &mirror, &key).await;
    }
    let report = sweep(&primary, &mirror).await;
    assert!(nothing_of_the_table(&report), "{report:?}");
    assert_eq!(report.objects_deleted, 50);
    assert!(report.files_unwitnessed > 0, "{report:?}");
    primary.check("after the sweep").await;
}

#[tokio::test]
async fn table_files_and_the_log_go_as_far_as_every_log_reaches() {
    let primary = with_garbage().await;
    let newest = primary.state().await;
    let mirror = primary.beside();
    // The mirror ends in the middle of the absorbs: what was removed later stays.
    replicate(&primary, &mirror, 25).await;
    let plan = with(&primary, told(true, &[("mirror", &mirror)]));
    let removed: Vec<_> = newest.removed.iter().map(|f| f.path.clone()).collect();
    let report = plan.sweep(&ALL).await.unwrap();
    let by_25 = primary.log(DAY_US).load_version(25).await;
    assert!(by_25.is_ok(), "the mirror goes on from there: {by_25:?}");
    let by_25 = by_25.unwrap();
    for path in &removed {
        let was_live = by_25.files.contains_key(path);
        let later = !by_25.removed.iter().any(|f| f.path == *path);
        let is_there = has(&primary, &keys::data_file(path));
        assert_eq!(is_there, was_live || later, "{path}");
    }
    assert!(report.files_deleted > 0 && report.files_unwitnessed > 0);
    assert!(report.entries_deleted > 0 && has(&primary, &keys::log_entry(25)));
    // What it deleted stays named while the mirror has it.
    assert!(report.names_kept >= report.files_deleted, "{report:?}");
    primary.check("after the first sweep").await;
    // The mirror catches up, and everything goes.
    replicate(&primary, &mirror, primary.state().await.version).await;
    let report = sweep(&primary, &mirror).await;
    assert_eq!(report.files_unwitnessed, 0);
    for path in &removed {
        assert!(!has(&primary, &keys::data_file(path)), "{path}");
    }
    // On the mirror, its removals are as old as its own entries.
    let report = sweep_mirror(&primary, &mirror).await;
    assert_eq!(report.files_deleted, 0, "{report:?}");
    primary.clock.advance(DAY_US + HOUR_US);
    let before = mirror.state().await;
    let report = sweep_mirror(&primary, &mirror).await;
    assert!(report.files_deleted > 0 && report.entries_deleted > 0);
    assert_eq!((report.commits, mirror.state().await), (0, before));
    let report = sweep(&primary, &mirror).await;
    assert_eq!(report.commits, 1);
    assert!(primary.state().await.removed.is_empty());
    primary.check("at the end").await;
}

/// The primary has forgotten a name and uses it again: the mirror's log, still behind, calls it
/// removed, and its object there is the copy of the new file.
#[tokio::test]
async fn a_mirror_does_not_delete_what_a_log_ahead_of_it_has_forgotten() {
    let primary = with_garbage().await;
    let mirror = primary.beside();
    let behind = primary.state().await;
    replicate(&primary, &mirror, behind.version).await;
    for file in &behind.removed {
        let key = keys::data_file(&file.path);
        mirror.memory.lose(&mirror.store.path(&key));
    }
    primary.clock.advance(DAY_US + HOUR_US);
    assert!(sweep(&primary, &mirror).await.commits > 0);
    assert!(primary.state().await.removed.is_empty());
    let again = keys::data_file(&behind.removed[0].path);
    mirror.store.put_new(&again, "new".into()).await.unwrap();
    let report = sweep_mirror(&primary, &mirror).await;
    assert!(has(&mirror, &again), "{report:?}");
    assert_eq!(report.files_unwitnessed as usize, behind.removed.len());
}

#[tokio::test]
async fn a_tier_that_cannot_be_read_stops_every_deletion_and_freezes_nothing() {
    let primary = with_garbage().await;
    let mirror = primary.beside();
    replicate(&primary, &mirror, primary.state().await.version).await;
    let before = primary.memory.keys("");
    let unharmed = || before.iter().all(|key| primary.memory.bytes(key).is_some());
    // Not known which tiers there are.
    let report = with(&primary, Told::default()).sweep(&ALL).await.unwrap();
    assert!(matches!(
        report.refused,
        Some(DeletionRefused::Unreadable { tier: None, .. })
    ));
    // Each kind of read of the mirror fails once.
    let reads = [
        (KeyClass::Control, Operation::List),
        (KeyClass::Pin, Operation::List),
        (KeyClass::L0, Operation::List),
        (KeyClass::Log, Operation::List),
        (KeyClass::Head, Operation::List),
    ];
    for (class, operation) in reads {
        let plan = Plan::none().with("sweep", operation, class, 0, Fault::ErrorBefore);
        let faults = FaultWorld::immediate(Arc::new(mirror.memory.clone()), plan);
        let over = stele_store::Tier::from_store(faults.actor("sweep"), "", "faulty");
        let log = stele_table::TableLog::new(
            over.tenant(&stele_model::TenantId::default()),
            stele_table::Options::default(),
            Arc::new(mirror.clock.clone()),
        );
        let told = told(true, &[("mirror", &mirror)]);
        told.0.lock().unwrap().as_mut().unwrap().others[0].log = Arc::new(log);
        let report = with(&primary, told).sweep(&ALL).await.unwrap();
        match &report.refused {
            Some(DeletionRefused::Unreadable { tier, .. }) => {
                assert_eq!(tier.as_deref(), Some("mirror"));
            }
            other => panic!("{class:?} {operation:?}: {other:?}"),
        }
        assert_eq!(faults.fired().len(), 1, "{class:?} {operation:?}");
        assert!(unharmed(), "{class:?} {operation:?}");
    }
    assert_eq!(deletion_frozen(&primary.store).await.unwrap(), None);
    assert!(sweep(&primary, &mirror).await.files_deleted > 0);
}

#[tokio::test]
async fn logs_that_diverged_freeze_deletion_on_both_tiers() {
    let mut primary = World::new();
    let mut mirror = primary.beside();
    primary.accept(hour("cpu", 9)).await;
    primary.compactor(1).absorb(&ALL).await.unwrap();
    replicate(&primary, &mirror, 1).await;
    // Both write version 2.
    for (world, ids) in [(&mut primary, 2), (&mut mirror, 3)] {
        world.accept(hour("mem", 9 + ids)).await;
        world.compactor(ids as u64).absorb(&ALL).await.unwrap();
    }
    primary.clock.advance(2 * DAY_US);
    let before = primary.memory.keys("");
    let report = sweep(&primary, &mirror).await;
    let tier = "mirror".to_owned();
    let diverged = DeletionRefused::Diverged { tier, version: 2 };
    assert_eq!(report.refused, Some(diverged));
    let unharmed = |key: &object_store::path::Path| primary.memory.bytes(key).is_some();
    assert!(before.iter().all(unharmed));
    let frozen = deletion_frozen(&primary.store).await.unwrap().unwrap();
    assert!(frozen.reason.contains("another entry 2"), "{frozen:?}");
    // Alone, and after a restart, it stays frozen; and so does the other tier.
    let report = primary.compactor(9).sweep(&ALL).await.unwrap();
    assert!(matches!(
        report.refused,
        Some(DeletionRefused::Frozen { tier: None, .. })
    ));
    let report = sweep_mirror(&primary, &mirror).await;
    match report.refused {
        Some(DeletionRefused::Frozen { tier, .. }) => assert_eq!(tier.as_deref(), Some("primary")),
        other => panic!("{other:?}"),
    }
    // Absorb goes on.
    primary.accept(hour("disk", 7)).await;
    let report = primary.compactor(10).absorb(&ALL).await.unwrap();
    assert_eq!(report.objects, 1);
    set_deletion_frozen(&primary.store, None, primary.clock.now_us())
        .await
        .unwrap();
    let report = primary.compactor(11).sweep(&ALL).await.unwrap();
    assert_eq!((report.refused, report.objects_deleted), (None, 2));
}

#[tokio::test]
async fn a_pin_of_another_tier_protects_its_version_here() {
    let mut primary = World::new();
    let mirror = primary.beside();
    let compactor = primary.compactor(1);
    for n in 0..4 {
        primary
            .accept(sample("cpu", DAY0 + 9 * HOUR_US + n, 1.0))
            .await;
        compactor.absorb(&ALL).await.unwrap();
    }
    let pinned = primary.state().await;
    replicate(&primary, &mirror, pinned.version).await;
    pin(&primary, &mirror, "noon").await;
    compactor.settle(&ALL, &|_| ()).await.unwrap();
    replicate(&primary, &mirror, primary.state().await.version).await;
    primary.clock.advance(3 * DAY_US);
    let report = sweep(&primary, &mirror).await;
    assert_eq!((report.pins, report.files_pinned), (1, 1), "{report:?}");
    for path in pinned.files.keys() {
        assert!(has(&primary, &keys::data_file(path)), "{path}");
    }
    let there = &mirror.store.path(&keys::pin("noon"));
    mirror.memory.lose(there);
    let report = sweep(&primary, &mirror).await;
    assert_eq!((report.pins, report.files_pinned), (0, 0), "{report:?}");
    for path in pinned.files.keys() {
        assert!(!has(&primary, &keys::data_file(path)), "{path}");
    }
}

#[tokio::test]
async fn a_pin_newer_than_the_log_of_a_mirror_does_not_stop_its_sweep() {
    let mut primary = with_garbage().await;
    let mirror = primary.beside();
    let behind = primary.state().await.version;
    replicate(&primary, &mirror, behind).await;
    primary.clock.advance(DAY_US + HOUR_US);
    primary.accept(hour("late", 7)).await;
    primary.compactor(5).absorb(&ALL).await.unwrap();
    // On both, as replication copies pins first.
    pin(&primary, &primary, "new").await;
    pin(&primary, &mirror, "new").await;
    let report = sweep_mirror(&primary, &mirror).await;
    assert_eq!(report.refused, None);
    assert!(report.files_deleted > 0, "{report:?}");
    // Also when nobody else has it any more.
    primary.memory.lose(&primary.store.path(&keys::pin("new")));
    let report = sweep_mirror(&primary, &mirror).await;
    assert_eq!(report.refused, None);
    let live = mirror.state().await;
    for path in live.files.keys() {
        assert!(has(&mirror, &keys::data_file(path)), "{path}");
    }
    // A copy is never judged by the times of the mirror.
    assert!(has(&mirror, &keys::pin("new")));
    assert!(!has(&mirror, &keys::pin_mark("new")));
}

#[tokio::test]
async fn a_damaged_pin_of_another_tier_deletes_nothing_here() {
    let primary = with_garbage().await;
    let mirror = primary.beside();
    replicate(&primary, &mirror, primary.state().await.version).await;
    let put = mirror.store.put_new("pins/noon.json", "{}".into());
    put.await.unwrap();
    let report = sweep(&primary, &mirror).await;
    assert!(
        matches!(&report.refused, Some(DeletionRefused::Unreadable { tier: Some(tier), .. })
            if tier == "mirror"),
        "{report:?}"
    );
    assert!(nothing_of_the_table(&report) && report.objects_deleted == 0);
    assert_eq!(deletion_frozen(&primary.store).await.unwrap(), None);
}

/// A mirror that is behind a restore in place on the primary: its log has consumed what the
/// primary has revoked, and its L0 may hold the last copy.
#[tokio::test]
async fn a_mirror_keeps_the_object_of_a_batch_that_the_log_ahead_of_it_has_revoked() {
    let mut primary = World::new();
    let mirror = primary.beside();
    primary.accept(hour("cpu", 9)).await;
    primary.compactor(1).absorb(&ALL).await.unwrap();
    let back = primary.state().await;
    let object = primary.accept(hour("mem", 9)).await;
    copy(&primary, &mirror, &format!("l0/{object}")).await;
    primary.compactor(2).absorb(&ALL).await.unwrap();
    let newest = primary.state().await;
    replicate(&primary, &mirror, newest.version).await;
    // The primary deletes its own object, and then goes back.
    primary.clock.advance(HOUR_US);
    primary
        .memory
        .lose(&primary.store.path(&format!("l0/{object}")));
    let id = OperationId("7".repeat(32));
    let mut restore = Commit::new(id, CommitKind::Restore, primary.clock.now_us());
    let is_later = |path: &&String| !back.files.contains_key(*path);
    restore.remove = newest.files.keys().filter(is_later).cloned().collect();
    let is_left = |file: &&Arc<FileEntry>| !newest.files.contains_key(&file.path);
    let add = back.files.values().filter(is_left);
    restore.add = add.map(|file| file.as_ref().clone()).collect();
    restore.restored = Some(Restored::of(&back, Digest([3; 16])));
    let done = primary.log(DAY_US).commit(&newest, restore).await.unwrap();
    assert!(matches!(done, Outcome::Committed(_)));
    let report = sweep_mirror(&primary, &mirror).await;
    assert_eq!((report.objects_deleted, report.objects_unwitnessed), (0, 1));
    // Once the mirror has the restore, its object is one that is not absorbed.
    replicate(&primary, &mirror, newest.version + 1).await;
    let report = sweep_mirror(&primary, &mirror).await;
    assert_eq!((report.objects_deleted, report.objects_unwitnessed), (0, 0));
    assert_eq!(mirror.view().await.l0.len(), 1);
}
