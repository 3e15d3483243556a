//! The record of what is lost: what verify, a restore in place and `sync` make of it.
#![allow(clippy::unwrap_used, clippy::panic)]

mod common;

use std::sync::Arc;

use bytes::Bytes;
use common::{ALL, World, name};
use stele_compact::SWEEP_US_MAX;
use stele_format::{batch, l0};
use stele_model::time::{HOUR_US, MINUTE_US};
use stele_model::{Batch, Clock, Resolution, TenantId, WindowSet};
use stele_protect::{InPlace, in_place_plan, record_losses, restore_in_place};
use stele_store::{Tier, keys};
use stele_table::{
    FileEntry, FileKind, Loss, LossKind, LossesChanged, LostObject, change_losses, losses,
    note_losses,
};
use stele_testkit::gen_rows::RowGen;
use stele_testkit::{Fault, FaultWorld, KeyClass, Operation, Plan, Rng, SeededIds};

async fn recorded(world: &World) -> LossesChanged {
    let report = world.verify().await;
    let now_us = world.clock.now_us();
    record_losses(&world.log(), &report, now_us).await.unwrap()
}

async fn known(world: &World) -> Vec<Loss> {
    losses(&world.store).await.unwrap()
}

async fn live(world: &World, kind: FileKind) -> Arc<FileEntry> {
    let state = world.state().await;
    Arc::clone(state.files_of(kind).next().unwrap())
}

fn flipped(bytes: &Bytes) -> Bytes {
    let mut bytes = bytes.to_vec();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    bytes.into()
}

async fn put(world: &World, batch: &Batch) -> stele_model::L0Name {
    let encoded = l0::encode(std::slice::from_ref(batch)).unwrap();
    let put = world.store.l0_put(&encoded.name, encoded.bytes).await;
    put.unwrap();
    encoded.name
}

fn changed(noted: u64, withdrawn: u64, losses: u64) -> LossesChanged {
    LossesChanged {
        noted,
        withdrawn,
        losses,
    }
}

#[tokio::test]
async fn what_verify_finds_is_recorded_once_and_taken_back_when_it_is_whole() {
    let mut world = World::new();
    world.work(12).await;
    assert_eq!(recorded(&world).await, changed(0, 0, 0));
    assert!(!world.has("control/losses/00000000000000000000.json"));
    let raw = live(&world, FileKind::Sealed(Resolution::Raw)).await;
    let hourly = live(&world, FileKind::Sealed(Resolution::M60)).await;
    let fresh = batch(RowGen::new(Rng::new(3), 4).rows(world.clock.now_us(), 5, 9));
    let object = put(&world, &fresh).await;
    let path = |key: &str| world.store.path(key);
    let keys = [
        path(&keys::data_file(&raw.path)),
        path(&keys::data_file(&hourly.path)),
        path(&format!("l0/{object}")),
    ];
    let whole = keys.clone().map(|key| world.memory.bytes(&key).unwrap());
    world.memory.lose(&keys[0]);
    world.memory.damage(&keys[1], flipped(&whole[1]));
    world.memory.damage(&keys[2], flipped(&whole[2]));
    let first_us = world.clock.now_us();
    assert_eq!(recorded(&world).await, changed(3, 0, 3));
    let all = known(&world).await;
    let of_raw = Loss::of_file(LossKind::FileMissing, &raw, first_us);
    let of_hourly = Loss::of_file(LossKind::FileDamaged, &hourly, first_us);
    assert!(all.contains(&of_raw) && all.contains(&of_hourly), "{all:?}");
    assert!(all.contains(&Loss::of_l0(object, first_us)), "{all:?}");
    assert_eq!(of_raw.rows, Some(raw.stats.rows));
    world.clock.advance(HOUR_US);
    assert_eq!(recorded(&world).await, changed(0, 0, 3), "no news");
    // Damaged, it is no longer missing; a whole object is none any more.
    let raw_key = keys::data_file(&raw.path);
    let put = world.store.put_new(&raw_key, flipped(&whole[0])).await;
    put.unwrap();
    world.memory.damage(&keys[2], whole[2].clone());
    assert_eq!(recorded(&world).await, changed(0, 1, 2));
    let kinds: Vec<_> = known(&world).await.iter().map(|l| l.kind).collect();
    assert_eq!(kinds, [LossKind::FileDamaged; 2]);
    world.memory.damage(&keys[0], whole[0].clone());
    world.memory.damage(&keys[1], whole[1].clone());
    assert_eq!(recorded(&world).await, changed(0, 2, 0));
    assert!(world.verify().await.is_clean());
}

#[tokio::test]
async fn a_store_that_does_not_answer_neither_loses_nor_finds_anything() {
    let mut world = World::new();
    world.work(8).await;
    let raw = live(&world, FileKind::Sealed(Resolution::Raw)).await;
    let report = world.verify().await;
    assert!(report.is_clean());
    // It is whole by now, and cannot be read.
    let loss = Loss::of_file(LossKind::FileMissing, &raw, 1);
    note_losses(&world.store, std::slice::from_ref(&loss))
        .await
        .unwrap();
    for (fault, left) in [(Some(Fault::ErrorBefore), 1), (None, 0)] {
        let mut plan = Plan::none();
        if let Some(fault) = fault {
            plan = plan.with("verify", Operation::Get, KeyClass::Data, 0, fault);
        }
        let faults = FaultWorld::immediate(Arc::new(world.memory.clone()), plan);
        let over = Tier::from_store(faults.actor("verify"), "", "memory://");
        let log = common::log(&over.tenant(&TenantId::default()), &world.clock);
        let changed = record_losses(&log, &report, 2).await.unwrap();
        assert_eq!(changed.losses, left, "{fault:?}");
    }
}

