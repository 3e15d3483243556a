//! Chunks as record batches of the SQL schema.

use std::sync::Arc;

use arrow::array::{Array, AsArray};
use arrow::datatypes::{Float64Type, Int32Type, Int64Type};
use stele_format::{RollupChunk, SampleChunk, SampleRow, schema, to_arrow};
use stele_model::{Aggregate, Extra, Kind, Series, Summary};

fn series(metric: &str, tags: &str) -> Arc<Series> {
    Arc::new(Series {
        metric: metric.to_owned(),
        tags: tags.to_owned(),
    })
}

#[test]
fn samples_become_one_batch_with_each_text_once() {
    let plain = SampleRow {
        ts_us: 7,
        value: -0.0,
        extra: Extra::default(),
    };
    let summary = Summary {
        count: 4,
        sum: 8.0,
        min: Some(1.0),
        max: None,
        sum_squares: None,
    };
    let extra = Extra {
        kind: Kind::Counter,
        rank: Some(2),
        summary: Some(summary),
    };
    let chunks = [
        SampleChunk {
            series: series("a", "{}"),
            rows: vec![
                plain,
                SampleRow {
                    ts_us: 8,
                    value: 2.0,
                    extra,
                },
            ],
        },
        SampleChunk {
            series: series("b", "{}"),
            rows: vec![plain],
        },
    ];
    let batch = to_arrow::samples(&chunks).unwrap();
    assert_eq!(batch.schema(), schema::logical_samples());
    assert_eq!(batch.num_rows(), 3);
    let dictionary = |at: usize| batch.column(at).as_dictionary::<Int32Type>();
    assert_eq!(dictionary(0).keys().values(), &[0, 0, 1]);
    assert_eq!(dictionary(1).values().len(), 1);
    let value = batch.column(3).as_primitive::<Float64Type>();
    assert_eq!(value.value(0).to_bits(), (-0.0f64).to_bits());
    let kind = batch.column(4).as_string::<i32>();
    assert!(kind.is_null(0) && kind.value(1) == "counter");
    let count = batch.column(5).as_primitive::<Int64Type>();
    assert!(count.is_null(0) && count.value(1) == 4);
    assert!(batch.column(8).is_null(1), "max is unknown");
    assert_eq!(batch.column(10).as_primitive::<Int32Type>().value(1), 2);
}

#[test]
fn a_bin_of_nan_alone_has_null_values() {
    let mut bin = Aggregate::empty(true);
    bin.push(5, f64::NAN, &Extra::default());
    let mut full = Aggregate::empty(false);
    full.push(65, 3.0, &Extra::default());
    let chunk = RollupChunk {
        series: series("a", "{}"),
        bins: vec![(0, bin), (60, full)],
    };
    let batch = to_arrow::rollups(&[chunk]).unwrap();
    assert_eq!(batch.schema(), schema::logical_rollups());
    for at in 4..11 {
        assert!(
            batch.column(at).is_null(0) && batch.column(at).is_valid(1),
            "column {at}"
        );
    }
    assert!(batch.column(13).is_valid(0) && batch.column(13).is_null(1));
}
