//! What sweep deletes, what it keeps, and when it refuses.
#![allow(clippy::unwrap_used, clippy::panic)]

mod common;

use std::sync::Arc;

use bytes::Bytes;
use common::{ALL, DAY0, MINUTE, World, hour, sample};
use stele_compact::{Compactor, DeletionRefused, Error, Options, reader};
use stele_format::batch;
use stele_model::time::{DAY_US, HOUR_US, SECOND_US};
use stele_model::{Clock, ErrorKind};
use stele_table::{FileKind, set_deletion_frozen};
use stele_testkit::{CountingStore, Request};

/// The keys below a part of the tenant, without the part.
fn keys(world: &World, part: &str) -> Vec<String> {
    let prefix = world.store.path(part).to_string();
    let keys = world.memory.keys(&format!("{prefix}/"));
    keys.iter()
        .map(|key| key.as_ref()[prefix.len() + 1..].to_owned())
        .collect()
}

fn data_files(world: &World) -> usize {
    keys(world, "table")
        .iter()
        .filter(|key| key.starts_with("resolution="))
        .count()
}

#[tokio::test]
async fn consumed_objects_go_after_the_grace_and_not_before() {
    let mut world = World::new();
    let compactor = world.compactor(1);
    world.accept(hour("cpu", 9)).await;
    world.accept(hour("cpu", 10)).await;
    compactor.absorb(&ALL).await.unwrap();
    let young = world.accept(hour("cpu", 8)).await;
    world.clock.advance(15 * MINUTE - SECOND_US);
    let report = compactor.sweep(&ALL).await.unwrap();
    assert_eq!((report.objects_deleted, report.objects_waiting), (0, 2));
    world.clock.advance(SECOND_US);
    assert_eq!(compactor.sweep(&ALL).await.unwrap().objects_deleted, 2);
    assert_eq!(keys(&world, "l0"), [young.to_string()]);
    assert!(world.state().await.unswept.is_empty());
    world.check("after the sweep").await;
}

#[tokio::test]
async fn ghosts_go_a_grace_after_they_were_consumed_and_unabsorbed_objects_stay() {
    let mut world = World::new();
    let compactor = world.compactor(1);
    let (a, b) = (batch(hour("cpu", 9)), batch(hour("mem", 9)));
    let (c, d) = (batch(hour("cpu", 7)), batch(hour("mem", 7)));
    for known in [&a, &b, &c, &d] {
        world.expected.add(&known.rows);
    }
    world
        .put(&[a.clone(), b.clone(), c.clone(), d.clone()])
        .await;
    compactor.absorb(&ALL).await.unwrap();
    world.put(std::slice::from_ref(&a)).await;
    world.put(&[c, d]).await;
    world.clock.advance(HOUR_US);
    let report = world.compactor(2).sweep(&ALL).await.unwrap();
    assert_eq!((report.objects_deleted, report.objects_waiting), (1, 0));
    // A reader that begins now reads the ghosts; it has the whole grace for it.
    let view = world.view().await;
    assert_eq!(view.l0.len(), 2);
    compactor.absorb(&ALL).await.unwrap();
    let fresh = world
        .accept_many(vec![hour("cpu", 6), hour("cpu", 5)])
        .await;
    world.clock.advance(15 * MINUTE - SECOND_US);
    let report = world.compactor(3).sweep(&ALL).await.unwrap();
    assert_eq!((report.objects_deleted, report.objects_waiting), (0, 2));
    reader::all_samples(&world.store, &view).await.unwrap();
    world.clock.advance(SECOND_US);
    let report = world.compactor(4).sweep(&ALL).await.unwrap();
    assert_eq!((report.objects_deleted, report.objects_waiting), (2, 0));
    assert_eq!(keys(&world, "l0"), [fresh.to_string()]);
    world.check("after the sweep").await;
}

