//! Samples per second through the encoders, and through what absorb does: decode, merge, encode.
//!
//! Time is the thread's time on a processor (Linux's schedstat), so that other work on the machine
//! does not count; elsewhere it is the time on the wall.

use std::time::{Duration, Instant};

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use stele_format::{
    MemorySource, Merge, Rollup, RollupSink, RollupWriter, SampleOrRollup, SampleReader,
    SampleSource, SampleWriter, batch, check_file, l0,
};
use stele_model::{Aggregate, Batch, NO_EXTRA, Resolution, Row, Rows, Series};

/// The thread's time on a processor since it began.
fn on_cpu() -> Option<Duration> {
    let stat = std::fs::read_to_string("/proc/thread-self/schedstat").ok()?;
    Some(Duration::from_nanos(stat.split(' ').next()?.parse().ok()?))
}

/// Runs `work` on what `setup` makes, and times only the work.
fn timed<T, R>(
    b: &mut criterion::Bencher<'_>,
    mut setup: impl FnMut() -> T,
    mut work: impl FnMut(T) -> R,
) {
    b.iter_custom(|n| {
        let mut total = Duration::ZERO;
        for _ in 0..n {
            let input = setup();
            let (wall, cpu) = (Instant::now(), on_cpu());
            let output = work(std::hint::black_box(input));
            total += match (cpu, on_cpu()) {
                (Some(before), Some(after)) => after - before,
                _ => wall.elapsed(),
            };
            drop(std::hint::black_box(output));
        }
        total
    });
}

struct Noise(u64);

impl Noise {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }
}

const METRICS: usize = 10;

/// `steps` samples, 10 s apart from step `from` on, of `METRICS` metrics of each host.
fn rows(hosts: usize, from: usize, steps: usize, mut value: impl FnMut() -> f64) -> Rows {
    let mut rows = Rows::default();
    for metric in 0..METRICS {
        for host in 0..hosts {
            rows.series.push(Series {
                metric: format!("cpu.usage_{metric}"),
                tags: format!(
                    "{{\"arch\":\"x64\",\"datacenter\":\"eu-west-1a\",\"hostname\":\"host_{host}\",\
                     \"os\":\"Ubuntu16.04LTS\",\"rack\":\"{}\",\"region\":\"eu-west-1\"}}",
                    host % 90
                ),
            });
            for i in from..from + steps {
                rows.rows.push(Row {
                    ts_us: 1_760_054_400_000_000 + i as i64 * 10_000_000,
                    value: value(),
                    series: rows.series.len() as u32 - 1,
                    extra: NO_EXTRA,
                });
            }
        }
    }
    rows.canonicalize();
    rows
}

fn integers() -> impl FnMut() -> f64 {
    let (mut noise, mut at) = (Noise(11), 50i64);
    move || {
        at = (at + (noise.next() % 5) as i64 - 2).clamp(0, 100);
        at as f64
    }
}

fn floats() -> impl FnMut() -> f64 {
    let (mut noise, mut at) = (Noise(17), 50.0f64);
    move || {
        at += noise.next() as f64 / u64::MAX as f64 - 0.5;
        at
    }
}

fn write(source: &mut dyn SampleSource) -> usize {
    let mut writer = SampleWriter::new();
    while let Some(chunk) = source.next_chunk().expect("sound") {
        writer.push(&chunk.series, &chunk.rows).expect("sorted");
    }
    writer
        .finish()
        .expect("sound")
        .map_or(0, |file| file.bytes.len())
}

fn objects(hosts: usize, steps: usize, n: usize) -> (Vec<bytes::Bytes>, u64) {
    let mut value = integers();
    let one = |i: usize| {
        l0::encode(&[batch(rows(hosts, i * steps, steps, &mut value))])
            .expect("sound")
            .bytes
    };
    let objects: Vec<_> = (0..n).map(one).collect();
    (objects, (hosts * METRICS * steps * n) as u64)
}

