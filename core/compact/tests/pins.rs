//! Pins and sweep: what a pin stops, when it goes itself, and who looks again before it does.
#![allow(clippy::unwrap_used, clippy::panic)]

mod common;

use std::sync::Arc;

use bytes::Bytes;
use common::tiers::{
    copy, has, lists_markers, pin, replicate, sweep, sweep_mirror, sweep_that_meets, told, with,
    with_garbage,
};
use common::{ALL, DAY0, MINUTE, World, sample};
use stele_compact::{DeletionRefused, SweepReport};
use stele_format::content_digest;
use stele_model::time::{DAY_US, HOUR_US, SECOND_US};
use stele_model::{Clock, Digest, ErrorKind};
use stele_store::keys;
use stele_table::{Mark, Pin, TableState, Why};
use stele_testkit::{Fault, FaultWorld, KeyClass, Operation, Plan};

/// Marks a pin as dropped now.
async fn drop_pin(world: &World, name: &str) {
    let pin = world.memory.bytes(&world.store.path(&keys::pin(name)));
    let mark = Mark {
        pin: pin.map_or_else(Digest::default, |bytes| content_digest(&bytes)),
        marked_us: world.clock.now_us(),
        withdrawn: false,
    };
    let (key, bytes) = (keys::pin_mark(name), mark.encode().unwrap());
    world.store.put_new(&key, bytes).await.unwrap();
}

fn lose(world: &World, key: &str) {
    world.memory.lose(&world.store.path(key));
}

/// Stores a pin of `state`, whatever the table is by now.
async fn pin_of(world: &World, state: &TableState, name: &str) {
    let now_us = world.clock.now_us();
    let pin = Pin::new(name.parse().unwrap(), state, now_us, Why::Manual, "");
    let bytes = pin.unwrap().encode().unwrap();
    world.store.put_new(&keys::pin(name), bytes).await.unwrap();
}

async fn swept_alone(world: &World) -> SweepReport {
    world.compactor(70).sweep(&ALL).await.unwrap()
}

#[tokio::test]
async fn a_dropped_pin_goes_a_history_and_a_quarter_after_its_drop() {
    let world = with_garbage().await;
    pin(&world, &world, "noon").await;
    drop_pin(&world, "noon").await;
    world.clock.advance(DAY_US + DAY_US / 4 - SECOND_US);
    let report = swept_alone(&world).await;
    assert_eq!((report.pins, report.pins_deleted), (1, 0));
    world.clock.advance(SECOND_US);
    let report = swept_alone(&world).await;
    assert_eq!((report.pins, report.pins_deleted), (0, 1));
    // The mark keeps the name for as long as a late delete of the pin could land.
    assert!(has(&world, &keys::pin_mark("noon")));
    world.clock.advance(DAY_US / 4 - SECOND_US);
    swept_alone(&world).await;
    assert!(has(&world, &keys::pin_mark("noon")));
    world.clock.advance(SECOND_US);
    swept_alone(&world).await;
    assert!(!has(&world, &keys::pin_mark("noon")));
}

#[tokio::test]
async fn a_damaged_mark_stops_the_sweep_though_its_pin_is_whole() {
    let world = with_garbage().await;
    pin(&world, &world, "noon").await;
    let key = keys::pin_mark("noon");
    world.store.put_new(&key, "{}".into()).await.unwrap();
    let error = world.compactor(70).sweep(&ALL).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt, "{error}");
}

/// A table that has gone on for days from a version that was swept, and that version.
async fn gone_on() -> (World, TableState) {
    let mut world = World::new();
    let compactor = world.compactor(1);
    let mut old = None;
    for n in 0..50 {
        let rows = sample("cpu", DAY0 + 9 * HOUR_US + n, 1.0);
        world.accept(rows).await;
        compactor.absorb(&ALL).await.unwrap();
        if n == 5 {
            old = Some(world.state().await.as_ref().clone());
        }
    }
    world.clock.advance(DAY_US + HOUR_US);
    (world, old.unwrap())
}

