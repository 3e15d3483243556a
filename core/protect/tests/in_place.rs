//! Restore in place: the tenant is the snapshot again, and what came later is revoked, absorbed
//! again, or listed as lost.
#![allow(clippy::unwrap_used, clippy::panic)]

mod common;

use std::pin::pin;
use std::sync::Arc;

use common::{ALL, World, name};
use futures::poll;
use stele_compact::{Compactor, Options, SWEEP_US_MAX, reader};
use stele_format::{batch, l0};
use stele_model::time::{DAY_US, HOUR_US, MINUTE_US};
use stele_model::{Batch, Clock, Day, ErrorKind, ReceiptId, TenantId};
use stele_protect::{
    BatchState, InPlace, InPlaceError, InPlacePlan, abandon_in_place, drop_snapshot, find_batch,
    in_place_plan, restore_in_place, verify,
};
use stele_store::Tier;
use stele_table::{
    Content, PinName, TableLog, TableState, View, deletion_frozen, set_deletion_frozen,
};
use stele_testkit::gen_rows::RowGen;
use stele_testkit::oracle::Samples;
use stele_testkit::{Fault, FaultWorld, KeyClass, Operation, Plan, Rng, SeededIds};

const WAIT_US: i64 = SWEEP_US_MAX + MINUTE_US;

/// Batches of known rows.
struct Source(RowGen);

impl Source {
    fn next(&mut self, world: &World) -> Batch {
        batch(self.0.rows(world.clock.now_us(), 20, 30))
    }
}

fn receipt(batch: &Batch) -> ReceiptId {
    let (_, last_us) = batch.rows.ts_range_us().unwrap();
    ReceiptId {
        digest: batch.digest,
        day: Day::of(last_us),
    }
}

async fn put(world: &World, batches: &[Batch]) {
    let encoded = l0::encode(batches).unwrap();
    let put = world.store.l0_put(&encoded.name, encoded.bytes).await;
    put.unwrap();
}

async fn absorbed(world: &World, batch: &Batch) {
    put(world, std::slice::from_ref(batch)).await;
    world.compactor.absorb(&ALL).await.unwrap();
}

/// A snapshot "noon" of sealed and open rows, then a batch whose object is swept, one whose object
/// is still there, and one that is not absorbed.
struct Case {
    world: World,
    pinned: Arc<TableState>,
    lost: Batch,
    back: Batch,
    fresh: Batch,
}

async fn case() -> Case {
    let mut world = World::new();
    let mut source = Source(RowGen::new(Rng::new(77), 5));
    world.work(12).await;
    world.pin("noon").await.unwrap();
    let pinned = world.state().await;
    let lost = source.next(&world);
    absorbed(&world, &lost).await;
    world.clock.advance(HOUR_US);
    world.compactor.seal(&ALL, true).await.unwrap();
    assert!(world.sweep().await.objects_deleted > 0);
    let back = source.next(&world);
    absorbed(&world, &back).await;
    let fresh = source.next(&world);
    put(&world, std::slice::from_ref(&fresh)).await;
    Case {
        world,
        pinned,
        lost,
        back,
        fresh,
    }
}

async fn plan(world: &World) -> InPlacePlan {
    in_place_plan(&world.log(), &name("noon")).await.unwrap()
}

async fn go(world: &World, log: &TableLog, plan: &InPlacePlan) -> Result<InPlace, InPlaceError> {
    let ids = SeededIds::new(5_000 + world.memory.mutations(0).len() as u64);
    restore_in_place(log, &plan.name, plan.hash, WAIT_US, &world.clock, &ids).await
}

async fn abandon(world: &World, name: &PinName) -> Result<(), InPlaceError> {
    let ids = SeededIds::new(9_000 + world.memory.mutations(0).len() as u64);
    abandon_in_place(&world.log(), name, &world.clock, &ids).await
}

/// Holds, waits and restores.
async fn restored(world: &World, plan: &InPlacePlan) -> u64 {
    let held = go(world, &world.log(), plan).await.unwrap();
    assert!(matches!(held, InPlace::Holding { .. }), "{held:?}");
    world.clock.advance(WAIT_US + 1);
    match go(world, &world.log(), plan).await.unwrap() {
        InPlace::Restored { version } => version,
        held => panic!("{held:?}"),
    }
}

async fn samples(world: &World, view: &View) -> Samples {
    let samples = reader::all_samples(&world.store, view).await;
    Samples::read(samples.unwrap().as_mut()).unwrap()
}