#[tokio::test]
async fn superseded_files_go_after_the_history_and_live_ones_stay() {
    let mut world = World::new();
    let compactor = world.compactor(1);
    for n in 0..5 {
        world
            .accept(sample("cpu", DAY0 + 9 * HOUR_US + n, 1.0))
            .await;
        compactor.settle(&ALL, &|_| ()).await.unwrap();
    }
    let stored = data_files(&world);
    world.clock.advance(DAY_US - SECOND_US);
    let report = compactor.sweep(&ALL).await.unwrap();
    assert_eq!((report.files_deleted, report.pins), (0, 0));
    world.clock.advance(2 * SECOND_US);
    let report = compactor.sweep(&ALL).await.unwrap();
    assert_eq!(report.files_deleted as usize, stored - 4);
    assert_eq!(data_files(&world), 4);
    assert!(world.state().await.removed.is_empty());
    world.check("after the sweep").await;
}

#[tokio::test]
async fn who_stood_still_for_longer_than_the_history_learns_that_its_version_has_expired() {
    let mut world = World::new();
    let compactor = world.compactor(1);
    let mut old = None;
    for n in 0..30 {
        world
            .accept(sample("cpu", DAY0 + 9 * HOUR_US + n, 1.0))
            .await;
        compactor.absorb(&ALL).await.unwrap();
        if n == 0 {
            old = Some(world.state().await);
        }
    }
    let (old, newest) = (old.unwrap(), world.state().await);
    world.clock.advance(DAY_US + SECOND_US);
    compactor.sweep(&ALL).await.unwrap();
    let log = world.log(DAY_US);
    assert_eq!(log.ledger_rows(&newest).await.unwrap().len(), 30);
    let error = log.ledger_rows(&old).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound, "{error}");
    assert!(error.to_string().contains("has expired"), "{error}");
    // What the newest version names has not expired: it is missing.
    for key in keys(&world, "ledger") {
        let key = world.store.path(&format!("ledger/{key}"));
        world.memory.lose(&key);
    }
    let error = world.log(DAY_US).ledger_rows(&newest).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt, "{error}");
}

#[tokio::test]
async fn what_cannot_be_read_as_a_pin_stops_every_deletion() {
    let mut world = World::new();
    let compactor = world.compactor(1);
    for n in 0..30 {
        world
            .accept(sample("cpu", DAY0 + 9 * HOUR_US + n, 1.0))
            .await;
        compactor.absorb(&ALL).await.unwrap();
    }
    compactor.settle(&ALL, &|_| ()).await.unwrap();
    world.clock.advance(3 * DAY_US);
    for key in ["pins/noon.json", "pins/Noon.json", "pins/deep/noon.json"] {
        let put = world.store.put_new(key, Bytes::from_static(b"{}")).await;
        put.unwrap();
        let before = world.memory.keys("");
        let error = compactor.sweep(&ALL).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corrupt, "{key}: {error}");
        let is_gone = |key: &object_store::path::Path| world.memory.bytes(key).is_none();
        assert!(!before.iter().any(is_gone), "{key}");
        world.memory.lose(&world.store.path(key));
        // That it was found is not forgotten: somebody has to look, and say so.
        let refused = compactor.sweep(&ALL).await.unwrap();
        assert!(matches!(
            refused.refused,
            Some(DeletionRefused::Frozen { .. })
        ));
        set_deletion_frozen(&world.store, None, world.clock.now_us())
            .await
            .unwrap();
    }
    assert!(compactor.sweep(&ALL).await.unwrap().files_deleted > 0);
}

/// The commit that supersedes a file can land long after the time that it says.
#[tokio::test]
async fn the_history_of_a_file_begins_when_its_removal_landed() {
    let mut world = World::new();
    let compactor = world.compactor(1);
    for n in 0..4 {
        world
            .accept(sample("cpu", DAY0 + 9 * HOUR_US + n, 1.0))
            .await;
        compactor.absorb(&ALL).await.unwrap();
    }
    let before = world.view().await;
    // A seal as of now, stored a day later.
    let clock = stele_testkit::ManualClock::new(world.clock.now_us());
    world.clock.advance(DAY_US);
    let late = stele_compact::Compactor::new(
        world.store.clone(),
        std::sync::Arc::new(world.log(DAY_US)),
        Options::default(),
        std::sync::Arc::new(clock),
        std::sync::Arc::new(stele_testkit::SeededIds::new(5)),
    );
    late.seal(&ALL, true).await.unwrap();
    assert!(!world.state().await.removed.is_empty());
    world.clock.advance(MINUTE);
    // By their own time, the sealed files were superseded a day ago; by the store's, just now.
    let report = compactor.sweep(&ALL).await.unwrap();
    let waiting = before.state.files.len() as u64;
    assert_eq!(
        (report.files_waiting, report.files_unwitnessed),
        (waiting, 0)
    );
    for file in before.state.files.values() {
        let key = stele_store::keys::data_file(&file.path);
        assert!(world.store.get_opt(&key).await.unwrap().is_some(), "{key}");
    }
    world.clock.advance(DAY_US);
    assert!(compactor.sweep(&ALL).await.unwrap().files_deleted > 0);
}

