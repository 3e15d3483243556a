//! Tiers of one tenant, and sweeps that ask each other.

use std::pin::pin;
use std::sync::{Arc, Mutex};

use futures::future::BoxFuture;
use futures::{FutureExt, poll};
use stele_compact::{Compactor, Options, Standing, SweepReport, Witness, WitnessError, Witnesses};
use stele_model::Clock;
use stele_model::time::{DAY_US, HOUR_US};
use stele_store::keys;
use stele_table::{Pin, Why};
use stele_testkit::{FaultWorld, Plan};

use super::{ALL, DAY0, MINUTE, World, sample};

/// A configuration that a test can change; `None` cannot be read.
#[derive(Clone, Default)]
pub struct Told(pub Arc<Mutex<Option<Standing>>>);

impl Witnesses for Told {
    fn standing(&self) -> BoxFuture<'_, Result<Standing, WitnessError>> {
        let standing = self.0.lock().unwrap().clone();
        async move { standing.ok_or_else(|| "no configuration".into()) }.boxed()
    }
}

pub fn told(may_commit: bool, others: &[(&str, &World)]) -> Told {
    let others = others.iter().map(|(tier, world)| Witness {
        tier: (*tier).to_owned(),
        log: Arc::new(world.log(DAY_US)),
    });
    let standing = Standing {
        may_commit,
        others: others.collect(),
    };
    Told(Arc::new(Mutex::new(Some(standing))))
}

pub fn with(world: &World, witnesses: Told) -> Compactor {
    let ids = 900 + world.memory.mutations(0).len() as u64;
    let compactor = world.compactor_with(ids, Options::default());
    compactor.with_witnesses(Arc::new(witnesses))
}

/// The sweep of a primary with one mirror.
pub async fn sweep(primary: &World, mirror: &World) -> SweepReport {
    let compactor = with(primary, told(true, &[("mirror", mirror)]));
    compactor.sweep(&ALL).await.unwrap()
}

/// The sweep of that mirror.
pub async fn sweep_mirror(primary: &World, mirror: &World) -> SweepReport {
    let compactor = with(mirror, told(false, &[("primary", primary)]));
    compactor.sweep(&ALL).await.unwrap()
}

pub fn relative(world: &World, part: &str) -> Vec<String> {
    let base = world.store.path("").to_string();
    let keys = world.memory.keys(world.store.path(part).as_ref());
    let keys = keys
        .iter()
        .map(|key| key.as_ref()[base.len()..].trim_start_matches('/'));
    keys.map(str::to_owned).collect()
}

pub fn has(world: &World, key: &str) -> bool {
    world.memory.bytes(&world.store.path(key)).is_some()
}

pub async fn copy(from: &World, to: &World, key: &str) {
    let bytes = from.memory.bytes(&from.store.path(key)).unwrap();
    to.store.put_new(key, bytes).await.unwrap();
}

/// Copies what replication copies, up to and with entry `version`.
pub async fn replicate(from: &World, to: &World, version: u64) {
    let is_data = |key: &&String| key.starts_with("table/resolution=");
    let table = relative(from, "table");
    for key in table.iter().filter(is_data) {
        copy(from, to, key).await;
    }
    for key in relative(from, keys::LEDGER) {
        copy(from, to, &key).await;
    }
    for key in relative(from, keys::LOG) {
        let entry = keys::log_entry_version(&key).is_some_and(|v| v <= version);
        if entry || keys::checkpoint_version(&key).is_some_and(|v| v <= version) {
            copy(from, to, &key).await;
        }
    }
}

/// A primary whose table has garbage of every kind, all of it past the history.
pub async fn with_garbage() -> World {
    let mut world = World::new();
    let compactor = world.compactor(1);
    for n in 0..50 {
        world
            .accept(sample("cpu", DAY0 + 9 * HOUR_US + n, 1.0))
            .await;
        compactor.absorb(&ALL).await.unwrap();
        world.clock.advance(MINUTE);
    }
    compactor.settle(&ALL, &|_| ()).await.unwrap();
    world.clock.advance(DAY_US + HOUR_US);
    // Commits within the history, after the old ones.
    for n in 0..2 {
        world
            .accept(sample("cpu", DAY0 + 8 * HOUR_US + n, 1.0))
            .await;
        compactor.absorb(&ALL).await.unwrap();
    }
    world
}

/// Puts a pin of the newest version of `of` into `into`.
pub async fn pin(of: &World, into: &World, name: &str) {
    let state = of.state().await;
    let pin = Pin::new(
        name.parse().unwrap(),
        &state,
        of.clock.now_us(),
        Why::Manual,
        "",
    );
    let bytes = pin.unwrap().encode().unwrap();
    into.store.put_new(&keys::pin(name), bytes).await.unwrap();
}

/// A sweep alone; `meets` happens once, just before the first request that `when` says.
pub async fn sweep_that_meets(
    world: &World,
    mut when: impl FnMut(&str) -> bool,
    meets: impl AsyncFnOnce(),
) -> stele_compact::Result<SweepReport> {
    let faults = FaultWorld::scheduled(Arc::new(world.memory.clone()), Plan::none(), 1000);
    let compactor = world.compactor_over(faults.actor("sweep"), 50);
    let mut sweep = pin!(compactor.sweep(&ALL));
    let mut meets = Some(meets);
    loop {
        if let std::task::Poll::Ready(report) = poll!(&mut sweep) {
            assert!(meets.is_none(), "no such request");
            return report;
        }
        for ticket in faults.waiting() {
            if meets.is_some() && when(&ticket.what) {
                meets.take().unwrap()().await;
            }
            faults.grant(ticket.id);
        }
    }
}

/// Whether a request is the LIST of the markers, the last thing that a sweep gathers of one tier.
pub fn lists_markers(what: &str) -> bool {
    what.starts_with("List") && what.contains(keys::IDEM)
}