async fn samples_of(world: &World, state: &Arc<TableState>) -> Samples {
    let (state, l0) = (Arc::clone(state), Vec::new());
    samples(world, &View { state, l0 }).await
}

async fn is_clean(world: &World) {
    let report = world.verify().await;
    assert!(report.is_clean(), "{:?}", report.findings);
}

/// What readers see is the snapshot and these batches, now and when all is absorbed.
async fn holds(world: &World, pinned: &Arc<TableState>, batches: &[&Batch], when: &str) {
    let mut expected = samples_of(world, pinned).await;
    batches.iter().for_each(|batch| expected.add(&batch.rows));
    for step in ["read", "absorbed", "sealed"] {
        let view = View::read(&world.log(), None).await.unwrap();
        let got = samples(world, &view).await;
        let difference = expected.first_difference(&got);
        assert_eq!(difference, None, "{when}: {step}");
        is_clean(world).await;
        match step {
            "read" => world.compactor.absorb(&ALL).await.unwrap(),
            _ => world.compactor.seal(&ALL, true).await.unwrap(),
        };
    }
}

#[tokio::test]
async fn the_plan_says_what_comes_back_and_what_is_lost_and_writes_nothing() {
    let case = case().await;
    let before = case.world.memory.mutations(0).len();
    let plan = plan(&case.world).await;
    assert_eq!(case.world.memory.mutations(before), []);
    assert_eq!(plan.then, Content::of(&case.pinned));
    assert_eq!((plan.revoked_batches, plan.returning_batches), (2, 1));
    assert_eq!(plan.returning_rows, case.back.rows.len() as u64);
    let lost: Vec<_> = plan.lost.iter().map(|lost| lost.batch).collect();
    assert_eq!(lost, [case.lost.digest]);
    assert_eq!(plan.lost_rows(), case.lost.rows.len() as u64);
    assert!(plan.files_back().0 > 0 && plan.files_left() > 0);
    assert!(!plan.windows_changed.is_empty() || !plan.windows_gone.is_empty());
}

#[tokio::test]
async fn the_tenant_is_the_snapshot_again_and_what_l0_has_is_absorbed_again() {
    let Case {
        mut world,
        pinned,
        lost,
        back,
        fresh,
    } = case().await;
    let plan = plan(&world).await;
    let version = restored(&world, &plan).await;
    let state = world.state().await;
    assert_eq!((state.version, &state.files), (version, &pinned.files));
    assert_eq!(Content::of(&state), plan.then);
    assert_eq!(state.totals, pinned.totals);
    assert_eq!(deletion_frozen(&world.store).await.unwrap(), None);
    // Done again, it is done already.
    let again = go(&world, &world.log(), &plan).await.unwrap();
    assert_eq!(again, InPlace::Restored { version });
    assert_eq!(world.state().await.version, version);
    holds(&world, &pinned, &[&back, &fresh], "after the restore").await;
    // A receipt says what became of its batch.
    let found = async |batch| find_batch(&world.log(), receipt(batch)).await.unwrap();
    match found(&lost).await {
        BatchState::Revoked { row } => assert_eq!(row.rows, lost.rows.len() as u64),
        other => panic!("{other:?}"),
    }
    assert!(matches!(found(&back).await, BatchState::Absorbed { .. }));
    assert!(matches!(found(&fresh).await, BatchState::Absorbed { .. }));
    // The lost one, sent again, counts once.
    absorbed(&world, &lost).await;
    absorbed(&world, &lost).await;
    holds(&world, &pinned, &[&back, &fresh, &lost], "sent again").await;
    assert!(matches!(found(&lost).await, BatchState::Absorbed { .. }));
    // And so it stays, through ledger commits, checkpoints and sweeps.
    let expected = samples_of(&world, &world.state().await).await;
    world.work(30).await;
    for _ in 0..3 {
        world.clock.advance(DAY_US);
        world.sweep().await;
        is_clean(&world).await;
    }
    let by_log = world.log().load_from_log().await.unwrap().unwrap();
    assert_eq!(by_log, world.state().await);
    assert_eq!(by_log.revoked.len(), 1);
    let now = samples_of(&world, &by_log).await;
    assert!(now.len() > expected.len());
    let known = world.log().ledger_rows(&by_log).await.unwrap();
    let of_lost: Vec<_> = known
        .iter()
        .filter(|row| row.batch == lost.digest)
        .collect();
    assert_eq!(of_lost.iter().filter(|row| row.is_effective()).count(), 1);
    assert_eq!(of_lost.iter().filter(|row| row.revoked).count(), 1);
}

