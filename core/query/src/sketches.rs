//! `quantile(x, q)` and `sketch_count(sketch)`: the quantile sketches of rollups in SQL.
//!
//! `quantile` takes the `sketch` column of a rollup and merges, or plain values and counts them
//! into the same sketch. Counts add up whatever their order, so both forms have the same bits for
//! the same plain samples, and at every stage of compaction. Pre-aggregated samples are in no
//! sketch: `sketch_count` beside `sum(count)` shows how many observations a quantile leaves out.

use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray};
use arrow::datatypes::{DataType, Field, FieldRef, Float64Type, Int64Type, Schema};
use arrow::record_batch::RecordBatch;
use datafusion::common::{Result, ScalarValue, exec_err, plan_err};
use datafusion::logical_expr::function::{AccumulatorArgs, StateFieldsArgs};
use datafusion::logical_expr::{
    Accumulator, AggregateUDFImpl, ColumnarValue, Signature, Volatility,
};
use datafusion::physical_expr::PhysicalExpr;
use stele_model::sketch::Sketch;

/// `quantile(sketch, q)` and `quantile(value, q)`.
#[derive(Debug, PartialEq, Eq, Hash)]
pub(crate) struct Quantile {
    signature: Signature,
}

impl Quantile {
    pub(crate) fn new() -> Self {
        Self {
            signature: Signature::user_defined(Volatility::Immutable),
        }
    }
}

fn is_sketch(x: &DataType) -> bool {
    matches!(
        x,
        DataType::Binary | DataType::LargeBinary | DataType::BinaryView
    )
}

impl AggregateUDFImpl for Quantile {
    fn name(&self) -> &'static str {
        "quantile"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, given: &[DataType]) -> Result<Vec<DataType>> {
        let number = |t: &DataType| t.is_numeric() || t.is_null();
        match given {
            [x, q] if is_sketch(x) && number(q) => Ok(vec![DataType::Binary, DataType::Float64]),
            [x, q] if number(x) && number(q) => Ok(vec![DataType::Float64, DataType::Float64]),
            _ => plan_err!("quantile takes a sketch or a number, and a number from 0 to 1"),
        }
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(DataType::Float64)
    }

    fn state_fields(&self, args: StateFieldsArgs) -> Result<Vec<FieldRef>> {
        let name = format!("{}[sketch]", args.name);
        Ok(vec![Arc::new(Field::new(name, DataType::Binary, false))])
    }

    fn accumulator(&self, args: AccumulatorArgs) -> Result<Box<dyn Accumulator>> {
        let [_, q] = args.exprs else {
            return plan_err!("quantile takes two arguments");
        };
        Ok(Box::new(Sketched {
            sketch: Sketch::default(),
            q: fraction(q)?,
        }))
    }
}

/// The constant `q`, from 0 to 1.
fn fraction(q: &Arc<dyn PhysicalExpr>) -> Result<f64> {
    let nothing = RecordBatch::new_empty(Arc::new(Schema::empty()));
    match q.evaluate(&nothing) {
        Ok(ColumnarValue::Scalar(ScalarValue::Float64(Some(q)))) if (0.0..=1.0).contains(&q) => {
            Ok(q)
        }
        Ok(ColumnarValue::Scalar(given)) => {
            exec_err!("the q of a quantile is {given}, it must be from 0 to 1")
        }
        _ => exec_err!("the q of a quantile must be a constant from 0 to 1"),
    }
}

fn decoded(bytes: &[u8]) -> Result<Sketch> {
    Sketch::decode(bytes).or_else(|e| exec_err!("{e}"))
}

#[derive(Debug)]
struct Sketched {
    sketch: Sketch,
    q: f64,
}

impl Sketched {
    fn merge(&mut self, sketches: &ArrayRef) -> Result<()> {
        for bytes in sketches.as_binary::<i32>().iter().flatten() {
            self.sketch.merge(&decoded(bytes)?);
        }
        Ok(())
    }
}

