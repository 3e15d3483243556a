//! One tenant's day as `infra/template.yaml` schedules it, with every request counted: what
//! `infra/cost` multiplies with prices.
//!
//! ```text
//! cargo run --package stele-testkit --example day -- [SENDERS] [SERIES] [POINTS] > counts.json
//! ```
//!
//! Each sender makes one request a minute with POINTS samples of each of its SERIES. A first day
//! is not counted, so that sweep has as much to delete as it ever has. Each function is one process
//! that stays, with a cache of its own; a LIST is one request however many pages it has. Queries,
//! cold starts and the reading of tokens are not in it.

#![allow(clippy::unwrap_used, clippy::print_stdout)]

use std::collections::BTreeMap;
use std::sync::Arc;

use object_store::ObjectStore;
use serde_json::{Value, json};
use stele_compact::{Budget, Compactor, Options};
use stele_ingest::Ingestor;
use stele_model::time::{DAY_US, HOUR_US, MINUTE_US, SECOND_US};
use stele_model::{Clock, NO_EXTRA, Row, Rows, Series, TenantId};
use stele_protect::{Ladder, follow_ladder, ladder_plan, verify};
use stele_store::{Tier, Tiers};
use stele_table::{RetentionCache, TableLog};
use stele_testkit::{CountingStore, ManualClock, MemoryStore, Request, SeededIds};

/// The load.
struct Load {
    senders: usize,
    series: usize,
    points: usize,
}

/// One function: its view of the store, and what it asked of it.
struct Function {
    requests: CountingStore,
    tiers: Tiers,
    log: Arc<TableLog>,
    compactor: Compactor,
    /// Invocations, by job.
    invoked: BTreeMap<&'static str, u64>,
}

fn tenant() -> TenantId {
    TenantId::default()
}

impl Function {
    fn new(memory: &MemoryStore, clock: &ManualClock, ids: u64) -> Self {
        let requests = CountingStore::new(Arc::new(memory.clone()));
        let counted: Arc<dyn ObjectStore> = Arc::new(requests.clone());
        let tier = Tier::from_store(counted, "", "memory://");
        let time: Arc<dyn Clock> = Arc::new(clock.clone());
        let none = Arc::new(|url: &str| Tier::open(url, &[]));
        let store = tier.tenant(&tenant());
        let options = stele_table::Options::default();
        let log = Arc::new(TableLog::new(store.clone(), options, Arc::clone(&time)));
        let ids = Arc::new(SeededIds::new(ids));
        let own = (Options::default(), Arc::clone(&time), ids);
        Self {
            compactor: Compactor::new(store, Arc::clone(&log), own.0, own.1, own.2),
            tiers: Tiers::new(vec![tier], none, time),
            requests,
            log,
            invoked: BTreeMap::new(),
        }
    }

    /// What every scheduled invocation begins with: the tier set, and the tenants.
    async fn begin(&mut self, job: &'static str) {
        *self.invoked.entry(job).or_default() += 1;
        let current = self.tiers.current().await.unwrap();
        current.primary.tenants().await.unwrap();
    }

    fn counts(&mut self) -> Value {
        let mut methods: BTreeMap<&str, (u64, u64)> = BTreeMap::new();
        for Request {
            method, size_bytes, ..
        } in self.requests.take()
        {
            let (requests, bytes) = methods.entry(method).or_default();
            *requests += 1;
            *bytes += size_bytes;
        }
        let methods: BTreeMap<&str, Value> = methods
            .into_iter()
            .map(|(method, (requests, bytes))| {
                (method, json!({"requests": requests, "bytes": bytes}))
            })
            .collect();
        json!({"invocations": std::mem::take(&mut self.invoked), "store": methods})
    }
}

