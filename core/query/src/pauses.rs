//! Pauses in joins, so that a deadline can stop them.
//!
//! A task is only stopped where it waits, and scans make their tasks wait now and then. A join
//! that pairs every row with every row reads one batch and then works for minutes without reading
//! another. So such a join reads its right side in small batches with a pause before each, and
//! every join pauses before each batch it gives. A pause lets other tasks run and costs less than
//! a microsecond or two.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::{cmp, fmt};

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::common::{Result, internal_err};
use datafusion::config::ConfigOptions;
use datafusion::execution::{RecordBatchStream, SendableRecordBatchStream, TaskContext};
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_optimizer::PhysicalOptimizerRule;
use datafusion::physical_plan::joins::{CrossJoinExec, HashJoinExec, NestedLoopJoinExec};
use datafusion::physical_plan::{
    DisplayAs, DisplayFormatType, ExecutionPlan, PlanProperties, replace_children_if_necessary,
};
use futures::{Stream, StreamExt};

/// Rows that a join of all pairs takes at once from its right side.
const PAIRED_ROWS: usize = 256;

/// Puts pauses around joins.
#[derive(Debug)]
pub(crate) struct PauseJoins;

impl PhysicalOptimizerRule for PauseJoins {
    fn optimize(
        &self,
        plan: Arc<dyn ExecutionPlan>,
        _: &ConfigOptions,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let changed = plan.transform_up(|node| {
            let pairs = node.downcast_ref::<NestedLoopJoinExec>().is_some()
                || node.downcast_ref::<CrossJoinExec>().is_some();
            if !pairs && node.downcast_ref::<HashJoinExec>().is_none() {
                return Ok(Transformed::no(node));
            }
            let mut join = node;
            if pairs {
                let mut sides: Vec<_> = join.children().into_iter().map(Arc::clone).collect();
                if let Some(right) = sides.pop() {
                    sides.push(PauseExec::before(right, PAIRED_ROWS));
                }
                join = replace_children_if_necessary(join, sides)?;
            }
            Ok(Transformed::yes(PauseExec::before(join, usize::MAX)))
        })?;
        Ok(changed.data)
    }

    fn name(&self) -> &'static str {
        "pause_joins"
    }

    fn schema_check(&self) -> bool {
        true
    }
}

/// Its input, in batches of at most `rows` rows, with a pause before each.
#[derive(Debug)]
struct PauseExec {
    input: Arc<dyn ExecutionPlan>,
    properties: Arc<PlanProperties>,
    rows: usize,
}

impl PauseExec {
    fn before(input: Arc<dyn ExecutionPlan>, rows: usize) -> Arc<dyn ExecutionPlan> {
        let properties = Arc::clone(input.properties());
        Arc::new(Self {
            input,
            properties,
            rows,
        })
    }
}

impl DisplayAs for PauseExec {
    fn fmt_as(&self, _: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PauseExec")
    }
}

impl ExecutionPlan for PauseExec {
    fn name(&self) -> &'static str {
        "PauseExec"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        &self.properties
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        vec![&self.input]
    }

    fn maintains_input_order(&self) -> Vec<bool> {
        vec![true]
    }

    fn apply_expressions(
        &self,
        _: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> Result<TreeNodeRecursion>,
    ) -> Result<TreeNodeRecursion> {
        Ok(TreeNodeRecursion::Continue)
    }

    fn with_new_children(
        self: Arc<Self>,
        mut children: Vec<Arc<dyn ExecutionPlan>>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        match (children.pop(), children.len()) {
            (Some(input), 0) => Ok(Self::before(input, self.rows)),
            _ => internal_err!("a pause has one input"),
        }
    }

    fn execute(
        &self,
        partition: usize,
        context: Arc<TaskContext>,
    ) -> Result<SendableRecordBatchStream> {
        let input = self.input.execute(partition, context)?;
        Ok(Box::pin(Pauses {
            input,
            rows: self.rows,
            rest: None,
            paused: false,
        }))
    }
}

struct Pauses {
    input: SendableRecordBatchStream,
    rows: usize,
    rest: Option<RecordBatch>,
    paused: bool,
}

impl Pauses {
    /// The first rows of a batch; the others are kept.
    fn cut(&mut self, batch: RecordBatch) -> RecordBatch {
        let rows = cmp::min(self.rows, batch.num_rows());
        let rest = batch.num_rows() - rows;
        self.rest = (rest > 0).then(|| batch.slice(rows, rest));
        batch.slice(0, rows)
    }
}

impl Stream for Pauses {
    type Item = Result<RecordBatch>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if !self.paused {
            self.paused = true;
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        let batch = match self.rest.take() {
            Some(batch) => Some(Ok(batch)),
            None => match self.input.poll_next_unpin(cx) {
                Poll::Ready(batch) => batch,
                Poll::Pending => return Poll::Pending,
            },
        };
        self.paused = false;
        Poll::Ready(batch.map(|batch| batch.map(|batch| self.cut(batch))))
    }
}

impl RecordBatchStream for Pauses {
    fn schema(&self) -> SchemaRef {
        self.input.schema()
    }
}
