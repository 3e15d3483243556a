//! Absorb and seal of one hour of 600 series at 10 s, from a store in memory: the cost of our own
//! work without the network. Throughput is in samples.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::hint::black_box;
use std::sync::Arc;

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use stele_compact::{Budget, Compactor, Options};
use stele_format::{batch, l0};
use stele_model::time::{DAY_US, HOUR_US, SECOND_US};
use stele_model::{NO_EXTRA, Row, Rows, Series, TenantId};
use stele_store::{TenantStore, Tier};
use stele_table::TableLog;
use stele_testkit::{ManualClock, MemoryStore, SeededIds};

const SERIES: u32 = 600;
const SCRAPES: i64 = 360;
const NOON: i64 = 20_779 * DAY_US + 12 * HOUR_US;

fn scrape(n: i64) -> Rows {
    let series = (0..SERIES).map(|s| Series {
        metric: format!("metric{:02}", s % 20),
        tags: format!("{{\"host\":\"h{:03}\"}}", s / 20),
    });
    let row = |series: u32| Row {
        ts_us: NOON - 3 * HOUR_US + n * 10 * SECOND_US,
        value: ((i64::from(series) * 31 + n * 7) % 101) as f64,
        series,
        extra: NO_EXTRA,
    };
    Rows {
        series: series.collect(),
        rows: (0..SERIES).map(row).collect(),
        extras: Vec::new(),
    }
}

/// A tenant with one object per scrape, and its compactor.
async fn accepted() -> (TenantStore, Compactor) {
    let clock = ManualClock::new(NOON);
    let memory = MemoryStore::new(clock.clone());
    let tier = Tier::from_store(Arc::new(memory), "", "memory://");
    let store = tier.tenant(&TenantId::default());
    for n in 0..SCRAPES {
        let encoded = l0::encode(&[batch(scrape(n))]).unwrap();
        store.l0_put(&encoded.name, encoded.bytes).await.unwrap();
    }
    let log = Arc::new(TableLog::new(
        store.clone(),
        stele_table::Options::default(),
        Arc::new(clock.clone()),
    ));
    let ids = Arc::new(SeededIds::new(1));
    let compactor = Compactor::new(store.clone(), log, Options::default(), Arc::new(clock), ids);
    (store, compactor)
}

fn benches(c: &mut Criterion) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap();
    let mut group = c.benchmark_group("compact");
    group.sample_size(10);
    group.throughput(Throughput::Elements(u64::from(SERIES) * SCRAPES as u64));
    group.bench_function("absorb", |b| {
        b.iter_batched(
            || runtime.block_on(accepted()),
            |(_, compactor)| {
                runtime
                    .block_on(compactor.absorb(&Budget::unlimited()))
                    .unwrap()
            },
            BatchSize::PerIteration,
        );
    });
    group.bench_function("seal", |b| {
        b.iter_batched(
            || {
                let (store, compactor) = runtime.block_on(accepted());
                runtime
                    .block_on(compactor.absorb(&Budget::unlimited()))
                    .unwrap();
                (store, compactor)
            },
            |(_, compactor)| {
                black_box(
                    runtime
                        .block_on(compactor.seal(&Budget::unlimited(), false))
                        .unwrap(),
                )
            },
            BatchSize::PerIteration,
        );
    });
    group.finish();
}

criterion_group!(compact, benches);
criterion_main!(compact);
