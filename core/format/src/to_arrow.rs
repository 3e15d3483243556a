//! Merged rows as Arrow record batches of the SQL schema.
//!
//! A text stands once in the dictionary of its batch, however many rows carry it.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::{
    ArrayRef, BinaryBuilder, DictionaryArray, Float64Array, Float64Builder, Int32Array, Int64Array,
    RecordBatch, StringArray, StringBuilder, TimestampMicrosecondArray,
};
use arrow::datatypes::Int32Type;
use stele_model::{Kind, Series, Summary};

use crate::error::{Error, Result};
use crate::rollup_file::floats;
use crate::sample::{RollupChunk, SampleChunk, SampleRow};
use crate::schema;

/// The rows of all chunks in one batch of [`schema::logical_samples`].
///
/// # Errors
/// [`Error::TooLarge`] beyond 2³¹ distinct texts.
pub fn samples(chunks: &[SampleChunk]) -> Result<RecordBatch> {
    let runs = || chunks.iter().map(|c| (&*c.series, c.rows.len()));
    let rows = || chunks.iter().flat_map(|c| &c.rows);
    let summary = |value: fn(&Summary) -> Option<f64>| -> ArrayRef {
        let values = rows().map(|row| row.extra.summary.as_ref().and_then(value));
        Arc::new(values.collect::<Float64Array>())
    };
    let mut kinds = StringBuilder::new();
    for row in rows() {
        kinds.append_option(kind_text(row.extra.kind));
    }
    let counts = rows().map(|row| row.extra.summary.map(|s| s.count));
    let columns: Vec<ArrayRef> = vec![
        dictionary(runs(), |series| &series.metric)?,
        dictionary(runs(), |series| &series.tags)?,
        timestamps(rows().map(|row| row.ts_us)),
        Arc::new(Float64Array::from_iter_values(rows().map(value))),
        Arc::new(kinds.finish()),
        Arc::new(counts.collect::<Int64Array>()),
        summary(|s| Some(s.sum)),
        summary(|s| s.min),
        summary(|s| s.max),
        summary(|s| s.sum_squares),
        Arc::new(rows().map(|row| row.extra.rank).collect::<Int32Array>()),
    ];
    Ok(RecordBatch::try_new(schema::logical_samples(), columns)?)
}

/// The bins of all chunks in one batch of [`schema::logical_rollups`].
///
/// # Errors
/// [`Error::TooLarge`] beyond 2³¹ distinct texts.
pub fn rollups(chunks: &[RollupChunk]) -> Result<RecordBatch> {
    let runs = || chunks.iter().map(|c| (&*c.series, c.bins.len()));
    let bins = || chunks.iter().flat_map(|c| &c.bins);
    let mut values: [Float64Builder; 7] = Default::default();
    let mut sketches = BinaryBuilder::new();
    let mut bytes = Vec::new();
    for (_, bin) in bins() {
        for (column, value) in values.iter_mut().zip(floats(bin)) {
            column.append_option((bin.count != 0).then_some(value));
        }
        bytes.clear();
        match &bin.sketch {
            None => sketches.append_null(),
            Some(sketch) => {
                sketch.encode(&mut bytes);
                sketches.append_value(&bytes);
            }
        }
    }
    let counts = Int64Array::from_iter_values(bins().map(|bin| bin.1.count));
    let mut columns: Vec<ArrayRef> = vec![
        dictionary(runs(), |series| &series.metric)?,
        dictionary(runs(), |series| &series.tags)?,
        timestamps(bins().map(|bin| bin.0)),
        Arc::new(counts),
    ];
    for mut column in values {
        columns.push(Arc::new(column.finish()));
    }
    columns.push(timestamps(bins().map(|bin| bin.1.first_ts_us)));
    columns.push(timestamps(bins().map(|bin| bin.1.last_ts_us)));
    columns.push(Arc::new(sketches.finish()));
    Ok(RecordBatch::try_new(schema::logical_rollups(), columns)?)
}

/// The SQL text of a kind; `None` when unknown.
#[must_use]
pub fn kind_text(kind: Kind) -> Option<&'static str> {
    match kind {
        Kind::Unknown => None,
        Kind::Gauge => Some("gauge"),
        Kind::Counter => Some("counter"),
    }
}

fn value(row: &SampleRow) -> f64 {
    row.value
}

fn timestamps(ts_us: impl Iterator<Item = i64>) -> ArrayRef {
    Arc::new(TimestampMicrosecondArray::from_iter_values(ts_us).with_timezone("UTC"))
}

/// Dictionary-encodes one text of each run's series, repeated for the rows of the run.
fn dictionary<'a>(
    runs: impl Iterator<Item = (&'a Series, usize)>,
    text: impl Fn(&'a Series) -> &'a String,
) -> Result<ArrayRef> {
    let mut index: HashMap<&str, i32> = HashMap::new();
    let mut texts: Vec<&str> = Vec::new();
    let mut keys: Vec<i32> = Vec::new();
    let mut last: Option<(&str, i32)> = None;
    for (series, n) in runs {
        let text = text(series).as_str();
        let key = match last.filter(|last| last.0 == text) {
            Some((_, key)) => key,
            None => match index.get(text) {
                Some(key) => *key,
                None => {
                    let key = i32::try_from(texts.len()).map_err(|_| Error::TooLarge {
                        what: "the number of texts in one batch",
                        value: texts.len() as u64,
                        max: i32::MAX as u64,
                    })?;
                    index.insert(text, key);
                    texts.push(text);
                    key
                }
            },
        };
        last = Some((text, key));
        keys.extend(std::iter::repeat_n(key, n));
    }
    let values: ArrayRef = Arc::new(StringArray::from_iter_values(texts));
    let array = DictionaryArray::<Int32Type>::try_new(Int32Array::from(keys), values)?;
    Ok(Arc::new(array))
}
