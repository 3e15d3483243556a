//! `increase` and `rate` of counters, by one rule.
//!
//! From one value to the next a counter grew by their difference; a drop is a reset and adds the
//! new value. Nothing is extrapolated, NaN is no observation, and one value alone has grown by 0.
//! Rollup rows hold what grew within their bin (`increase`), and the step from a bin's `last` to
//! the next bin's `first` counts by the same rule. Rows are brought into order of time here and
//! folded as compaction folds them (minutes, quarters, hours, then hours), so samples and every
//! rollup give the same bits over the same aligned range.
//!
//! `rate` divides by the seconds from the first sample to the last, NaN or not; it is NULL when
//! that is nothing. The rows must be those of one series: two at one time are an error.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray};
use arrow::datatypes::{DataType, Field, FieldRef, Float64Type, TimestampMicrosecondType};
use datafusion::common::{Result, ScalarValue, exec_err, plan_err};
use datafusion::logical_expr::function::{AccumulatorArgs, StateFieldsArgs};
use datafusion::logical_expr::{Accumulator, AggregateUDFImpl, Signature, Volatility};
use stele_format::schema;
use stele_model::aggregate::Aggregate;
use stele_model::{Extra, Resolution};

/// `increase(value, ts)`, `increase(increase, first, last, ts)`, `rate(value, ts)` and
/// `rate(increase, first, last, first_ts, last_ts)`.
#[derive(Debug, PartialEq, Eq, Hash)]
pub(crate) struct Counter {
    per_second: bool,
    signature: Signature,
}

impl Counter {
    pub(crate) fn increase() -> Self {
        Self::new(false)
    }

    pub(crate) fn rate() -> Self {
        Self::new(true)
    }

    fn new(per_second: bool) -> Self {
        Self {
            per_second,
            signature: Signature::user_defined(Volatility::Immutable),
        }
    }
}

fn name_of(per_second: bool) -> &'static str {
    if per_second { "rate" } else { "increase" }
}

impl AggregateUDFImpl for Counter {
    fn name(&self) -> &'static str {
        name_of(self.per_second)
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, given: &[DataType]) -> Result<Vec<DataType>> {
        let number = |t: &DataType| t.is_numeric() || t.is_null();
        let time = |t: &DataType| matches!(t, DataType::Timestamp(..) | DataType::Null);
        let (numbers, times) = match (given.len(), self.per_second) {
            (2, _) => given.split_at(1),
            (4, false) | (5, true) => given.split_at(3),
            _ => (given, given),
        };
        if numbers.iter().all(number) && times.iter().all(time) {
            let double = numbers.iter().map(|_| DataType::Float64);
            return Ok(double
                .chain(times.iter().map(|_| schema::timestamp()))
                .collect());
        }
        match self.per_second {
            true => plan_err!(
                "rate takes (value, ts) of samples or (increase, first, last, first_ts, last_ts) of a rollup"
            ),
            false => plan_err!(
                "increase takes (value, ts) of samples or (increase, first, last, ts) of a rollup"
            ),
        }
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(DataType::Float64)
    }

    fn state_fields(&self, args: StateFieldsArgs) -> Result<Vec<FieldRef>> {
        let name = format!("{}[steps]", args.name);
        Ok(vec![Arc::new(Field::new(name, DataType::Binary, false))])
    }

    fn accumulator(&self, _: AccumulatorArgs) -> Result<Box<dyn Accumulator>> {
        Ok(Box::new(Steps {
            per_second: self.per_second,
            samples: Vec::new(),
            bins: Vec::new(),
        }))
    }
}

/// One row of a rollup; `first` is NaN when it holds no observation.
#[derive(Debug, Clone, Copy)]
struct Bin {
    first_us: i64,
    last_us: i64,
    first: f64,
    last: f64,
    increase: f64,
}

impl Bin {
    const BYTES: usize = 40;

