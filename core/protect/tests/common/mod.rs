//! One tenant in memory that is compacted, and what snapshots of it need.
#![allow(dead_code, clippy::unwrap_used, clippy::panic)]

use std::sync::Arc;

use object_store::path::Path;
use stele_compact::{Budget, Compactor, Options, SweepReport};
use stele_format::{batch, l0};
use stele_model::time::{DAY_US, HOUR_US};
use stele_model::{Clock, TenantId};
use stele_protect::{NewSnapshot, SnapshotError, VerifyReport, create, verify};
use stele_store::{TenantStore, Tier};
use stele_table::{Pin, PinName, TableLog, TableState, Why};
use stele_testkit::gen_rows::RowGen;
use stele_testkit::{ManualClock, MemoryStore, Rng, SeededIds};

pub const ALL: Budget = Budget::unlimited();

pub struct World {
    pub clock: ManualClock,
    pub memory: MemoryStore,
    pub store: TenantStore,
    pub compactor: Compactor,
    random: RowGen,
}

pub fn name(text: &str) -> PinName {
    text.parse().unwrap()
}

impl World {
    pub fn new() -> Self {
        let clock = ManualClock::new(20_779 * DAY_US + 12 * HOUR_US);
        let memory = MemoryStore::new(clock.clone());
        let store = tenant(&memory, "default");
        let compactor = compactor(&store, &clock, 1);
        Self {
            clock,
            memory,
            store,
            compactor,
            random: RowGen::new(Rng::new(11), 5),
        }
    }

    /// A log of its own process.
    pub fn log(&self) -> TableLog {
        log(&self.store, &self.clock)
    }

    pub async fn state(&self) -> Arc<TableState> {
        self.log().load().await.unwrap().unwrap()
    }

    /// A batch, absorbed.
    pub async fn absorb(&mut self) {
        let rows = self.random.rows(self.clock.now_us(), 20, 30);
        let encoded = l0::encode(&[batch(rows)]).unwrap();
        let put = self.store.l0_put(&encoded.name, encoded.bytes).await;
        put.unwrap();
        self.compactor.absorb(&ALL).await.unwrap();
    }

    /// So many absorbs, ten minutes apart, some of them sealed.
    pub async fn work(&mut self, absorbs: usize) {
        for n in 0..absorbs {
            self.absorb().await;
            if n % 4 == 3 {
                self.compactor.seal(&ALL, true).await.unwrap();
            }
            self.clock.advance(HOUR_US / 6);
        }
    }

    pub async fn pin(&self, text: &str) -> Result<Pin, SnapshotError> {
        let new = NewSnapshot {
            name: name(text),
            why: Why::Manual,
            note: "by a test".to_owned(),
        };
        create(&self.log(), &new, &self.clock).await
    }

    /// A sweep of a process that remembers nothing.
    pub async fn sweep(&self) -> SweepReport {
        self.try_sweep().await.unwrap()
    }

    pub async fn try_sweep(&self) -> stele_compact::Result<SweepReport> {
        let ids = 1_000 + self.memory.mutations(0).len() as u64;
        compactor(&self.store, &self.clock, ids).sweep(&ALL).await
    }

    pub async fn verify(&self) -> VerifyReport {
        verify(&self.store, &self.log(), &|_| ()).await
    }

    pub fn keys(&self, part: &str) -> Vec<Path> {
        self.memory.keys(self.store.path(part).as_ref())
    }

    pub fn has(&self, key: &str) -> bool {
        self.memory.bytes(&self.store.path(key)).is_some()
    }
}

pub fn tenant(memory: &MemoryStore, tenant: &str) -> TenantStore {
    let tier = Tier::from_store(Arc::new(memory.clone()), "", "memory://");
    tier.tenant(&tenant.parse::<TenantId>().unwrap())
}

pub fn log(store: &TenantStore, clock: &ManualClock) -> TableLog {
    let options = stele_table::Options::default();
    TableLog::new(store.clone(), options, Arc::new(clock.clone()))
}

pub fn compactor(store: &TenantStore, clock: &ManualClock, ids: u64) -> Compactor {
    Compactor::new(
        store.clone(),
        Arc::new(log(store, clock)),
        Options::default(),
        Arc::new(clock.clone()),
        Arc::new(SeededIds::new(ids)),
    )
}
