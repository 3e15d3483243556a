//! Restore to another tenant: what was pinned comes back, whole and only so.
#![allow(clippy::unwrap_used, clippy::panic)]

mod common;

use std::sync::{Arc, Mutex};

use bytes::Bytes;
use common::{ALL, World, compactor, log, name, tenant};
use stele_compact::reader;
use stele_model::Digest;
use stele_model::time::{DAY_US, MINUTE_US};
use stele_protect::{CopyProgress, RestoreError, RestorePlan, restore, restore_plan, verify};
use stele_store::{TenantStore, keys};
use stele_table::{AsOf, Content, TableState, View};
use stele_testkit::oracle::Samples;
use stele_testkit::{Fault, FaultWorld, KeyClass, Operation, Plan};

async fn samples(store: &TenantStore, state: Arc<TableState>) -> Samples {
    let l0 = Vec::new();
    let samples = reader::all_samples(store, &View { state, l0 }).await;
    Samples::read(samples.unwrap().as_mut()).unwrap()
}

/// A table with a snapshot of long ago, of which nothing else is left.
async fn pinned() -> (World, Arc<TableState>) {
    let mut world = World::new();
    world.work(30).await;
    world.pin("noon").await.unwrap();
    let state = world.state().await;
    world.work(40).await;
    world.clock.advance(3 * DAY_US);
    world.absorb().await;
    world.sweep().await;
    (world, state)
}

async fn plan(world: &World, target: &TenantStore) -> Result<RestorePlan, RestoreError> {
    restore_plan(&world.log(), &name("noon"), target).await
}

#[tokio::test]
async fn a_restored_snapshot_is_the_pinned_version_and_goes_on_from_there() {
    let (mut world, state) = pinned().await;
    let target = tenant(&world.memory, "drill");
    let plan = plan(&world, &target).await.unwrap();
    assert_eq!(plan.content, Content::of(&state));
    assert!(plan.objects > state.files.len() as u64 && plan.bytes > 0);
    assert!(log(&target, &world.clock).load().await.unwrap().is_none());
    let told = Mutex::new(Vec::new());
    let tell = |progress: CopyProgress| told.lock().unwrap().push(progress);
    let target_log = log(&target, &world.clock);
    let done = restore(&plan, plan.hash, &world.store, &target_log, &tell).await;
    let done = done.unwrap();
    assert_eq!((done.copied, done.skipped), (plan.objects, 0));
    assert_eq!(done.copied_bytes, plan.bytes);
    let last = *told.lock().unwrap().last().unwrap();
    assert_eq!((last.objects, last.bytes), (plan.objects, plan.bytes));
    assert_eq!(
        (last.objects_total, last.bytes_total),
        (plan.objects, plan.bytes)
    );
    // The same by head and by log, to the last sample.
    let restored = log(&target, &world.clock).load().await.unwrap().unwrap();
    assert_eq!(restored, state);
    let at_source = samples(&world.store, Arc::clone(&state)).await;
    let at_target = samples(&target, restored).await;
    assert_eq!(at_source.first_difference(&at_target), None);
    let report = verify(&target, &log(&target, &world.clock), &|_| ()).await;
    assert_eq!(report.findings, []);
    // Done again, it copies nothing.
    let again = restore(&plan, plan.hash, &world.store, &target_log, &|_| ()).await;
    assert_eq!(again.unwrap().copied, 0);
    // What the copied state names and the target never had: sweep forgets it.
    world.clock.advance(2 * DAY_US);
    let worker = compactor(&target, &world.clock, 77);
    worker.settle(&ALL, &|_| ()).await.unwrap();
    worker.sweep(&ALL).await.unwrap();
    world.clock.advance(2 * DAY_US);
    worker.sweep(&ALL).await.unwrap();
    let now = log(&target, &world.clock).load().await.unwrap().unwrap();
    assert!(now.unswept.is_empty(), "{:?}", now.unswept);
    assert!(now.removed.iter().all(|file| !state.removed.contains(file)));
    let report = verify(&target, &log(&target, &world.clock), &|_| ()).await;
    assert_eq!(report.findings, []);
    let at_target = samples(&target, now).await;
    assert_eq!(at_source.first_difference(&at_target), None);
    // And the source is as it was.
    world.work(2).await;
    let at = AsOf::Pin(name("noon"));
    assert_eq!(world.log().as_of(&at).await.unwrap(), state);
    // A target that went on is no target any more.
    let error = self::plan(&world, &target).await.unwrap_err();
    assert!(matches!(error, RestoreError::NotEmpty { .. }), "{error}");
}

