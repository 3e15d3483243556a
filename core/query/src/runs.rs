//! Partial aggregation by runs instead of by hash.
//!
//! Rows come sorted by (metric, tags, ts), so rows of one group stand next to each other, at
//! least for as long as a series or a bin of it lasts. One pass finds where a group's key
//! changes; each run becomes one partial state, and the hash aggregation above merges a few
//! states instead of every row. The sums are DataFusion's own accumulators, so what an aggregate
//! means does not change. Rows in any other order are still right, only slower.

use std::collections::HashSet;
use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch, TimestampMicrosecondArray, UInt32Array};
use arrow::compute::kernels::cmp::distinct;
use arrow::compute::{concat, take_record_batch};
use arrow::datatypes::{
    DataType, Int32Type, IntervalMonthDayNanoType, SchemaRef, TimeUnit, TimestampMicrosecondType,
};
use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::common::{Result, ScalarValue, internal_err};
use datafusion::config::ConfigOptions;
use datafusion::datasource::source::DataSourceExec;
use datafusion::execution::{RecordBatchStream, SendableRecordBatchStream, TaskContext};
use datafusion::logical_expr::{EmitTo, GroupsAccumulator};
use datafusion::physical_expr::aggregate::AggregateFunctionExpr;
use datafusion::physical_expr::expressions::{Column, Literal};
use datafusion::physical_expr::{PhysicalExpr, ScalarFunctionExpr};
use datafusion::physical_optimizer::PhysicalOptimizerRule;
use datafusion::physical_plan::aggregates::{
    AggregateExec, AggregateMode, PhysicalGroupBy, aggregate_expressions,
};
use datafusion::physical_plan::coop::CooperativeExec;
use datafusion::physical_plan::filter::FilterExec;
use datafusion::physical_plan::metrics::{BaselineMetrics, ExecutionPlanMetricsSet, MetricsSet};
use datafusion::physical_plan::projection::ProjectionExec;
use datafusion::physical_plan::union::UnionExec;
use datafusion::physical_plan::{
    DisplayAs, DisplayFormatType, ExecutionPlan, ExecutionPlanProperties, InputOrderMode,
    PlanProperties,
};
use futures::{Stream, StreamExt};

/// States gathered before they are handed on.
const STATES: usize = 8_192;

/// Puts run aggregation below the hash aggregations that read sorted files.
#[derive(Debug)]
pub(crate) struct AggregateRuns;

impl PhysicalOptimizerRule for AggregateRuns {
    fn optimize(
        &self,
        plan: Arc<dyn ExecutionPlan>,
        _: &ConfigOptions,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let changed = plan.transform_up(|node| {
            let Some(aggregate) = node.downcast_ref::<AggregateExec>() else {
                return Ok(Transformed::no(node));
            };
            if !suits(aggregate) {
                return Ok(Transformed::no(node));
            }
            match aggregate.mode() {
                AggregateMode::Partial => {
                    let runs = RunsExec::new(aggregate, node.schema(), node.properties())?;
                    Ok(Transformed::yes(Arc::new(runs) as _))
                }
                AggregateMode::Single
                    if aggregate.input().output_partitioning().partition_count() == 1 =>
                {
                    Ok(Transformed::yes(two_phases(aggregate)?))
                }
                _ => Ok(Transformed::no(node)),
            }
        })?;
        Ok(changed.data)
    }

    fn name(&self) -> &'static str {
        "aggregate_runs"
    }

    fn schema_check(&self) -> bool {
        true
    }
}

