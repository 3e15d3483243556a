//! A store in memory with a compactor and an engine over it, and small data worked out by hand.

use std::sync::Arc;

use futures::StreamExt;
use stele_compact::{Budget, Compactor};
use stele_model::time::parse_rfc3339;
use stele_model::{Extra, Kind, NO_EXTRA, Row, Rows, Series, Summary, TenantId};
use stele_query::{Error, Format, QueryConfig, QueryEngine, QueryState, output};
use stele_store::{TenantStore, Tier};
use stele_table::{AsOf, TableLog};
use stele_testkit::{CountingStore, ManualClock, MemoryStore, SeededIds};

/// How far the data has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// Accepted, nothing else.
    L0,
    /// In `open` files.
    Absorbed,
    /// In sealed files and rollups.
    Sealed,
    /// Some of each, with a sealed window reopened.
    Mixed,
}

impl Stage {
    pub const ALL: [Self; 4] = [Self::L0, Self::Absorbed, Self::Sealed, Self::Mixed];
}

pub struct Fixture {
    pub clock: ManualClock,
    pub memory: MemoryStore,
    pub requests: CountingStore,
    pub store: TenantStore,
    pub log: Arc<TableLog>,
    pub compactor: Arc<Compactor>,
    pub engine: Arc<QueryEngine>,
}

pub fn us(text: &str) -> i64 {
    parse_rfc3339(text).expect("a valid time")
}

pub fn config() -> QueryConfig {
    QueryConfig {
        deadline: std::time::Duration::from_secs(30),
        ..QueryConfig::default()
    }
}

impl Fixture {
    pub fn new() -> Self {
        Self::with(config())
    }

    pub fn with(config: QueryConfig) -> Self {
        let clock = ManualClock::new(us("2026-11-22T12:30:00Z"));
        let memory = MemoryStore::new(clock.clone());
        let requests = CountingStore::new(Arc::new(memory.clone()));
        let engine = QueryEngine::new(config, Arc::new(clock.clone())).expect("a valid config");
        Self::over(
            memory,
            requests,
            clock,
            Arc::new(engine),
            &TenantId::default(),
        )
    }

    /// Another tenant of the same store and the same engine.
    pub fn tenant(&self, name: &str) -> Self {
        let tenant = name.parse().expect("a tenant's name");
        let (requests, clock) = (self.requests.clone(), self.clock.clone());
        let memory = self.memory.clone();
        Self::over(memory, requests, clock, Arc::clone(&self.engine), &tenant)
    }

    fn over(
        memory: MemoryStore,
        requests: CountingStore,
        clock: ManualClock,
        engine: Arc<QueryEngine>,
        tenant: &TenantId,
    ) -> Self {
        let tier = Tier::from_store(Arc::new(requests.clone()), "", "memory://test");
        let store = tier.tenant(tenant);
        let log = TableLog::new(store.clone(), Default::default(), Arc::new(clock.clone()));
        let log = Arc::new(log);
        let compactor = Compactor::new(
            store.clone(),
            Arc::clone(&log),
            Default::default(),
            Arc::new(clock.clone()),
            Arc::new(SeededIds::new(7)),
        );
        Self {
            clock,
            memory,
            requests,
            store,
            log,
            compactor: Arc::new(compactor),
            engine,
        }
    }

    /// The same store, queried by another process.
    pub fn with_engine(&self, engine: QueryEngine) -> Self {
        let (requests, clock) = (self.requests.clone(), self.clock.clone());
        let memory = self.memory.clone();
        Self::over(
            memory,
            requests,
            clock,
            Arc::new(engine),
            &TenantId::default(),
        )
    }

    /// The hand-made data at a stage.
    pub async fn at(stage: Stage) -> Self {
        let fixture = Self::new();
        let batches = hand_made();
        let (first, second) = batches.split_at(batches.len() / 2);
        fixture.put_all(first).await;
        match stage {
            Stage::L0 => fixture.put_all(second).await,
            Stage::Absorbed => {
                fixture.absorb().await;
                fixture.put_all(second).await;
                fixture.absorb().await;
            }
            Stage::Sealed => {
                fixture.put_all(second).await;
                fixture.settle().await;
                assert!(fixture.log.newest_seen().is_some());
            }
            Stage::Mixed => {
                fixture.settle().await;
                fixture.put_all(&second[..1]).await;
                fixture.absorb().await;
                fixture.put_all(&second[1..]).await;
            }
        }
        fixture
    }

    pub async fn put_all(&self, batches: &[Rows]) {
        for rows in batches {
            self.put(rows.clone()).await;
        }
    }

    pub async fn put(&self, rows: Rows) {
        let object = stele_format::l0::encode(&[stele_format::batch(rows)]).expect("encodes");
        let put = self.store.l0_put(&object.name, object.bytes).await;
        put.expect("stores");
    }

    pub async fn absorb(&self) {
        self.compactor
            .absorb(&Budget::default())
            .await
            .expect("absorbs");
    }

    pub async fn settle(&self) {
        let report = self.compactor.settle(&Budget::default(), &|_| {}).await;
        let report = report.expect("settles");
        assert!(report.complete, "{report:?}");
    }

