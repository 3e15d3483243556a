//! Generators of rows with everything a sender can do to us, and helpers to compare bit by bit.

use std::sync::Arc;

use proptest::prelude::*;
use stele_format::{MemorySource, Merge, SampleChunk, SampleRow, SampleSource, SampleWriter};
use stele_model::{Extra, Kind, NO_EXTRA, Row, Rows, Series, Summary, Window};

/// One row in comparable form: every float by its bits.
pub type Flat = (String, String, i64, u64, Key);
/// An extra in comparable form.
pub type Key = (u8, Option<i32>, Option<(i64, u64, [Option<u64>; 3])>);

pub fn key(extra: &Extra) -> Key {
    let summary = extra.summary.map(|s| {
        let optional = [s.min, s.max, s.sum_squares].map(|v| v.map(f64::to_bits));
        (s.count, s.sum.to_bits(), optional)
    });
    (extra.kind as u8, extra.rank, summary)
}

pub fn any_value() -> impl Strategy<Value = f64> {
    prop_oneof![
        4 => (-500i32..500).prop_map(f64::from),
        3 => (-99_999i32..99_999).prop_map(|m| f64::from(m) / 100.0),
        2 => any::<u64>().prop_map(f64::from_bits),
        1 => prop::sample::select(vec![
            0.0, -0.0, f64::INFINITY, f64::NEG_INFINITY, f64::NAN,
            // Prometheus' stale marker.
            f64::from_bits(0x7ff0_0000_0000_0002), f64::MIN_POSITIVE, 5e-324, f64::MAX,
            9_007_199_254_740_991.0, 9_007_199_254_740_993.0, 1e15, 0.1 + 0.2,
        ]),
    ]
}

pub fn any_ts() -> impl Strategy<Value = i64> {
    const T: i64 = 1_760_000_000_000_000;
    prop_oneof![
        4 => (0i64..40).prop_map(|n| T + n * 10_000_000),
        2 => 946_684_800_000_000i64..4_102_444_800_000_000,
        1 => any::<i64>(),
    ]
}

pub fn any_series() -> impl Strategy<Value = Series> {
    let metric = prop_oneof![
        3 => prop::sample::select(vec!["cpu.user", "cpu.sys", "é", "mem"]).prop_map(str::to_owned),
        1 => ".{0,12}",
        1 => (250usize..300).prop_map(|n| "m".repeat(n)),
    ];
    let tags = prop_oneof![
        3 => (0u8..4).prop_map(|n| format!("{{\"host\":\"h{n}\"}}")),
        1 => Just("{}".to_owned()),
        1 => (250usize..300).prop_map(|n| format!("{{\"k\":\"{}\"}}", "\u{10ffff}".repeat(n))),
    ];
    (metric, tags).prop_map(|(metric, tags)| Series { metric, tags })
}

pub fn any_extra() -> impl Strategy<Value = Extra> {
    let float = any_value;
    let summary = (
        1i64..1000,
        float(),
        prop::option::of(float()),
        prop::option::of(float()),
        prop::option::of(float()),
    );
    let summary = summary.prop_map(|(count, sum, min, max, sum_squares)| Summary {
        count,
        sum,
        min,
        max,
        sum_squares,
    });
    (
        0i32..3,
        prop::option::of(any::<i32>()),
        prop::option::of(summary),
    )
        .prop_map(|(kind, rank, summary)| Extra {
            kind: Kind::from_code(kind).unwrap(),
            rank,
            summary,
        })
}

/// A sample on its own.
pub type Loose = (Series, i64, f64, Option<Extra>);

pub fn any_samples(n: usize) -> impl Strategy<Value = Vec<Loose>> {
    let extra = prop::option::weighted(0.2, any_extra());
    prop::collection::vec((any_series(), any_ts(), any_value(), extra), 1..n)
}