#[tokio::test]
async fn nothing_is_deleted_while_it_is_held_and_what_was_lost_before_changes_the_plan() {
    let case = case().await;
    let world = &case.world;
    let old = plan(world).await;
    // Before the hold, a sweep takes the object of another batch.
    world.clock.advance(HOUR_US);
    assert_eq!(world.sweep().await.objects_deleted, 1);
    let other = go(world, &world.log(), &old).await.unwrap_err();
    assert!(matches!(other, InPlaceError::OtherPlan { .. }), "{other}");
    assert_eq!(deletion_frozen(&world.store).await.unwrap(), None);
    let new = plan(world).await;
    assert_eq!((new.lost.len(), new.returning_batches), (2, 0));
    world.compactor.absorb(&ALL).await.unwrap();
    // Absorbed after the plan: its object is there, so nothing more is lost.
    let held = go(world, &world.log(), &new).await.unwrap();
    let until_us = match held {
        InPlace::Holding { until_us } => until_us,
        other => panic!("{other:?}"),
    };
    assert_eq!(until_us, world.clock.now_us() + WAIT_US);
    world.clock.advance(WAIT_US);
    assert!(world.sweep().await.refused.is_some());
    let held = go(world, &world.log(), &new).await.unwrap();
    assert_eq!(held, InPlace::Holding { until_us });
    world.clock.advance(1);
    let done = go(world, &world.log(), &new).await.unwrap();
    assert!(matches!(done, InPlace::Restored { .. }));
    holds(world, &case.pinned, &[&case.fresh], "after the restore").await;
    assert_eq!(world.sweep().await.refused, None);
}

/// Found by the simulation: the commit was refused as a defect of the table.
#[tokio::test]
async fn a_snapshot_of_the_newest_version_is_restored_by_doing_nothing() {
    let mut world = World::new();
    world.work(3).await;
    world.pin("noon").await.unwrap();
    let version = world.state().await.version;
    let plan = plan(&world).await;
    let before = world.memory.mutations(0).len();
    let done = go(&world, &world.log(), &plan).await.unwrap();
    assert_eq!(done, InPlace::Restored { version });
    assert_eq!(world.memory.mutations(before), []);
    // With a hold that an operator left behind, as when all that came later was restored away.
    let reason = "restore in place of snapshot noon";
    let now_us = world.clock.now_us();
    set_deletion_frozen(&world.store, Some(reason), now_us)
        .await
        .unwrap();
    world.clock.advance(WAIT_US + 1);
    let done = go(&world, &world.log(), &plan).await.unwrap();
    assert_eq!(done, InPlace::Restored { version });
    assert_eq!(deletion_frozen(&world.store).await.unwrap(), None);
}

#[tokio::test]
async fn it_refuses_a_dropped_snapshot_and_a_tenant_frozen_for_another_reason() {
    let case = case().await;
    let world = &case.world;
    let plan = plan(world).await;
    let freeze = async |reason| {
        let now_us = world.clock.now_us();
        set_deletion_frozen(&world.store, reason, now_us)
            .await
            .unwrap();
    };
    freeze(Some("damage")).await;
    let error = go(world, &world.log(), &plan).await.unwrap_err();
    assert!(matches!(error, InPlaceError::Frozen { .. }), "{error}");
    abandon(world, &plan.name).await.unwrap();
    assert!(deletion_frozen(&world.store).await.unwrap().is_some());
    freeze(None).await;
    let held = go(world, &world.log(), &plan).await.unwrap();
    assert!(matches!(held, InPlace::Holding { .. }));
    abandon(world, &plan.name).await.unwrap();
    assert_eq!(deletion_frozen(&world.store).await.unwrap(), None);
    drop_snapshot(&world.log(), &plan.name, &world.clock)
        .await
        .unwrap();
    let error = go(world, &world.log(), &plan).await.unwrap_err();
    assert!(matches!(error, InPlaceError::Dropped { .. }), "{error}");
    assert_eq!(error.kind(), ErrorKind::Conflict);
}

#[tokio::test]
async fn a_damaged_file_of_the_snapshot_stops_it_before_the_commit() {
    let case = case().await;
    let world = &case.world;
    let plan = plan(world).await;
    go(world, &world.log(), &plan).await.unwrap();
    world.clock.advance(WAIT_US + 1);
    let path = case.pinned.files.keys().next().unwrap();
    let key = world.store.path(&stele_store::keys::data_file(path));
    let mut bytes = world.memory.bytes(&key).unwrap().to_vec();
    bytes[9] ^= 4;
    world.memory.damage(&key, bytes.into());
    let version = world.state().await.version;
    let error = go(world, &world.log(), &plan).await.unwrap_err();
    assert!(matches!(error, InPlaceError::Differs { .. }), "{error}");
    assert_eq!(world.state().await.version, version);
}

