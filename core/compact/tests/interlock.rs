//! What keeps a deletion from happening: a freeze, a question, and a crash at any request.
#![allow(clippy::unwrap_used, clippy::panic)]

mod common;

use std::sync::Arc;

use common::tiers::{lists_markers, sweep_that_meets};
use common::{ALL, DAY0, MINUTE, World, hour, rows, sample};
use stele_compact::{Compactor, DeletionRefused, Error, Options};
use stele_model::time::{DAY_US, HOUR_US, SECOND_US};
use stele_model::{Clock, Day, Digest};
use stele_store::keys;
use stele_table::{
    AsOf, Pin, Retention, Why, deletion_frozen, lift_deletion_freeze, set_deletion_frozen,
    set_retention,
};
use stele_testkit::{Fault, FaultWorld, KeyClass, Operation, Plan};

async fn freeze(world: &World, reason: Option<&str>) {
    let set = set_deletion_frozen(&world.store, reason, world.clock.now_us());
    set.await.unwrap();
}

async fn keep_raw(world: &World, days: u32) {
    let keep = Retention {
        raw_days: Some(days),
        ..Retention::default()
    };
    set_retention(&world.store, keep).await.unwrap();
    world.clock.advance(HOUR_US);
}

/// Garbage of every kind, past its time, and a marker.
async fn with_garbage() -> World {
    let mut world = World::new();
    let compactor = world.compactor(1);
    let marker = keys::marker(&Digest([7; 16]));
    world.store.put_new(&marker, "{}".into()).await.unwrap();
    for n in 0..44 {
        world
            .accept(sample("cpu", DAY0 + 9 * HOUR_US + n, 1.0))
            .await;
        compactor.absorb(&ALL).await.unwrap();
        if n == 30 {
            pin(&world, "kept").await;
        }
        world.clock.advance(MINUTE);
    }
    compactor.settle(&ALL, &|_| ()).await.unwrap();
    world.clock.advance(2 * DAY_US);
    world.accept(hour("mem", 9)).await;
    compactor.absorb(&ALL).await.unwrap();
    world.clock.advance(HOUR_US);
    world.accept(hour("disk", 9)).await;
    compactor.absorb(&ALL).await.unwrap();
    world
}

async fn pin(world: &World, name: &str) {
    let (state, now_us) = (world.state().await, world.clock.now_us());
    let pin = Pin::new(name.parse().unwrap(), &state, now_us, Why::Manual, "").unwrap();
    let (key, bytes) = (keys::pin(name), pin.encode().unwrap());
    world.store.put_new(&key, bytes).await.unwrap();
}

#[tokio::test]
async fn frozen_deletes_nothing_at_all_and_resumed_everything() {
    let world = with_garbage().await;
    freeze(&world, Some("an exercise")).await;
    let before: Vec<_> = world.memory.keys("");
    let report = world.compactor(2).sweep(&ALL).await.unwrap();
    let reason = match &report.refused {
        Some(DeletionRefused::Frozen {
            tier: None, reason, ..
        }) => reason.as_str(),
        other => panic!("{other:?}"),
    };
    assert_eq!((reason, report.markers_deleted), ("an exercise", 0));
    let is_there = |key: &object_store::path::Path| world.memory.bytes(key).is_some();
    assert!(before.iter().all(is_there));
    let plan = world.compactor(2).sweep_plan().await.unwrap();
    assert_eq!(plan.refused, report.refused);
    freeze(&world, None).await;
    let report = world.compactor(2).sweep(&ALL).await.unwrap();
    assert!(report.objects_deleted > 0 && report.files_deleted > 0 && report.entries_deleted > 0);
    assert!(report.ledger_deleted > 0 && report.heads_deleted > 0);
    assert_eq!((report.refused, report.markers_deleted), (None, 1));
}

#[tokio::test]
async fn a_freeze_for_one_reason_is_not_lifted_with_another() {
    let world = World::new();
    let now_us = world.clock.now_us();
    freeze(&world, Some("hold")).await;
    let held = deletion_frozen(&world.store).await.unwrap().unwrap();
    freeze(&world, Some("hold")).await;
    assert_eq!(
        deletion_frozen(&world.store).await.unwrap(),
        Some(held),
        "the same freeze again is the same"
    );
    freeze(&world, Some("damage")).await;
    let lift = async |reason| lift_deletion_freeze(&world.store, reason, now_us).await;
    lift("hold").await.unwrap();
    let frozen = deletion_frozen(&world.store).await.unwrap().unwrap();
    assert_eq!(frozen.reason, "damage");
    lift("damage").await.unwrap();
    assert_eq!(deletion_frozen(&world.store).await.unwrap(), None);
}