/// One request's samples: they end now.
fn rows(load: &Load, sender: usize, now_us: i64) -> Rows {
    let named = |n: usize| Series {
        metric: format!("metric.{:03}", n % 100),
        tags: format!(r#"{{"host":"host-{sender:04}","part":"{}"}}"#, n / 100),
    };
    let step_us = MINUTE_US / load.points as i64;
    let mut rows = Rows {
        series: (0..load.series).map(named).collect(),
        ..Rows::default()
    };
    for series in 0..load.series {
        for point in 0..load.points as i64 {
            let ts_us = (now_us - step_us * point).div_euclid(SECOND_US) * SECOND_US;
            // A slow wave with some noise, as gauges are.
            let phase = (ts_us / SECOND_US + (series * 977) as i64) as f64 / 600.0;
            let noise = ((ts_us / SECOND_US * 31 + series as i64 * 17) % 97) as f64;
            rows.rows.push(Row {
                ts_us,
                value: ((phase.sin() * 50.0 + 50.0 + noise / 10.0) * 100.0).round() / 100.0,
                series: u32::try_from(series).unwrap(),
                extra: NO_EXTRA,
            });
        }
    }
    rows
}

fn stored(memory: &MemoryStore) -> BTreeMap<String, Value> {
    let mut kinds: BTreeMap<String, (u64, u64)> = BTreeMap::new();
    for key in memory.keys("") {
        let whole = key.as_ref();
        let part = whole.split("/").skip_while(|part| *part != "default");
        let parts: Vec<&str> = part.skip(1).collect();
        let kind = match parts.as_slice() {
            [] => "control".to_owned(),
            ["table", kind, ..] => format!("table/{kind}"),
            [kind, ..] => (*kind).to_owned(),
        };
        let (objects, bytes) = kinds.entry(kind).or_default();
        *objects += 1;
        *bytes += memory.bytes(&key).map_or(0, |bytes| bytes.len() as u64);
    }
    kinds
        .into_iter()
        .map(|(kind, (objects, bytes))| (kind, json!({"objects": objects, "bytes": bytes})))
        .collect()
}

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let args: Vec<usize> = std::env::args()
        .skip(1)
        .map(|arg| arg.parse().unwrap())
        .collect();
    let of = |n: usize, default: usize| args.get(n).copied().unwrap_or(default);
    let load = Load {
        senders: of(0, 10),
        series: of(1, 50),
        points: of(2, 6),
    };
    let clock = ManualClock::new(20_779 * DAY_US);
    let memory = MemoryStore::new(clock.clone());
    let [mut ingest, mut compact, mut protect] =
        [1, 2, 3].map(|ids| Function::new(&memory, &clock, ids));
    let ingestor = Ingestor::over(
        ingest.tiers.clone(),
        tenant(),
        stele_ingest::Options::default(),
    );
    let retention = RetentionCache::new(Arc::new(clock.clone()));
    let budget = Budget::unlimited();
    let mut before = json!({});
    for minute in 0..2 * 24 * 60_i64 {
        if minute == 24 * 60 {
            for function in [&mut ingest, &mut compact, &mut protect] {
                drop(function.counts());
            }
            before = json!(stored(&memory));
        }
        for sender in 0..load.senders {
            *ingest.invoked.entry("request").or_default() += 1;
            let current = ingest.tiers.current().await.unwrap();
            let store = current.primary.tenant(&tenant());
            retention.raw(&store).await.unwrap();
            let rows = rows(&load, sender, clock.now_us());
            ingestor.accept(rows).await.unwrap().unwrap();
            clock.advance(MINUTE_US / (load.senders as i64 + 1));
        }
        clock.set(20_779 * DAY_US + (minute + 1) * MINUTE_US);
        compact.begin("compact").await;
        loop {
            let absorbed = compact.compactor.absorb(&budget).await.unwrap().commits;
            let sealed = compact.compactor.seal(&budget, false).await.unwrap();
            let merged = compact.compactor.consolidate(&budget).await.unwrap();
            if absorbed + sealed.commits + merged.commits == 0 {
                break;
            }
        }
        if minute % 5 == 0 {
            protect.begin("sweep").await;
            protect.compactor.sweep(&budget).await.unwrap();
        }
        if minute % 10 == 0 {
            protect.begin("snapshots").await;
            let ladder = Ladder::default();
            let plan = ladder_plan(&protect.log, &ladder, clock.now_us()).await;
            let plan = plan.unwrap();
            if !plan.create.is_empty() {
                protect.compactor.absorb(&budget).await.unwrap();
            }
            follow_ladder(&protect.log, &plan, &clock).await.unwrap();
        }
        if minute % 60 == 0 {
            protect.begin("expire").await;
            protect.compactor.expire(&budget).await.unwrap();
        }
        if minute % (24 * 60) == 24 * 60 - 1 {
            protect.begin("verify").await;
            let store = protect.log.store();
            assert!(verify(store, &protect.log, &|_| {}).await.is_clean());
        }
        if minute % 60 == 59 {
            eprintln!("{} hours", clock.now_us() / HOUR_US - 20_779 * 24);
        }
    }
    let samples = load.senders * load.series * load.points * 24 * 60;
    let counts = json!({
        "load": {"senders": load.senders, "series_each": load.series,
            "points_a_minute": load.points, "samples_a_day": samples},
        "functions": {"ingest": ingest.counts(), "compact": compact.counts(),
            "protect": protect.counts()},
        "stored_before": before,
        "stored_after": stored(&memory),
    });
    println!("{}", serde_json::to_string_pretty(&counts).unwrap());
}