/// Goes on with a restore whose hold is over, and gives it up before the first request that
/// contains `what` takes effect.
async fn given_up_before(world: &World, plan: &InPlacePlan, what: &str) -> InPlaceError {
    let faults = FaultWorld::scheduled(Arc::new(world.memory.clone()), Plan::none(), 1000);
    let over = Tier::from_store(faults.actor("restore"), "", "memory://");
    let over = over.tenant(&TenantId::default());
    let log = common::log(&over, &world.clock);
    let mut going = pin!(go(world, &log, plan));
    let mut is_given_up = false;
    loop {
        if let std::task::Poll::Ready(done) = poll!(&mut going) {
            return done.unwrap_err();
        }
        let Some(ticket) = faults.waiting().into_iter().next() else {
            tokio::task::yield_now().await;
            continue;
        };
        if ticket.what.starts_with(what) && !is_given_up {
            is_given_up = true;
            abandon(world, &plan.name).await.unwrap();
        }
        faults.grant(ticket.id);
    }
}

/// Given up in the middle, it does not commit on a plan that a sweep may have made untrue.
#[tokio::test]
async fn a_hold_that_was_lifted_meanwhile_begins_anew() {
    let case = case().await;
    let world = &case.world;
    let plan = plan(world).await;
    go(world, &world.log(), &plan).await.unwrap();
    world.clock.advance(WAIT_US + 1);
    abandon(world, &plan.name).await.unwrap();
    let held = go(world, &world.log(), &plan).await.unwrap();
    let until_us = world.clock.now_us() + WAIT_US;
    assert_eq!(held, InPlace::Holding { until_us });
    // Given up while the files are being read.
    world.clock.advance(WAIT_US + 1);
    let error = given_up_before(world, &plan, "Get table/resolution=").await;
    assert!(matches!(error, InPlaceError::Lifted), "{error}");
    assert!(world.state().await.revoked.is_empty());
}

/// It has looked at the hold for the last time, and its commit is on the way.
#[tokio::test]
async fn a_restore_that_is_given_up_just_before_its_commit_does_not_commit() {
    let case = case().await;
    let world = &case.world;
    let plan = plan(world).await;
    go(world, &world.log(), &plan).await.unwrap();
    world.clock.advance(WAIT_US + 1);
    let error = given_up_before(world, &plan, "Put table/_delta_log/0").await;
    assert!(matches!(error, InPlaceError::Lifted), "{error}");
    assert!(world.state().await.revoked.is_empty());
    assert_eq!(deletion_frozen(&world.store).await.unwrap(), None);
}

/// Found by the simulation: deletion stayed frozen after a restore that was done.
#[tokio::test]
async fn a_restore_that_is_done_lifts_what_a_dead_operator_began_to_give_up() {
    let case = case().await;
    let world = &case.world;
    let plan = plan(world).await;
    restored(world, &plan).await;
    let reason = "end of the restore in place of snapshot noon";
    let now_us = world.clock.now_us();
    set_deletion_frozen(&world.store, Some(reason), now_us)
        .await
        .unwrap();
    assert_eq!(stele_protect::held_for_restore(reason), Some("noon"));
    let done = go(world, &world.log(), &plan).await.unwrap();
    assert!(matches!(done, InPlace::Restored { .. }), "{done:?}");
    assert_eq!(deletion_frozen(&world.store).await.unwrap(), None);
}

/// A snapshot that was taken in a time that a later restore took back can come back, too.
#[tokio::test]
async fn a_snapshot_of_what_was_revoked_brings_its_batches_back_as_effective() {
    let Case {
        world,
        pinned,
        lost,
        back,
        fresh,
    } = case().await;
    world.pin("later").await.unwrap();
    let later = world.state().await;
    restored(&world, &plan(&world).await).await;
    holds(&world, &pinned, &[&back, &fresh], "after the first").await;
    let second = in_place_plan(&world.log(), &name("later")).await.unwrap();
    restored(&world, &second).await;
    holds(&world, &later, &[&fresh], "after the second").await;
    for batch in [&lost, &back, &fresh] {
        let found = find_batch(&world.log(), receipt(batch)).await.unwrap();
        assert!(matches!(found, BatchState::Absorbed { .. }), "{found:?}");
    }
    // The first again: another plan than before, and done again.
    let third = plan(&world).await;
    restored(&world, &third).await;
    assert_eq!(world.state().await.files, pinned.files);
    is_clean(&world).await;
}