/// Samples of hours that a batch may have.
pub fn stored_samples(n: usize) -> impl Strategy<Value = Vec<Loose>> {
    any_samples(n).prop_map(|mut samples| {
        for sample in &mut samples {
            sample.1 = sample.1.rem_euclid(Window::LAST.end_us());
        }
        samples
    })
}

/// Rows of the samples as they come, not canonical.
pub fn rows_of(samples: &[Loose]) -> Rows {
    let mut rows = Rows::default();
    for (series, ts_us, value, extra) in samples {
        let extra = extra.map_or(NO_EXTRA, |extra| {
            rows.extras.push(extra);
            rows.extras.len() as u32 - 1
        });
        rows.rows.push(Row {
            ts_us: *ts_us,
            value: *value,
            series: rows.series.len() as u32,
            extra,
        });
        rows.series.push(series.clone());
    }
    rows
}

pub fn canonical(samples: &[Loose]) -> Rows {
    let mut rows = rows_of(samples);
    rows.canonicalize();
    rows
}

pub fn flat_rows(rows: &Rows) -> Vec<Flat> {
    let flat = |row: &Row| {
        let s = &rows.series[row.series as usize];
        let (metric, tags) = (s.metric.clone(), s.tags.clone());
        (
            metric,
            tags,
            row.ts_us,
            row.value.to_bits(),
            key(&rows.extra(row)),
        )
    };
    rows.rows.iter().map(flat).collect()
}

pub fn flat_chunk(chunk: &SampleChunk) -> Vec<Flat> {
    let flat = |row: &SampleRow| {
        let (metric, tags) = (chunk.series.metric.clone(), chunk.series.tags.clone());
        (
            metric,
            tags,
            row.ts_us,
            row.value.to_bits(),
            key(&row.extra),
        )
    };
    chunk.rows.iter().map(flat).collect()
}

pub fn drain(source: &mut dyn SampleSource) -> Vec<Flat> {
    let mut out = Vec::new();
    while let Some(chunk) = source.next_chunk().unwrap() {
        assert!(!chunk.rows.is_empty());
        out.extend(flat_chunk(&chunk));
    }
    out
}

pub fn merged(parts: Vec<Rows>) -> Merge {
    let source = |rows| Box::new(MemorySource::new(rows)) as Box<dyn SampleSource>;
    Merge::new(parts.into_iter().map(source).collect())
}

/// The file of the merge of `rows`, and what it holds.
pub fn file_of(rows: &Rows) -> (stele_format::EncodedFile, Vec<Flat>) {
    let mut merge = merged(vec![rows.clone()]);
    let mut writer = SampleWriter::new();
    let mut want = Vec::new();
    while let Some(chunk) = merge.next_chunk().unwrap() {
        writer.push(&chunk.series, &chunk.rows).unwrap();
        want.extend(flat_chunk(&chunk));
    }
    (writer.finish().unwrap().unwrap(), want)
}

/// `hosts` series of `n` samples every 10 s, each value made by `value` from a step counter.
pub fn regular(hosts: usize, n: usize, mut value: impl FnMut(usize, usize) -> f64) -> Rows {
    let mut rows = Rows::default();
    for host in 0..hosts {
        rows.series.push(Series {
            metric: "cpu.usage_user".to_owned(),
            tags: format!(
                "{{\"arch\":\"x64\",\"hostname\":\"host_{host:04}\",\"rack\":\"{}\"}}",
                host % 7
            ),
        });
        for i in 0..n {
            rows.rows.push(Row {
                ts_us: 1_760_054_400_000_000 + i as i64 * 10_000_000,
                value: value(host, i),
                series: host as u32,
                extra: NO_EXTRA,
            });
        }
    }
    rows
}

/// A small random number generator, so that sizes do not change from run to run.
pub struct Noise(pub u64);

impl Noise {
    pub fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }
}

pub fn predicate(
    keep: impl Fn(&Series) -> bool + Send + Sync + 'static,
) -> Arc<dyn Fn(&Series) -> bool + Send + Sync> {
    Arc::new(keep)
}
