//! Snapshots: what a pin keeps, what it does not, and how it goes.
#![allow(clippy::unwrap_used, clippy::panic)]

mod common;

use std::sync::Arc;

use bytes::Bytes;
use common::{World, name};
use stele_compact::DeletionRefused;
use stele_model::time::{DAY_US, HOUR_US, MINUTE_US, SECOND_US};
use stele_model::{Clock, ErrorKind};
use stele_protect::{
    Check, Ladder, LadderPlan, NewSnapshot, SnapshotError, create, drop_snapshot, follow_ladder,
    ladder_plan, list, undelete, verify_snapshot,
};
use stele_store::keys;
use stele_table::{AsOf, Content, Error, PinState, Why, deletion_frozen, set_deletion_frozen};
use stele_testkit::CountingStore;

/// Whether every file of the version is there.
fn is_whole(world: &World, state: &stele_table::TableState) -> bool {
    let mut files = state.files.values();
    files.all(|file| world.has(&keys::data_file(&file.path)))
}

#[tokio::test]
async fn a_pinned_version_outlives_the_history_and_what_it_does_not_need_goes() {
    let mut world = World::new();
    world.work(9).await;
    let first = world.pin("first").await.unwrap();
    let first_state = world.state().await;
    assert_eq!(first.content, Content::of(&first_state));
    assert!(first.content.samples.rows > 0 && first.content.m60.files > 0);
    world.work(30).await;
    let second = world.pin("second").await.unwrap();
    let second_state = world.state().await;
    world.work(50).await;
    world.compactor.settle(&common::ALL, &|_| ()).await.unwrap();
    world.clock.advance(3 * DAY_US);
    // A commit within the history, after the old ones.
    world.absorb().await;
    let report = world.sweep().await;
    assert_eq!(report.pins, 2);
    assert!(
        report.files_deleted > 0 && report.files_pinned > 0,
        "{report:?}"
    );
    assert!(
        report.entries_deleted > 0 && report.entries_pinned > 0,
        "{report:?}"
    );
    assert!(
        report.ledger_deleted > 0 && report.ledger_pinned > 0,
        "{report:?}"
    );
    for (pin, state) in [(&first, &first_state), (&second, &second_state)] {
        let at = AsOf::Pin(pin.name.clone());
        assert_eq!(world.log().as_of(&at).await.unwrap(), *state);
        let at = AsOf::Version(pin.version);
        assert_eq!(world.log().as_of(&at).await.unwrap(), *state);
        assert!(is_whole(&world, state), "{}", pin.name);
    }
    // Between the pins nothing is left, and a second sweep finds nothing more to do.
    let between = AsOf::Version(first.version + 1);
    let error = world.log().as_of(&between).await.unwrap_err();
    assert!(matches!(error, Error::Swept { .. }), "{error}");
    let again = world.sweep().await;
    let deleted = (
        again.files_deleted,
        again.entries_deleted,
        again.ledger_deleted,
    );
    assert_eq!(deleted, (0, 0, 0));
    assert_eq!(again.files_pinned, report.files_pinned);
    let verified = world.verify().await;
    assert_eq!(verified.findings, []);
}

