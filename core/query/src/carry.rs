//! `locf(x) OVER (PARTITION BY … ORDER BY …)`: the last observation carried forward.
//!
//! Each row has the `x` of the nearest row at or before it whose `x` is not NULL; rows before the
//! first such row have NULL. NaN is a value, not a gap.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, UInt64Array};
use arrow::compute::take;
use arrow::datatypes::{DataType, Field, FieldRef};
use datafusion::common::{Result, exec_err, plan_err};
use datafusion::logical_expr::function::{PartitionEvaluatorArgs, WindowUDFFieldArgs};
use datafusion::logical_expr::{
    LimitEffect, PartitionEvaluator, Signature, Volatility, WindowUDFImpl,
};
use datafusion::physical_expr::PhysicalExpr;

/// The window function.
#[derive(Debug, PartialEq, Eq, Hash)]
pub(crate) struct Locf {
    signature: Signature,
}

impl Locf {
    pub(crate) fn new() -> Self {
        Self {
            signature: Signature::any(1, Volatility::Immutable),
        }
    }
}

impl WindowUDFImpl for Locf {
    fn name(&self) -> &'static str {
        "locf"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn partition_evaluator(
        &self,
        _: PartitionEvaluatorArgs,
    ) -> Result<Box<dyn PartitionEvaluator>> {
        Ok(Box::new(Carry))
    }

    fn field(&self, args: WindowUDFFieldArgs) -> Result<FieldRef> {
        let Some(input) = args.get_input_field(0) else {
            return plan_err!("locf takes one argument");
        };
        let carried: DataType = input.data_type().clone();
        Ok(Arc::new(Field::new(args.name(), carried, true)))
    }

    fn limit_effect(&self, _: &[Arc<dyn PhysicalExpr>]) -> LimitEffect {
        LimitEffect::Unknown
    }
}

#[derive(Debug)]
struct Carry;

impl PartitionEvaluator for Carry {
    fn evaluate_all(&mut self, values: &[ArrayRef], rows: usize) -> Result<ArrayRef> {
        let [x] = values else {
            return exec_err!("locf takes one argument");
        };
        let mut last = None;
        let carried = (0..rows).map(|row| {
            if x.is_valid(row) {
                last = Some(row as u64);
            }
            last
        });
        Ok(take(x, &carried.collect::<UInt64Array>(), None)?)
    }
}
