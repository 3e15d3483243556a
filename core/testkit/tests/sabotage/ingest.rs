//! A receipt means every tier that the policy asks for.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use stele_ingest::{Ingestor, Options, Receipt};
use stele_model::time::SECOND_US;
use stele_model::{Clock, TenantId};
use stele_store::{Cut, Opener, Role, Tier, TierSet, Tiers, publish_epoch};
use stele_testkit::{Fault, FaultWorld, KeyClass, ManualClock, MemoryStore, Operation, Plan};

use crate::world::{DAY0, World, sample};

/// A clock that jumps by a minute when a store has so many objects in L0.
#[derive(Clone)]
struct Jumps {
    clock: ManualClock,
    store: Arc<MemoryStore>,
    objects: Arc<AtomicUsize>,
}

impl Clock for Jumps {
    fn now_us(&self) -> i64 {
        let keys = self.store.keys("");
        let l0 = keys.iter().filter(|key| key.as_ref().contains("/l0/"));
        match l0.count() >= self.objects.load(Ordering::SeqCst) {
            true => self.clock.now_us() + 61 * SECOND_US,
            false => self.clock.now_us(),
        }
    }
}

/// Two tiers, of which the first is in use.
struct Pair {
    stores: BTreeMap<String, (Tier, Cut)>,
    /// With so many objects on the first, a lease has ended.
    objects: Arc<AtomicUsize>,
    ingestor: Ingestor,
}

impl Pair {
    async fn new() -> Self {
        let clock = ManualClock::new(DAY0);
        let memory = ["a", "b"].map(|_| Arc::new(MemoryStore::new(clock.clone())));
        let store = |(name, memory): (&str, &Arc<MemoryStore>)| {
            let cut = Cut::over(&Tier::from_store(memory.clone(), "", name));
            (name.to_owned(), cut)
        };
        let stores: BTreeMap<String, (Tier, Cut)> =
            ["a", "b"].into_iter().zip(&memory).map(store).collect();
        let of_opener = stores.clone();
        let opener: Opener = Arc::new(move |url| Ok(of_opener[url].0.clone()));
        let objects = Arc::new(AtomicUsize::new(usize::MAX));
        let [store, _] = memory;
        let clock = Jumps {
            clock,
            store,
            objects: Arc::clone(&objects),
        };
        let tiers = Tiers::new(vec![stores["a"].0.clone()], opener, Arc::new(clock));
        let pair = Self {
            ingestor: Ingestor::over(tiers, TenantId::default(), Options::default()),
            stores,
            objects,
        };
        pair.publish(&first()).await;
        pair
    }

    async fn publish(&self, set: &TierSet) {
        for member in &set.members {
            publish_epoch(&self.stores[&member.url].0, set)
                .await
                .unwrap();
        }
    }

    async fn send(&self, n: i64) -> Option<Receipt> {
        let sent = self.ingestor.accept(sample("m", DAY0 + n, 1.0)).await;
        sent.ok().flatten()
    }

    async fn must_be_on_b(&self, receipt: &Receipt) {
        let store = self.stores["b"].0.tenant(&TenantId::default());
        let listed = store.l0_list().await.unwrap();
        let is_there = listed.iter().any(|object| object.name == receipt.name);
        assert!(is_there, "acknowledged, and not on b");
    }
}

fn first() -> TierSet {
    TierSet::first("a".parse().unwrap(), "a")
}

fn both() -> TierSet {
    first()
        .adding("b".parse().unwrap(), "b", Role::Mirror)
        .unwrap()
}

/// Under policy `all`, one of the tiers cannot be written.
pub async fn a_mirror_fails() {
    let pair = Pair::new().await;
    pair.publish(&both()).await;
    pair.must_be_on_b(&pair.send(1).await.unwrap()).await;
    pair.stores["b"].1.set(true);
    let receipt = pair.send(2).await;
    pair.stores["b"].1.set(false);
    if let Some(receipt) = receipt {
        pair.must_be_on_b(&receipt).await;
    }
}

/// A write sleeps for longer than its lease while a tier joins.
pub async fn the_set_changes() {
    let pair = Pair::new().await;
    pair.send(1).await.unwrap();
    pair.publish(&both()).await;
    pair.objects.store(2, Ordering::SeqCst);
    let receipt = pair.send(2).await.unwrap();
    pair.must_be_on_b(&receipt).await;
}

/// A PUT does not land and is answered "already exists", as a bare 409 is.
pub async fn a_name_seems_to_exist() {
    let world = World::new();
    let plan = Plan::none().with("in", Operation::Put, KeyClass::L0, 0, Fault::ExistsBefore);
    let faults = FaultWorld::immediate(Arc::new(world.memory.clone()), plan);
    let tier = Tier::from_store(faults.actor("in"), "", "faulty");
    let ingestor = Ingestor::new(tier.tenant(&TenantId::default()));
    let sent = ingestor.accept(sample("m", DAY0, 1.0)).await;
    let listed = world.store.l0_list().await.unwrap();
    let is_there = |receipt: Receipt| listed.iter().any(|object| object.name == receipt.name);
    let holds = sent.ok().flatten().is_none_or(is_there);
    assert!(holds, "acknowledged, and nowhere");
}
