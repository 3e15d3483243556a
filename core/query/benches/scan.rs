//! Queries over settled data in memory: 100 hosts × 10 metrics × 24 h every 10 s, 8.64 M samples.
//!
//! `cargo bench -p stele-query --bench scan`. What it leaves out is the object store's latency and
//! HTTP; planning, encoding as JSON and everything between are in.

#![allow(clippy::unwrap_used, clippy::panic)]

use std::sync::Arc;

use criterion::{Criterion, criterion_group, criterion_main};
use futures::StreamExt;
use object_store::memory::InMemory;
use stele_compact::{Budget, Compactor};
use stele_model::time::{SECOND_US, parse_rfc3339};
use stele_model::{NO_EXTRA, Row, Rows, Series, TenantId};
use stele_query::{Format, QueryConfig, QueryEngine, output};
use stele_store::Tier;
use stele_table::TableLog;
use stele_testkit::{ManualClock, SeededIds};

const FIELDS: [&str; 10] = [
    "usage_user",
    "usage_system",
    "usage_idle",
    "usage_nice",
    "usage_iowait",
    "usage_irq",
    "usage_softirq",
    "usage_steal",
    "usage_guest",
    "usage_guest_nice",
];
const HOSTS: usize = 100;

struct Store {
    engine: QueryEngine,
    log: Arc<TableLog>,
}

/// A walk over 0..100 in steps of at most one, as the comparison run's integers are.
fn hour(hour: i64, walks: &mut [f64], seed: &mut u64) -> Rows {
    let start = parse_rfc3339("2026-11-20T00:00:00Z").unwrap() + hour * 3_600 * SECOND_US;
    let mut rows = Rows::default();
    for (f, field) in FIELDS.iter().enumerate() {
        for host in 0..HOSTS {
            let series = rows.series.len() as u32;
            rows.series.push(Series {
                metric: format!("cpu.{field}"),
                tags: format!(
                    "{{\"arch\":\"x64\",\"datacenter\":\"eu-west-1a\",\"hostname\":\"host_{host}\",\
                     \"os\":\"Ubuntu16.10\",\"rack\":\"{}\",\"region\":\"eu-west-1\",\"team\":\"SF\"}}",
                    host % 10
                ),
            });
            let walk = &mut walks[f * HOSTS + host];
            for i in 0..360 {
                *seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                *walk = (*walk + ((*seed >> 33) % 3) as f64 - 1.0).clamp(0.0, 100.0);
                rows.rows.push(Row {
                    ts_us: start + i * 10 * SECOND_US,
                    value: *walk,
                    series,
                    extra: NO_EXTRA,
                });
            }
        }
    }
    rows
}

async fn settled() -> Store {
    let clock = ManualClock::new(parse_rfc3339("2026-11-22T00:00:00Z").unwrap());
    let tier = Tier::from_store(Arc::new(InMemory::new()), "", "memory://bench");
    let store = tier.tenant(&TenantId::default());
    let log = TableLog::new(store.clone(), Default::default(), Arc::new(clock.clone()));
    let log = Arc::new(log);
    let (mut walks, mut seed) = (vec![50.0; FIELDS.len() * HOSTS], 1);
    for h in 0..24 {
        let batch = stele_format::batch(hour(h, &mut walks, &mut seed));
        let object = stele_format::l0::encode(&[batch]).unwrap();
        store.l0_put(&object.name, object.bytes).await.unwrap();
    }
    let compactor = Compactor::new(
        store,
        Arc::clone(&log),
        Default::default(),
        Arc::new(clock.clone()),
        Arc::new(SeededIds::new(1)),
    );
    compactor.settle(&Budget::default(), &|_| {}).await.unwrap();
    let engine = QueryEngine::new(QueryConfig::default(), Arc::new(clock)).unwrap();
    Store { engine, log }
}

async fn run(store: &Store, sql: &str) -> usize {
    let stream = store.engine.query(&store.log, sql).await.unwrap();
    let mut encoded = output::encode(stream, Format::Json).await.unwrap();
    let mut bytes = 0;
    while let Some(chunk) = encoded.next().await {
        bytes += chunk.unwrap().len();
    }
    bytes
}