#[tokio::test]
async fn a_pin_that_nobody_can_have_acknowledged_is_marked_before_it_goes() {
    let (world, old) = gone_on().await;
    swept_alone(&world).await;
    pin_of(&world, &old, "late").await;
    // A dry run counts it, and writes nothing.
    let plan = world.compactor(70).sweep_plan().await.unwrap();
    assert_eq!((plan.kept.pins, plan.pins.objects), (0, 1));
    assert!(!has(&world, &keys::pin_mark("late")));
    // The first sweep marks it; only what is marked goes.
    let report = swept_alone(&world).await;
    assert!(has(&world, &keys::pin_mark("late")), "{report:?}");
    assert_eq!((report.pins, report.pins_deleted), (0, 1));
    assert!(!has(&world, &keys::pin("late")));
}

#[tokio::test]
async fn a_pin_that_another_tier_has_is_not_judged_by_the_times_of_this_one() {
    let (primary, old) = gone_on().await;
    let mirror = primary.beside();
    replicate(&primary, &mirror, primary.state().await.version).await;
    swept_alone(&primary).await;
    pin_of(&primary, &old, "late").await;
    copy(&primary, &mirror, &keys::pin("late")).await;
    let report = sweep(&primary, &mirror).await;
    assert_eq!((&report.refused, report.pins_deleted), (&None, 0));
    assert!(has(&primary, &keys::pin("late")));
    assert!(!has(&primary, &keys::pin_mark("late")));
    // Here alone, it is.
    lose(&mirror, &keys::pin("late"));
    assert_eq!(sweep(&primary, &mirror).await.pins_deleted, 1);
    // Nor does a tier that may not commit judge.
    pin_of(&mirror, &old, "later").await;
    let told = told(false, &[("primary", &primary)]);
    let _ = with(&mirror, told).sweep(&ALL).await;
    assert!(has(&mirror, &keys::pin("later")));
    assert!(!has(&mirror, &keys::pin_mark("later")));
}

#[tokio::test]
async fn a_pin_of_another_tier_that_loads_nowhere_stops_the_sweep_unless_nobody_counts_on_it() {
    let (primary, old) = gone_on().await;
    let mirror = primary.beside();
    replicate(&primary, &mirror, primary.state().await.version).await;
    primary.clock.advance(DAY_US + HOUR_US);
    sweep(&primary, &mirror).await;
    sweep_mirror(&primary, &mirror).await;
    for world in [&primary, &mirror] {
        assert!(!has(world, &keys::log_entry(old.version)));
    }
    pin_of(&mirror, &old, "late").await;
    let report = sweep(&primary, &mirror).await;
    assert_eq!((report.refused, report.pins), (None, 0));
    // One of a version that neither log ever had, which somebody may have been told of.
    let mut other = mirror.state().await.as_ref().clone();
    other.entry_digest = Digest([9; 16]);
    pin_of(&mirror, &other, "rogue").await;
    let report = sweep(&primary, &mirror).await;
    match report.refused {
        Some(DeletionRefused::Unreadable { tier, error }) => {
            assert_eq!(tier.as_deref(), Some("mirror"));
            assert!(error.contains("rogue"), "{error}");
        }
        other => panic!("{other:?}"),
    }
}

/// A primary and a mirror with the table of the primary, which lacks an entry: what was pinned does
/// not load there, and the newest version does.
async fn with_a_gap() -> (World, World, TableState) {
    let mut primary = World::new();
    let mirror = primary.beside();
    let compactor = primary.compactor(1);
    let mut pinned = None;
    for n in 0..60 {
        let rows = sample("cpu", DAY0 + 9 * HOUR_US + n, 1.0);
        primary.accept(rows).await;
        compactor.absorb(&ALL).await.unwrap();
        if n == 30 {
            pinned = Some(primary.state().await.as_ref().clone());
            pin(&primary, &primary, "noon").await;
        }
    }
    replicate(&primary, &mirror, primary.state().await.version).await;
    lose(&primary, &keys::log_entry(25));
    (primary, mirror, pinned.unwrap())
}

