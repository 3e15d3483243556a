//! Dual write: which tiers hold a batch when it is acknowledged.

#![allow(clippy::unwrap_used, clippy::panic)]

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use stele_ingest::{Error, IdempotencyKey, Ingestor, Options, Receipt, body_digest};
use stele_model::time::SECOND_US;
use stele_model::{Clock, ErrorKind, NO_EXTRA, Row, Rows, Series, TenantId, TierId};
use stele_store::{
    Cut, Opener, RepairIntent, Role, TenantStore, Tier, TierSet, Tiers, WritePolicy, publish_epoch,
};
use stele_testkit::{ManualClock, MemoryStore};

/// Three stores behind switches, of which the set of the moment names some.
struct World {
    clock: ManualClock,
    stores: BTreeMap<String, (Tier, Cut)>,
    tiers: Tiers,
    ingestor: Ingestor,
}

fn id(text: &str) -> TierId {
    text.parse().unwrap()
}

fn rows(metric: &str) -> Rows {
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
        rows: (0..3).map(row).collect(),
        extras: Vec::new(),
    }
}

/// The tiers of which a process was told the one `seed`.
fn tiers(stores: &BTreeMap<String, (Tier, Cut)>, seed: &str, clock: Arc<dyn Clock>) -> Tiers {
    let of_opener = stores.clone();
    let opener: Opener = Arc::new(move |url| Ok(of_opener[url].0.clone()));
    Tiers::new(vec![stores[seed].0.clone()], opener, clock)
}

impl World {
    fn tiers_from(&self, seed: &str, clock: Arc<dyn Clock>) -> Tiers {
        tiers(&self.stores, seed, clock)
    }

    async fn new(set: &TierSet) -> Self {
        let clock = ManualClock::new(1_800_000_000_000_000);
        let store = |name: &str| {
            let memory = Arc::new(MemoryStore::new(clock.clone()));
            let cut = Cut::over(&Tier::from_store(memory, "", name));
            (name.to_owned(), cut)
        };
        let stores: BTreeMap<String, (Tier, Cut)> = ["a", "b", "c"].map(store).into();
        let tiers = tiers(&stores, "a", Arc::new(clock.clone()));
        let world = Self {
            ingestor: Ingestor::over(tiers.clone(), TenantId::default(), Options::default()),
            clock,
            stores,
            tiers,
        };
        world.publish(set).await;
        world
    }

    async fn publish(&self, set: &TierSet) {
        for member in &set.members {
            let (tier, _) = &self.stores[&member.url];
            publish_epoch(tier, set).await.unwrap();
        }
    }

    fn cut(&self, name: &str, is_cut: bool) {
        self.stores[name].1.set(is_cut);
    }

    fn store(&self, name: &str) -> TenantStore {
        self.stores[name].0.tenant(&TenantId::default())
    }

    async fn send(&self, metric: &str) -> Result<Receipt, Error> {
        Ok(self.ingestor.accept(rows(metric)).await?.unwrap())
    }

    async fn holds(&self, name: &str, receipt: &Receipt) -> bool {
        let listed = self.store(name).l0_list().await.unwrap();
        listed.iter().any(|object| object.name == receipt.name)
    }

    async fn intents(&self, of: &str) -> Vec<RepairIntent> {
        RepairIntent::list(&self.store("a"), &id(of)).await.unwrap()
    }
}

fn set() -> TierSet {
    let first = TierSet::first(id("a"), "a");
    first.adding(id("b"), "b", Role::Mirror).unwrap()
}

#[tokio::test]
async fn a_joining_tier_gets_every_batch_before_its_receipt() {
    let world = World::new(&set()).await;
    let receipt = world.send("m").await.unwrap();
    assert_eq!(receipt.tiers, ["a", "b"]);
    assert!(world.holds("a", &receipt).await && world.holds("b", &receipt).await);
}

#[tokio::test]
async fn under_policy_all_no_tier_may_fail() {
    let world = World::new(&set()).await;
    world.send("before").await.unwrap();
    for name in ["a", "b"] {
        world.cut(name, true);
        let error = world.send(name).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
        world.cut(name, false);
        let receipt = world.send(name).await.unwrap();
        assert!(world.holds("a", &receipt).await && world.holds("b", &receipt).await);
    }
    assert!(world.intents("b").await.is_empty());
}

#[tokio::test]
async fn under_policy_primary_an_intent_stands_for_the_mirror_before_the_receipt() {
    let set = set().joined(&id("b")).unwrap();
    let world = World::new(&set.writing(WritePolicy::Primary)).await;
    let whole = world.send("whole").await.unwrap();
    assert_eq!(whole.tiers, ["a", "b"]);
    world.cut("b", true);
    let half = world.send("half").await.unwrap();
    assert_eq!(half.tiers, ["a"]);
    let next = world.send("next").await.unwrap();
    let mut wanted = [half, next].map(|receipt| RepairIntent {
        name: receipt.name,
        batches: vec![(receipt.id.digest, receipt.id.day)],
    });
    wanted.sort_by_key(|intent| intent.name.to_string());
    assert_eq!(world.intents("b").await, wanted);
    world.cut("a", true);
    assert!(world.send("none").await.is_err(), "the primary is needed");
}

