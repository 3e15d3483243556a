//! One tenant in memory, any number of compactors over it, and the oracle that knows what must
//! be there.
#![allow(dead_code, clippy::unwrap_used, clippy::panic)]

pub mod tiers;

use std::sync::Arc;

use object_store::ObjectStore;
use stele_compact::{Budget, Compactor, Options, reader};
use stele_format::{batch, l0};
use stele_model::time::{DAY_US, HOUR_US, MINUTE_US, SECOND_US};
use stele_model::{Batch, L0Name, NO_EXTRA, Resolution, Row, Rows, Series, TenantId};
use stele_store::{TenantStore, Tier};
use stele_table::{FileKind, TableLog, TableState, View};
use stele_testkit::oracle::{Rollups, Samples};
use stele_testkit::{ManualClock, MemoryStore, SeededIds};

/// 2026-11-22T00:00:00Z.
pub const DAY0: i64 = 20_779 * DAY_US;
/// The whole budget.
pub const ALL: Budget = Budget::unlimited();

pub struct World {
    pub clock: ManualClock,
    pub memory: MemoryStore,
    pub store: TenantStore,
    pub expected: Samples,
}

impl World {
    /// An empty tenant at noon.
    pub fn new() -> Self {
        let clock = ManualClock::new(DAY0 + 12 * HOUR_US);
        let memory = MemoryStore::new(clock.clone());
        let tier = Tier::from_store(Arc::new(memory.clone()), "", "memory://");
        Self {
            clock,
            memory,
            store: tier.tenant(&TenantId::default()),
            expected: Samples::default(),
        }
    }

    /// Another tier of the same tenant, empty, by the same clock.
    pub fn beside(&self) -> Self {
        let memory = MemoryStore::new(self.clock.clone());
        let tier = Tier::from_store(Arc::new(memory.clone()), "", "memory://beside");
        Self {
            clock: self.clock.clone(),
            memory,
            store: tier.tenant(&TenantId::default()),
            expected: Samples::default(),
        }
    }

    /// A compactor of its own process, with ids of its own seed.
    pub fn compactor(&self, seed: u64) -> Compactor {
        self.compactor_with(seed, Options::default())
    }

    pub fn compactor_with(&self, seed: u64, options: Options) -> Compactor {
        let ids = Arc::new(SeededIds::new(seed));
        let log = Arc::new(self.log(options.history_us));
        Compactor::new(
            self.store.clone(),
            log,
            options,
            Arc::new(self.clock.clone()),
            ids,
        )
    }

    /// A compactor whose requests go through `store`.
    pub fn compactor_over(&self, store: Arc<dyn ObjectStore>, seed: u64) -> Compactor {
        let tenant = Tier::from_store(store, "", "faulty").tenant(&TenantId::default());
        let ids = Arc::new(SeededIds::new(seed));
        let log = Arc::new(TableLog::new(
            tenant.clone(),
            stele_table::Options::default(),
            Arc::new(self.clock.clone()),
        ));
        let clock = Arc::new(self.clock.clone());
        Compactor::new(tenant, log, Options::default(), clock, ids)
    }

    pub fn log(&self, history_us: i64) -> TableLog {
        let options = stele_table::Options {
            history_us,
            ..stele_table::Options::default()
        };
        TableLog::new(self.store.clone(), options, Arc::new(self.clock.clone()))
    }

    /// Accepts one batch as one object.
    pub async fn accept(&mut self, rows: Rows) -> L0Name {
        self.accept_many(vec![rows]).await
    }

    /// Accepts several batches as one object.
    pub async fn accept_many(&mut self, batches: Vec<Rows>) -> L0Name {
        let batches: Vec<Batch> = batches.into_iter().map(batch).collect();
        batches
            .iter()
            .for_each(|batch| self.expected.add(&batch.rows));
        self.put(&batches).await
    }

    /// Stores an object again, or another object of batches already accepted.
    pub async fn put(&self, batches: &[Batch]) -> L0Name {
        let encoded = l0::encode(batches).unwrap();
        self.store
            .l0_put(&encoded.name, encoded.bytes)
            .await
            .unwrap();
        encoded.name
    }

    pub async fn view(&self) -> View {
        View::read(&self.log(DAY_US), None).await.unwrap()
    }

    pub async fn state(&self) -> Arc<TableState> {
        self.view().await.state
    }

    /// Every sample and every rollup, as a reader sees them now, is exactly what was accepted and
    /// has not expired.
    pub async fn check(&self, when: &str) {
        let view = self.view().await;
        let mut samples = reader::all_samples(&self.store, &view).await.unwrap();
        let got = Samples::read(samples.as_mut()).unwrap();
        let since = |resolution| {
            let before = view.state.expired.before(resolution);
            before.map_or(i64::MIN, |day| day.start_us())
        };
        let expected = self.expected.since(since(Resolution::Raw));
        if let Some(difference) = expected.first_difference(&got) {
            panic!("{when}: {difference}");
        }
        for resolution in Resolution::ROLLUPS {
            let mut rollups = reader::all_rollups(&self.store, &view, resolution)
                .await
                .unwrap();
            let got = Rollups::read(rollups.as_mut()).unwrap();
            let want = self.expected.rollups(resolution, true);
            let want = want.since(since(resolution));
            if let Some(difference) = want.first_difference(&got) {
                panic!("{when}: {resolution:?}: {difference}");
            }
        }
    }
}

pub fn series(metric: &str) -> Series {
    Series {
        metric: metric.to_owned(),
        tags: "{\"host\":\"a\"}".to_owned(),
    }
}

/// `count` samples of one metric from `start_us`, one every `step_us`.
pub fn rows(metric: &str, start_us: i64, step_us: i64, count: i64) -> Rows {
    #[expect(clippy::cast_precision_loss, reason = "small numbers of a test")]
    let row = |i: i64| Row {
        ts_us: start_us + i * step_us,
        value: (i % 7) as f64 + 0.25,
        series: 0,
        extra: NO_EXTRA,
    };
    Rows {
        series: vec![series(metric)],
        rows: (0..count).map(row).collect(),
        extras: Vec::new(),
    }
}

/// One sample.
pub fn sample(metric: &str, ts_us: i64, value: f64) -> Rows {
    let mut rows = rows(metric, ts_us, 1, 1);
    rows.rows[0].value = value;
    rows
}

/// An hour of the first day, one sample every 10 s.
pub fn hour(metric: &str, hour: i64) -> Rows {
    rows(metric, DAY0 + hour * HOUR_US, 10 * SECOND_US, 360)
}

/// How many live files there are of each kind: open, raw, 60s, 15m, 60m.
pub fn files(state: &TableState) -> [usize; 5] {
    FileKind::ALL.map(|kind| state.files_of(kind).count())
}

pub const MINUTE: i64 = MINUTE_US;