    fn folded(&self) -> Aggregate {
        let mut out = Aggregate::empty(false);
        out.first_ts_us = self.first_us;
        out.last_ts_us = self.last_us;
        if !self.first.is_nan() {
            out.count = 1;
            out.first = self.first;
            out.last = self.last;
            out.increase = self.increase;
        }
        out
    }
}

/// Rows in any order, folded at the end: partitions may interleave.
#[derive(Debug)]
struct Steps {
    per_second: bool,
    samples: Vec<(i64, f64)>,
    bins: Vec<Bin>,
}

const SAMPLE_BYTES: usize = 16;

fn eight(bytes: &[u8]) -> [u8; 8] {
    bytes.try_into().expect("the caller cut eight bytes")
}

impl Steps {
    /// The fold of all rows in order of time.
    fn folded(&mut self) -> Result<Aggregate> {
        self.samples.sort_unstable_by_key(|sample| sample.0);
        self.bins.sort_unstable_by_key(|bin| bin.first_us);
        let twice = self.samples.windows(2).find(|pair| pair[0].0 == pair[1].0);
        let twice = twice.map(|pair| pair[0].0).or_else(|| {
            let mut pairs = self.bins.windows(2);
            let same = pairs.find(|pair| pair[0].first_us == pair[1].first_us);
            same.map(|pair| pair[0].first_us)
        });
        if let Some(us) = twice {
            let at = chrono::DateTime::from_timestamp_micros(us)
                .map_or_else(|| format!("{us} µs"), |at| at.to_rfc3339());
            return exec_err!(
                "{} takes the rows of one series, but two have the time {at}; GROUP BY metric, tags",
                name_of(self.per_second)
            );
        }
        let mut fold = Fold::new();
        for (ts_us, value) in &self.samples {
            let mut one = Aggregate::empty(false);
            one.push(*ts_us, *value, &Extra::default());
            fold.add(one);
        }
        self.bins.iter().for_each(|bin| fold.add(bin.folded()));
        Ok(fold.end())
    }
}

/// Rows in order of time on their way through minutes, quarters and hours.
struct Fold {
    open: [Option<(i64, Aggregate)>; 3],
    all: Aggregate,
}

impl Fold {
    fn new() -> Self {
        Self {
            open: [const { None }; 3],
            all: Aggregate::empty(false),
        }
    }

    fn add(&mut self, part: Aggregate) {
        self.add_from(0, part);
    }

    /// Adds a part to the bins of one level; a bin that it ends moves up.
    fn add_from(&mut self, level: usize, part: Aggregate) {
        let Some(resolution) = Resolution::ROLLUPS.get(level) else {
            self.all.merge(&part);
            return;
        };
        let length = resolution.bin_us().expect("rollups have bins");
        let bin = part.first_ts_us.div_euclid(length);
        if let Some((_, full)) = self.open[level].take_if(|open| open.0 != bin) {
            self.add_from(level + 1, full);
        }
        let empty = || (bin, Aggregate::empty(false));
        self.open[level].get_or_insert_with(empty).1.merge(&part);
    }

    fn end(mut self) -> Aggregate {
        for level in 0..self.open.len() {
            if let Some((_, last)) = self.open[level].take() {
                self.add_from(level + 1, last);
            }
        }
        self.all
    }
}