fn encode(c: &mut Criterion) {
    let mut group = c.benchmark_group("encode");
    group.sample_size(10);
    for (name, data) in [
        ("integers", rows(20, 0, 4320, integers())),
        ("floats", rows(20, 0, 4320, floats())),
    ] {
        let n = data.len() as u64;
        let source = || MemorySource::new(data.clone());
        let size = write(&mut source());
        eprintln!("{name}: {:.3} bytes per sample", size as f64 / n as f64);
        group.throughput(Throughput::Elements(n));
        group.bench_function(name, |b| timed(b, source, |mut source| write(&mut source)));
    }
    for (name, hosts, steps) in [("l0 runs of 10", 100, 10), ("l0 runs of 1", 1000, 1)] {
        let batch: Batch = batch(rows(hosts, 0, steps, integers()));
        group.throughput(Throughput::Elements(batch.rows.len() as u64));
        let size = l0::encode(std::slice::from_ref(&batch))
            .expect("sound")
            .bytes
            .len();
        eprintln!(
            "{name}: {:.3} bytes per sample",
            size as f64 / batch.rows.len() as f64
        );
        group.bench_function(name, |b| {
            timed(b, || (), |()| l0::encode(std::slice::from_ref(&batch)))
        });
        let unsorted = batch.rows.clone();
        group.bench_function(format!("{name}, canonical form and digest"), |b| {
            timed(b, || unsorted.clone(), stele_format::batch)
        });
    }
    group.finish();
}

fn absorb(objects: &[bytes::Bytes]) -> usize {
    let mut sources: Vec<Box<dyn SampleSource>> = Vec::new();
    for object in objects {
        for batch in l0::decode(object.clone()).expect("sound") {
            sources.push(Box::new(MemorySource::new(batch.rows)));
        }
    }
    write(&mut Merge::new(sources))
}

struct Writers([RollupWriter; 3]);

impl RollupSink for Writers {
    fn bin(
        &mut self,
        r: Resolution,
        series: &Series,
        start: i64,
        a: &Aggregate,
    ) -> stele_format::Result<()> {
        let at = Resolution::ROLLUPS
            .iter()
            .position(|other| *other == r)
            .unwrap_or(0);
        self.0[at].push(series, start, a)
    }
}

fn decode_merge(c: &mut Criterion) {
    let mut group = c.benchmark_group("decode+merge");
    group.sample_size(10);
    for (name, hosts, steps, n) in [("runs of 10", 100, 10, 60), ("runs of 1", 100, 1, 60)] {
        let (objects, samples) = objects(hosts, steps, n);
        group.throughput(Throughput::Elements(samples));
        group.bench_function(format!("l0 decode, {name}"), |b| {
            timed(
                b,
                || (),
                |()| {
                    objects
                        .iter()
                        .map(|o| l0::decode(o.clone()).expect("sound").len())
                        .sum::<usize>()
                },
            )
        });
        group.bench_function(format!("absorb, {name}"), |b| {
            timed(b, || (), |()| absorb(&objects))
        });
    }
    let data = rows(20, 0, 4320, integers());
    let samples = data.len() as u64;
    let mut writer = SampleWriter::new();
    let mut source = MemorySource::new(data);
    while let Some(chunk) = source.next_chunk().expect("sound") {
        writer.push(&chunk.series, &chunk.rows).expect("sorted");
    }
    let file = writer.finish().expect("sound").expect("rows");
    group.throughput(Throughput::Elements(samples));
    group.bench_function("file read", |b| {
        timed(
            b,
            || (),
            |()| {
                let mut reader = SampleReader::open(file.bytes.clone()).expect("sound");
                let mut rows = 0;
                while let Some(chunk) = reader.next_chunk().expect("sound") {
                    rows += chunk.rows.len();
                }
                rows
            },
        );
    });
    group.bench_function("file check", |b| {
        timed(
            b,
            || (),
            |()| check_file(&file.bytes, &file.stats, SampleOrRollup::Sample).expect("sound"),
        );
    });
    group.bench_function("roll up and write", |b| {
        timed(
            b,
            || (),
            |()| {
                let mut reader = SampleReader::open(file.bytes.clone()).expect("sound");
                let mut rollup = Rollup::new(true);
                let mut sink = Writers([true; 3].map(RollupWriter::new));
                while let Some(chunk) = reader.next_chunk().expect("sound") {
                    rollup
                        .push(&chunk.series, &chunk.rows, &mut sink)
                        .expect("sorted");
                }
                rollup.finish(&mut sink).expect("sorted");
                sink.0
                    .map(|w| w.finish().expect("sound").map_or(0, |f| f.bytes.len()))
            },
        );
    });
    group.finish();
}

criterion_group!(benches, encode, decode_merge);
criterion_main!(benches);
