//! Several compactors over one table, their requests interleaved by a seed, with and without
//! faults: nothing is lost, nothing is doubled, whoever wins.
#![allow(clippy::unwrap_used, clippy::panic)]

mod common;

use std::pin::pin;
use std::sync::Arc;

use common::{ALL, DAY0, World, hour, sample};
use futures::future::join3;
use futures::poll;
use stele_compact::Compactor;
use stele_model::Clock;
use stele_model::time::HOUR_US;
use stele_testkit::gen_rows::RowGen;
use stele_testkit::{Fault, FaultWorld, KeyClass, Operation, Plan, Rng};

/// Runs a future whose requests wait at the world's gates, letting one go on at a time.
async fn drive<F: Future>(faults: &FaultWorld, dice: &mut Rng, future: F) -> F::Output {
    let mut future = pin!(future);
    loop {
        if let std::task::Poll::Ready(output) = poll!(&mut future) {
            return output;
        }
        let waiting = faults.waiting();
        if waiting.is_empty() {
            tokio::task::yield_now().await;
        } else {
            faults.grant(waiting[dice.below(waiting.len())].id);
        }
    }
}

fn gated(world: &World) -> FaultWorld {
    FaultWorld::scheduled(Arc::new(world.memory.clone()), Plan::none(), 3)
}

/// A full turn of every job; what fails is tried again in the next turn.
async fn turn(compactor: &Compactor) -> u64 {
    let mut replans = 0;
    for _ in 0..2 {
        let absorb = compactor.absorb(&ALL).await;
        let seal = compactor.seal(&ALL, true).await;
        let consolidate = compactor.consolidate(&ALL).await;
        let reports = [absorb, seal, consolidate].into_iter().flatten();
        replans += reports.map(|report| report.replans).sum::<u64>();
    }
    replans
}

#[tokio::test]
async fn two_compactors_racing_lose_and_double_nothing() {
    let mut replans = 0;
    for seed in 0..20 {
        let mut world = World::new();
        let faults = gated(&world);
        let mut dice = Rng::new(seed);
        for n in 0..6 {
            world.accept(hour(&format!("m{}", n % 3), 6 + n)).await;
        }
        let one = world.compactor_over(faults.actor("one"), 1000 + seed);
        let two = world.compactor_over(faults.actor("two"), 2000 + seed);
        let absorbs = async { tokio::join!(one.absorb(&ALL), two.absorb(&ALL)) };
        let (a, b) = drive(&faults, &mut dice, absorbs).await;
        replans += a.unwrap().replans + b.unwrap().replans;
        world.check("after two absorbs").await;
        for n in 0..3 {
            let late = DAY0 + (6 + n) * HOUR_US + 17;
            world.accept(sample("m0", late, 7.0)).await;
        }
        let turns = async { tokio::join!(turn(&one), turn(&two)) };
        let (a, b) = drive(&faults, &mut dice, turns).await;
        replans += a + b;
        world.check(&format!("seed {seed}, after two turns")).await;
    }
    assert!(
        replans > 20,
        "{replans}: the two hardly met, so nothing was raced"
    );
}

#[tokio::test]
async fn an_absorb_during_every_seal_does_not_starve_it() {
    for seed in 0..10 {
        let mut world = World::new();
        let faults = gated(&world);
        let mut dice = Rng::new(seed);
        for n in 0..4 {
            world.accept(hour("cpu", 6 + n)).await;
        }
        let one = world.compactor_over(faults.actor("one"), seed);
        drive(&faults, &mut dice, one.absorb(&ALL)).await.unwrap();
        for n in 0..6 {
            world.accept(hour(&format!("m{n}"), 9)).await;
        }
        let both = async { tokio::join!(one.seal(&ALL, true), one.absorb(&ALL)) };
        let (sealed, absorbed) = drive(&faults, &mut dice, both).await;
        assert!(sealed.unwrap().windows_sealed >= 4);
        assert_eq!(absorbed.unwrap().objects, 6);
        world.check(&format!("seed {seed}")).await;
    }
}

#[tokio::test]
async fn random_batches_faults_and_three_compactors_stay_exact() {
    let (mut struck, mut crashed) = (0, 0);
    for seed in 0..12 {
        let mut world = World::new();
        let mut dice = Rng::new(seed);
        let plan = faults_of(&mut dice);
        let faults = FaultWorld::scheduled(Arc::new(world.memory.clone()), plan, 3);
        let names = ["one", "two", "three"];
        let mut random = RowGen::new(Rng::new(seed), 6);
        for step in 0..12 {
            for _ in 0..=dice.below(3) {
                let rows = random.rows(world.clock.now_us(), 30, 40);
                world.accept(rows).await;
            }
            world.clock.advance(dice.between(0, 40) * common::MINUTE);
            let compactors: Vec<Compactor> = (0..3)
                .map(|n| {
                    faults.restart(names[n]);
                    let id = seed * 1000 + step * 10 + n as u64;
                    world.compactor_over(faults.actor(names[n]), id)
                })
                .collect();
            let [a, b, c] = [&compactors[0], &compactors[1], &compactors[2]];
            let turns = join3(turn(a), turn(b), turn(c));
            drive(&faults, &mut dice, turns).await;
            crashed += names.iter().filter(|name| faults.has_crashed(name)).count();
            world.check(&format!("seed {seed} step {step}")).await;
        }
        struck += faults.fired().len();
        faults.end_faults();
        faults.land_all().await;
        world.clock.advance(3 * HOUR_US);
        let last = world.compactor(seed + 7_000_000);
        let report = last.settle(&ALL, &|_| ()).await.unwrap();
        assert!(
            report.complete && report.left.windows_not_closed == 0,
            "{report:?}"
        );
        world.check(&format!("seed {seed} at the end")).await;
        assert_eq!(world.memory.reused_keys(), [], "a key held two contents");
    }
    assert!(
        struck > 50 && crashed > 5,
        "{struck} faults, {crashed} crashes: too few"
    );
}

/// Faults a correct store may show, on every kind of request a compactor sends.
fn faults_of(dice: &mut Rng) -> Plan {
    let requests = [
        (KeyClass::L0, Operation::Get, 30),
        (KeyClass::L0, Operation::List, 20),
        (KeyClass::Log, Operation::Put, 20),
        (KeyClass::Log, Operation::Get, 60),
        (KeyClass::Ledger, Operation::Put, 10),
        (KeyClass::Ledger, Operation::Get, 20),
        (KeyClass::Data, Operation::Put, 30),
        (KeyClass::Data, Operation::Get, 40),
        (KeyClass::Head, Operation::Put, 20),
    ];
    let kinds = [
        Fault::ErrorBefore,
        Fault::ErrorAfter,
        Fault::Late { requests: 9 },
        Fault::Late { requests: 40 },
        Fault::CrashBefore,
        Fault::CrashAfter,
    ];
    let mut plan = Plan::none();
    for actor in ["one", "two", "three"] {
        for (class, operation, often) in requests {
            for _ in 0..2 {
                let nth = u32::try_from(dice.below(often)).unwrap();
                let fault = match (operation, dice.pick(&kinds)) {
                    (Operation::Put, Fault::Late { .. }) if dice.chance(50) => Fault::ExistsBefore,
                    (Operation::Get | Operation::List, Fault::Late { .. }) => Fault::ErrorBefore,
                    (_, fault) => fault,
                };
                plan = plan.with(actor, operation, class, nth, fault);
            }
        }
    }
    plan
}
