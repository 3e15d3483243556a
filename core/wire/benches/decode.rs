//! Line protocol decoding in samples per second: wide lines as agents send them, and lines of one
//! field each.

use std::fmt::Write as _;
use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use stele_model::Limits;
use stele_wire::{Precision, influx, json};

const NOW_US: i64 = 1_795_000_000_000_000;

fn tags(host: usize) -> String {
    format!(
        "hostname=host_{host},region=eu-central-1,datacenter=eu-central-1a,rack={},os=Ubuntu16.10,\
         arch=x64,team=SF,service={},service_version=0,service_environment=production",
        host % 100,
        host % 20
    )
}

/// 100 hosts, 10 integer fields a line, 10 ticks.
fn wide() -> (String, u64) {
    let mut body = String::new();
    for tick in 0..10u64 {
        for host in 0..100usize {
            let _ = write!(body, "cpu,{} ", tags(host));
            for field in 0..10u64 {
                let sep = if field == 0 { "" } else { "," };
                let value = (tick * 7 + field * 13 + host as u64) % 101;
                let _ = write!(body, "{sep}usage_{field}={value}i");
            }
            let _ = writeln!(
                body,
                " {}",
                1_700_000_000_000_000_000 + tick * 10_000_000_000
            );
        }
    }
    (body, 10_000)
}

/// 100 series of one decimal each, 100 ticks.
fn narrow() -> (String, u64) {
    let mut body = String::new();
    for tick in 0..100u64 {
        for host in 0..100u64 {
            let value = ((tick * 977 + host * 131) % 10_007) as f64 / 100.0;
            let ts = 1_700_000_000_000_000_000 + tick * 1_000_000_000;
            let _ = writeln!(body, "temperature,host=host_{host},az=a value={value} {ts}");
        }
    }
    (body, 10_000)
}

/// Every line a series of its own.
fn distinct() -> (String, u64) {
    let mut body = String::new();
    for host in 0..10_000 {
        let _ = writeln!(body, "cpu,{} value=1.5 1700000000000000000", tags(host));
    }
    (body, 10_000)
}

fn native() -> (String, u64) {
    let mut samples = Vec::new();
    for i in 0..10_000u64 {
        let (host, ts) = (i % 100, 1_700_000_000_000_000 + i);
        samples.push(format!(
            "{{\"metric\":\"cpu\",\"tags\":{{\"host\":\"host_{host}\",\"az\":\"a\"}},\"ts\":{ts},\"value\":{i}.5}}"
        ));
    }
    (format!("{{\"samples\":[{}]}}", samples.join(",")), 10_000)
}

fn decode(c: &mut Criterion) {
    let mut group = c.benchmark_group("decode");
    let limits = Limits::default();
    for (name, (body, samples)) in [
        ("wide", wide()),
        ("narrow", narrow()),
        ("distinct", distinct()),
    ] {
        group.throughput(Throughput::Elements(samples));
        group.bench_function(name, |b| {
            b.iter(|| {
                influx::decode(
                    black_box(body.as_bytes()),
                    Precision::Nanoseconds,
                    NOW_US,
                    &limits,
                )
            })
        });
    }
    let (body, samples) = native();
    group.throughput(Throughput::Elements(samples));
    group.bench_function("json", |b| {
        b.iter(|| json::decode(black_box(body.as_bytes()), NOW_US, &limits))
    });
    group.finish();
}

criterion_group!(benches, decode);
criterion_main!(benches);
