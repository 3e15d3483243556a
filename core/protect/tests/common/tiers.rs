//! Tiers in one memory, and who works on them.
#![allow(dead_code, clippy::unwrap_used, clippy::panic)]

use std::sync::Arc;

use object_store::ObjectStore;
use stele_compact::{Budget, Compactor, reader};
use stele_ingest::{Ingestor, Options};
use stele_model::time::{HOUR_US, MINUTE_US};
use stele_model::{Ids, NO_EXTRA, Row, Rows, Series, TenantId, TierId};
use stele_protect::{MigrateError, MigrateOptions, Migration, Step, init};
use stele_store::{Cut, Tier, TierSet, Tiers};
use stele_table::{Owner, TableLog, View};
use stele_testkit::oracle::Samples;
use stele_testkit::{ManualClock, MemoryStore};

/// Tiers in one memory, so that one fuse counts the mutations of all.
pub struct World {
    pub memory: MemoryStore,
    pub clock: ManualClock,
    pub ids: Arc<Numbered>,
}

/// Ids that are the same in every run.
#[derive(Default)]
pub struct Numbered(std::sync::atomic::AtomicU64);

impl Ids for Numbered {
    fn operation_id(&self) -> String {
        let n = self.0.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        format!("{n:032x}")
    }
}

pub fn id(name: &str) -> TierId {
    name.parse().unwrap()
}

pub fn tier(store: &Arc<dyn ObjectStore>, name: &str) -> Tier {
    Tier::from_store(Arc::clone(store), name, name)
}

/// An hour of one metric, a sample a minute.
pub fn rows(metric: &str, hour: i64) -> Rows {
    let row = |minute| Row {
        ts_us: hour * HOUR_US + minute * MINUTE_US,
        value: 1.5,
        series: 0,
        extra: NO_EXTRA,
    };
    Rows {
        series: vec![Series {
            metric: metric.to_owned(),
            ..Series::default()
        }],
        rows: (0..60).map(row).collect(),
        extras: Vec::new(),
    }
}

/// 2027-01-15, in hours.
pub const HOUR: i64 = 500_000;

impl World {
    /// One tier with two absorbed and sealed batches, and one that is not absorbed.
    pub async fn new() -> Self {
        let clock = ManualClock::new((HOUR + 5) * HOUR_US);
        let world = Self {
            memory: MemoryStore::new(clock.clone()),
            clock,
            ids: Arc::default(),
        };
        let mut first = TierSet::first(id("a"), "a");
        (first.lease_ms, first.request_ms) = (1_000, 1_000);
        first.is_quiet = true;
        init(&tier(&world.store(), "a"), &first).await.unwrap();
        world.send("one", 0).await.unwrap();
        world.send("two", 1).await.unwrap();
        let compactor = world.compactor("a", 0);
        let settled = compactor.settle(&Budget::default(), &|_| {}).await;
        assert!(settled.unwrap().complete);
        world.send("late", 1).await.unwrap();
        world
    }

    pub fn store(&self) -> Arc<dyn ObjectStore> {
        Arc::new(self.memory.clone())
    }

    pub fn tiers(&self, store: Arc<dyn ObjectStore>) -> Tiers {
        let seed = tier(&store, "a");
        let opener = move |name: &str| Ok(tier(&store, name));
        Tiers::new(vec![seed], Arc::new(opener), Arc::new(self.clock.clone()))
    }

    pub async fn send(&self, metric: &str, hour: i64) -> Result<(), stele_ingest::Error> {
        let tiers = self.tiers(self.store());
        let ingestor = Ingestor::over(tiers, TenantId::default(), Options::default());
        ingestor.accept(rows(metric, HOUR + hour)).await.map(|_| ())
    }

    pub fn log(&self, name: &str) -> TableLog {
        self.log_of(name, &TenantId::default())
    }

    pub fn log_of(&self, name: &str, tenant: &TenantId) -> TableLog {
        let store = tier(&self.store(), name).tenant(tenant);
        let clock = Arc::new(self.clock.clone());
        TableLog::new(store, stele_table::Options::default(), clock)
    }

    pub fn compactor(&self, name: &str, since_epoch: u64) -> Compactor {
        let owner = Owner {
            tier: id(name),
            since_epoch,
        };
        let log = Arc::new(self.log(name).with_owner(owner));
        let options = stele_compact::Options::default();
        let (clock, ids) = (Arc::new(self.clock.clone()), Arc::clone(&self.ids));
        Compactor::new(log.store().clone(), log, options, clock, ids)
    }

    pub fn migration(&self, store: Arc<dyn ObjectStore>) -> Migration {
        self.migration_by(self.tiers(store))
    }

    /// What an operator does who cannot reach the tiers that are `gone`, and knows of a and b.
    pub fn migration_without(&self, gone: &[&str]) -> Migration {
        let store = self.store();
        let gone: Vec<String> = gone.iter().map(|name| (*name).to_owned()).collect();
        let open = move |name: &str| {
            let (tier, cut) = Cut::over(&tier(&store, name));
            cut.set(gone.iter().any(|gone| gone == name));
            tier
        };
        let seeds = vec![open("a"), open("b")];
        let clock = Arc::new(self.clock.clone());
        self.migration_by(Tiers::new(
            seeds,
            Arc::new(move |name| Ok(open(name))),
            clock,
        ))
    }

    fn migration_by(&self, tiers: Tiers) -> Migration {
        let options = MigrateOptions {
            table: stele_table::Options::default(),
            marker_keep_us: 48 * HOUR_US,
            bytes_per_second: None,
            copies: 1,
        };
        let (clock, ids) = (Arc::new(self.clock.clone()), Arc::clone(&self.ids));
        Migration::new(tiers, options, clock, ids)
    }

    pub async fn step<T>(
        &self,
        take: impl AsyncFn() -> Result<Step<T>, MigrateError>,
    ) -> Result<T, MigrateError> {
        for _ in 0..20 {
            match take().await? {
                Step::Done(done) => return Ok(done),
                Step::Wait { us } => self.clock.advance(us),
            }
        }
        panic!("it waits for ever");
    }

    pub async fn samples(&self, name: &str) -> Samples {
        let log = self.log(name);
        let view = View::read(&log, None).await.unwrap();
        let samples = reader::all_samples(log.store(), &view).await;
        Samples::read(samples.unwrap().as_mut()).unwrap()
    }
}
