//! Group commit: who is acknowledged when, by how many PUTs.

#![allow(clippy::unwrap_used, clippy::panic)]

use std::sync::Arc;
use std::time::Duration;

use stele_format::l0;
use stele_ingest::{GroupLimits, Ingestor, Options, Receipt, Result};
use stele_model::{ErrorKind, NO_EXTRA, Row, Rows, Series, TenantId};
use stele_store::{TenantStore, Tier};
use stele_testkit::{
    Fault, FaultWorld, KeyClass, ManualClock, MemoryStore, Operation, Plan, Ticket,
};
use tokio::task::JoinHandle;

/// An ingestor whose requests wait until the test lets them go on.
struct World {
    memory: TenantStore,
    world: FaultWorld,
    ingestor: Ingestor,
}

/// `count` samples of one metric.
fn rows(metric: &str, count: usize) -> Rows {
    let row = |ts_us| Row {
        ts_us,
        value: 1.5,
        series: 0,
        extra: NO_EXTRA,
    };
    Rows {
        series: vec![Series {
            metric: metric.to_owned(),
            ..Series::default()
        }],
        rows: (0..i64::try_from(count).unwrap()).map(row).collect(),
        extras: Vec::new(),
    }
}

type Request = JoinHandle<Result<Option<Receipt>>>;

impl World {
    fn new(limits: GroupLimits, plan: Plan) -> Self {
        let memory = MemoryStore::new(ManualClock::new(1_800_000_000_000_000));
        let world = FaultWorld::scheduled(Arc::new(memory.clone()), plan, usize::MAX);
        let tenant = |store| Tier::from_store(store, "", "sim").tenant(&TenantId::default());
        let options = Options {
            group: Some(limits),
            ..Options::default()
        };
        Self {
            memory: tenant(Arc::new(memory)),
            ingestor: Ingestor::with_options(tenant(world.actor("in")), options),
            world,
        }
    }

    fn usual() -> Self {
        Self::new(GroupLimits::default(), Plan::none())
    }

    /// Begins to store one batch; the request is its own task, as a connection's is.
    async fn begin(&self, metric: &str, count: usize) -> Request {
        let (ingestor, rows) = (self.ingestor.clone(), rows(metric, count));
        let request = tokio::spawn(async move { ingestor.accept(rows).await });
        self.run().await;
        request
    }

    /// Lets every task go as far as it can while no time passes.
    async fn run(&self) {
        for _ in 0..50 {
            tokio::task::yield_now().await;
        }
    }

    fn waiting(&self) -> Vec<String> {
        let waiting = self.world.waiting().into_iter();
        waiting.map(|Ticket { what, .. }| what).collect()
    }

    /// How many PUTs stand at the store's door.
    fn puts(&self) -> usize {
        let is_put = |what: &&String| what.starts_with("Put l0/");
        self.waiting().iter().filter(is_put).count()
    }

    /// Lets the request that waits longest go through one gate.
    async fn grant(&self) {
        let first = self.world.waiting().into_iter().next();
        self.world.grant(first.unwrap().id);
        self.run().await;
    }

    /// Lets everything that stands at the store go to its end.
    async fn finish(&self) {
        while !self.world.waiting().is_empty() {
            self.grant().await;
        }
    }

    /// The acknowledgement of a request that must be done; its object really holds the batch.
    async fn acked(&self, request: Request) -> Receipt {
        assert!(request.is_finished());
        let receipt = request.await.unwrap().unwrap().unwrap();
        let bytes = self.memory.l0_get(&receipt.name).await.unwrap();
        let batches = l0::decode(bytes).unwrap();
        let holds = batches.iter().filter(|b| b.digest == receipt.id.digest);
        assert_eq!(holds.count(), 1, "{receipt:?}");
        receipt
    }

    async fn objects(&self) -> usize {
        self.memory.l0_list().await.unwrap().len()
    }
}