impl Accumulator for Sketched {
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        let [x, ..] = values else {
            return exec_err!("quantile takes two arguments");
        };
        if let Some(values) = x.as_primitive_opt::<Float64Type>() {
            let plain = values.iter().flatten();
            plain.for_each(|value| self.sketch.push(value));
            return Ok(());
        }
        self.merge(x)
    }

    fn evaluate(&mut self) -> Result<ScalarValue> {
        Ok(ScalarValue::Float64(self.sketch.quantile(self.q)))
    }

    fn size(&self) -> usize {
        size_of_val(self) + self.sketch.size_bytes()
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        let mut bytes = Vec::new();
        self.sketch.encode(&mut bytes);
        Ok(vec![ScalarValue::Binary(Some(bytes))])
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> Result<()> {
        states.iter().try_for_each(|sketches| self.merge(sketches))
    }
}

/// `sketch_count(sketch)`: the observations in sketches; 0 when there are none.
#[derive(Debug, PartialEq, Eq, Hash)]
pub(crate) struct SketchCount {
    signature: Signature,
}

impl SketchCount {
    pub(crate) fn new() -> Self {
        Self {
            signature: Signature::user_defined(Volatility::Immutable),
        }
    }
}

impl AggregateUDFImpl for SketchCount {
    fn name(&self) -> &'static str {
        "sketch_count"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, given: &[DataType]) -> Result<Vec<DataType>> {
        match given {
            [x] if is_sketch(x) || x.is_null() => Ok(vec![DataType::Binary]),
            _ => plan_err!("sketch_count takes a sketch"),
        }
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(DataType::Int64)
    }

    fn default_value(&self, _: &DataType) -> Result<ScalarValue> {
        Ok(ScalarValue::Int64(Some(0)))
    }

    fn accumulator(&self, _: AccumulatorArgs) -> Result<Box<dyn Accumulator>> {
        Ok(Box::new(Counted(0)))
    }

    fn state_fields(&self, args: StateFieldsArgs) -> Result<Vec<FieldRef>> {
        let name = format!("{}[count]", args.name);
        Ok(vec![Arc::new(Field::new(name, DataType::Int64, false))])
    }
}

#[derive(Debug)]
struct Counted(i64);

impl Accumulator for Counted {
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        for sketches in values {
            for bytes in sketches.as_binary::<i32>().iter().flatten() {
                let count = i64::try_from(decoded(bytes)?.count()).unwrap_or(i64::MAX);
                self.0 = self.0.saturating_add(count);
            }
        }
        Ok(())
    }

    fn evaluate(&mut self) -> Result<ScalarValue> {
        Ok(ScalarValue::Int64(Some(self.0)))
    }

    fn size(&self) -> usize {
        size_of_val(self)
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        Ok(vec![ScalarValue::Int64(Some(self.0))])
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> Result<()> {
        for counts in states {
            for count in counts.as_primitive::<Int64Type>().iter().flatten() {
                self.0 = self.0.saturating_add(count);
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::{BinaryArray, Float64Array};

    use super::*;

    #[test]
    fn partitions_of_values_and_of_sketches_merge_into_one_sketch() {
        let values: Vec<f64> = (-50..200).map(f64::from).collect();
        let new = || Sketched {
            sketch: Sketch::default(),
            q: 0.9,
        };
        let mut whole = new();
        let q: ArrayRef = Arc::new(Float64Array::from(vec![0.9]));
        let column = |part: &[f64]| -> ArrayRef { Arc::new(Float64Array::from(part.to_vec())) };
        whole
            .update_batch(&[column(&values), Arc::clone(&q)])
            .unwrap();
        let (mut merged, mut updated) = (new(), new());
        for part in values.chunks(70) {
            let mut one = new();
            one.update_batch(&[column(part), Arc::clone(&q)]).unwrap();
            let state = one.state().unwrap();
            let [ScalarValue::Binary(Some(bytes))] = state.as_slice() else {
                panic!("{state:?}");
            };
            let sketches: ArrayRef = Arc::new(BinaryArray::from_iter_values([bytes]));
            merged.merge_batch(&[Arc::clone(&sketches)]).unwrap();
            // A state is a sketch as a rollup stores it.
            updated.update_batch(&[sketches, Arc::clone(&q)]).unwrap();
        }
        assert_eq!(merged.sketch, whole.sketch);
        assert_eq!(updated.sketch, whole.sketch);
        assert_eq!(merged.evaluate().unwrap(), whole.evaluate().unwrap());
        assert!(whole.size() >= whole.sketch.size_bytes());
        assert!(whole.sketch.size_bytes() >= 16 * 100);
    }
}
