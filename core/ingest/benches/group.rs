//! Group commit against one PUT per request: 64 senders at once, each sending small batches one
//! after the other, to a directory that syncs every object and to a store that takes 20 ms per PUT,
//! as S3 does. Throughput is in requests; the objects of one run are printed beside it.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout)]

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use futures::future::join_all;
use object_store::memory::InMemory;
use object_store::throttle::{ThrottleConfig, ThrottledStore};
use stele_ingest::{GroupLimits, Ingestor, Options};
use stele_model::{NO_EXTRA, Row, Rows, Series, TenantId};
use stele_store::Tier;

const SENDERS: u64 = 64;
const REQUESTS: u64 = 8;
const SAMPLES: i64 = 100;

/// A batch that no other run has sent.
fn rows(sender: u64, nth: u64) -> Rows {
    let first_us = 1_795_000_000_000_000 + i64::try_from(nth).unwrap() * SAMPLES;
    let row = |n| Row {
        ts_us: first_us + n,
        value: n as f64 / 8.0,
        series: 0,
        extra: NO_EXTRA,
    };
    Rows {
        series: vec![Series {
            metric: format!("sender{sender}"),
            ..Series::default()
        }],
        rows: (0..SAMPLES).map(row).collect(),
        extras: Vec::new(),
    }
}

async fn send(ingestor: &Ingestor, round: u64) {
    let senders = (0..SENDERS).map(|sender| async move {
        for n in 0..REQUESTS {
            let rows = rows(sender, round * REQUESTS + n);
            ingestor.accept(rows).await.unwrap().unwrap();
        }
    });
    join_all(senders).await;
}

fn tier(kind: &str, dir: &std::path::Path) -> Tier {
    if kind == "directory" {
        return Tier::open(&dir.display().to_string(), &[]).unwrap();
    }
    let config = ThrottleConfig {
        wait_put_per_call: std::time::Duration::from_millis(20),
        ..ThrottleConfig::default()
    };
    let store = ThrottledStore::new(InMemory::new(), config);
    Tier::from_store(Arc::new(store), "", "memory://20ms")
}

fn benches(c: &mut Criterion) {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap();
    let mut group = c.benchmark_group("ingest");
    group.throughput(Throughput::Elements(SENDERS * REQUESTS));
    group.sample_size(10);
    for kind in ["directory", "20 ms per PUT"] {
        for (name, limits) in [("alone", None), ("group", Some(GroupLimits::default()))] {
            let dir = tempfile::tempdir().unwrap();
            let store = tier(kind, dir.path()).tenant(&TenantId::default());
            let options = Options {
                group: limits,
                ..Options::default()
            };
            let ingestor = Ingestor::with_options(store.clone(), options);
            let round = AtomicU64::new(0);
            group.bench_function(BenchmarkId::new(kind, name), |b| {
                b.iter(|| runtime.block_on(send(&ingestor, round.fetch_add(1, Ordering::Relaxed))));
            });
            let requests = round.into_inner() * SENDERS * REQUESTS;
            let objects = runtime.block_on(store.l0_list()).unwrap().len();
            println!("{kind}, {name}: {requests} requests in {objects} objects");
        }
    }
    group.finish();
}

criterion_group!(group, benches);
criterion_main!(group);
