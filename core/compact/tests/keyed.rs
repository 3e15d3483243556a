//! Idempotency keys through the whole life of a batch: an attempt is never counted twice, however
//! late it comes, and markers go when no attempt may come any more.

#![allow(clippy::unwrap_used, clippy::panic)]

mod common;

use std::sync::Arc;

use bytes::Bytes;
use common::{ALL, MINUTE, World, sample};
use stele_compact::Error;
use stele_ingest::{GroupLimits, IdempotencyKey, Ingestor, Options, Receipt, body_digest};
use stele_model::time::{DAY_US, HOUR_US, SECOND_US};
use stele_model::{Clock, Digest};
use stele_testkit::{Fault, FaultWorld, KeyClass, Operation, Plan};

fn key(text: &str) -> IdempotencyKey {
    IdempotencyKey::new(text.as_bytes()).unwrap()
}

fn body() -> Digest {
    body_digest("/write", b"cpu value=1")
}

/// One attempt at a submission whose one sample has no timestamp.
async fn attempt(
    world: &World,
    ingestor: &Ingestor,
    text: &str,
) -> Result<Receipt, stele_ingest::Error> {
    let now_us = world.clock.now_us();
    let received_us = ingestor.received_us(&key(text), body(), now_us).await?;
    let receipt = ingestor.accept(sample("cpu", received_us, 1.0)).await?;
    Ok(receipt.unwrap())
}

async fn live_rows(world: &World) -> u64 {
    let totals = world.state().await.totals;
    totals.rows - totals.duplicates - totals.overridden
}

#[tokio::test]
async fn an_attempt_after_absorb_and_sweep_is_acknowledged_and_counted_once() {
    for group in [None, Some(GroupLimits::default())] {
        let mut world = World::new();
        let options = Options {
            group,
            ..Options::default()
        };
        let ingestor = Ingestor::with_options(world.store.clone(), options);
        let compactor = world.compactor(1);
        let first_us = world.clock.now_us();
        let first = attempt(&world, &ingestor, "k").await.unwrap();
        world.expected.add(&sample("cpu", first_us, 1.0));
        // Before absorption.
        world.clock.advance(SECOND_US);
        assert_eq!(attempt(&world, &ingestor, "k").await.unwrap(), first);
        compactor.absorb(&ALL).await.unwrap();
        // After absorption, before the sweep.
        world.clock.advance(MINUTE);
        assert_eq!(attempt(&world, &ingestor, "k").await.unwrap(), first);
        world.clock.advance(HOUR_US);
        assert_eq!(compactor.sweep(&ALL).await.unwrap().objects_deleted, 1);
        assert!(world.store.l0_list().await.unwrap().is_empty());
        // After the sweep the attempt stores the object again; absorb finds nothing new in it.
        let late = attempt(&world, &ingestor, "k").await.unwrap();
        assert_eq!(late, first);
        assert_eq!(world.store.l0_list().await.unwrap()[0].name, first.name);
        let report = compactor.absorb(&ALL).await.unwrap();
        assert_eq!((report.ghosts, report.batches), (1, 0));
        assert_eq!(live_rows(&world).await, 1);
        compactor.settle(&ALL, &|_| ()).await.unwrap();
        world.clock.advance(HOUR_US);
        assert_eq!(compactor.sweep(&ALL).await.unwrap().objects_deleted, 1);
        world.check("settled and swept").await;
        // Another key is another submission.
        let other_us = world.clock.now_us();
        attempt(&world, &ingestor, "l").await.unwrap();
        world.expected.add(&sample("cpu", other_us, 1.0));
        compactor.settle(&ALL, &|_| ()).await.unwrap();
        assert_eq!(live_rows(&world).await, 2);
        world.check("two submissions").await;
    }
}

#[tokio::test]
async fn markers_go_after_two_days_and_nothing_else_under_their_prefix() {
    let world = World::new();
    let ingestor = Ingestor::new(world.store.clone());
    let compactor = world.compactor(1);
    attempt(&world, &ingestor, "old").await.unwrap();
    compactor.settle(&ALL, &|_| ()).await.unwrap();
    let foreign = "idem/README";
    let put = world.store.put_new(foreign, Bytes::from_static(b"x"));
    put.await.unwrap();
    world.clock.advance(DAY_US + HOUR_US);
    attempt(&world, &ingestor, "young").await.unwrap();
    assert!(attempt(&world, &ingestor, "old").await.is_err(), "409");
    world.clock.advance(DAY_US - HOUR_US - SECOND_US);
    let report = compactor.sweep(&ALL).await.unwrap();
    assert_eq!(report.markers_deleted, 0);
    world.clock.advance(SECOND_US);
    let report = compactor.sweep(&ALL).await.unwrap();
    assert_eq!(report.markers_deleted, 1);
    let left = world.store.list("idem").await.unwrap().into_iter();
    let left: Vec<String> = left.map(|object| object.key).collect();
    assert_eq!(left, [key("young").marker(), foreign.to_owned()]);
    let again = attempt(&world, &ingestor, "young").await;
    assert!(again.is_ok(), "the young one still counts");
}

#[tokio::test]
async fn markers_that_cannot_be_listed_stop_the_sweep_before_it_deletes() {
    let mut world = World::new();
    world.accept(sample("cpu", 5, 1.0)).await;
    let ingestor = Ingestor::new(world.store.clone());
    attempt(&world, &ingestor, "k").await.unwrap();
    world.compactor(1).settle(&ALL, &|_| ()).await.unwrap();
    world.clock.advance(5 * DAY_US);
    for fault in [Fault::ErrorBefore, Fault::ErrorAfter] {
        let plan = Plan::none().with("c", Operation::List, KeyClass::Idem, 0, fault);
        let faulty = FaultWorld::immediate(Arc::new(world.memory.clone()), plan);
        let before = world.memory.keys("tenants/");
        let compactor = world.compactor_over(faulty.actor("c"), 2);
        let swept = compactor.sweep(&ALL).await;
        assert!(matches!(swept, Err(Error::Store(_))), "{swept:?}");
        assert_eq!(world.memory.keys("tenants/"), before);
    }
    let report = world.compactor(3).sweep(&ALL).await.unwrap();
    assert_eq!((report.markers_deleted, report.objects_deleted), (1, 2));
}
