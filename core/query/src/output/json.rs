//! Rows as JSON objects.
//!
//! Hand-written for the types answers are made of; anything else goes through `arrow-json`. Keys
//! and dictionary entries are quoted once per batch, not once per row.

use arrow::array::{
    Array, ArrayRef, ArrowPrimitiveType, AsArray, PrimitiveArray, RecordBatch, StringArray,
};
use arrow::compute::cast;
use arrow::datatypes::{
    DataType, Float64Type, Int32Type, Int64Type, TimestampMicrosecondType, UInt64Type,
};
use arrow::error::ArrowError;
use arrow::json::LineDelimitedWriter;
use stele_model::time::rfc3339;

use super::utc_us;

/// Writes rows one after the other.
pub(super) struct Rows {
    array: bool,
    started: bool,
}

impl Rows {
    pub(super) fn array() -> Self {
        Self {
            array: true,
            started: false,
        }
    }

    pub(super) fn lines() -> Self {
        Self {
            array: false,
            started: false,
        }
    }

    pub(super) fn batch(&mut self, batch: &RecordBatch) -> Result<Vec<u8>, ArrowError> {
        let schema = batch.schema();
        let columns = schema
            .fields()
            .iter()
            .zip(batch.columns())
            .enumerate()
            .map(|(i, (field, column))| {
                let mut key = Vec::new();
                key.push(if i == 0 { b'{' } else { b',' });
                quote(&mut key, field.name());
                key.push(b':');
                Ok((key, Column::of(column)?))
            })
            .collect::<Result<Vec<_>, ArrowError>>()?;
        let mut out = Vec::with_capacity(batch.num_rows() * 24 * columns.len().max(1));
        for row in 0..batch.num_rows() {
            if self.array {
                out.extend_from_slice(if self.started { b",\n" } else { b"[" });
            }
            self.started = true;
            if columns.is_empty() {
                out.push(b'{');
            }
            for (key, column) in &columns {
                out.extend_from_slice(key);
                column.write(row, &mut out);
            }
            out.push(b'}');
            if !self.array {
                out.push(b'\n');
            }
        }
        Ok(out)
    }

    pub(super) fn end(&mut self) -> Vec<u8> {
        match (self.array, self.started) {
            (false, _) => Vec::new(),
            (true, true) => b"]\n".to_vec(),
            (true, false) => b"[]\n".to_vec(),
        }
    }
}

/// One column, ready to write any of its rows.
enum Column {
    Null,
    Bool(arrow::array::BooleanArray),
    Int(PrimitiveArray<Int64Type>),
    Unsigned(PrimitiveArray<UInt64Type>),
    Float(PrimitiveArray<Float64Type>),
    Time(PrimitiveArray<TimestampMicrosecondType>),
    Text(StringArray),
    /// Quoted entries, and each row's entry.
    Dictionary(Vec<Vec<u8>>, PrimitiveArray<Int32Type>),
    /// Whole values of another type, one per row.
    Other(Vec<Vec<u8>>),
}

fn primitive<T: ArrowPrimitiveType>(
    column: &ArrayRef,
    to: &DataType,
) -> Result<PrimitiveArray<T>, ArrowError> {
    Ok(cast(column, to)?.as_primitive::<T>().clone())
}

