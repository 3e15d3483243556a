//! The merge gives the same rows and the same account however its input is spread over sources.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::sync::Arc;

use proptest::prelude::*;
use stele_format::{
    Merge, MergeTally, RollupChunk, RollupMerge, RollupSource, SampleChunk, SampleReader,
    SampleSource, row_hash, rows_hash, series_hash,
};
use stele_model::merge::merge_order;
use stele_model::{Aggregate, Extra, Rows, RowsHash, Series};

use crate::gen_rows::*;

/// Many equal series, times and values, so that duplicates and conflicts abound.
fn crowded(n: usize) -> impl Strategy<Value = Vec<Loose>> {
    let series = (0u8..3, 0u8..2).prop_map(|(m, t)| Series {
        metric: format!("m{m}"),
        tags: format!("{{\"t\":\"{t}\"}}"),
    });
    let value = prop_oneof![4 => (0i32..3).prop_map(f64::from), 1 => any_value()];
    let extra = prop::option::weighted(0.1, any_extra());
    prop::collection::vec((series, 0i64..12, value, extra), 1..n)
}

/// What the merge must give, by definition.
fn model(samples: &[Loose]) -> (Vec<Flat>, MergeTally) {
    let mut groups: BTreeMap<(Series, i64), Vec<(f64, Extra)>> = BTreeMap::new();
    for (series, ts, value, extra) in samples {
        let row = (*value, extra.unwrap_or_default());
        groups.entry((series.clone(), *ts)).or_default().push(row);
    }
    let (mut rows, mut tally) = (Vec::new(), MergeTally::default());
    for ((series, ts), group) in groups {
        let order = |a: &&(f64, Extra), b: &&(f64, Extra)| merge_order(a.0, &a.1, b.0, &b.1);
        let kept = group.iter().max_by(order).unwrap();
        let mut met = false;
        for row in &group {
            let hash = row_hash(series_hash(&series), ts, row.0, &row.1);
            tally.rows_in += 1;
            tally.hash_in.add(hash);
            match (merge_order(row.0, &row.1, kept.0, &kept.1), met) {
                (Ordering::Equal, false) => {
                    met = true;
                    tally.rows_out += 1;
                    tally.hash_out.add(hash);
                }
                (Ordering::Equal, true) => {
                    tally.duplicates += 1;
                    tally.hash_duplicates.add(hash);
                }
                _ => {
                    tally.overridden += 1;
                    tally.hash_overridden.add(hash);
                }
            }
        }
        let bits = kept.0.to_bits();
        rows.push((series.metric, series.tags, ts, bits, key(&kept.1)));
    }
    (rows, tally)
}

fn spread(samples: &[Loose], sources: usize, seed: u64) -> Vec<Rows> {
    let mut noise = Noise(seed | 1);
    let mut parts = vec![Vec::new(); sources];
    for sample in samples {
        parts[noise.next() as usize % sources].push(sample.clone());
    }
    parts.iter().map(|part| canonical(part)).collect()
}

/// Hands the chunks of another source on in pieces.
struct Pieces(Box<dyn SampleSource>, Vec<SampleChunk>, usize);

impl SampleSource for Pieces {
    fn next_chunk(&mut self) -> stele_format::Result<Option<SampleChunk>> {
        if self.1.is_empty()
            && let Some(chunk) = self.0.next_chunk()?
        {
            let piece = |rows: &[_]| SampleChunk {
                series: Arc::new((*chunk.series).clone()),
                rows: rows.to_vec(),
            };
            self.1 = chunk.rows.chunks(self.2).map(piece).rev().collect();
        }
        Ok(self.1.pop())
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(384))]

    #[test]
    fn any_spread_of_rows_over_sources_merges_alike(
        samples in crowded(80), sources in 1usize..6, seed in any::<u64>(), piece in 1usize..5,
    ) {
        let (want, tally) = model(&samples);
        let parts = spread(&samples, sources, seed);
        prop_assert_eq!(parts.iter().map(rows_hash).fold(RowsHash::default(), RowsHash::union), tally.hash_in);
        let mut merge = merged(parts.clone());
        prop_assert_eq!(drain(&mut merge), want.clone());
        prop_assert_eq!(merge.tally(), tally);
        prop_assert!(merge.tally().is_conserved());
        let pieces = parts.into_iter().map(|rows| {
            let source = stele_format::MemorySource::new(rows);
            Box::new(Pieces(Box::new(source), Vec::new(), piece)) as Box<dyn SampleSource>
        });
        let mut merge = Merge::new(pieces.collect());
        prop_assert_eq!(drain(&mut merge), want);
        prop_assert_eq!(merge.tally(), tally);
    }

    #[test]
    fn merging_in_stages_and_twice_changes_nothing(
        samples in crowded(60), sources in 1usize..5, seed in any::<u64>(),
    ) {
        let (want, _) = model(&samples);
        let files: Vec<_> = spread(&samples, sources, seed)
            .iter()
            .filter(|rows| !rows.is_empty())
            .map(|rows| file_of(rows).0)
            .collect();
        let twice = files.iter().chain(&files).map(|file| {
            Box::new(SampleReader::open(file.bytes.clone()).unwrap()) as Box<dyn SampleSource>
        });
        let mut merge = Merge::new(twice.collect());
        prop_assert_eq!(drain(&mut merge), want);
        prop_assert!(merge.tally().is_conserved());
    }
}