#[tokio::test]
async fn a_file_that_is_not_live_any_more_is_missed_by_nobody() {
    let mut world = World::new();
    world.work(8).await;
    let raw = live(&world, FileKind::Sealed(Resolution::Raw)).await;
    let gone = FileEntry {
        path: raw.path.replace(".parquet", "0.parquet"),
        ..raw.as_ref().clone()
    };
    let loss = Loss::of_file(LossKind::FileMissing, &gone, 1);
    note_losses(&world.store, &[loss]).await.unwrap();
    assert_eq!(recorded(&world).await, changed(0, 1, 0));
}

#[tokio::test]
async fn a_damaged_batch_that_is_gone_is_lost_unless_the_ledger_has_it() {
    let mut world = World::new();
    world.work(4).await;
    let mut source = RowGen::new(Rng::new(5), 4);
    let [kept, deleted] = [1, 2].map(|_| batch(source.rows(world.clock.now_us(), 5, 9)));
    let [kept, deleted] = [put(&world, &kept).await, put(&world, &deleted).await];
    let both = [kept, deleted].map(|name| Loss::of_l0(name, 1));
    note_losses(&world.store, &both).await.unwrap();
    // An operator deletes one; the other was absorbed and swept.
    world
        .memory
        .lose(&world.store.path(&format!("l0/{deleted}")));
    world.compactor.absorb(&ALL).await.unwrap();
    world.memory.lose(&world.store.path(&format!("l0/{kept}")));
    assert_eq!(recorded(&world).await, changed(0, 1, 1));
    assert_eq!(known(&world).await[0].object, LostObject::L0(deleted));
}

/// A snapshot, and after it a batch whose object is swept before the restore.
async fn restored() -> (World, Batch, u64) {
    let mut world = World::new();
    world.work(12).await;
    world.pin("noon").await.unwrap();
    let lost = batch(RowGen::new(Rng::new(77), 5).rows(world.clock.now_us(), 20, 30));
    put(&world, &lost).await;
    world.compactor.absorb(&ALL).await.unwrap();
    world.clock.advance(HOUR_US);
    assert!(world.sweep().await.objects_deleted > 0);
    let plan = in_place_plan(&world.log(), &name("noon")).await.unwrap();
    let wait_us = SWEEP_US_MAX + MINUTE_US;
    let go = async || {
        let ids = SeededIds::new(5_000);
        let (log, clock) = (world.log(), &world.clock);
        restore_in_place(&log, &plan.name, plan.hash, wait_us, clock, &ids)
            .await
            .unwrap()
    };
    go().await;
    world.clock.advance(wait_us + 1);
    let InPlace::Restored { version } = go().await else {
        panic!("it waits for nothing");
    };
    (world, lost, version)
}

#[tokio::test]
async fn a_restore_in_place_records_what_it_lost_until_that_is_sent_again() {
    let (world, lost, version) = restored().await;
    let all = known(&world).await;
    let [loss] = all.as_slice() else {
        panic!("{all:?}");
    };
    let batches = 1;
    assert_eq!(loss.object, LostObject::Restore { version, batches });
    assert_eq!(
        (loss.kind, loss.rows),
        (LossKind::BatchRevoked, Some(lost.rows.len() as u64))
    );
    let (first, last) = lost.rows.ts_range_us().unwrap();
    let [first, last] = [first, last].map(stele_model::Window::of);
    assert_eq!(loss.windows, WindowSet::range(first, last));
    // A verify finds the same, also in a store that has no record of it.
    assert_eq!(recorded(&world).await, changed(0, 0, 1));
    change_losses(&world.store, &[], |_| true).await.unwrap();
    assert_eq!(recorded(&world).await, changed(1, 0, 1));
    // Accepted again, beside another batch, it is not lost any more; nor when it is absorbed.
    let other = batch(RowGen::new(Rng::new(9), 2).rows(world.clock.now_us(), 3, 4));
    let encoded = l0::encode(&[lost.clone(), other]).unwrap();
    world
        .store
        .l0_put(&encoded.name, encoded.bytes)
        .await
        .unwrap();
    assert_eq!(recorded(&world).await, changed(0, 1, 0));
    world.compactor.absorb(&ALL).await.unwrap();
    assert_eq!(recorded(&world).await, changed(0, 0, 0));
}

#[tokio::test]
async fn a_damaged_record_is_found_by_verify_and_recorded_over_by_nobody() {
    let mut world = World::new();
    world.work(8).await;
    let raw = live(&world, FileKind::Sealed(Resolution::Raw)).await;
    world
        .memory
        .lose(&world.store.path(&keys::data_file(&raw.path)));
    recorded(&world).await;
    let key = "control/losses/00000000000000000000.json";
    let path = world.store.path(key);
    let bytes = world.memory.bytes(&path).unwrap();
    world.memory.damage(&path, flipped(&bytes));
    let report = world.verify().await;
    assert!(report.findings.iter().any(|finding| finding.object == key));
    let error = record_losses(&world.log(), &report, 1).await.unwrap_err();
    assert!(error.to_string().starts_with(key), "{error}");
    assert_eq!(world.keys("control/losses").len(), 1);
}