#[tokio::test(start_paused = true)]
async fn under_policy_primary_a_mirror_that_failed_is_left_alone_for_ten_seconds() {
    let set = set().joined(&id("b")).unwrap();
    let world = World::new(&set.writing(WritePolicy::Primary)).await;
    world.cut("b", true);
    assert_eq!(world.send("one").await.unwrap().tiers, ["a"]);
    world.cut("b", false);
    tokio::time::advance(Duration::from_millis(9_999)).await;
    assert_eq!(world.send("two").await.unwrap().tiers, ["a"]);
    tokio::time::advance(Duration::from_millis(1)).await;
    assert_eq!(world.send("three").await.unwrap().tiers, ["a", "b"]);
}

#[tokio::test]
async fn a_store_that_is_not_the_tier_gets_nothing_and_nothing_is_acknowledged() {
    let joined = set().joined(&id("b")).unwrap();
    let world = World::new(&TierSet::first(id("a"), "a")).await;
    // Published everywhere but on the mirror, whose store is empty.
    for set in [set(), joined] {
        publish_epoch(&world.stores["a"].0, &set).await.unwrap();
    }
    let error = world.send("m").await.unwrap_err();
    assert!(error.to_string().contains("tier b"), "{error}");
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert!(world.store("b").l0_list().await.unwrap().is_empty());
}

#[tokio::test]
async fn a_primary_whose_store_is_not_the_tier_is_named_and_gets_nothing() {
    // Published on the mirror alone: the store of the primary is empty, as if nothing was mounted.
    let world = World::new(&TierSet::first(id("b"), "b")).await;
    let set = set().joined(&id("b")).unwrap();
    publish_epoch(&world.stores["b"].0, &set).await.unwrap();
    let tiers = world.tiers_from("b", Arc::new(world.clock.clone()));
    let ingestor = Ingestor::over(tiers, TenantId::default(), Options::default());
    let error = ingestor.accept(rows("m")).await.unwrap_err();
    assert!(
        matches!(&error, Error::TierForeign { tier } if *tier == id("a")),
        "{error}"
    );
    for name in ["a", "b"] {
        assert!(world.store(name).l0_list().await.unwrap().is_empty());
    }
}

#[tokio::test]
async fn under_policy_primary_a_mirror_that_is_not_the_tier_gets_an_intent() {
    let joined = set().joined(&id("b")).unwrap();
    let world = World::new(&TierSet::first(id("a"), "a")).await;
    let sets = [set(), joined.clone(), joined.writing(WritePolicy::Primary)];
    for set in sets {
        publish_epoch(&world.stores["a"].0, &set).await.unwrap();
    }
    let receipt = world.send("m").await.unwrap();
    assert_eq!(receipt.tiers, ["a"]);
    assert_eq!(world.intents("b").await.len(), 1);
    assert!(world.store("b").l0_list().await.unwrap().is_empty());
}

#[tokio::test]
async fn a_set_that_only_a_mirror_tells_of_is_not_written_by() {
    // The newest set, which adds c, has reached the primary alone.
    let world = World::new(&set()).await;
    let next = set().joined(&id("b")).unwrap();
    let last = next.adding(id("c"), "c", Role::Mirror).unwrap();
    for known in [&next, &last] {
        publish_epoch(&world.stores["a"].0, known).await.unwrap();
    }
    publish_epoch(&world.stores["b"].0, &next).await.unwrap();
    let tiers = world.tiers_from("b", Arc::new(world.clock.clone()));
    let ingestor = Ingestor::over(tiers.clone(), TenantId::default(), Options::default());
    world.cut("a", true);
    // What b says is good enough to read by.
    assert_eq!(tiers.current().await.unwrap().epoch(), next.epoch);
    let error = ingestor.accept(rows("m")).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
    world.cut("a", false);
    let receipt = ingestor.accept(rows("m")).await.unwrap().unwrap();
    assert_eq!(receipt.tiers, ["a", "b", "c"]);
}

/// A clock that jumps by a minute after it was read a number of times.
#[derive(Clone)]
struct Jumps {
    clock: ManualClock,
    reads_left: Arc<AtomicI64>,
}

impl Clock for Jumps {
    fn now_us(&self) -> i64 {
        match self.reads_left.fetch_sub(1, Ordering::Relaxed) {
            ..=0 => self.clock.now_us() + 61 * SECOND_US,
            _ => self.clock.now_us(),
        }
    }
}