    pub fn state(&self) -> QueryState {
        let log = Arc::clone(&self.log);
        QueryState {
            engine: Arc::clone(&self.engine),
            tables: Arc::new(move |_: &TenantId| Arc::clone(&log)),
            tenant: TenantId::default(),
        }
    }

    pub async fn encoded(&self, sql: &str, format: Format) -> Result<Vec<u8>, Error> {
        let stream = self.engine.query(&self.log, sql).await?;
        let mut encoded = output::encode(stream, format).await?;
        let mut bytes = Vec::new();
        while let Some(chunk) = encoded.next().await {
            bytes.extend_from_slice(&chunk?);
        }
        Ok(bytes)
    }

    pub async fn text_as_of(&self, sql: &str, as_of: Option<&str>) -> Result<String, Error> {
        let as_of: Option<AsOf> = as_of.map(|text| text.parse().expect("a version"));
        let stream = self.engine.query_as_of(&self.log, sql, as_of.as_ref());
        let mut encoded = output::encode(stream.await?, Format::Csv).await?;
        let mut bytes = Vec::new();
        while let Some(chunk) = encoded.next().await {
            bytes.extend_from_slice(&chunk?);
        }
        Ok(String::from_utf8(bytes).expect("text"))
    }

    pub async fn text(&self, sql: &str, format: Format) -> String {
        let bytes = self.encoded(sql, format).await;
        let bytes = bytes.unwrap_or_else(|e| panic!("{sql}: {e} ({e:?})"));
        String::from_utf8(bytes).expect("text")
    }

    pub async fn json(&self, sql: &str) -> serde_json::Value {
        serde_json::from_str(&self.text(sql, Format::Json).await).expect("JSON")
    }
}

/// Rows in the making.
#[derive(Default)]
pub struct Made(pub Rows);

impl Made {
    pub fn series(&mut self, metric: &str, tags: &str) -> u32 {
        self.0.series.push(Series {
            metric: metric.to_owned(),
            tags: tags.to_owned(),
        });
        u32::try_from(self.0.series.len() - 1).expect("few")
    }

    pub fn push(&mut self, series: u32, ts_us: i64, value: f64) {
        self.0.rows.push(Row {
            ts_us,
            value,
            series,
            extra: NO_EXTRA,
        });
    }

    pub fn push_extra(&mut self, series: u32, ts_us: i64, value: f64, extra: Extra) {
        self.push(series, ts_us, value);
        self.0.extras.push(extra);
        let index = u32::try_from(self.0.extras.len() - 1).expect("few");
        self.0.rows.last_mut().expect("just pushed").extra = index;
    }
}

pub const A: &str = r#"{"dc":"x","host":"a"}"#;
pub const B: &str = r#"{"dc":"y","host":"b"}"#;

/// Six batches: a plain gauge on two hosts, a counter with a reset, values JSON cannot say, a
/// summary, names that need quoting; with a batch sent twice and a value that loses its merge.
pub fn hand_made() -> Vec<Rows> {
    let second = 1_000_000;
    let ten = us("2026-11-22T10:00:00Z");
    let mut gauge_a = Made::default();
    let s = gauge_a.series("cpu.user", A);
    for i in 0..10 {
        gauge_a.push(s, ten + i * 30 * second, (i + 1) as f64);
    }
    let mut gauge_b = Made::default();
    let s = gauge_b.series("cpu.user", B);
    for i in 0..5 {
        gauge_b.push(s, ten + i * 60 * second, i as f64 + 0.5);
    }
    let mut counter = Made::default();
    let s = counter.series("requests", A);
    for (at, value) in [(0, 5.0), (20, 8.0), (40, 2.0), (60, 3.0), (5_400, 10.0)] {
        counter.push(s, ten + at * second, value);
    }
    let mut odd = Made::default();
    let s = odd.series("temp", "{}");
    for (at, value) in [
        (0, f64::NAN),
        (1, f64::INFINITY),
        (2, f64::NEG_INFINITY),
        (3, -0.0),
    ] {
        odd.push(s, ten + at * second, value);
    }
    let s = odd.series("odd \"name\"", "{\"host\":\"q\\\"uo,\\\\te\"}");
    odd.push(s, ten, 0.1);
    let mut summary = Made::default();
    let s = summary.series("latency", B);
    let extra = Extra {
        kind: Kind::Gauge,
        rank: None,
        summary: Some(Summary {
            count: 4,
            sum: 10.0,
            min: Some(1.0),
            max: Some(4.0),
            sum_squares: Some(30.0),
        }),
    };
    summary.push_extra(s, ten + 90 * second, 2.5, extra);
    // The same samples again, and a smaller value at one of them, which loses.
    let mut again = Made::default();
    let s = again.series("cpu.user", A);
    for i in 0..3 {
        again.push(s, ten + i * 30 * second, (i + 1) as f64);
    }
    let s = again.series("cpu.user", B);
    again.push(s, ten, 0.25);
    [gauge_a, gauge_b, counter, odd, summary, again]
        .into_iter()
        .map(|made| made.0)
        .collect()
}