#[tokio::test]
async fn a_pin_that_loads_on_another_tier_alone_is_kept_by_that() {
    let (primary, mirror, pinned) = with_a_gap().await;
    copy(&primary, &mirror, &keys::pin("noon")).await;
    primary.clock.advance(3 * DAY_US);
    let report = sweep(&primary, &mirror).await;
    assert_eq!(report.refused, None);
    for path in pinned.files.keys() {
        assert!(has(&primary, &keys::data_file(path)), "{path}");
    }
}

#[tokio::test]
async fn a_pin_that_does_not_load_here_and_is_nowhere_else_is_an_error() {
    let (primary, mirror, _) = with_a_gap().await;
    let sweep = async || {
        let compactor = with(&primary, told(true, &[("mirror", &mirror)]));
        compactor.sweep_plan().await
    };
    let error = sweep().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound, "{error}");
    // Another pin there is no answer.
    pin(&mirror, &mirror, "other").await;
    let error = sweep().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound, "{error}");
}

#[tokio::test]
async fn a_pin_that_the_log_of_the_other_tier_does_not_reach_is_an_error_here() {
    let (primary, _, _) = with_a_gap().await;
    let mirror = primary.beside();
    copy(&primary, &mirror, &keys::pin("noon")).await;
    replicate(&primary, &mirror, 20).await;
    let compactor = with(&primary, told(true, &[("mirror", &mirror)]));
    let error = compactor.sweep_plan().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound, "{error}");
}

#[tokio::test]
async fn a_pin_of_another_tier_that_loads_here_alone_is_kept_by_this_log() {
    let (gone, whole, pinned) = with_a_gap().await;
    let told = told(true, &[("gone", &gone)]);
    let plan = with(&whole, told).sweep_plan().await.unwrap();
    assert_eq!((&plan.refused, plan.kept.pins), (&None, 1));
    assert!(!pinned.files.is_empty());
}

#[tokio::test]
async fn a_pin_of_another_tier_that_cannot_be_loaded_now_stops_the_sweep() {
    let (gone, whole, _) = with_a_gap().await;
    // It would load there.
    copy(&whole, &gone, &keys::log_entry(25)).await;
    let (get, class) = (Operation::Get, KeyClass::Checkpoint);
    // The third: the newest version is loaded by a hint and a checkpoint.
    let plan = Plan::none().with("sweep", get, class, 2, Fault::ErrorBefore);
    let faults = FaultWorld::immediate(Arc::new(whole.memory.clone()), plan);
    let compactor = whole.compactor_over(faults.actor("sweep"), 50);
    let told = told(true, &[("gone", &gone)]);
    let compactor = compactor.with_witnesses(Arc::new(told));
    let plan = compactor.sweep_plan().await.unwrap();
    assert_eq!(faults.fired().len(), 1);
    assert!(
        matches!(plan.refused, Some(DeletionRefused::Unreadable { .. })),
        "{plan:?}"
    );
}

#[tokio::test]
async fn a_pin_of_the_newest_version_of_a_mirror_protects_there() {
    let primary = with_garbage().await;
    let mirror = primary.beside();
    replicate(&primary, &mirror, primary.state().await.version).await;
    pin(&mirror, &mirror, "noon").await;
    let report = sweep_mirror(&primary, &mirror).await;
    assert_eq!((report.refused, report.pins), (None, 1));
}

