//! A primary and a mirror that are worked on, copied, swept and restored in any order: both stay
//! whole, and in the end both are small.
#![allow(clippy::unwrap_used, clippy::panic)]

mod common;

use std::sync::Arc;

use common::{ALL, World, log, name, tenant};
use futures::FutureExt;
use futures::future::BoxFuture;
use stele_compact::{
    Compactor, Options, SWEEP_US_MAX, Standing, SweepReport, Witness, WitnessError, Witnesses,
};
use stele_model::time::{DAY_US, HOUR_US, MINUTE_US};
use stele_protect::{
    InPlace, ReplicateOptions, copy_l0, drop_snapshot, in_place_plan, replicate, restore_in_place,
    verify,
};
use stele_store::TenantStore;
use stele_table::deletion_frozen;
use stele_testkit::{MemoryStore, Rng, SeededIds};

struct Told(Standing);

impl Witnesses for Told {
    fn standing(&self) -> BoxFuture<'_, Result<Standing, WitnessError>> {
        let standing = self.0.clone();
        async move { Ok(standing) }.boxed()
    }
}

/// The sweep of one of two tiers.
async fn sweep(
    world: &World,
    own: &TenantStore,
    other: &TenantStore,
    primary: bool,
) -> SweepReport {
    let witness = Witness {
        tier: "other".to_owned(),
        log: Arc::new(log(other, &world.clock)),
    };
    let told = Told(Standing {
        may_commit: primary,
        others: vec![witness],
    });
    let compactor = Compactor::new(
        own.clone(),
        Arc::new(log(own, &world.clock)),
        Options::default(),
        Arc::new(world.clock.clone()),
        Arc::new(SeededIds::new(world.memory.mutations(0).len() as u64)),
    );
    let compactor = compactor.with_witnesses(Arc::new(told));
    compactor.sweep(&ALL).await.unwrap()
}

async fn copy(world: &World, mirror: &TenantStore) {
    let (from, to) = (world.log(), log(mirror, &world.clock));
    copy_l0(&from, &to).await.unwrap();
    let options = ReplicateOptions::default();
    replicate(&from, &to, &options, &|_| ()).await.unwrap();
}

/// The primary goes back to a snapshot; what is lost by that is known.
async fn go_back(world: &World, snapshot: &str) {
    let plan = in_place_plan(&world.log(), &name(snapshot)).await.unwrap();
    loop {
        let ids = SeededIds::new(90_000 + world.memory.mutations(0).len() as u64);
        let wait_us = SWEEP_US_MAX + MINUTE_US;
        let log = world.log();
        let gone = restore_in_place(&log, &plan.name, plan.hash, wait_us, &world.clock, &ids);
        match gone.await.unwrap() {
            InPlace::Restored { .. } => return,
            InPlace::Holding { until_us } => world.clock.set(until_us + 1),
        }
    }
}

#[tokio::test]
async fn two_tiers_that_sweep_by_each_other_stay_whole_and_become_small() {
    let (mut restores, mut deleted, mut waited) = (0, [0; 2], 0);
    for seed in 0..5 {
        let mut world = World::new();
        let memory = MemoryStore::new(world.clock.clone());
        let mirror = tenant(&memory, "default");
        let mut dice = Rng::new(seed);
        let mut pins = Vec::new();
        world.work(4).await;
        copy(&world, &mirror).await;
        for step in 0..40 {
            let what = format!("seed {seed} step {step}");
            match dice.below(10) {
                0..=2 => world.work(3).await,
                3 | 4 => copy(&world, &mirror).await,
                5 => world.clock.advance(dice.between(1, 30) * HOUR_US),
                6 if pins.len() < 3 => {
                    let pin = format!("pin{step}");
                    world.pin(&pin).await.unwrap();
                    pins.push(pin);
                }
                7 if dice.chance(30) && !pins.is_empty() => {
                    go_back(&world, &pins[dice.below(pins.len())].clone()).await;
                    restores += 1;
                }
                8 if dice.chance(50) && !pins.is_empty() => {
                    let pin = pins.swap_remove(0);
                    drop_snapshot(&world.log(), &name(&pin), &world.clock)
                        .await
                        .unwrap();
                }
                _ => {
                    let here = sweep(&world, &world.store, &mirror, true).await;
                    let there = sweep(&world, &mirror, &world.store, false).await;
                    for (n, report) in [&here, &there].into_iter().enumerate() {
                        assert_eq!(report.refused, None, "{what}");
                        deleted[n] += report.objects_deleted + report.files_deleted;
                        waited += report.files_unwitnessed + report.objects_unwitnessed;
                    }
                    assert_eq!(there.commits, 0, "{what}");
                }
            }
            let frozen = deletion_frozen(&world.store).await.unwrap();
            assert_eq!(frozen, None, "{what}");
            for (tier, store) in [("primary", &world.store), ("mirror", &mirror)] {
                let report = verify(store, &log(store, &world.clock), &|_| ()).await;
                assert!(report.is_clean(), "{what}: {tier}: {:?}", report.findings);
            }
        }
        // In the end: what is live, on both.
        for pin in pins {
            drop_snapshot(&world.log(), &name(&pin), &world.clock)
                .await
                .unwrap();
        }
        for _ in 0..6 {
            world.work(1).await;
            world.compactor.settle(&ALL, &|_| ()).await.unwrap();
            copy(&world, &mirror).await;
            world.clock.advance(DAY_US + HOUR_US);
            copy(&world, &mirror).await;
            sweep(&world, &mirror, &world.store, false).await;
            sweep(&world, &world.store, &mirror, true).await;
            copy(&world, &mirror).await;
        }
        for (tier, store) in [("primary", &world.store), ("mirror", &mirror)] {
            let state = log(store, &world.clock).load().await.unwrap().unwrap();
            let files = store.list("table").await.unwrap();
            let data = files.iter().filter(|o| o.key.contains("resolution="));
            let (data, live) = (data.count(), state.files.len());
            assert!(data <= live + 20, "seed {seed}: {tier}: {data} of {live}");
            assert!(
                store.list("pins").await.unwrap().is_empty(),
                "seed {seed}: {tier}"
            );
            assert!(state.removed.len() < 20, "seed {seed}: {tier}");
        }
    }
    assert!(restores > 2, "{restores} restores: too few");
    assert!(
        deleted.iter().all(|n| *n > 100) && waited > 0,
        "{deleted:?} {waited}"
    );
}
