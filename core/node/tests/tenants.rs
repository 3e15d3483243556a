//! What a process has open of the tiers, as they come and go.

#![allow(clippy::unwrap_used, clippy::panic)]

use std::sync::Arc;

use stele_model::TenantId;
use stele_node::Tenants;
use stele_store::{Opener, Role, Tier, TierSet, Tiers, publish_epoch};
use stele_table::Tables;
use stele_testkit::{FaultWorld, ManualClock, MemoryStore, Plan};

const START_US: i64 = 1_800_000_000_000_000;

struct World {
    faults: FaultWorld,
    clock: ManualClock,
    set: TierSet,
}

impl World {
    /// Two tiers, the primary `a` and the mirror `b`.
    async fn new() -> Self {
        let clock = ManualClock::new(START_US);
        let memory = MemoryStore::new(clock.clone());
        let faults = FaultWorld::immediate(Arc::new(memory), Plan::none());
        let first = TierSet::first("a".parse().unwrap(), "a");
        let b = "b".parse().unwrap();
        let set = first.adding(b, "b", Role::Mirror).unwrap();
        let set = set.joined(&"b".parse().unwrap()).unwrap();
        let world = Self { faults, clock, set };
        for name in ["a", "b"] {
            publish_epoch(&world.tier(name), &world.set).await.unwrap();
        }
        world
    }

    fn tier(&self, name: &str) -> Tier {
        Tier::from_store(self.faults.actor("node"), name, name)
    }

    async fn open(&self) -> Tenants {
        let store = self.faults.actor("node");
        let opener: Opener = Arc::new(move |name| Ok(Tier::from_store(store.clone(), name, name)));
        let seeds = ["a", "b"].map(|name| self.tier(name)).to_vec();
        let tiers = Tiers::new(seeds, opener, Arc::new(self.clock.clone()));
        let options = stele_compact::Options::default();
        Tenants::open(tiers, options, Arc::default()).await.unwrap()
    }

    /// The set is looked up anew.
    async fn refresh(&self, tenants: &Tenants) {
        self.clock
            .advance(i64::try_from(self.set.lease_ms).unwrap() * 1000);
        tenants.refresh().await.unwrap();
    }
}

#[tokio::test]
async fn a_mirror_that_comes_back_is_swept_and_one_that_is_away_is_not() {
    let world = World::new().await;
    let tenant = TenantId::default();
    world.faults.set_dead("b/", true);
    let tenants = world.open().await;
    assert_eq!(tenants.current().epoch(), world.set.epoch);
    assert_eq!(tenants.sweepers(&tenant).len(), 0);
    world.faults.set_dead("b/", false);
    world.refresh(&tenants).await;
    assert_eq!(tenants.sweepers(&tenant).len(), 1);
    world.faults.set_dead("b/", true);
    world.refresh(&tenants).await;
    assert_eq!(tenants.sweepers(&tenant).len(), 0);
}

#[tokio::test]
async fn a_store_that_failed_a_reader_is_asked_last() {
    let world = World::new().await;
    let tenants = world.open().await;
    let asked = || {
        let tables = tenants.tables_of(&TenantId::default()).into_iter();
        let stores = tables.map(|table| table.log.store().tier().url().to_owned());
        stores.collect::<Vec<_>>()
    };
    assert_eq!(asked(), ["a", "b"]);
    tenants.failed("a");
    assert_eq!(asked(), ["b", "a"]);
    tenants.failed("b");
    assert_eq!(asked(), ["a", "b"]);
}