fn metrics(n: usize) -> String {
    let names: Vec<String> = FIELDS[..n].iter().map(|f| format!("'cpu.{f}'")).collect();
    format!("metric IN ({})", names.join(","))
}

fn hosts(n: usize) -> String {
    let names: Vec<String> = (0..n).map(|i| format!("'host_{}'", i * 11 + 3)).collect();
    format!("tags->>'hostname' IN ({})", names.join(","))
}

fn time(from: usize, hours: usize) -> String {
    format!(
        "ts >= TIMESTAMP '2026-11-20 {from:02}:00:00' AND ts < TIMESTAMP '2026-11-20 {:02}:00:00'",
        from + hours
    )
}

fn grouped(fields: usize, host_count: usize, hours: usize) -> String {
    format!(
        "SELECT date_bin(INTERVAL '1 minute', ts) AS b, metric, max(value) AS v FROM samples \
         WHERE {} AND {} AND {} GROUP BY b, metric ORDER BY b, metric",
        metrics(fields),
        hosts(host_count),
        time(9, hours)
    )
}

fn by_host(fields: usize) -> String {
    format!(
        "SELECT date_bin(INTERVAL '1 hour', ts) AS b, metric, tags->>'hostname' AS hostname, \
         avg(value) AS v FROM samples WHERE {} AND {} GROUP BY b, metric, hostname \
         ORDER BY b, metric, hostname",
        metrics(fields),
        time(3, 12)
    )
}

fn high_cpu(only: &str) -> String {
    format!(
        "SELECT s.ts AS b, s.metric, s.tags->>'hostname' AS hostname, s.value AS v FROM samples s \
         JOIN (SELECT tags, ts FROM samples WHERE metric = 'cpu.usage_user' AND value > 90.0 AND \
         {only}{}) h ON s.tags = h.tags AND s.ts = h.ts WHERE s.{} AND {}{}",
        time(3, 12),
        metrics(10),
        only.replace("tags->>", "s.tags->>"),
        time(3, 12).replace("ts ", "s.ts ")
    )
}

fn scan(c: &mut Criterion) {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap();
    let store = runtime.block_on(settled());
    let mut group = c.benchmark_group("scan");
    group.sample_size(10);
    let one_host = format!("{} AND ", hosts(1));
    let texts = [
        ("constant", "SELECT 1 AS a".to_owned()),
        ("single-groupby-1-1-1", grouped(1, 1, 1)),
        ("single-groupby-5-8-1", grouped(5, 8, 1)),
        ("double-groupby-1", by_host(1)),
        ("double-groupby-all", by_host(10)),
        ("high-cpu-1", high_cpu(&one_host)),
        ("high-cpu-all", high_cpu("")),
        (
            "lastpoint",
            format!(
                "SELECT metric, tags->>'hostname' AS hostname, last_value(value ORDER BY ts) AS v \
                 FROM samples WHERE {} GROUP BY metric, hostname",
                metrics(10)
            ),
        ),
        (
            "groupby-orderby-limit",
            "SELECT date_bin(INTERVAL '1 minute', ts) AS b, max(value) AS v FROM samples WHERE \
             metric = 'cpu.usage_user' AND ts < TIMESTAMP '2026-11-20 12:00:00' GROUP BY b \
             ORDER BY b DESC LIMIT 5"
                .to_owned(),
        ),
        (
            "rollup-double-groupby-all",
            format!(
                "SELECT ts AS b, metric, tags->>'hostname' AS hostname, sum(sum) / sum(count) AS v \
                 FROM rollup_60m WHERE {} AND {} GROUP BY b, metric, hostname",
                metrics(10),
                time(3, 12)
            ),
        ),
    ];
    for (name, sql) in texts {
        runtime.block_on(run(&store, &sql));
        group.bench_function(name, |b| {
            b.iter(|| runtime.block_on(run(&store, &sql)));
        });
    }
    group.finish();
}

criterion_group!(benches, scan);
criterion_main!(benches);