#[tokio::test(start_paused = true)]
async fn an_idle_ingestor_puts_at_once() {
    let world = World::usual();
    for metric in ["a", "b"] {
        let request = world.begin(metric, 3).await;
        assert_eq!(world.puts(), 1);
        world.finish().await;
        let receipt = world.acked(request).await;
        assert_eq!(receipt.rows, 3);
        assert_eq!(receipt.name.digest, receipt.id.digest);
    }
    assert_eq!((world.objects().await, world.world.requests()), (2, 2));
}

#[tokio::test(start_paused = true)]
async fn what_comes_during_a_put_is_one_further_put() {
    let world = World::usual();
    let first = world.begin("first", 1).await;
    let mut others = Vec::new();
    for n in 0..20 {
        others.push(world.begin(&format!("m{n}"), 1 + n).await);
    }
    assert_eq!(world.puts(), 1, "the others gather");
    // The object is there; its answer is not.
    world.grant().await;
    assert!(!first.is_finished() && world.puts() == 0);
    world.grant().await;
    world.acked(first).await;
    assert!(others.iter().all(|request| !request.is_finished()));
    assert_eq!(world.puts(), 1);
    world.finish().await;
    let mut names = Vec::new();
    for (n, request) in (0..).zip(others) {
        let receipt = world.acked(request).await;
        assert_eq!(receipt.rows, 1 + n);
        names.push(receipt.name);
    }
    names.dedup();
    assert_eq!((names.len(), world.world.requests()), (1, 2));
}