#[tokio::test]
async fn a_dropped_pin_protects_for_the_history_and_then_everything_of_it_goes() {
    let mut world = World::new();
    world.work(9).await;
    let pin = world.pin("noon").await.unwrap();
    let state = world.state().await;
    world.work(60).await;
    world.clock.advance(2 * DAY_US);
    world.absorb().await;
    let until_us = drop_snapshot(&world.log(), &pin.name, &world.clock).await;
    let until_us = until_us.unwrap();
    assert_eq!(until_us, world.clock.now_us() + DAY_US);
    world.clock.advance(DAY_US - SECOND_US);
    // Dropped again, it goes no later.
    let again = drop_snapshot(&world.log(), &pin.name, &world.clock).await;
    assert_eq!(again.unwrap(), until_us);
    let states: Vec<_> = list(&world.log()).await.unwrap();
    assert_eq!(states[0].state, PinState::Dropped { until_us });
    assert_eq!(world.sweep().await.pins, 1);
    assert!(is_whole(&world, &state));
    let at = AsOf::Pin(pin.name.clone());
    assert_eq!(world.log().as_of(&at).await.unwrap(), state);
    // A quarter of the history is for whoever undeletes it in the last moment.
    world.clock.advance(DAY_US / 4);
    assert_eq!(world.sweep().await.pins, 1);
    world.clock.advance(SECOND_US);
    let report = world.sweep().await;
    assert_eq!((report.pins, report.pins_deleted), (0, 1), "{report:?}");
    assert!(report.files_deleted > 0, "{report:?}");
    assert!(!is_whole(&world, &state) && !world.has(&pin.name.key()));
    // The name is free only when the mark is gone, too.
    let taken = world.pin("noon").await.unwrap_err();
    assert!(
        matches!(taken, SnapshotError::NameDropped { .. }),
        "{taken}"
    );
    world.clock.advance(DAY_US / 4);
    world.sweep().await;
    assert!(!world.has(&pin.name.mark_key()));
    world.pin("noon").await.unwrap();
    let verified = world.verify().await;
    assert_eq!(verified.findings, []);
}

#[tokio::test]
async fn an_undeleted_pin_protects_again_and_a_late_undelete_is_refused() {
    let mut world = World::new();
    world.work(9).await;
    let pin = world.pin("noon").await.unwrap();
    let state = world.state().await;
    let log = world.log();
    let error = undelete(&log, &pin.name).await.unwrap_err();
    assert!(matches!(error, SnapshotError::NotDropped { .. }), "{error}");
    drop_snapshot(&log, &pin.name, &world.clock).await.unwrap();
    world.clock.advance(DAY_US - MINUTE_US);
    undelete(&log, &pin.name).await.unwrap();
    world.work(40).await;
    world.clock.advance(9 * DAY_US);
    assert_eq!(world.sweep().await.pins, 1);
    assert!(is_whole(&world, &state));
    drop_snapshot(&log, &pin.name, &world.clock).await.unwrap();
    world.clock.advance(DAY_US);
    let error = undelete(&log, &pin.name).await.unwrap_err();
    assert!(matches!(error, SnapshotError::OverSince { .. }), "{error}");
    assert_eq!(error.kind(), ErrorKind::NotFound);
}

#[tokio::test]
async fn the_same_snapshot_again_is_the_same_and_another_of_its_name_is_refused() {
    let mut world = World::new();
    let none = world.pin("noon").await.unwrap_err();
    assert_eq!(none.kind(), ErrorKind::NotFound);
    world.work(3).await;
    let pin = world.pin("noon").await.unwrap();
    world.clock.advance(HOUR_US);
    assert_eq!(world.pin("noon").await.unwrap(), pin);
    world.work(1).await;
    let error = world.pin("noon").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Conflict);
    let version = format!("version {}", pin.version);
    assert!(error.to_string().contains(&version), "{error}");
}

#[tokio::test]
async fn what_is_wrong_with_a_snapshot_is_found_and_the_snapshot_is_named() {
    let mut world = World::new();
    world.work(9).await;
    let pin = world.pin("noon").await.unwrap();
    let state = world.state().await;
    world.work(50).await;
    world.clock.advance(2 * DAY_US);
    world.absorb().await;
    world.sweep().await;
    let now = world.state().await;
    let only_pinned = state
        .files
        .keys()
        .find(|path| !now.files.contains_key(*path));
    let file = keys::data_file(only_pinned.unwrap());
    let ledger = state.ledger.recent[0].object.key.clone();
    let entry = keys::log_entry(pin.version);
    let clean = verify_snapshot(&world.log(), &pin.name, &|_| ())
        .await
        .unwrap();
    assert_eq!(clean.findings, []);
    assert_eq!(clean.snapshot_files, state.files.len() as u64);
    for key in [&file, &ledger, &entry] {
        let path = world.store.path(key);
        let whole = world.memory.bytes(&path).unwrap();
        let mut flipped = whole.to_vec();
        flipped[whole.len() / 2] ^= 1;
        world.memory.damage(&path, Bytes::from(flipped));
        let one = verify_snapshot(&world.log(), &pin.name, &|_| ()).await;
        for report in [world.verify().await, one.unwrap()] {
            let names = |f: &stele_protect::Finding| {
                f.check == Check::Snapshots && f.to_string().contains("noon")
            };
            assert!(
                report.findings.iter().any(names),
                "{key}: {:?}",
                report.findings
            );
        }
        world.memory.damage(&path, whole);
    }
    assert!(world.verify().await.is_clean());
}

