//! Rollups: coarse bins are merges of fine ones, agree with a direct fold, and survive storage.

use std::collections::BTreeMap;
use std::sync::Arc;

use proptest::prelude::*;
use stele_format::{
    Rollup, RollupReader, RollupSink, RollupSource, RollupWriter, SampleOrRollup, SampleSource,
    check_file,
};
use stele_model::{Aggregate, Resolution, Series};

use crate::gen_rows::*;

#[derive(Default)]
struct Collected([Vec<(Series, i64, Aggregate)>; 3]);

impl RollupSink for Collected {
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
            .unwrap();
        self.0[at].push((series.clone(), start, a.clone()));
        Ok(())
    }
}

/// Folds in the pieces in which the merge hands rows on, cut again after every `piece` rows.
fn rolled(samples: &[Loose], piece: usize) -> Collected {
    let mut merge = merged(vec![canonical(samples)]);
    let (mut rollup, mut sink) = (Rollup::new(true), Collected::default());
    while let Some(chunk) = merge.next_chunk().unwrap() {
        for rows in chunk.rows.chunks(piece) {
            rollup.push(&chunk.series, rows, &mut sink).unwrap();
        }
    }
    rollup.finish(&mut sink).unwrap();
    sink
}

fn same(a: &Aggregate, b: &Aggregate) -> bool {
    let bits = |a: &Aggregate| {
        let floats = [
            a.sum,
            a.min,
            a.max,
            a.first,
            a.last,
            a.sum_squares,
            a.increase,
        ];
        (
            a.count,
            floats.map(f64::to_bits),
            a.first_ts_us,
            a.last_ts_us,
        )
    };
    a.sketch == b.sketch
        && if a.count == 0 || b.count == 0 {
            (a.count, a.first_ts_us, a.last_ts_us) == (b.count, b.first_ts_us, b.last_ts_us)
        } else {
            bits(a) == bits(b)
        }
}

/// A few hours of samples every few seconds, integers so that all sums are exact.
fn hours() -> impl Strategy<Value = Vec<Loose>> {
    let series = (0u8..3).prop_map(|n| Series {
        metric: format!("m{n}"),
        tags: "{}".to_owned(),
    });
    let ts = (0i64..10_000).prop_map(|s| 1_760_000_000_000_000 + s * 1_700_000);
    let value = prop_oneof![9 => (-50i32..50).prop_map(f64::from), 1 => Just(f64::NAN)];
    prop::collection::vec((series, ts, value, Just(None)), 1..300)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn coarse_bins_equal_the_direct_fold_and_the_merge_of_fine_bins(samples in hours(), piece in 1usize..9) {
        let got = rolled(&samples, piece);
        let mut direct: [BTreeMap<(Series, i64), Aggregate>; 3] = Default::default();
        let mut merge = merged(vec![canonical(&samples)]);
        while let Some(chunk) = merge.next_chunk().unwrap() {
            for row in &chunk.rows {
                for (at, r) in Resolution::ROLLUPS.iter().enumerate() {
                    let start = row.ts_us - row.ts_us.rem_euclid(r.bin_us().unwrap());
                    direct[at]
                        .entry(((*chunk.series).clone(), start))
                        .or_insert_with(|| Aggregate::empty(true))
                        .push(row.ts_us, row.value, &row.extra);
                }
            }
        }
        for (got, direct) in got.0.iter().zip(&direct) {
            prop_assert!(got.iter().map(|bin| (&bin.0, &bin.1)).eq(direct.keys().map(|key| (&key.0, &key.1))));
            for ((_, _, got), want) in got.iter().zip(direct.values()) {
                prop_assert!(same(got, want), "{got:?}\n{want:?}");
            }
        }
        for (fine, coarse) in [(0, 1), (1, 2)] {
            let width = Resolution::ROLLUPS[coarse].bin_us().unwrap();
            for (series, start, want) in &got.0[coarse] {
                let mut bin = Aggregate::empty(true);
                for (_, _, part) in got.0[fine].iter().filter(|(s, at, _)| s == series && (*start..*start + width).contains(at)) {
                    bin.merge(part);
                }
                prop_assert!(same(&bin, want));
            }
        }
    }

    #[test]
    fn a_rollup_file_is_read_back_to_the_bit(samples in any_samples(60), sketch in any::<bool>(), lo in any_ts(), hi in any_ts()) {
        let bins = rolled(&samples, 100).0[0].clone();
        let mut writer = RollupWriter::new(sketch);
        for (series, start, bin) in &bins {
            writer.push(series, *start, bin).unwrap();
        }
        let file = writer.finish().unwrap().unwrap();
        check_file(&file.bytes, &file.stats, SampleOrRollup::Rollup).unwrap();
        prop_assert_eq!(file.stats.rows, bins.len() as u64);
        let without = |bin: &Aggregate| Aggregate { sketch: None, ..bin.clone() };
        for (reader, stripped) in [
            (RollupReader::open(file.bytes.clone()).unwrap(), !sketch),
            (RollupReader::open(file.bytes.clone()).unwrap().without_sketch(), true),
        ] {
            let got = read(reader);
            prop_assert_eq!(got.len(), bins.len());
            for (got, want) in got.iter().zip(&bins) {
                prop_assert_eq!((&*got.0, got.1), (&want.0, want.1));
                let want = if stripped { without(&want.2) } else { want.2.clone() };
                prop_assert!(same(&got.2, &want), "{:?}\n{want:?}", got.2);
            }
        }
        let keep = |series: &Series| series.tags.contains("h1");
        let reader = RollupReader::open(file.bytes).unwrap().with_ts_range(lo, hi).with_series(predicate(keep));
        let want = bins.iter().filter(|bin| (lo..hi).contains(&bin.1) && keep(&bin.0));
        let got = read(reader);
        prop_assert!(got.iter().map(|bin| (&*bin.0, bin.1)).eq(want.map(|bin| (&bin.0, bin.1))));
    }
}

fn read(mut reader: RollupReader) -> Vec<(Arc<Series>, i64, Aggregate)> {
    let mut out = Vec::new();
    while let Some(chunk) = reader.next_chunk().unwrap() {
        for (start, bin) in chunk.bins {
            out.push((Arc::clone(&chunk.series), start, bin));
        }
    }
    out
}

#[test]
fn a_fold_refuses_rows_that_go_back() {
    let row = |ts_us| stele_format::SampleRow {
        ts_us,
        value: 1.0,
        extra: Default::default(),
    };
    let mut sink = Collected::default();
    let mut rollup = Rollup::new(false);
    rollup
        .push(&Series::default(), &[row(5)], &mut sink)
        .unwrap();
    assert!(
        rollup
            .push(&Series::default(), &[row(5)], &mut sink)
            .is_err()
    );
}
