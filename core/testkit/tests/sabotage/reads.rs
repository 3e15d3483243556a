//! A reader sees every sample once, whatever happens between two of its requests.

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;

use futures::poll;
use stele_compact::reader;
use stele_model::TenantId;
use stele_model::time::HOUR_US;
use stele_store::{Tier, keys};
use stele_table::{TableLog, View};
use stele_testkit::oracle::Samples;
use stele_testkit::{FaultWorld, Plan};

use crate::world::{ALL, World, hour};

/// The log of a process whose requests wait at the gates of `faults`.
pub fn gated(world: &World) -> (FaultWorld, TableLog) {
    let memory = Arc::new(world.memory.clone());
    let faults = FaultWorld::scheduled(memory, Plan::none(), 1_000);
    let tier = Tier::from_store(faults.actor("gated"), "", "gated");
    let (tenant, clock) = (tier.tenant(&TenantId::default()), world.clock.clone());
    let options = stele_table::Options::default();
    let log = TableLog::new(tenant, options, Arc::new(clock));
    (faults, log)
}

/// Lets `future` pass so many gates; what it came to, if it ended before.
pub async fn pass<F: Future + Unpin>(
    faults: &FaultWorld,
    future: &mut F,
    gates: usize,
) -> Option<F::Output> {
    let mut passed = 0;
    loop {
        if let Poll::Ready(output) = poll!(&mut *future) {
            return Some(output);
        }
        match faults.waiting().first() {
            Some(_) if passed == gates => return None,
            Some(ticket) => {
                faults.grant(ticket.id);
                passed += 1;
            }
            None => tokio::task::yield_now().await,
        }
    }
}

/// Between two requests of a reader, an object is absorbed, and swept after its grace.
pub async fn a_reader_stands_still() {
    for gates in 0..12 {
        let mut world = World::new();
        let worker = world.compactor(1);
        world.accept(hour("cpu", 8)).await;
        worker.absorb(&ALL).await.unwrap();
        let (faults, log) = gated(&world);
        let cached = world.log(24 * HOUR_US).load().await.unwrap();
        world.accept(hour("mem", 9)).await;
        let mut read = pin!(View::read(&log, cached));
        let mut view = pass(&faults, &mut read, gates).await;
        worker.absorb(&ALL).await.unwrap();
        world.clock.advance(HOUR_US);
        worker.sweep(&ALL).await.unwrap();
        if view.is_none() {
            view = pass(&faults, &mut read, usize::MAX).await;
        }
        let view = view.unwrap().unwrap();
        let got = match reader::all_samples(&world.store, &view).await {
            Ok(mut samples) => Samples::read(samples.as_mut()).unwrap(),
            // Sweep has passed: a reader begins again.
            Err(_) => continue,
        };
        if let Some(difference) = world.expected.first_difference(&got) {
            panic!("after {gates} gates a reader sees {difference}");
        }
    }
}

/// A window is sealed while its L0 object waits for its grace.
pub async fn a_window_is_sealed() {
    let mut world = World::new();
    world.accept(hour("cpu", 5)).await;
    world.compactor(1).settle(&ALL, &|_| ()).await.unwrap();
    world.check("sealed").await;
    let open = world.view().await.open_windows();
    assert!(open.is_empty(), "a sealed window counts as open");
}

/// The newest head is that of another table.
pub async fn a_head_of_another_table() {
    let mut worlds = [World::new(), World::new()];
    for (world, metric) in worlds.iter_mut().zip(["cpu", "mem"]) {
        world.accept(hour(metric, 8)).await;
        world.compactor(1).absorb(&ALL).await.unwrap();
    }
    let [ours, theirs] = &worlds;
    let head = ours.store.path(&keys::head(1));
    let other = theirs.memory.bytes(&head).unwrap();
    ours.memory.damage(&head, other);
    ours.check("beside the head of another table").await;
}