/// A single aggregation as one by runs and one that merges its states.
fn two_phases(aggregate: &AggregateExec) -> Result<Arc<dyn ExecutionPlan>> {
    let (group_by, exprs) = (aggregate.group_expr(), aggregate.aggr_expr());
    let partial = AggregateExec::try_new(
        AggregateMode::Partial,
        group_by.clone(),
        exprs.to_vec(),
        aggregate.filter_expr().to_vec(),
        Arc::clone(aggregate.input()),
        aggregate.input_schema(),
    )?;
    let runs = RunsExec::new(&partial, partial.schema(), partial.properties())?;
    let merged = AggregateExec::try_new(
        AggregateMode::Final,
        group_by.as_final(),
        exprs.to_vec(),
        aggregate.filter_expr().to_vec(),
        Arc::new(runs),
        aggregate.input_schema(),
    )?;
    Ok(Arc::new(
        merged.with_limit_options(aggregate.limit_options()),
    ))
}

fn suits(aggregate: &AggregateExec) -> bool {
    let group_by = aggregate.group_expr();
    let plain =
        |e: &Arc<AggregateFunctionExpr>| e.groups_accumulator_supported() && !e.is_distinct();
    !group_by.is_empty()
        && !group_by.has_grouping_set()
        && aggregate.limit_options().is_none()
        && aggregate.dynamic_expressions_produced().is_empty()
        && *aggregate.input_order_mode() == InputOrderMode::Linear
        && aggregate.filter_expr().iter().all(Option::is_none)
        && aggregate.aggr_expr().iter().all(plain)
        && reads_files(aggregate.input())
}

/// Whether rows come from files in their order.
fn reads_files(plan: &Arc<dyn ExecutionPlan>) -> bool {
    if plan.downcast_ref::<DataSourceExec>().is_some() {
        return true;
    }
    let passes = plan.downcast_ref::<ProjectionExec>().is_some()
        || plan.downcast_ref::<FilterExec>().is_some()
        || plan.downcast_ref::<CooperativeExec>().is_some()
        || plan.downcast_ref::<UnionExec>().is_some();
    passes && plan.children().into_iter().any(reads_files)
}

/// Partial aggregation by runs; its output is that of the partial hash aggregation it replaces.
struct RunsExec {
    group_by: PhysicalGroupBy,
    exprs: Vec<Arc<AggregateFunctionExpr>>,
    input: Arc<dyn ExecutionPlan>,
    schema: SchemaRef,
    input_schema: SchemaRef,
    properties: Arc<PlanProperties>,
    metrics: ExecutionPlanMetricsSet,
}

impl RunsExec {
    fn new(
        aggregate: &AggregateExec,
        schema: SchemaRef,
        properties: &Arc<PlanProperties>,
    ) -> Result<Self> {
        Ok(Self {
            group_by: aggregate.group_expr().clone(),
            exprs: aggregate.aggr_expr().to_vec(),
            input: Arc::clone(aggregate.input()),
            schema,
            input_schema: aggregate.input_schema(),
            properties: Arc::clone(properties),
            metrics: ExecutionPlanMetricsSet::new(),
        })
    }
}

impl fmt::Debug for RunsExec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RunsExec")
    }
}

impl DisplayAs for RunsExec {
    fn fmt_as(&self, _: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let groups: Vec<&str> = self
            .group_by
            .expr()
            .iter()
            .map(|(_, name)| name.as_str())
            .collect();
        let names: Vec<&str> = self.exprs.iter().map(|e| e.name()).collect();
        write!(
            f,
            "RunsExec: gby=[{}], aggr=[{}]",
            groups.join(", "),
            names.join(", ")
        )
    }
}