#[tokio::test]
async fn old_log_entries_and_heads_go_and_the_table_still_loads_without_heads() {
    let mut world = World::new();
    let compactor = world.compactor(1);
    for n in 0..50 {
        world
            .accept(sample("cpu", DAY0 + 9 * HOUR_US + n, 1.0))
            .await;
        compactor.absorb(&ALL).await.unwrap();
    }
    world.clock.advance(DAY_US + HOUR_US);
    // A commit within the history, after the old ones.
    world.accept(sample("cpu", DAY0 + 8 * HOUR_US, 1.0)).await;
    compactor.absorb(&ALL).await.unwrap();
    let report = compactor.sweep(&ALL).await.unwrap();
    assert!(report.entries_deleted >= 20, "{report:?}");
    assert!(report.heads_deleted >= 20, "{report:?}");
    let first = keys(&world, "table/_delta_log").into_iter().next().unwrap();
    assert!(first.as_str() >= "00000000000000000020", "{first}");
    world.check("after the sweep").await;
    let state = world.state().await;
    let by_log = world.log(DAY_US).load_from_log().await.unwrap().unwrap();
    assert_eq!(
        (by_log.version, &by_log.files),
        (state.version, &state.files)
    );
    compactor.settle(&ALL, &|_| ()).await.unwrap();
    world.check("settled after the sweep").await;
}

#[tokio::test]
async fn files_no_entry_ever_named_are_left_alone() {
    let mut world = World::new();
    let compactor = world.compactor(1);
    world.accept(hour("cpu", 9)).await;
    compactor.settle(&ALL, &|_| ()).await.unwrap();
    let orphan = "table/resolution=raw/period=2026-11-22/0123.parquet";
    world
        .store
        .put_new(orphan, Bytes::from_static(b"in flight"))
        .await
        .unwrap();
    world.clock.advance(30 * DAY_US);
    compactor.sweep(&ALL).await.unwrap();
    assert!(world.store.get_opt(orphan).await.unwrap().is_some());
    world.check("after the sweep").await;
}

#[tokio::test]
async fn a_clock_that_disagrees_with_the_store_deletes_nothing() {
    let mut world = World::new();
    world.accept(hour("cpu", 9)).await;
    world.compactor(1).settle(&ALL, &|_| ()).await.unwrap();
    world.clock.advance(DAY_US);
    let before = world.memory.keys("");
    let ahead = stele_testkit::ManualClock::new(world.clock.now_us() + 61 * SECOND_US);
    let compactor = stele_compact::Compactor::new(
        world.store.clone(),
        std::sync::Arc::new(world.log(DAY_US)),
        Options::default(),
        std::sync::Arc::new(ahead),
        std::sync::Arc::new(stele_testkit::SeededIds::new(5)),
    );
    assert!(matches!(
        compactor.sweep(&ALL).await,
        Err(Error::Skew { .. })
    ));
    let after = world.memory.keys("");
    assert!(before.iter().all(|key| after.contains(key)));
}

#[tokio::test]
async fn the_same_rows_sent_again_in_other_batches_survive_the_sweep_of_their_first_file() {
    let mut world = World::new();
    let compactor = world.compactor(1);
    let one = |n: i64| sample("cpu", DAY0 + 9 * HOUR_US + n, 1.0);
    world.accept(one(1)).await;
    world.accept(one(2)).await;
    compactor.settle(&ALL, &|_| ()).await.unwrap();
    world.clock.advance(DAY_US + MINUTE);
    // One batch of both rows: another digest, the same open file.
    let mut both = one(1);
    both.rows.extend(one(2).rows);
    world.accept(both).await;
    compactor.absorb(&ALL).await.unwrap();
    let state = world.state().await;
    let open = state.files_of(FileKind::Open).next().unwrap();
    assert!(open.path.ends_with("-1.parquet"), "{}", open.path);
    compactor.sweep(&ALL).await.unwrap();
    world.check("after the sweep").await;
}

