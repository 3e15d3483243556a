//! Any Parquet reader gets the same rows by the documented expression: here the reader of the
//! Arrow project, which shares no encoder or decoder with ours.

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::datatypes::{
    DataType, Float64Type, Int32Type, Int64Type, TimeUnit, TimestampMicrosecondType,
};
use bytes::Bytes;
use parquet::arrow::arrow_reader::{ArrowReaderOptions, ParquetRecordBatchReaderBuilder};
use parquet::file::metadata::PageIndexPolicy;
use parquet::file::statistics::Statistics;
use proptest::prelude::*;
use stele_format::{Rollup, RollupSink, RollupWriter, SampleSource, batch, l0, schema};
use stele_model::{Aggregate, Resolution, Series};

use crate::gen_rows::*;

fn read(bytes: Bytes) -> Vec<RecordBatch> {
    let builder = ParquetRecordBatchReaderBuilder::try_new(bytes).unwrap();
    builder.build().unwrap().map(Result::unwrap).collect()
}

fn present<A: Array>(array: Option<&A>, row: usize) -> bool {
    array.is_some_and(|a| a.is_valid(row))
}

/// Rows by `coalesce(value, value_int / value_div)` and the nullable columns.
fn foreign(batches: &[RecordBatch]) -> Vec<Flat> {
    let mut out = Vec::new();
    for batch in batches {
        let text = |name: &str| {
            batch
                .column_by_name(name)
                .unwrap()
                .as_string::<i32>()
                .clone()
        };
        let float = |name: &str| {
            batch
                .column_by_name(name)
                .map(|c| c.as_primitive::<Float64Type>().clone())
        };
        let int = |name: &str| {
            batch
                .column_by_name(name)
                .map(|c| c.as_primitive::<Int64Type>().clone())
        };
        let small = |name: &str| {
            batch
                .column_by_name(name)
                .map(|c| c.as_primitive::<Int32Type>().clone())
        };
        let (metric, tags) = (text("metric"), text("tags"));
        let ts = batch
            .column_by_name("ts")
            .unwrap()
            .as_primitive::<TimestampMicrosecondType>();
        let (value, value_int, value_div) = (
            float("value").unwrap(),
            int("value_int").unwrap(),
            float("value_div").unwrap(),
        );
        let (kind, rank, count) = (small("kind"), small("rank"), int("count"));
        let [sum, min, max, squares] = ["sum", "min", "max", "sum_squares"].map(float);
        for row in 0..batch.num_rows() {
            let v = if value.is_valid(row) {
                assert!(value_int.is_null(row) && value_div.is_null(row));
                value.value(row)
            } else {
                value_int.value(row) as f64 / value_div.value(row)
            };
            let bits = |a: &Option<arrow::array::Float64Array>| {
                present(a.as_ref(), row).then(|| a.as_ref().unwrap().value(row).to_bits())
            };
            let summary = present(count.as_ref(), row).then(|| {
                (
                    count.as_ref().unwrap().value(row),
                    bits(&sum).unwrap(),
                    [bits(&min), bits(&max), bits(&squares)],
                )
            });
            let kind = kind
                .as_ref()
                .filter(|kind| kind.is_valid(row))
                .map_or(0, |kind| kind.value(row));
            let rank = present(rank.as_ref(), row).then(|| rank.as_ref().unwrap().value(row));
            out.push((
                metric.value(row).to_owned(),
                tags.value(row).to_owned(),
                ts.value(row),
                v.to_bits(),
                (kind as u8, rank, summary),
            ));
        }
    }
    out
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn a_foreign_reader_gets_the_same_samples(samples in stored_samples(60)) {
        let rows = canonical(&samples);
        let (file, want) = file_of(&rows);
        prop_assert_eq!(foreign(&read(file.bytes)), want);
        let batch = batch(rows);
        let object = l0::encode(std::slice::from_ref(&batch)).unwrap();
        prop_assert_eq!(foreign(&read(object.bytes)), flat_rows(&batch.rows));
    }
}

#[test]
fn a_foreign_reader_gets_every_page_and_row_group() {
    let mut noise = Noise(5);
    let rows = regular(40, 8000, |host, _| match host % 3 {
        0 => (noise.next() % 100) as f64,
        1 => f64::from_bits(noise.next()),
        _ => (noise.next() % 10_000) as f64 / 100.0,
    });
    let (file, want) = file_of(&rows);
    assert!(foreign(&read(file.bytes.clone())) == want);
    let options = ArrowReaderOptions::new().with_page_index_policy(PageIndexPolicy::Required);
    let builder =
        ParquetRecordBatchReaderBuilder::try_new_with_options(file.bytes, options).unwrap();
    let metadata = builder.metadata();
    assert_eq!(metadata.num_row_groups(), 2);
    let pages = &metadata.offset_index().unwrap()[0];
    assert!(
        pages
            .iter()
            .all(|column| column.page_locations().len() == 32)
    );
    // No statistics on values: they would prune NaN and −0.0 away.
    for column in metadata.row_group(0).columns() {
        let name = column.column_path().string();
        let indexed = ["metric", "tags", "ts"].contains(&name.as_str());
        assert_eq!(column.statistics().is_some(), indexed, "{name}");
        assert_eq!(column.column_index_offset().is_some(), indexed, "{name}");
    }
    let Some(Statistics::Int64(ts)) = metadata.row_group(0).column(2).statistics() else {
        panic!("ts has no statistics");
    };
    assert_eq!(ts.min_opt(), Some(&1_760_054_400_000_000));
}