impl ExecutionPlan for RunsExec {
    fn name(&self) -> &'static str {
        "RunsExec"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        &self.properties
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        vec![&self.input]
    }

    fn apply_expressions(
        &self,
        f: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> Result<TreeNodeRecursion>,
    ) -> Result<TreeNodeRecursion> {
        let groups = self
            .group_by
            .expr()
            .iter()
            .map(|(expr, _)| Arc::clone(expr));
        let arguments = self.exprs.iter().flat_map(|e| e.expressions());
        for expr in groups.chain(arguments) {
            if f(&expr)? == TreeNodeRecursion::Stop {
                return Ok(TreeNodeRecursion::Stop);
            }
        }
        Ok(TreeNodeRecursion::Continue)
    }

    fn with_new_children(
        self: Arc<Self>,
        children: Vec<Arc<dyn ExecutionPlan>>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let [input] = children.as_slice() else {
            return internal_err!("run aggregation has one input");
        };
        let partial = AggregateExec::try_new(
            AggregateMode::Partial,
            self.group_by.clone(),
            self.exprs.clone(),
            vec![None; self.exprs.len()],
            Arc::clone(input),
            Arc::clone(&self.input_schema),
        )?;
        let schema = Arc::clone(&self.schema);
        Ok(Arc::new(Self::new(&partial, schema, partial.properties())?))
    }

    fn execute(
        &self,
        partition: usize,
        context: Arc<TaskContext>,
    ) -> Result<SendableRecordBatchStream> {
        let arguments = aggregate_expressions(
            &self.exprs,
            &AggregateMode::Partial,
            self.group_by.num_group_exprs(),
        )?;
        let groups = self.group_by.expr().iter();
        let groups = groups.map(|(expr, _)| Key::of(expr, &self.input.schema()));
        let stream = Runs {
            schema: Arc::clone(&self.schema),
            input: self.input.execute(partition, context)?,
            keys: groups.collect::<Result<_>>()?,
            exprs: self.exprs.clone(),
            arguments,
            gathered: None,
            done: false,
            baseline: BaselineMetrics::new(&self.metrics, partition),
        };
        Ok(Box::pin(stream))
    }

    fn metrics(&self) -> Option<MetricsSet> {
        Some(self.metrics.clone_inner())
    }
}

/// How one group expression is evaluated.
enum Key {
    /// From dictionary columns alone: on the first row of each run.
    OfTexts {
        expr: Arc<dyn PhysicalExpr>,
        columns: Vec<usize>,
    },
    /// `date_bin` of a column by a fixed step from the epoch, µs.
    Bin { column: usize, step: i64 },
    /// Anything else: on every row.
    Any(Arc<dyn PhysicalExpr>),
}

impl Key {
    fn of(expr: &Arc<dyn PhysicalExpr>, input: &arrow::datatypes::Schema) -> Result<Self> {
        let mut columns = HashSet::new();
        let mut plain = true;
        expr.apply(|e| {
            if let Some(column) = e.downcast_ref::<Column>() {
                let data_type = input.field(column.index()).data_type();
                plain &= *data_type == stele_format::schema::text();
                columns.insert(column.index());
            }
            plain &= !e.is_volatile_node();
            Ok(TreeNodeRecursion::Continue)
        })?;
        if plain && !columns.is_empty() {
            return Ok(Self::OfTexts {
                expr: Arc::clone(expr),
                columns: columns.into_iter().collect(),
            });
        }
        Ok(bin(expr, input).unwrap_or_else(|| Self::Any(Arc::clone(expr))))
    }
}

/// `date_bin(interval, ts)` with a constant interval of whole µs.
fn bin(expr: &Arc<dyn PhysicalExpr>, input: &arrow::datatypes::Schema) -> Option<Key> {
    let call = expr.downcast_ref::<ScalarFunctionExpr>()?;
    let [interval, column] = call.args() else {
        return None;
    };
    if call.fun().name() != "date_bin" {
        return None;
    }
    let interval = interval.downcast_ref::<Literal>()?;
    let column = column.downcast_ref::<Column>()?;
    let us = DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()));
    if *input.field(column.index()).data_type() != us || expr.data_type(input).ok()? != us {
        return None;
    }
    let ScalarValue::IntervalMonthDayNano(Some(interval)) = interval.value() else {
        return None;
    };
    let (months, days, nanos) = IntervalMonthDayNanoType::to_parts(*interval);
    let nanos = i64::from(days)
        .checked_mul(86_400_000_000_000)?
        .checked_add(nanos)?;
    (months == 0 && nanos > 0 && nanos % 1_000 == 0).then_some(Key::Bin {
        column: column.index(),
        step: nanos / 1_000,
    })
}

