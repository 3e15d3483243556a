//! `bins(start, end, step)`: every bin of a range of time, for answers without gaps.
//!
//! One row `ts` per bin `[ts, ts + step)` that overlaps `[start, end)`, aligned to the epoch as
//! `time_bucket(step, ts)` and `date_bin` align, so both sides of a join say the same times. The
//! number of bins is checked before the first is made.

use std::sync::Arc;

use arrow::array::{RecordBatch, TimestampMicrosecondArray};
use arrow::datatypes::{DataType, Field, IntervalUnit, Schema};
use datafusion::common::{DFSchema, Result, ScalarValue, plan_err};
use datafusion::datasource::{DefaultTableSource, MemTable};
use datafusion::execution::session_state::SessionState;
use datafusion::logical_expr::simplify::SimplifyContext;
use datafusion::logical_expr::{Expr, TableSource};
use datafusion::optimizer::simplify_expressions::ExprSimplifier;
use stele_format::schema;

/// Its name in SQL.
pub(crate) const NAME: &str = stele_guard::TABLE_FUNCTION;
/// Rows of one call.
const BINS_MAX: i128 = 100_000;

/// The rows of one call.
///
/// # Errors
/// When the arguments are not two times and a fixed length, or make too many rows.
pub(crate) fn source(args: Vec<Expr>, state: &SessionState) -> Result<Arc<dyn TableSource>> {
    let Ok([start, end, step]) = <[Expr; 3]>::try_from(args) else {
        return plan_err!("bins takes a start, an end and a step");
    };
    let (start_us, end_us) = (time(start, "start", state)?, time(end, "end", state)?);
    let step_us = length(step, state)?;
    let (first, end) = (start_us.div_euclid(step_us), i128::from(end_us));
    let step = i128::from(step_us);
    let rows = match end_us > start_us {
        true => (end + step - 1).div_euclid(step) - i128::from(first),
        false => 0,
    };
    if rows > BINS_MAX {
        return plan_err!("bins would make {rows} rows, the limit is {BINS_MAX}");
    }
    let mut times = Vec::new();
    for row in 0..rows {
        match i64::try_from((i128::from(first) + row) * step) {
            Ok(us) => times.push(us),
            Err(_) => return plan_err!("bins reaches beyond the times that a timestamp can say"),
        }
    }
    let times = TimestampMicrosecondArray::from(times).with_timezone("UTC");
    let fields = vec![Field::new("ts", schema::timestamp(), false)];
    let schema = Arc::new(Schema::new(fields));
    let batch = RecordBatch::try_new(Arc::clone(&schema), vec![Arc::new(times)])?;
    let table = MemTable::try_new(schema, vec![vec![batch]])?;
    Ok(Arc::new(DefaultTableSource::new(Arc::new(table))))
}

/// The value of a constant expression; `now()` is one.
fn constant(expr: Expr, what: &str, to: &DataType, state: &SessionState) -> Result<ScalarValue> {
    let context = SimplifyContext::builder()
        .with_query_execution_start_time(state.execution_props().query_execution_start_time)
        .with_config_options(Arc::new(state.config_options().as_ref().clone()))
        .build();
    let simplifier = ExprSimplifier::new(context);
    let expr = simplifier.coerce(expr, &DFSchema::empty())?;
    match simplifier.simplify(expr)? {
        Expr::Literal(value, _) if !value.is_null() => value.cast_to(to),
        _ => plan_err!("the {what} of bins must be a constant"),
    }
}

fn time(expr: Expr, what: &str, state: &SessionState) -> Result<i64> {
    match constant(expr, what, &schema::timestamp(), state)? {
        ScalarValue::TimestampMicrosecond(Some(us), _) => Ok(us),
        other => plan_err!("the {what} of bins must be a time, not {other}"),
    }
}

/// The µs of a step.
fn length(expr: Expr, state: &SessionState) -> Result<i64> {
    let interval = DataType::Interval(IntervalUnit::MonthDayNano);
    let ScalarValue::IntervalMonthDayNano(Some(step)) = constant(expr, "step", &interval, state)?
    else {
        return plan_err!("the step of bins must be an interval");
    };
    if step.months != 0 {
        return plan_err!("the step of bins has months, which have no fixed length");
    }
    let us = i64::from(step.days) * 86_400_000_000 + step.nanoseconds / 1_000;
    if us <= 0 || step.nanoseconds % 1_000 != 0 {
        return plan_err!("the step of bins must be one or more whole microseconds");
    }
    Ok(us)
}