impl Column {
    fn of(column: &ArrayRef) -> Result<Self, ArrowError> {
        Ok(match column.data_type() {
            DataType::Null => Self::Null,
            DataType::Boolean => Self::Bool(column.as_boolean().clone()),
            DataType::Int8 | DataType::Int16 | DataType::Int32 | DataType::Int64 => {
                Self::Int(primitive(column, &DataType::Int64)?)
            }
            DataType::UInt8 | DataType::UInt16 | DataType::UInt32 | DataType::UInt64 => {
                Self::Unsigned(primitive(column, &DataType::UInt64)?)
            }
            DataType::Float16 | DataType::Float32 | DataType::Float64 => {
                Self::Float(primitive(column, &DataType::Float64)?)
            }
            DataType::Timestamp(..) => Self::Time(primitive(column, &utc_us())?),
            DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => {
                Self::Text(cast(column, &DataType::Utf8)?.as_string::<i32>().clone())
            }
            DataType::Dictionary(key, value) if **key == DataType::Int32 && value.is_string() => {
                let dictionary = column.as_dictionary::<Int32Type>();
                let texts = cast(dictionary.values(), &DataType::Utf8)?;
                let entries = texts.as_string::<i32>().iter().map(|text| {
                    let mut out = Vec::new();
                    match text {
                        Some(text) => quote(&mut out, text),
                        None => out.extend_from_slice(b"null"),
                    }
                    out
                });
                Self::Dictionary(entries.collect(), dictionary.keys().clone())
            }
            DataType::Dictionary(_, value) => Self::of(&cast(column, value)?)?,
            _ => Self::Other(others(column)?),
        })
    }

    fn is_null(&self, row: usize) -> bool {
        match self {
            Self::Null => true,
            Self::Bool(c) => c.is_null(row),
            Self::Int(c) => c.is_null(row),
            Self::Unsigned(c) => c.is_null(row),
            Self::Float(c) => c.is_null(row) || !c.value(row).is_finite(),
            Self::Time(c) => c.is_null(row),
            Self::Text(c) => c.is_null(row),
            Self::Dictionary(_, keys) => keys.is_null(row),
            Self::Other(_) => false,
        }
    }

    fn write(&self, row: usize, out: &mut Vec<u8>) {
        if self.is_null(row) {
            out.extend_from_slice(b"null");
            return;
        }
        match self {
            Self::Null => {}
            Self::Bool(c) => {
                let word: &[u8] = if c.value(row) { b"true" } else { b"false" };
                out.extend_from_slice(word);
            }
            Self::Int(c) => {
                out.extend_from_slice(itoa::Buffer::new().format(c.value(row)).as_bytes());
            }
            Self::Unsigned(c) => {
                out.extend_from_slice(itoa::Buffer::new().format(c.value(row)).as_bytes());
            }
            Self::Float(c) => float(out, c.value(row)),
            Self::Time(c) => time(out, c.value(row)),
            Self::Text(c) => quote(out, c.value(row)),
            Self::Dictionary(entries, keys) => {
                let key = usize::try_from(keys.value(row)).ok();
                let entry = key.and_then(|key| entries.get(key));
                out.extend_from_slice(entry.map_or(b"null", Vec::as_slice));
            }
            Self::Other(values) => out.extend_from_slice(&values[row]),
        }
    }
}

/// The shortest text that reads back as the same bits.
fn float(out: &mut Vec<u8>, value: f64) {
    serde_json::to_writer(out, &value).expect("a finite number, written to memory");
}

/// RFC 3339 in UTC with six decimals, by integer arithmetic: years 1 to 9999 by the civil-day
/// formula, others through the calendar library.
fn time(out: &mut Vec<u8>, us: i64) {
    let days = us.div_euclid(86_400_000_000);
    if !(-700_000..=2_900_000).contains(&days) {
        out.push(b'"');
        out.extend_from_slice(rfc3339(us).as_bytes());
        out.push(b'"');
        return;
    }
    let in_day = us.rem_euclid(86_400_000_000);
    let shifted = days + 719_468;
    let (era, of_era) = (shifted.div_euclid(146_097), shifted.rem_euclid(146_097));
    let year_of_era = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_index = (5 * of_year + 2) / 153;
    let day = of_year - (153 * month_index + 2) / 5 + 1;
    let month = if month_index < 10 {
        month_index + 3
    } else {
        month_index - 9
    };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    let seconds = in_day / 1_000_000;
    let mut text = *b"\"0000-00-00T00:00:00.000000Z\"";
    digits(&mut text[1..5], year);
    digits(&mut text[6..8], month);
    digits(&mut text[9..11], day);
    digits(&mut text[12..14], seconds / 3_600);
    digits(&mut text[15..17], seconds / 60 % 60);
    digits(&mut text[18..20], seconds % 60);
    digits(&mut text[21..27], in_day % 1_000_000);
    out.extend_from_slice(&text);
}