/// The process dies at each request that changes something, before and after its effect; the next
/// one goes on with the same plan.
#[tokio::test]
async fn a_restore_that_dies_anywhere_goes_on() {
    let requests = [
        (KeyClass::Control, 3),
        (KeyClass::Log, 1),
        (KeyClass::Head, 1),
    ];
    let mut crashes = 0;
    for (class, most) in requests {
        for (nth, fault) in (0..most).flat_map(|n| {
            let faults = [
                Fault::CrashBefore,
                Fault::CrashAfter,
                Fault::ErrorAfter,
                Fault::ErrorBefore,
            ];
            faults.map(|fault| (n, fault))
        }) {
            let what = format!("{class:?} {nth} {fault:?}");
            let case = case().await;
            let world = &case.world;
            let plan = plan(world).await;
            let faulty = Plan::none().with("restore", Operation::Put, class, nth, fault);
            let faults = FaultWorld::immediate(Arc::new(world.memory.clone()), faulty);
            let over = Tier::from_store(faults.actor("restore"), "", "memory://");
            let over = over.tenant(&TenantId::default());
            let log = common::log(&over, &world.clock);
            let mut done = None;
            for attempt in 0..6 {
                let gone_on = match attempt {
                    0 | 1 => go(world, &log, &plan).await,
                    _ => go(world, &world.log(), &plan).await,
                };
                if let Ok(InPlace::Restored { version }) = gone_on {
                    done = Some(version);
                    break;
                }
                world.clock.advance(WAIT_US + 1);
            }
            crashes += faults.fired().len();
            let state = world.state().await;
            assert_eq!(state.files, case.pinned.files, "{what}");
            assert_eq!(state.revoked.len(), 1, "{what}");
            assert_eq!(done, Some(state.revoked[0].before), "{what}");
            let frozen = deletion_frozen(&world.store).await.unwrap();
            assert_eq!(frozen, None, "{what}");
            holds(world, &case.pinned, &[&case.back, &case.fresh], &what).await;
        }
    }
    assert!(crashes >= 14, "{crashes} faults: too few");
}

/// An absorb that was planned before the restore calls a batch a duplicate of one that is revoked
/// by the time it commits: it must plan again, or the batch were nowhere.
#[tokio::test]
async fn an_absorb_planned_before_the_restore_does_not_count_on_what_is_revoked() {
    let case = case().await;
    let world = &case.world;
    // The lost batch is sent again, while the ledger still knows it: so it is not lost any more.
    put(world, std::slice::from_ref(&case.lost)).await;
    let plan = plan(world).await;
    assert_eq!((plan.lost.len(), plan.returning_batches), (0, 2));
    go(world, &world.log(), &plan).await.unwrap();
    world.clock.advance(WAIT_US + 1);
    let faults = FaultWorld::scheduled(Arc::new(world.memory.clone()), Plan::none(), 1000);
    let over = Tier::from_store(faults.actor("absorb"), "", "memory://");
    let over = over.tenant(&TenantId::default());
    let late = Compactor::new(
        over.clone(),
        Arc::new(common::log(&over, &world.clock)),
        Options::default(),
        Arc::new(world.clock.clone()),
        Arc::new(SeededIds::new(31)),
    );
    let mut absorb = pin!(late.absorb(&ALL));
    let mut is_restored = false;
    let report = loop {
        if let std::task::Poll::Ready(report) = poll!(&mut absorb) {
            break report.unwrap();
        }
        let Some(ticket) = faults.waiting().into_iter().next() else {
            tokio::task::yield_now().await;
            continue;
        };
        let commits = ticket.what.contains("_delta_log") && ticket.what.starts_with("Put");
        if commits && !is_restored {
            is_restored = true;
            let done = go(world, &world.log(), &plan).await.unwrap();
            assert!(matches!(done, InPlace::Restored { .. }));
        }
        faults.grant(ticket.id);
    };
    assert!(is_restored && report.replans > 0, "{report:?}");
    let all = [&case.lost, &case.back, &case.fresh];
    holds(world, &case.pinned, &all, "after the late absorb").await;
    let found = find_batch(&world.log(), receipt(&case.lost)).await.unwrap();
    assert!(matches!(found, BatchState::Absorbed { .. }), "{found:?}");
    let clean = verify(&world.store, &world.log(), &|_| ()).await;
    assert!(clean.is_clean());
}