impl Accumulator for Steps {
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        let doubles = |at: usize| values[at].as_primitive::<Float64Type>();
        let times = |at: usize| values[at].as_primitive::<TimestampMicrosecondType>();
        match values.len() {
            2 => {
                let rows = doubles(0).iter().zip(times(1).iter());
                let rows = rows.filter_map(|(value, ts)| Some((ts?, value?)));
                self.samples.extend(rows);
            }
            4 | 5 => {
                let (first_ts, last_ts) = (times(3), times(values.len() - 1));
                for row in 0..first_ts.len() {
                    if first_ts.is_null(row) || last_ts.is_null(row) {
                        continue;
                    }
                    let of = |at: usize| {
                        let column = doubles(at);
                        column.is_valid(row).then(|| column.value(row))
                    };
                    let observed = of(0).zip(of(1)).zip(of(2));
                    let ((increase, first), last) =
                        observed.unwrap_or(((f64::NAN, f64::NAN), f64::NAN));
                    self.bins.push(Bin {
                        first_us: first_ts.value(row),
                        last_us: last_ts.value(row),
                        first,
                        last,
                        increase,
                    });
                }
            }
            n => return exec_err!("{} does not take {n} arguments", name_of(self.per_second)),
        }
        Ok(())
    }

    fn evaluate(&mut self) -> Result<ScalarValue> {
        let folded = self.folded()?;
        let mut answer = (folded.count > 0).then_some(folded.increase);
        if self.per_second {
            let us = folded.last_ts_us.saturating_sub(folded.first_ts_us);
            #[expect(clippy::cast_precision_loss, reason = "exact below 285 years")]
            let secs = us as f64 / 1e6;
            answer = answer.filter(|_| us > 0).map(|increase| increase / secs);
        }
        Ok(ScalarValue::Float64(answer))
    }

    fn size(&self) -> usize {
        size_of_val(self)
            + self.samples.capacity() * size_of::<(i64, f64)>()
            + self.bins.capacity() * size_of::<Bin>()
    }

    /// `samples` as (ts, value) behind a 0, or `bins` behind a 1; eight bytes each, little-endian.
    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        let mut out = vec![u8::from(!self.bins.is_empty())];
        out.reserve(self.samples.len() * SAMPLE_BYTES + self.bins.len() * Bin::BYTES);
        for (ts_us, value) in &self.samples {
            out.extend_from_slice(&ts_us.to_le_bytes());
            out.extend_from_slice(&value.to_le_bytes());
        }
        for bin in &self.bins {
            out.extend_from_slice(&bin.first_us.to_le_bytes());
            out.extend_from_slice(&bin.last_us.to_le_bytes());
            for value in [bin.first, bin.last, bin.increase] {
                out.extend_from_slice(&value.to_le_bytes());
            }
        }
        Ok(vec![ScalarValue::Binary(Some(out))])
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> Result<()> {
        let all = states.iter().flat_map(|state| state.as_binary::<i32>());
        for (form, rows) in all.flatten().filter_map(<[u8]>::split_first) {
            let int = |bytes: &[u8]| i64::from_le_bytes(eight(bytes));
            let double = |bytes: &[u8]| f64::from_le_bytes(eight(bytes));
            if *form == 0 {
                let rows = rows.chunks_exact(SAMPLE_BYTES);
                let rows = rows.map(|row| (int(&row[..8]), double(&row[8..])));
                self.samples.extend(rows);
                continue;
            }
            self.bins
                .extend(rows.chunks_exact(Bin::BYTES).map(|row| Bin {
                    first_us: int(&row[..8]),
                    last_us: int(&row[8..16]),
                    first: double(&row[16..24]),
                    last: double(&row[24..32]),
                    increase: double(&row[32..]),
                }));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{BinaryArray, Float64Array, TimestampMicrosecondArray};
    use proptest::prelude::*;
    use stele_model::aggregate::increase_between;

    use super::*;

    fn steps(per_second: bool) -> Steps {
        Steps {
            per_second,
            samples: Vec::new(),
            bins: Vec::new(),
        }
    }

    fn times(us: impl Iterator<Item = i64>) -> ArrayRef {
        Arc::new(TimestampMicrosecondArray::from_iter_values(us).with_timezone("UTC"))
    }

    fn doubles(values: impl Iterator<Item = f64>) -> ArrayRef {
        Arc::new(Float64Array::from_iter_values(values))
    }

    fn samples(rows: &[(i64, f64)]) -> Vec<ArrayRef> {
        let values = doubles(rows.iter().map(|row| row.1));
        vec![values, times(rows.iter().map(|row| row.0))]
    }

    /// Rows as bins of one value each: increase, first, last, first_ts, last_ts.
    fn bins(rows: &[(i64, f64)]) -> Vec<ArrayRef> {
        let (value, ts) = (
            || doubles(rows.iter().map(|row| row.1)),
            || times(rows.iter().map(|row| row.0)),
        );
        vec![
            doubles(rows.iter().map(|_| 0.0)),
            value(),
            value(),
            ts(),
            ts(),
        ]
    }

    fn bits(answer: &ScalarValue) -> Option<u64> {
        match answer {
            ScalarValue::Float64(value) => value.map(f64::to_bits),
            other => panic!("{other}"),
        }
    }

    /// What parts say together, each a partition that hands on its state.
    fn merged(parts: &[Vec<ArrayRef>], per_second: bool) -> Option<u64> {
        let mut whole = steps(per_second);
        for part in parts {
            let mut one = steps(per_second);
            one.update_batch(part).unwrap();
            let state = one.state().unwrap();
            let [ScalarValue::Binary(Some(bytes))] = state.as_slice() else {
                panic!("{state:?}");
            };
            let states: ArrayRef = Arc::new(BinaryArray::from_iter_values([bytes]));
            whole.merge_batch(&[states]).unwrap();
        }
        bits(&whole.evaluate().unwrap())
    }

    proptest! {
        #[test]
        fn partitions_that_interleave_say_the_same_bits(
            rows in proptest::collection::btree_map(0i64..40_000_000_000, 0.0f64..1e6, 0..80),
            places in proptest::collection::vec(0usize..3, 80),
        ) {
            let rows: Vec<(i64, f64)> = rows.into_iter().collect();
            let mut parts = vec![Vec::new(); 3];
            for (row, place) in rows.iter().rev().zip(&places) {
                parts[*place].push(*row);
            }
            for per_second in [false, true] {
                let mut whole = steps(per_second);
                whole.update_batch(&samples(&rows)).unwrap();
                let want = bits(&whole.evaluate().unwrap());
                prop_assert_eq!(bits(&whole.evaluate().unwrap()), want);
                let as_samples: Vec<_> = parts.iter().map(|part| samples(part)).collect();
                prop_assert_eq!(merged(&as_samples, per_second), want);
                let as_bins: Vec<_> = parts.iter().map(|part| bins(part)).collect();
                prop_assert_eq!(merged(&as_bins, per_second), want);
            }
            // The rule by itself, in one line, within the rounding of another order of sums.
            let mut whole = steps(false);
            whole.update_batch(&samples(&rows)).unwrap();
            let plain: f64 = rows.windows(2).map(|w| increase_between(w[0].1, w[1].1)).sum();
            match whole.evaluate().unwrap() {
                ScalarValue::Float64(Some(got)) => {
                    prop_assert!((got - plain).abs() <= plain * 1e-12, "{} {}", got, plain);
                }
                other => prop_assert!(rows.is_empty(), "{}", other),
            }
        }
    }

    #[test]
    fn two_rows_of_one_time_are_two_series_wherever_they_come_from() {
        for (a, b) in [
            (samples(&[(5, 1.0)]), samples(&[(5, 1.0)])),
            (bins(&[(5, 1.0)]), bins(&[(5, 2.0)])),
        ] {
            let mut both = steps(false);
            both.update_batch(&a).unwrap();
            both.update_batch(&b).unwrap();
            let error = both.evaluate().unwrap_err().to_string();
            assert!(error.contains("1970-01-01T00:00:00.000005"), "{error}");
        }
    }

    #[test]
    fn what_is_held_is_accounted_for() {
        let mut held = steps(false);
        let rows: Vec<(i64, f64)> = (0..1_000).map(|i| (i, 0.0)).collect();
        held.update_batch(&samples(&rows)).unwrap();
        assert!(held.size() >= 16_000, "{}", held.size());
        held.update_batch(&bins(&rows)).unwrap();
        assert!(held.size() >= 56_000, "{}", held.size());
    }
}