fn digits(slot: &mut [u8], mut number: i64) {
    for digit in slot.iter_mut().rev() {
        *digit = b'0' + (number % 10).unsigned_abs() as u8;
        number /= 10;
    }
}

fn quote(out: &mut Vec<u8>, text: &str) {
    if text.bytes().all(|b| b >= 0x20 && b != b'"' && b != b'\\') {
        out.push(b'"');
        out.extend_from_slice(text.as_bytes());
        out.push(b'"');
    } else {
        serde_json::to_writer(out, text).expect("text, written to memory");
    }
}

/// The values of a column of any type, by `arrow-json`.
fn others(column: &ArrayRef) -> Result<Vec<Vec<u8>>, ArrowError> {
    let batch = RecordBatch::try_from_iter_with_nullable([("v", column.clone(), true)])?;
    let mut lines = LineDelimitedWriter::new(Vec::new());
    lines.write(&batch)?;
    lines.finish()?;
    let text = lines.into_inner();
    let values = text.split(|b| *b == b'\n').take(column.len()).map(|line| {
        let value = line
            .strip_prefix(b"{\"v\":")
            .and_then(|v| v.strip_suffix(b"}"));
        value.unwrap_or(b"null").to_vec()
    });
    Ok(values.collect())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{Float64Array, ListArray, TimestampNanosecondArray};
    use proptest::prelude::*;

    use super::*;

    fn json(columns: Vec<(&str, ArrayRef)>) -> String {
        let batch = RecordBatch::try_from_iter(columns).unwrap();
        let mut rows = Rows::array();
        let mut out = rows.batch(&batch).unwrap();
        out.extend(rows.end());
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn rows_are_objects_and_what_json_cannot_say_is_null() {
        let text: ArrayRef = Arc::new(StringArray::from(vec![Some("a\"\n\u{1}"), None]));
        let value: ArrayRef = Arc::new(Float64Array::from(vec![f64::NAN, 1.0]));
        let more: ArrayRef = Arc::new(Float64Array::from(vec![f64::NEG_INFINITY, -0.0]));
        let list: ArrayRef = Arc::new(ListArray::from_iter_primitive::<Int64Type, _, _>([
            Some(vec![Some(1), None]),
            None,
        ]));
        assert_eq!(
            json(vec![("t\"", text), ("v", value), ("w", more), ("l", list)]),
            "[{\"t\\\"\":\"a\\\"\\n\\u0001\",\"v\":null,\"w\":null,\"l\":[1,null]},\n\
             {\"t\\\"\":null,\"v\":1.0,\"w\":-0.0,\"l\":null}]\n"
        );
    }

    #[test]
    fn no_rows_are_an_empty_array() {
        assert_eq!(String::from_utf8(Rows::array().end()).unwrap(), "[]\n");
        assert!(Rows::lines().end().is_empty());
    }

    #[test]
    fn times_of_any_unit_are_microseconds_in_utc() {
        let ns: ArrayRef = Arc::new(TimestampNanosecondArray::from(vec![1_999]));
        assert_eq!(
            json(vec![("t", ns)]),
            "[{\"t\":\"1970-01-01T00:00:00.000001Z\"}]\n"
        );
    }

    proptest! {
        #[test]
        fn times_agree_with_the_calendar_library(us in -60_000_000_000_000_000i64..250_000_000_000_000_000) {
            let mut out = Vec::new();
            time(&mut out, us);
            prop_assert_eq!(String::from_utf8(out).unwrap(), format!("\"{}\"", rfc3339(us)));
        }

        #[test]
        fn a_number_reads_back_with_the_same_bits(bits in any::<u64>()) {
            let value = f64::from_bits(bits);
            prop_assume!(value.is_finite());
            let mut out = Vec::new();
            float(&mut out, value);
            let back: f64 = std::str::from_utf8(&out).unwrap().parse().unwrap();
            prop_assert_eq!(back.to_bits(), bits);
        }
    }
}