#[tokio::test]
async fn an_interrupted_restore_shows_no_wrong_table_and_goes_on_where_it_stopped() {
    let (world, state) = pinned().await;
    let healthy = tenant(&world.memory, "drill");
    let plan = plan(&world, &healthy).await.unwrap();
    let mut stops = 0;
    // Every hour, one more object is copied before the process dies.
    for nth in 0..200 {
        let faults = Plan::none()
            .with(
                "r",
                Operation::Put,
                KeyClass::Data,
                nth / 4,
                Fault::CrashBefore,
            )
            .with(
                "r",
                Operation::Put,
                KeyClass::Log,
                nth % 3,
                Fault::CrashBefore,
            );
        let faulty = FaultWorld::immediate(Arc::new(world.memory.clone()), faults);
        let tier = world.store.tier().over(faulty.actor("r"));
        let target = tier.tenant(healthy.tenant());
        let log = common::log(&target, &world.clock);
        if restore(&plan, plan.hash, &world.store, &log, &|_| ())
            .await
            .is_ok()
        {
            break;
        }
        stops += 1;
        world.clock.advance(MINUTE_US * 997);
        if let Ok(Some(shown)) = common::log(&healthy, &world.clock).load().await {
            assert_eq!(shown, state, "a half-restored table was shown");
        }
    }
    assert!(stops > 10, "{stops} interruptions");
    let log = common::log(&healthy, &world.clock);
    restore(&plan, plan.hash, &world.store, &log, &|_| ())
        .await
        .unwrap();
    assert_eq!(log.load().await.unwrap().unwrap(), state);
    let report = verify(&healthy, &log, &|_| ()).await;
    assert_eq!(report.findings, []);
}

#[tokio::test]
async fn a_restore_refuses_another_table_another_plan_and_damaged_objects() {
    let (world, state) = pinned().await;
    let target = tenant(&world.memory, "drill");
    let target_log = log(&target, &world.clock);
    let plan_of = plan(&world, &target).await.unwrap();
    let other = restore(
        &plan_of,
        Digest([7; 16]),
        &world.store,
        &target_log,
        &|_| (),
    )
    .await;
    assert!(matches!(other, Err(RestoreError::OtherPlan { .. })));
    let elsewhere = plan(&world, &tenant(&world.memory, "other")).await.unwrap();
    assert_ne!(elsewhere.hash, plan_of.hash);
    let file = keys::data_file(state.files.keys().next().unwrap());
    let path = world.store.path(&file);
    let whole = world.memory.bytes(&path).unwrap();
    let mut flipped = whole.to_vec();
    flipped[9] ^= 1;
    world.memory.damage(&path, Bytes::from(flipped));
    let damaged = restore(&plan_of, plan_of.hash, &world.store, &target_log, &|_| ()).await;
    let named = matches!(&damaged, Err(RestoreError::Differs { key, .. }) if *key == file);
    assert!(named, "{damaged:?}");
    assert!(target_log.load().await.unwrap().is_none());
    world.memory.damage(&path, whole);
    let foreign = keys::log_entry(0);
    target
        .put_new(&foreign, Bytes::from_static(b"{}"))
        .await
        .unwrap();
    let taken = plan(&world, &target).await.unwrap_err();
    assert!(
        matches!(&taken, RestoreError::NotEmpty { key } if *key == foreign),
        "{taken}"
    );
    let none = restore_plan(&world.log(), &name("nine"), &target).await;
    assert!(none.unwrap_err().to_string().contains("there are noon"));
}

/// What a server's task must be.
#[tokio::test]
async fn everything_about_snapshots_can_run_in_a_task() {
    let (world, _) = pinned().await;
    let (store, clock) = (world.store.clone(), world.clock.clone());
    let target = tenant(&world.memory, "drill");
    let ran = tokio::spawn(async move {
        let source = log(&store, &clock);
        let noon = name("noon");
        let plan = restore_plan(&source, &noon, &target).await.unwrap();
        let to = log(&target, &clock);
        restore(&plan, plan.hash, &store, &to, &|_| ())
            .await
            .unwrap();
        stele_protect::verify_snapshot(&source, &noon, &|_| ())
            .await
            .unwrap();
        stele_protect::drop_snapshot(&source, &noon, &clock)
            .await
            .unwrap();
        stele_protect::undelete(&source, &noon).await.unwrap();
        stele_protect::list(&source).await.unwrap().len()
    });
    assert_eq!(ran.await.unwrap(), 1);
}