#[tokio::test]
async fn a_set_that_changed_during_the_writes_is_written_to_as_well() {
    let world = World::new(&TierSet::first(id("a"), "a")).await;
    let clock = Jumps {
        clock: world.clock.clone(),
        reads_left: Arc::new(AtomicI64::new(i64::MAX)),
    };
    let reads_left = Arc::clone(&clock.reads_left);
    let tiers = world.tiers_from("a", Arc::new(clock));
    let ingestor = Ingestor::over(tiers, TenantId::default(), Options::default());
    let send = async |metric| ingestor.accept(rows(metric)).await.unwrap().unwrap();
    assert_eq!(send("before").await.tiers, ["a"]);
    world.publish(&set()).await;
    // Within its lease the process goes on with what it knows: who joins copies that.
    assert_eq!(send("within").await.tiers, ["a"]);
    // Both clocks are read when the write begins; it sleeps for longer than the lease, and then
    // finds that out.
    reads_left.store(2, Ordering::Relaxed);
    let receipt = send("across").await;
    assert_eq!(receipt.tiers, ["a", "b"]);
    assert!(world.holds("b", &receipt).await);
}

fn key() -> IdempotencyKey {
    IdempotencyKey::new(b"k").unwrap()
}

impl World {
    /// The receive time of a request that comes now with the key.
    async fn ask(&self) -> Result<i64, Error> {
        let body = body_digest("/write", b"m value=1");
        let now_us = self.clock.now_us();
        self.ingestor.received_us(&key(), body, now_us).await
    }

    async fn marker(&self, name: &str) -> Option<bytes::Bytes> {
        let marker = self.store(name).get_opt(&key().marker()).await;
        marker.unwrap()
    }
}

#[tokio::test]
async fn the_marker_of_a_key_is_the_same_on_every_tier() {
    let world = World::new(&set()).await;
    let first_us = world.clock.now_us();
    assert_eq!(world.ask().await.unwrap(), first_us);
    assert!(world.marker("a").await.is_some());
    assert_eq!(world.marker("a").await, world.marker("b").await);
    world.clock.advance(5 * SECOND_US);
    assert_eq!(world.ask().await.unwrap(), first_us);
    // The mirror, promoted, answers the same.
    let joined = set().joined(&id("b")).unwrap();
    for set in [joined.clone(), joined.promoting(&id("b"), false).unwrap()] {
        world.publish(&set).await;
    }
    world.clock.advance(61 * SECOND_US);
    assert_eq!(world.ask().await.unwrap(), first_us);
    assert_eq!(world.tiers.current().await.unwrap().primary.url(), "b");
}

#[tokio::test]
async fn an_old_marker_that_only_the_primary_has_swept_makes_the_key_old() {
    let world = World::new(&set()).await;
    world.ask().await.unwrap();
    world.clock.advance(49 * 3600 * SECOND_US);
    world.store("a").delete(&key().marker()).await.unwrap();
    let error = world.ask().await.unwrap_err();
    assert!(matches!(error, Error::KeyOld { .. }), "{error}");
    assert_eq!(error.kind(), ErrorKind::Conflict);
    world.store("b").delete(&key().marker()).await.unwrap();
    assert_eq!(world.ask().await.unwrap(), world.clock.now_us());
}

#[tokio::test]
async fn a_marker_that_differs_on_a_mirror_is_no_acknowledgement() {
    let joined = set().joined(&id("b")).unwrap();
    for policy in [WritePolicy::All, WritePolicy::Primary] {
        let world = World::new(&joined.writing(policy)).await;
        let mirror = world.store("b");
        let other = mirror.put_new(&key().marker(), "other".into()).await;
        other.unwrap();
        let error = world.ask().await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corrupt, "{policy:?}");
        assert!(error.to_string().contains("tier b"), "{error}");
    }
}

#[tokio::test]
async fn under_policy_all_a_key_waits_for_its_marker_on_every_tier() {
    let world = World::new(&set()).await;
    world.tiers.current().await.unwrap();
    world.cut("b", true);
    let error = world.ask().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
    assert!(error.to_string().contains("tier b"), "{error}");
    world.cut("b", false);
    world.ask().await.unwrap();
    assert_eq!(world.marker("a").await, world.marker("b").await);
}

#[tokio::test]
async fn under_policy_primary_a_key_does_not_wait_for_a_mirror() {
    let joined = set().joined(&id("b")).unwrap();
    let world = World::new(&joined.writing(WritePolicy::Primary)).await;
    world.cut("b", true);
    let first_us = world.ask().await.unwrap();
    world.cut("b", false);
    world.clock.advance(SECOND_US);
    assert_eq!(world.ask().await.unwrap(), first_us);
    assert_eq!(world.marker("b").await, None, "replication brings it");
}
