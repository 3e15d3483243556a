//! The part of a table that only the merge knows: open windows, merged from raw files, open files
//! and L0 objects, rollups folded on the fly.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use arrow::datatypes::SchemaRef;
use arrow::record_batch::RecordBatch;
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::common::{Result, internal_err};
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_expr::{EquivalenceProperties, PhysicalExpr};
use datafusion::physical_plan::execution_plan::{Boundedness, EmissionType};
use datafusion::physical_plan::metrics::{
    BaselineMetrics, ExecutionPlanMetricsSet, MetricBuilder, MetricsSet,
};
use datafusion::physical_plan::stream::RecordBatchReceiverStreamBuilder;
use datafusion::physical_plan::{
    DisplayAs, DisplayFormatType, ExecutionPlan, Partitioning, PlanProperties,
};
use stele_compact::reader::{Filter, MergeReader};
use stele_format::{RollupSource, SampleSource, SeriesPredicate, to_arrow};
use stele_model::{Resolution, Series, WindowSet};
use stele_store::TenantStore;
use stele_table::View;
use tokio::sync::mpsc::Sender;

use super::Gone;
use super::counted::counted;
use super::filter::{Conditions, TextCondition};
use super::reader::{BYTES, REQUESTS};
use crate::error::Error;

/// Rows gathered into one batch.
const BATCH_ROWS: usize = 8_192;

/// What a merge reads.
pub(crate) struct Merged {
    pub(crate) store: TenantStore,
    pub(crate) view: Arc<View>,
    pub(crate) resolution: Resolution,
    pub(crate) windows: WindowSet,
    pub(crate) conditions: Conditions,
    pub(crate) sketch: bool,
    pub(crate) gone: Gone,
    /// Columns of the logical schema, in order of output.
    pub(crate) projection: Vec<usize>,
}

/// The execution node of [`Merged`]: one partition of batches in the logical schema.
pub(crate) struct MergedExec {
    merged: Arc<Merged>,
    properties: Arc<PlanProperties>,
    metrics: ExecutionPlanMetricsSet,
}

impl MergedExec {
    pub(crate) fn new(merged: Merged, schema: SchemaRef) -> Self {
        let properties = PlanProperties::new(
            EquivalenceProperties::new(schema),
            Partitioning::UnknownPartitioning(1),
            EmissionType::Incremental,
            Boundedness::Bounded,
        );
        Self {
            merged: Arc::new(merged),
            properties: Arc::new(properties),
            metrics: ExecutionPlanMetricsSet::new(),
        }
    }
}

impl fmt::Debug for MergedExec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("MergedExec")
    }
}

impl DisplayAs for MergedExec {
    fn fmt_as(&self, _: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let m = &self.merged;
        write!(
            f,
            "MergedExec: resolution={}, open_windows={}, l0_objects={}",
            m.resolution.partition(),
            m.windows.len(),
            m.view.l0.len()
        )?;
        if let Some(metric) = &m.conditions.metric {
            write!(f, ", metric=[{metric}]")?;
        }
        if let Some(tags) = &m.conditions.tags {
            write!(f, ", tags=[{tags}]")?;
        }
        Ok(())
    }
}

/// A series condition that remembers its verdicts; an error keeps the series and is reported.
fn predicate(conditions: &Conditions, failed: &Arc<AtomicBool>) -> Option<SeriesPredicate> {
    let (metric, tags) = (conditions.metric.clone(), conditions.tags.clone());
    if metric.is_none() && tags.is_none() {
        return None;
    }
    let failed = Arc::clone(failed);
    Some(Arc::new(move |series: &Series| {
        let holds = |condition: &Option<Arc<TextCondition>>, text: &str| match condition {
            None => true,
            Some(condition) => condition.of_text(text).unwrap_or_else(|_| {
                failed.store(true, Ordering::Relaxed);
                true
            }),
        };
        holds(&metric, &series.metric) && holds(&tags, &series.tags)
    }))
}

enum Source {
    Samples(Box<dyn SampleSource>),
    Rollups(Box<dyn RollupSource>),
}