#[tokio::test]
async fn a_damaged_switch_deletes_nothing() {
    let world = with_garbage().await;
    let key = "control/deletion/00000000000000000000.json";
    world.store.put_new(key, "{}".into()).await.unwrap();
    assert!(world.compactor(2).sweep(&ALL).await.is_err());
    assert!(world.store.get_opt("l0").await.is_ok());
    assert!(world.compactor(2).sweep_plan().await.is_err());
}

#[tokio::test]
async fn a_plan_writes_nothing_and_is_what_the_sweep_deletes() {
    let world = with_garbage().await;
    let (before, log) = (world.memory.keys(""), world.memory.mutations(0).len());
    let plan = world.compactor(2).sweep_plan().await.unwrap();
    let clock = |m: &stele_testkit::Mutation| format!("{m:?}").contains("clock");
    assert!(world.memory.mutations(log).iter().all(clock));
    let again = world.compactor(3).sweep_plan().await.unwrap();
    assert_eq!(plan, again);
    let report = world.compactor(4).sweep(&ALL).await.unwrap();
    assert_eq!(plan.l0.objects, report.objects_deleted);
    assert_eq!(plan.files.objects, report.files_deleted);
    assert_eq!(plan.files.bytes, report.files_deleted_bytes);
    assert_eq!(plan.ledger.objects, report.ledger_deleted);
    assert_eq!(plan.log.objects, report.entries_deleted);
    assert_eq!(plan.heads.objects, report.heads_deleted);
    assert_eq!(plan.markers.objects, report.markers_deleted);
    let gone = before.iter().filter(|k| world.memory.bytes(k).is_none());
    let all = [plan.l0, plan.files, plan.ledger, plan.log, plan.heads];
    let planned: u64 = all.iter().map(|p| p.objects).sum();
    assert_eq!(planned + plan.markers.objects, gone.count() as u64);
    let empty = world.compactor(5).sweep_plan().await.unwrap();
    assert_ne!(empty.hash, plan.hash);
}

#[tokio::test]
async fn what_a_pin_keeps_is_counted_by_kind() {
    let world = with_garbage().await;
    let kept = world.compactor(2).sweep_plan().await.unwrap().kept;
    let at = AsOf::Pin("kept".parse().unwrap());
    let pinned = world.log(DAY_US).as_of(&at).await.unwrap();
    let files = &pinned.files;
    assert_eq!((kept.pins, kept.files_pinned), (1, files.len() as u64));
    let bytes: u64 = files.values().map(|file| file.stats.size_bytes).sum();
    assert_eq!(kept.files_pinned_bytes, bytes);
    assert!(
        kept.entries_pinned > 0 && kept.ledger_pinned > 0,
        "{kept:?}"
    );
}

#[tokio::test]
async fn markers_that_were_listed_more_than_a_minute_ago_are_left_to_the_next_run() {
    let world = with_garbage().await;
    let sweep_that_sleeps = async |us| {
        let sleeps = async || world.clock.advance(us);
        let swept = sweep_that_meets(&world, lists_markers, sleeps).await;
        swept.unwrap()
    };
    let report = sweep_that_sleeps(MINUTE + 1).await;
    assert_eq!((report.markers_deleted, report.stopped), (0, true));
    let report = sweep_that_sleeps(MINUTE).await;
    assert_eq!((report.markers_deleted, report.stopped), (1, false));
}

/// Ten sealed days, and a compactor that asks however small the table is.
async fn ten_days() -> (World, Compactor) {
    let mut world = World::new();
    for day in 0..10 {
        let at = DAY0 + day * DAY_US + 7 * HOUR_US;
        world.accept(rows("cpu", at, 600 * SECOND_US, 20)).await;
    }
    world.clock.set(DAY0 + 10 * DAY_US);
    world.compactor(1).settle(&ALL, &|_| ()).await.unwrap();
    let options = Options {
        asks_live_bytes_min: 0,
        ..Options::default()
    };
    let compactor = world.compactor_with(2, options);
    (world, compactor)
}