/// Enough rows of one series that chunks are handed on while sources still hold its rows.
#[test]
fn long_series_of_interleaved_sources_stay_in_order() {
    let part = |from: i64, step: i64| {
        let one = |i: i64| (Series::default(), from + i * step, i as f64, None);
        canonical(&(0..7000).map(one).collect::<Vec<Loose>>())
    };
    let mut merge = merged(vec![part(0, 3), part(1, 3), part(2, 3), part(0, 3)]);
    let rows = drain(&mut merge);
    assert!(rows.iter().map(|row| row.2).eq(0..21_000));
    let tally = merge.tally();
    assert_eq!(
        (tally.rows_in, tally.rows_out, tally.duplicates),
        (28_000, 21_000, 7000)
    );
    assert!(tally.is_conserved());
}

#[test]
fn a_source_that_goes_back_is_refused() {
    struct Back(i64);
    impl SampleSource for Back {
        fn next_chunk(&mut self) -> stele_format::Result<Option<SampleChunk>> {
            self.0 -= 1;
            let row = stele_format::SampleRow {
                ts_us: self.0,
                value: 0.0,
                extra: Extra::default(),
            };
            Ok(Some(SampleChunk {
                series: Arc::default(),
                rows: vec![row],
            }))
        }
    }
    assert!(Merge::new(vec![Box::new(Back(9))]).next_chunk().is_err());
}

struct Bins(std::vec::IntoIter<RollupChunk>);

impl RollupSource for Bins {
    fn next_chunk(&mut self) -> stele_format::Result<Option<RollupChunk>> {
        Ok(self.0.next())
    }
}

fn bins(chunks: &[(&str, &[i64])]) -> Box<dyn RollupSource> {
    let chunk = |(metric, starts): &(&str, &[i64])| RollupChunk {
        series: Arc::new(Series {
            metric: (*metric).to_owned(),
            tags: "{}".to_owned(),
        }),
        bins: starts
            .iter()
            .map(|start| (*start, Aggregate::empty(false)))
            .collect(),
    };
    Box::new(Bins(
        chunks.iter().map(chunk).collect::<Vec<_>>().into_iter(),
    ))
}

#[test]
fn rollup_files_merge_row_for_row_and_a_bin_twice_is_refused() {
    let mut merge = RollupMerge::new(vec![
        bins(&[("a", &[0, 60, 240]), ("c", &[0])]),
        bins(&[("a", &[120, 180]), ("b", &[60])]),
        bins(&[]),
    ]);
    let mut got = Vec::new();
    while let Some(chunk) = merge.next_chunk().unwrap() {
        got.extend(
            chunk
                .bins
                .iter()
                .map(|bin| (chunk.series.metric.clone(), bin.0)),
        );
    }
    let want = [
        ("a", 0),
        ("a", 60),
        ("a", 120),
        ("a", 180),
        ("a", 240),
        ("b", 60),
        ("c", 0),
    ];
    assert!(got.iter().map(|(m, t)| (m.as_str(), *t)).eq(want));
    let mut merge = RollupMerge::new(vec![bins(&[("a", &[0, 60])]), bins(&[("a", &[60])])]);
    let mut outcome = Ok(());
    while outcome.is_ok() {
        match merge.next_chunk() {
            Ok(Some(_)) => {}
            Ok(None) => panic!("the second bin was taken"),
            Err(error) => outcome = Err(error),
        }
    }
}