#[test]
fn dictionaries_reach_the_engine_as_dictionaries() {
    let (file, _) = file_of(&regular(3, 100, |_, i| i as f64));
    let stored = schema::stored_samples();
    let builder = ParquetRecordBatchReaderBuilder::try_new(file.bytes.clone()).unwrap();
    let fields: Vec<_> = builder
        .schema()
        .fields()
        .iter()
        .map(|f| stored.field_with_name(f.name()).unwrap().clone())
        .collect();
    let fields: Vec<_> = fields
        .iter()
        .zip(builder.schema().fields())
        .map(|(ours, theirs)| ours.clone().with_nullable(theirs.is_nullable()))
        .collect();
    let options = ArrowReaderOptions::new()
        .with_schema(std::sync::Arc::new(arrow::datatypes::Schema::new(fields)));
    let builder =
        ParquetRecordBatchReaderBuilder::try_new_with_options(file.bytes, options).unwrap();
    let batches: Vec<RecordBatch> = builder.build().unwrap().map(Result::unwrap).collect();
    assert_eq!(
        batches[0]
            .column(1)
            .as_dictionary::<Int32Type>()
            .values()
            .len(),
        3
    );
    let ts = DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()));
    assert_eq!(batches[0].column(2).data_type(), &ts);
}

struct Writers([RollupWriter; 3], Vec<(Series, i64, Aggregate)>);

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
            .unwrap();
        if at == 0 {
            self.1.push((series.clone(), start, a.clone()));
        }
        self.0[at].push(series, start, a)
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn a_foreign_reader_gets_the_same_bins(samples in any_samples(60)) {
        let mut merge = merged(vec![canonical(&samples)]);
        let mut rollup = Rollup::new(true);
        let mut sink = Writers([true, true, true].map(RollupWriter::new), Vec::new());
        while let Some(chunk) = merge.next_chunk().unwrap() {
            rollup.push(&chunk.series, &chunk.rows, &mut sink).unwrap();
        }
        rollup.finish(&mut sink).unwrap();
        let Writers([file, _, _], want) = sink;
        let batches = read(file.finish().unwrap().unwrap().bytes);
        let mut at = 0;
        for batch in &batches {
            let float = |name: &str| batch.column_by_name(name).unwrap().as_primitive::<Float64Type>().clone();
            let count = batch.column_by_name("count").unwrap().as_primitive::<Int64Type>();
            let last_ts = batch.column_by_name("last_ts").unwrap().as_primitive::<TimestampMicrosecondType>();
            let sketch = batch.column_by_name("sketch").unwrap().as_binary::<i32>();
            let (sum, increase) = (float("sum"), float("increase"));
            for row in 0..batch.num_rows() {
                let bin = &want[at].2;
                at += 1;
                prop_assert_eq!((count.value(row), last_ts.value(row)), (bin.count, bin.last_ts_us));
                prop_assert_eq!(sum.is_null(row), bin.count == 0);
                if bin.count != 0 {
                    prop_assert_eq!(sum.value(row).to_bits(), bin.sum.to_bits());
                    prop_assert_eq!(increase.value(row).to_bits(), bin.increase.to_bits());
                }
                let stored = stele_model::Sketch::decode(sketch.value(row)).unwrap();
                prop_assert_eq!(Some(&stored), bin.sketch.as_ref());
            }
        }
        prop_assert_eq!(at, want.len());
    }
}

/// A reader that fetches pages by their place, as queries do, sees no digest of the object.
#[test]
fn a_flipped_bit_of_any_pages_values_is_an_error_or_changes_no_row() {
    let rows = regular(3, 200, |host, n| match host {
        0 => n as f64,
        1 => (n as f64).sqrt(),
        _ => f64::from(n as u32) / 8.0,
    });
    let (file, expected) = file_of(&rows);
    let frames: Vec<_> = (20..file.bytes.len() - 4)
        .filter(|at| file.bytes[*at..].starts_with(&[0x28, 0xb5, 0x2f, 0xfd]))
        .filter_map(|at| {
            let len = zstd::zstd_safe::find_frame_compressed_size(&file.bytes[at..]).ok()?;
            Some(at..at + len)
        })
        .collect();
    assert!(frames.len() >= 6, "{frames:?}");
    for at in frames.into_iter().flatten() {
        let mut bytes = file.bytes.to_vec();
        bytes[at] ^= 1 << (at % 8);
        let bytes = Bytes::from(bytes);
        let got = std::panic::catch_unwind(|| {
            let builder = ParquetRecordBatchReaderBuilder::try_new(bytes).ok()?;
            let batches: Result<Vec<_>, _> = builder.build().ok()?.collect();
            Some(foreign(&batches.ok()?))
        });
        if let Some(got) = got.ok().flatten() {
            assert!(got == expected, "byte {at} changes a row in silence");
        }
    }
}