#[tokio::test]
async fn a_damaged_pin_stops_every_deletion_until_it_is_dropped() {
    let mut world = World::new();
    world.work(30).await;
    let pin = world.pin("noon").await.unwrap();
    world.clock.advance(3 * DAY_US);
    world.absorb().await;
    let path = world.store.path(&pin.name.key());
    let mut bytes = world.memory.bytes(&path).unwrap().to_vec();
    bytes[40] ^= 1;
    world.memory.damage(&path, Bytes::from(bytes));
    let before = world.memory.keys("");
    let error = world.try_sweep().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt);
    let gone = |key: &&object_store::path::Path| world.memory.bytes(key).is_none();
    assert_eq!(before.iter().filter(gone).count(), 0);
    let report = world.verify().await;
    let named = |f: &stele_protect::Finding| f.object == pin.name.key();
    assert!(report.findings.iter().any(named), "{:?}", report.findings);
    assert!(world.log().as_of(&AsOf::Pin(name("noon"))).await.is_err());
    drop_snapshot(&world.log(), &pin.name, &world.clock)
        .await
        .unwrap();
    // The damage froze deletion; whoever dropped the pin has seen it, and resumes.
    let refused = world.sweep().await.refused;
    assert!(matches!(refused, Some(DeletionRefused::Frozen { .. })));
    let now_us = world.clock.now_us();
    let resumed = set_deletion_frozen(&world.store, None, now_us).await;
    resumed.unwrap();
    world.clock.advance(DAY_US);
    let refused = world.sweep().await.refused;
    assert!(
        matches!(refused, Some(DeletionRefused::DamagedPin { .. })),
        "within the grace: {refused:?}"
    );
    assert_eq!(deletion_frozen(&world.store).await.unwrap(), None);
    assert_eq!(before.iter().filter(gone).count(), 0);
    world.clock.advance(DAY_US / 4);
    assert_eq!(world.sweep().await.pins_deleted, 1);
}

#[tokio::test]
async fn a_pin_of_a_version_superseded_long_ago_is_never_acknowledged_and_stops_no_sweep() {
    let mut world = World::new();
    world.work(3).await;
    // What a process would store that stood still between its two requests.
    let state = world.state().await;
    let why = stele_table::Why::Manual;
    let pin = stele_table::Pin::new(name("late"), &state, world.clock.now_us(), why, "by a test");
    let pin = pin.unwrap();
    world.work(30).await;
    world.clock.advance(3 * DAY_US);
    world.absorb().await;
    world.sweep().await;
    assert!(!world.has(&keys::log_entry(pin.version + 1)));
    let (key, bytes) = (pin.name.key(), pin.encode().unwrap());
    world.store.put_new(&key, bytes).await.unwrap();
    let report = world.sweep().await;
    assert_eq!((report.pins, report.pins_deleted), (0, 1), "{report:?}");
    assert!(!world.has(&pin.name.key()) && world.has(&pin.name.mark_key()));
    let taken = world.pin("late").await.unwrap_err();
    assert!(
        matches!(taken, SnapshotError::NameDropped { .. }),
        "{taken}"
    );
    let verified = world.verify().await;
    assert_eq!(verified.findings, []);
}