#[tokio::test]
async fn a_marker_goes_when_no_ingestor_accepts_its_key_and_nothing_else_there_does() {
    let mut world = World::new();
    let compactor = world.compactor(1);
    world.accept(hour("cpu", 9)).await;
    compactor.absorb(&ALL).await.unwrap();
    let marker = stele_store::keys::marker(&stele_model::Digest([7; 16]));
    let foreign = "idem/notes.txt";
    for key in [marker.as_str(), foreign] {
        world.store.put_new(key, "{}".into()).await.unwrap();
    }
    world.clock.advance(2 * DAY_US - SECOND_US);
    assert_eq!(compactor.sweep(&ALL).await.unwrap().markers_deleted, 0);
    world.clock.advance(SECOND_US);
    assert_eq!(compactor.sweep(&ALL).await.unwrap().markers_deleted, 1);
    assert_eq!(keys(&world, "idem"), ["notes.txt"]);
}

/// A table of which all that is old was swept, and the compactor that did it, whose requests are
/// counted.
async fn swept() -> (World, Compactor, CountingStore) {
    let mut world = World::new();
    let requests = CountingStore::new(Arc::new(world.memory.clone()));
    let compactor = world.compactor_over(Arc::new(requests.clone()), 1);
    for n in 0..50 {
        world
            .accept(sample("cpu", DAY0 + 9 * HOUR_US + n, 1.0))
            .await;
        compactor.absorb(&ALL).await.unwrap();
    }
    world.clock.advance(DAY_US + HOUR_US);
    let report = compactor.sweep(&ALL).await.unwrap();
    assert!(
        report.entries_deleted > 0 && report.ledger_deleted > 0,
        "{report:?}"
    );
    (world, compactor, requests)
}

#[tokio::test]
async fn a_sweep_that_finds_nothing_old_loads_no_old_version() {
    let (_world, compactor, requests) = swept().await;
    assert!(!requests.take().is_empty());
    let report = compactor.sweep(&ALL).await.unwrap();
    assert_eq!((report.entries_deleted, report.ledger_deleted), (0, 0));
    let shapes: Vec<String> = requests.take().iter().map(Request::shape).collect();
    let is_old = |shape: &&String| shape.starts_with("GET") && shape.contains("checkpoint");
    assert_eq!(shapes.iter().find(is_old), None, "{shapes:?}");
}

/// What a writer left that slept through a sweep, and nothing else to delete.
async fn ghost(world: &World) -> String {
    let ghost = stele_store::keys::log_entry(3);
    let put = world.store.put_new(&ghost, Bytes::from_static(b"{}")).await;
    put.unwrap();
    world.clock.advance(DAY_US + HOUR_US);
    ghost
}

#[tokio::test]
async fn an_entry_below_the_history_goes_though_nothing_else_does() {
    let (world, compactor, _) = swept().await;
    let ghost = ghost(&world).await;
    let report = compactor.sweep(&ALL).await.unwrap();
    assert_eq!(report.entries_deleted, 1, "{report:?}");
    assert!(world.store.get_opt(&ghost).await.unwrap().is_none());
    world.check("after the sweep").await;
}

#[tokio::test]
async fn an_old_version_that_cannot_be_loaded_stops_every_deletion() {
    let (world, compactor, _) = swept().await;
    let ghost = ghost(&world).await;
    let log = world.store.path(stele_store::keys::LOG).to_string();
    for key in world.memory.keys(&log) {
        if key.as_ref().ends_with(".checkpoint.parquet") {
            world.memory.damage(&key, Bytes::from_static(b"{}"));
        }
    }
    let error = compactor.sweep(&ALL).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt, "{error}");
    assert!(world.store.get_opt(&ghost).await.unwrap().is_some());
    let frozen = stele_table::deletion_frozen(&world.store).await.unwrap();
    assert!(frozen.is_some());
}