/// States not yet handed on.
struct Gathered {
    accumulators: Vec<Box<dyn GroupsAccumulator>>,
    keys: Vec<Vec<ArrayRef>>,
    groups: usize,
}

struct Runs {
    schema: SchemaRef,
    input: SendableRecordBatchStream,
    keys: Vec<Key>,
    exprs: Vec<Arc<AggregateFunctionExpr>>,
    arguments: Vec<Vec<Arc<dyn PhysicalExpr>>>,
    gathered: Option<Gathered>,
    done: bool,
    baseline: BaselineMetrics,
}

/// Marks in `starts` the rows whose entry differs from the row before.
fn mark_changes(starts: &mut [bool], column: &ArrayRef) -> Result<()> {
    if let Some(dictionary) = column.as_dictionary_opt::<Int32Type>()
        && dictionary.keys().null_count() == 0
    {
        mark(starts, dictionary.keys().values());
    } else if let Some(ts) = column.as_primitive_opt::<TimestampMicrosecondType>()
        && ts.null_count() == 0
    {
        mark(starts, ts.values());
    } else if column.len() > 1 {
        let n = column.len() - 1;
        let changed = distinct(&column.slice(0, n), &column.slice(1, n))?;
        for (start, changed) in starts[1..].iter_mut().zip(changed.values()) {
            *start |= changed;
        }
    }
    Ok(())
}

fn mark<T: PartialEq>(starts: &mut [bool], values: &[T]) {
    for (start, pair) in starts[1..].iter_mut().zip(values.windows(2)) {
        *start |= pair[0] != pair[1];
    }
}

fn binned(column: &ArrayRef, step: i64) -> Result<ArrayRef> {
    let Some(ts) = column.as_primitive_opt::<TimestampMicrosecondType>() else {
        return internal_err!("ts is no timestamp");
    };
    let mut low = 0;
    let mut bins = Vec::with_capacity(ts.len());
    for ts in ts.values() {
        // Neighbours mostly share their bin: one comparison instead of one division.
        if ts.wrapping_sub(low).cast_unsigned() >= step.cast_unsigned() {
            low = ts - ts.rem_euclid(step);
        }
        bins.push(low);
    }
    let bins = TimestampMicrosecondArray::new(bins.into(), ts.nulls().cloned());
    Ok(Arc::new(bins.with_timezone("UTC")))
}

impl Runs {
    fn take_in(&mut self, batch: &RecordBatch) -> Result<()> {
        let rows = batch.num_rows();
        if rows == 0 {
            return Ok(());
        }
        let mut starts = vec![false; rows];
        starts[0] = true;
        let mut full = Vec::with_capacity(self.keys.len());
        for key in &self.keys {
            full.push(match key {
                Key::OfTexts { columns, .. } => {
                    for column in columns {
                        mark_changes(&mut starts, batch.column(*column))?;
                    }
                    None
                }
                Key::Bin { column, step } => {
                    let bins = binned(batch.column(*column), *step)?;
                    mark_changes(&mut starts, &bins)?;
                    Some(bins)
                }
                Key::Any(expr) => {
                    let values = expr.evaluate(batch)?.into_array(rows)?;
                    mark_changes(&mut starts, &values)?;
                    Some(values)
                }
            });
        }
        let first_of_run: UInt32Array = (0u32..)
            .zip(&starts)
            .filter_map(|(row, start)| start.then_some(row))
            .collect();
        let runs = first_of_run.len();
        let firsts = take_record_batch(batch, &first_of_run)?;
        let gathered = match &mut self.gathered {
            Some(gathered) => gathered,
            None => {
                let made = self.exprs.iter().map(|e| e.create_groups_accumulator());
                self.gathered.insert(Gathered {
                    accumulators: made.collect::<Result<_>>()?,
                    keys: vec![Vec::new(); self.keys.len()],
                    groups: 0,
                })
            }
        };
        for ((key, full), out) in self.keys.iter().zip(full).zip(&mut gathered.keys) {
            out.push(match (key, full) {
                (_, Some(values)) => arrow::compute::take(&values, &first_of_run, None)?,
                (Key::OfTexts { expr, .. } | Key::Any(expr), None) => {
                    expr.evaluate(&firsts)?.into_array(runs)?
                }
                (Key::Bin { .. }, None) => return internal_err!("a bin without values"),
            });
        }
        let mut group = gathered.groups;
        let mut indices = Vec::with_capacity(rows);
        for (row, start) in starts.iter().enumerate() {
            group += usize::from(*start && row > 0);
            indices.push(group);
        }
        gathered.groups += runs;
        for (accumulator, arguments) in gathered.accumulators.iter_mut().zip(&self.arguments) {
            let values = arguments
                .iter()
                .map(|e| e.evaluate(batch)?.into_array(rows));
            let values = values.collect::<Result<Vec<_>>>()?;
            accumulator.update_batch(&values, &indices, None, gathered.groups)?;
        }
        Ok(())
    }