#[tokio::test]
async fn a_time_and_a_version_within_the_history_are_read_as_they_were() {
    let mut world = World::new();
    let mut states = Vec::new();
    for _ in 0..30 {
        world.absorb().await;
        states.push((world.clock.now_us(), world.state().await));
        world.clock.advance(10 * MINUTE_US);
    }
    for (at_us, state) in &states {
        for at in [
            AsOf::Time(*at_us),
            AsOf::Time(at_us + 10 * MINUTE_US - 1),
            AsOf::Version(state.version),
        ] {
            assert_eq!(world.log().as_of(&at).await.unwrap(), *state, "{at}");
        }
    }
    let (last_us, last) = states.last().unwrap();
    let now = world.log().as_of(&AsOf::Time(last_us + DAY_US)).await;
    assert_eq!(now.unwrap(), *last);
    let log = world.log();
    let early = log.as_of(&AsOf::Time(states[0].0 - 1)).await.unwrap_err();
    assert!(
        matches!(early, Error::SweptTime { oldest: 0, .. }),
        "{early}"
    );
    let future = log.as_of(&AsOf::Version(last.version + 1)).await;
    let future = future.unwrap_err();
    assert!(matches!(future, Error::FutureVersion { .. }), "{future}");
    assert_eq!(future.kind(), ErrorKind::NotFound);
    world.clock.advance(DAY_US);
    let old = log.as_of(&AsOf::Version(states[3].1.version)).await;
    let old = old.unwrap_err();
    let newest = last.version;
    assert!(
        matches!(old, Error::Swept { oldest, .. } if oldest == newest),
        "{old}"
    );
    world.pin("noon").await.unwrap();
    let none = log.as_of(&AsOf::Pin(name("nine"))).await.unwrap_err();
    assert_eq!(none.to_string(), "no snapshot nine: there are noon");
}

#[tokio::test]
async fn a_ladder_keeps_the_newest_of_each_rung_and_sweep_takes_the_rest() {
    let mut world = World::new();
    world.work(1).await;
    world.pin("by-hand").await.unwrap();
    let ladder = Ladder {
        hourly: 3,
        daily: 2,
        weekly: 1,
        monthly: 0,
    };
    for hour in 0..80 {
        world.absorb().await;
        let (log, other) = (world.log(), world.log());
        let plan = ladder_plan(&log, &ladder, world.clock.now_us()).await;
        let plan = plan.unwrap();
        let taken = follow_ladder(&log, &plan, &world.clock).await.unwrap();
        assert_eq!(taken.len(), plan.create.len(), "hour {hour}");
        // Another server with the same plan a moment later.
        follow_ladder(&other, &plan, &world.clock).await.unwrap();
        let now = world.clock.now_us();
        let again = ladder_plan(&log, &ladder, now).await.unwrap();
        assert_eq!(again, LadderPlan::default(), "hour {hour}");
        if hour % 7 == 0 {
            world.sweep().await;
        }
        world.clock.advance(HOUR_US);
    }
    let listed = list(&world.log()).await.unwrap();
    let live = |why| {
        let of = listed.iter().filter(|one| one.state == PinState::Live);
        of.filter(|one| one.pin.as_ref().unwrap().why == why)
            .count()
    };
    let counts = [Why::Manual, Why::Hourly, Why::Daily, Why::Weekly].map(live);
    assert_eq!(counts, [1, 3, 2, 1]);
    // Dropped ones are there for a day and a quarter.
    assert!((20..50).contains(&listed.len()), "{}", listed.len());
    assert_eq!(world.verify().await.findings, []);
}

#[tokio::test]
async fn a_snapshot_costs_the_same_few_requests_whatever_the_table_holds() {
    let mut world = World::new();
    world.work(2).await;
    let mut costs = Vec::new();
    for text in ["small", "large"] {
        let store = CountingStore::new(world.store.tier().object_store());
        let counted = world.store.tier().over(Arc::new(store.clone()));
        let log = common::log(&counted.tenant(world.store.tenant()), &world.clock);
        let new = NewSnapshot {
            name: name(text),
            why: Why::Manual,
            note: String::new(),
        };
        create(&log, &new, &world.clock).await.unwrap();
        costs.push(store.take().len());
        world.work(18).await;
    }
    // Twice the mark, the head and two entries, the pin there and back, and three LISTs.
    assert_eq!(costs, [10, 10]);
}