#[tokio::test(start_paused = true)]
async fn two_equal_batches_of_a_group_are_both_acknowledged_and_stored_once() {
    let world = World::usual();
    let first = world.begin("first", 1).await;
    let (one, two) = (world.begin("same", 9).await, world.begin("same", 9).await);
    let other = world.begin("other", 1).await;
    world.finish().await;
    world.acked(first).await;
    world.acked(other).await;
    let (one, two) = (world.acked(one).await, world.acked(two).await);
    assert_eq!(one, two);
    let bytes = world.memory.l0_get(&one.name).await.unwrap();
    assert_eq!(l0::decode(bytes).unwrap().len(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_group_waits_no_longer_than_its_limit_for_a_slow_put() {
    let world = World::usual();
    let slow = world.begin("slow", 1).await;
    let one = world.begin("one", 1).await;
    tokio::time::advance(Duration::from_millis(60)).await;
    let two = world.begin("two", 1).await;
    tokio::time::advance(Duration::from_millis(39)).await;
    world.run().await;
    assert_eq!(world.puts(), 1, "99 ms after the first of the group");
    tokio::time::advance(Duration::from_millis(1)).await;
    world.run().await;
    assert_eq!(world.puts(), 2);
    let three = world.begin("three", 1).await;
    assert_eq!(world.puts(), 2, "the next group gathers");
    world.finish().await;
    world.acked(slow).await;
    world.acked(three).await;
    assert_eq!(world.acked(one).await.name, world.acked(two).await.name);
    assert_eq!(world.objects().await, 3);
}

#[tokio::test(start_paused = true)]
async fn a_group_that_is_full_goes_at_once_and_its_last_batch_with_it() {
    let limits = GroupLimits {
        bytes_max: rows("m", 100).memory_bytes() * 2,
        ..GroupLimits::default()
    };
    let world = World::new(limits, Plan::none());
    let slow = world.begin("slow", 1).await;
    let mut group = vec![world.begin("a", 100).await];
    group.push(world.begin("b", 90).await);
    assert_eq!(world.puts(), 1);
    group.push(world.begin("c", 150).await);
    assert_eq!(world.puts(), 2, "full");
    let next = world.begin("d", 1).await;
    assert_eq!(world.puts(), 2, "another group");
    let large = world.begin("e", 300).await;
    assert_eq!(world.puts(), 3, "one batch can fill a group");
    world.finish().await;
    let mut names = Vec::new();
    for request in group {
        names.push(world.acked(request).await.name);
    }
    names.dedup();
    assert_eq!(names.len(), 1);
    world.acked(slow).await;
    assert_eq!(world.acked(next).await.name, world.acked(large).await.name);
}

#[tokio::test(start_paused = true)]
async fn a_put_that_fails_fails_all_its_requests_and_no_others() {
    // The second object's PUT, each time it is tried.
    let plan = (1..5).fold(Plan::none(), |plan, nth| {
        let fault = Fault::ErrorBefore;
        plan.with("in", Operation::Put, KeyClass::L0, nth, fault)
    });
    let world = World::new(GroupLimits::default(), plan);
    let first = world.begin("first", 1).await;
    let group = [world.begin("a", 1).await, world.begin("b", 1).await];
    world.grant().await;
    world.grant().await;
    let next = world.begin("next", 1).await;
    world.finish().await;
    world.acked(first).await;
    for request in group {
        let error = request.await.unwrap().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
    }
    assert_eq!(world.acked(next).await.rows, 1);
    assert_eq!(world.objects().await, 2);
}

#[tokio::test(start_paused = true)]
async fn an_unknown_outcome_is_no_acknowledgement() {
    // Every PUT of the group is answered with an error; the last one lands late.
    let plan = (1..5).fold(Plan::none(), |plan, nth| {
        let fault = match nth {
            4 => Fault::Late { requests: 9 },
            _ => Fault::ErrorBefore,
        };
        plan.with("in", Operation::Put, KeyClass::L0, nth, fault)
    });
    let world = World::new(GroupLimits::default(), plan);
    let first = world.begin("first", 1).await;
    let group = [world.begin("a", 1).await, world.begin("b", 1).await];
    world.finish().await;
    world.acked(first).await;
    for request in group {
        assert_eq!(
            request.await.unwrap().unwrap_err().kind(),
            ErrorKind::Unavailable
        );
    }
    world.world.land_all().await;
    assert_eq!(world.objects().await, 2, "it landed, unacknowledged");
}

#[tokio::test(start_paused = true)]
async fn a_request_that_goes_away_takes_nothing_from_the_others() {
    let world = World::usual();
    let first = world.begin("first", 1).await;
    let gone = world.begin("gone", 1).await;
    let stays = world.begin("stays", 1).await;
    // While gathering: the one that began the group.
    gone.abort();
    world.run().await;
    world.grant().await;
    world.grant().await;
    world.acked(first).await;
    // While the PUT is at the store: one that joined.
    let next_gone = world.begin("next gone", 1).await;
    let next = world.begin("next", 1).await;
    world.grant().await;
    world.grant().await;
    world.acked(stays).await;
    assert_eq!(world.puts(), 1);
    next_gone.abort();
    world.run().await;
    assert_eq!(world.puts(), 1);
    world.finish().await;
    world.acked(next).await;
}

#[tokio::test(start_paused = true)]
async fn a_sender_that_leaves_a_lonely_put_leaves_the_ingestor_idle() {
    let world = World::usual();
    let gone = world.begin("gone", 1).await;
    let waits = world.begin("waits", 1).await;
    assert_eq!(world.puts(), 1);
    gone.abort();
    world.run().await;
    assert_eq!(
        world.puts(),
        1,
        "the group goes out, the lonely PUT is over"
    );
    waits.abort();
    world.run().await;
    assert_eq!(
        world.waiting(),
        Vec::<String>::new(),
        "nothing outlives them"
    );
    // A group that everyone left while it gathered is no group.
    let slow = world.begin("slow", 1).await;
    world.begin("left", 1).await.abort();
    world.run().await;
    let last = world.begin("last", 1).await;
    world.finish().await;
    world.acked(slow).await;
    let last = world.acked(last).await;
    assert_eq!(last.name.digest, last.id.digest, "alone in its object");
}