    fn hand_on(&mut self) -> Result<Option<RecordBatch>> {
        let Some(mut gathered) = self.gathered.take() else {
            return Ok(None);
        };
        let mut columns = Vec::with_capacity(self.schema.fields().len());
        for parts in &gathered.keys {
            let parts: Vec<&dyn Array> = parts.iter().map(AsRef::as_ref).collect();
            columns.push(concat(&parts)?);
        }
        for accumulator in &mut gathered.accumulators {
            columns.extend(accumulator.state(EmitTo::All)?);
        }
        Ok(Some(RecordBatch::try_new(
            Arc::clone(&self.schema),
            columns,
        )?))
    }
}

impl Stream for Runs {
    type Item = Result<RecordBatch>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        loop {
            if self.done {
                return Poll::Ready(None);
            }
            let batch = match self.input.poll_next_unpin(cx) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Some(Err(error))) => {
                    self.done = true;
                    return Poll::Ready(Some(Err(error)));
                }
                Poll::Ready(Some(Ok(batch))) => Some(batch),
                Poll::Ready(None) => None,
            };
            let compute = self.baseline.elapsed_compute().clone();
            let timer = compute.timer();
            if let Some(batch) = &batch
                && let Err(error) = self.take_in(batch)
            {
                self.done = true;
                return Poll::Ready(Some(Err(error)));
            }
            let enough = self.gathered.as_ref().is_some_and(|g| g.groups >= STATES);
            if batch.is_none() {
                self.done = true;
            } else if !enough {
                continue;
            }
            let out = self.hand_on();
            timer.done();
            return Poll::Ready(out.transpose().inspect(|batch| {
                if let Ok(batch) = batch {
                    self.baseline.record_output(batch.num_rows());
                }
            }));
        }
    }
}

impl RecordBatchStream for Runs {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bins_are_the_floor_of_the_step_also_before_the_epoch() {
        let times = vec![-61, -60, -1, 0, 59, 60, 61, 3_600, 59];
        let column: ArrayRef = Arc::new(TimestampMicrosecondArray::from(times.clone()));
        let got = binned(&column, 60).unwrap();
        let got = got.as_primitive::<TimestampMicrosecondType>();
        let want: Vec<i64> = times.iter().map(|t| t.div_euclid(60) * 60).collect();
        assert_eq!(got.values().as_ref(), want);
    }

    #[test]
    fn a_change_in_any_column_starts_a_run() {
        let mut starts = [true, false, false, false];
        mark(&mut starts, &[1, 1, 2, 2]);
        mark(&mut starts, &["a", "a", "a", "b"]);
        assert_eq!(starts, [true, false, true, true]);
    }
}