#[tokio::test]
async fn a_pin_that_does_not_load_and_was_replaced_meanwhile_is_not_this_runs() {
    let (primary, _, _) = with_a_gap().await;
    let meets = async || {
        let path = primary.store.path(&keys::pin("noon"));
        primary.memory.damage(&path, Bytes::from_static(b"another"));
    };
    let swept = sweep_that_meets(&primary, lists_markers, meets).await;
    assert_eq!(swept.unwrap().pins, 0);
}

#[tokio::test]
async fn a_damaged_pin_that_was_dropped_stops_every_deletion_for_its_grace() {
    let world = with_garbage().await;
    let put = world.store.put_new("pins/noon.json", "{}".into());
    put.await.unwrap();
    drop_pin(&world, "noon").await;
    let report = swept_alone(&world).await;
    let name = "noon".to_owned();
    assert_eq!(report.refused, Some(DeletionRefused::DamagedPin { name }));
    world.clock.advance(DAY_US + DAY_US / 4);
    assert_eq!(swept_alone(&world).await.pins_deleted, 1);
}

/// A tenant with a dropped pin whose time is over.
async fn with_an_old_drop() -> World {
    let world = with_garbage().await;
    pin(&world, &world, "noon").await;
    drop_pin(&world, "noon").await;
    world.clock.advance(2 * DAY_US);
    world
}

#[tokio::test]
async fn a_dropped_pin_that_is_not_as_it_was_is_left_and_ends_the_run() {
    // Undeleted meanwhile.
    let world = with_an_old_drop().await;
    let meets = async || lose(&world, &keys::pin_mark("noon"));
    let report = sweep_that_meets(&world, lists_markers, meets)
        .await
        .unwrap();
    assert_eq!((report.pins_deleted, report.stopped), (0, true));
    assert!(has(&world, &keys::pin("noon")) && report.files_deleted == 0);
    // Undeleted and dropped again: it has a new grace.
    let world = with_an_old_drop().await;
    let meets = async || {
        lose(&world, &keys::pin_mark("noon"));
        drop_pin(&world, "noon").await;
    };
    let report = sweep_that_meets(&world, lists_markers, meets)
        .await
        .unwrap();
    assert_eq!((report.pins_deleted, report.stopped), (0, true));
    assert!(has(&world, &keys::pin("noon")));
    // Another pin of its name, and that one dropped.
    let world = with_an_old_drop().await;
    let meets = async || {
        let other = Bytes::from_static(b"another pin");
        let mark = Mark {
            pin: content_digest(&other),
            marked_us: 0,
            withdrawn: false,
        };
        let path = |key: String| world.store.path(&key);
        world.memory.damage(&path(keys::pin("noon")), other);
        let mark = mark.encode().unwrap();
        world.memory.damage(&path(keys::pin_mark("noon")), mark);
    };
    let report = sweep_that_meets(&world, lists_markers, meets)
        .await
        .unwrap();
    assert_eq!((report.pins_deleted, report.stopped), (0, true));
    assert!(has(&world, &keys::pin("noon")));
    // Deleted by another sweep.
    let world = with_an_old_drop().await;
    let meets = async || lose(&world, &keys::pin("noon"));
    let report = sweep_that_meets(&world, lists_markers, meets)
        .await
        .unwrap();
    assert_eq!((report.pins_deleted, report.stopped), (0, false));
}

#[tokio::test]
async fn a_dropped_pin_that_was_looked_at_more_than_a_minute_ago_is_left() {
    for (us, deleted) in [(MINUTE, 1), (MINUTE + 1, 0)] {
        let world = with_an_old_drop().await;
        let mut gathered = false;
        let looks_again = |what: &str| {
            gathered |= lists_markers(what);
            gathered && what.starts_with("Get") && what.contains(&keys::pin("noon"))
        };
        let sleeps = async || world.clock.advance(us);
        let report = sweep_that_meets(&world, looks_again, sleeps).await.unwrap();
        assert_eq!(
            (report.pins_deleted, report.stopped),
            (deleted, deleted == 0)
        );
    }
}