impl Source {
    async fn open(merged: &Merged, store: &TenantStore, failed: &Arc<AtomicBool>) -> Result<Self> {
        let conditions = &merged.conditions;
        let metrics = conditions.metric.as_ref().and_then(|m| m.candidates());
        let filter = Filter {
            ts_lo_us: conditions.ts.from,
            ts_hi_us: conditions.ts.to.saturating_add(1),
            metrics: metrics.cloned().map(Arc::new),
            series: predicate(conditions, failed),
        };
        let (view, windows) = (merged.view.as_ref(), &merged.windows);
        let opened = match merged.resolution {
            Resolution::Raw => MergeReader::samples(store, view, windows, filter)
                .await
                .map(Self::Samples),
            resolution => {
                let sketch = merged.sketch;
                MergeReader::rollups(store, view, resolution, windows, filter, sketch)
                    .await
                    .map(Self::Rollups)
            }
        };
        opened.map_err(|e| {
            if let stele_compact::Error::Gone { key, .. } = &e {
                merged.gone.note(key);
            }
            Error::Merge(e).into()
        })
    }

    /// The next rows, about [`BATCH_ROWS`] of them, in the logical schema.
    fn next_batch(&mut self) -> Result<Option<RecordBatch>> {
        let mut rows = 0;
        let batch = match self {
            Self::Samples(source) => {
                let mut chunks = Vec::new();
                while rows < BATCH_ROWS
                    && let Some(chunk) = source.next_chunk().map_err(Error::Format)?
                {
                    rows += chunk.rows.len();
                    chunks.push(chunk);
                }
                (rows > 0).then(|| to_arrow::samples(&chunks))
            }
            Self::Rollups(source) => {
                let mut chunks = Vec::new();
                while rows < BATCH_ROWS
                    && let Some(chunk) = source.next_chunk().map_err(Error::Format)?
                {
                    rows += chunk.bins.len();
                    chunks.push(chunk);
                }
                (rows > 0).then(|| to_arrow::rollups(&chunks))
            }
        };
        Ok(batch.transpose().map_err(Error::Format)?)
    }
}

fn pump(
    mut source: Source,
    projection: &[usize],
    failed: &AtomicBool,
    baseline: &BaselineMetrics,
    output: &Sender<Result<RecordBatch>>,
) -> Result<()> {
    loop {
        let timer = baseline.elapsed_compute().timer();
        let batch = source.next_batch()?;
        timer.done();
        if failed.load(Ordering::Relaxed) {
            return internal_err!("a condition on metric or tags cannot be evaluated");
        }
        let Some(batch) = batch else {
            return Ok(());
        };
        let batch = batch.project(projection)?;
        baseline.record_output(batch.num_rows());
        if output.blocking_send(Ok(batch)).is_err() {
            return Ok(());
        }
    }
}

impl ExecutionPlan for MergedExec {
    fn name(&self) -> &'static str {
        "MergedExec"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        &self.properties
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        Vec::new()
    }

    fn apply_expressions(
        &self,
        _: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> Result<TreeNodeRecursion>,
    ) -> Result<TreeNodeRecursion> {
        Ok(TreeNodeRecursion::Continue)
    }

    fn with_new_children(
        self: Arc<Self>,
        _: Vec<Arc<dyn ExecutionPlan>>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        Ok(self)
    }

    fn execute(&self, partition: usize, _: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        if partition != 0 {
            return internal_err!("a merge has one partition, not {partition}");
        }
        let mut builder = RecordBatchReceiverStreamBuilder::new(self.schema(), 2);
        let output = builder.tx();
        let merged = Arc::clone(&self.merged);
        let baseline = BaselineMetrics::new(&self.metrics, partition);
        let requests = MetricBuilder::new(&self.metrics).counter(REQUESTS, partition);
        let bytes = MetricBuilder::new(&self.metrics).counter(BYTES, partition);
        builder.spawn(async move {
            let counted = counted(&merged.store);
            let failed = Arc::new(AtomicBool::new(false));
            let opened = Source::open(&merged, &counted.store, &failed).await;
            requests.add(counted.requests());
            bytes.add(counted.bytes());
            let source = opened?;
            // Merging does not wait for anything: it runs where blocking is allowed, and ends
            // when nobody takes its batches any more.
            let merging = tokio::task::spawn_blocking(move || {
                pump(source, &merged.projection, &failed, &baseline, &output)
            });
            merging
                .await
                .map_err(|e| datafusion::error::DataFusionError::External(Box::new(e)))?
        });
        Ok(builder.build())
    }

    fn metrics(&self) -> Option<MetricsSet> {
        Some(self.metrics.clone_inner())
    }
}