#[tokio::test]
async fn a_shorter_retention_asks_and_expires_once_it_is_confirmed() {
    let (world, compactor) = ten_days().await;
    keep_raw(&world, 2).await;
    let report = compactor.expire(&ALL).await.unwrap();
    let asks = report.asks.unwrap();
    assert_eq!(report.commits, 0);
    assert!(
        asks.permille > 50 && asks.bytes < asks.live_bytes,
        "{asks:?}"
    );
    assert_eq!(asks.before.raw_before, Some(Day::of(DAY0 + 6 * DAY_US)));
    // Another hash is another question.
    let other = compactor.confirm_expire(Digest([1; 16])).await.unwrap_err();
    assert!(matches!(other, Error::OtherPlan { .. }), "{other}");
    assert_eq!(compactor.expire(&ALL).await.unwrap().commits, 0);
    compactor.confirm_expire(asks.hash).await.unwrap();
    // Whoever runs next, here another process.
    let options = compactor.options().clone();
    let report = world.compactor_with(9, options).expire(&ALL).await.unwrap();
    assert_eq!((report.days, report.asks), (6, None));
    world.check("after the expiry").await;
    let nothing = compactor.confirm_expire(asks.hash).await.unwrap_err();
    assert!(matches!(nothing, Error::NothingAsked), "{nothing}");
}

#[tokio::test]
async fn the_day_that_comes_due_expires_unattended_whatever_its_share() {
    let (world, compactor) = ten_days().await;
    keep_raw(&world, 7).await;
    // Raw of days 0 to 8 leaves, one a day.
    for day in 0..9 {
        world.clock.set(DAY0 + (10 + day) * DAY_US + HOUR_US);
        let report = compactor.expire(&ALL).await.unwrap();
        assert_eq!((report.days, report.asks), (1, None), "day {day}");
    }
    world.check("after nine days").await;
}

#[tokio::test]
async fn frozen_expires_nothing() {
    let (world, compactor) = ten_days().await;
    keep_raw(&world, 7).await;
    freeze(&world, Some("an exercise")).await;
    let report = compactor.expire(&ALL).await.unwrap();
    assert!(
        report.refused.is_some() && report.commits == 0,
        "{report:?}"
    );
    freeze(&world, None).await;
    assert_eq!(compactor.expire(&ALL).await.unwrap().days, 1);
}

/// A sweep is stopped at each of its mutations in turn, before and after it took effect, and the
/// next one goes on: what is live, and what is pinned, is always there.
#[tokio::test]
async fn a_sweep_that_dies_at_any_mutation_leaves_everything_that_is_needed() {
    let mutations = [
        (KeyClass::L0, Operation::Delete, 44),
        (KeyClass::Data, Operation::Delete, 40),
        (KeyClass::Log, Operation::Delete, 40),
        (KeyClass::Checkpoint, Operation::Delete, 1),
        (KeyClass::Ledger, Operation::Delete, 40),
        (KeyClass::Head, Operation::Delete, 20),
        (KeyClass::Idem, Operation::Delete, 1),
        (KeyClass::Log, Operation::Put, 1),
        (KeyClass::Head, Operation::Put, 1),
    ];
    let mut crashes = 0;
    let kept = AsOf::Pin("kept".parse().unwrap());
    for (class, operation, most) in mutations {
        for fault in [Fault::CrashBefore, Fault::CrashAfter] {
            // Every one of the first few, and then some: all are alike.
            let some = (0..most).filter(|n| *n < 3 || n % 9 == 8 || n + 1 == most);
            for nth in some {
                let what = format!("{class:?} {operation:?} {nth} {fault:?}");
                let world = with_garbage().await;
                let pinned = world.log(DAY_US).as_of(&kept).await.unwrap();
                let plan = Plan::none().with("sweep", operation, class, nth, fault);
                let faults = FaultWorld::immediate(Arc::new(world.memory.clone()), plan);
                let died = world.compactor_over(faults.actor("sweep"), 70);
                let _ = died.sweep(&ALL).await;
                crashes += faults.fired().len();
                for end in ["crashed", "swept again"] {
                    world.check(&format!("{what}: {end}")).await;
                    let at = world.log(DAY_US).as_of(&kept).await.unwrap();
                    assert_eq!(at, pinned, "{what}: {end}");
                    for path in pinned.files.keys() {
                        let key = world.store.path(&keys::data_file(path));
                        assert!(world.memory.bytes(&key).is_some(), "{what}: {end}: {path}");
                    }
                    assert_eq!(deletion_frozen(&world.store).await.unwrap(), None, "{what}");
                    world.compactor(71).sweep(&ALL).await.unwrap();
                }
                let left = world.compactor(72).sweep_plan().await.unwrap();
                let kinds = [left.l0, left.files, left.ledger, left.log, left.markers];
                assert!(kinds.iter().all(|k| k.objects == 0), "{what}: {left:?}");
            }
        }
    }
    assert!(crashes > 60, "{crashes} crashes: too few");
}
