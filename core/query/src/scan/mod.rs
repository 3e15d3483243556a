//! The tables of samples and rollups as DataFusion sees them.
//!
//! ```text
//! WHERE ──► filter: exact conditions on metric, tags, ts
//! live files ──► prune: file, row group, page ──► DataSourceExec ─► RowFilter ─► logical columns ┐
//! open windows ─────────────────────────────────► MergedExec (raw ∪ open ∪ L0, merged)          ┴─► union
//! ```
//!
//! A window is read either from sealed files or through the merge, never both: rows of a sealed
//! file that lie in an open window are left out of the file's part.

pub(crate) mod counted;
pub(crate) mod filter;
pub(crate) mod footer;
mod merged;
mod parts;
mod plan;
pub(crate) mod prune;
pub(crate) mod reader;
pub(crate) mod rows;

use std::fmt;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use datafusion::catalog::{Session, TableProvider};
use datafusion::common::Result;
use datafusion::logical_expr::{Expr, TableProviderFilterPushDown, TableType};
use datafusion::physical_plan::ExecutionPlan;
use stele_format::schema;
use stele_model::{Resolution, WindowSet};
use stele_store::TenantStore;
use stele_table::{FileEntry, View};

use self::footer::Footers;

/// The first object that was not there when it was read: the query starts over with a new view.
#[derive(Debug, Clone, Default)]
pub(crate) struct Gone(Arc<OnceLock<String>>);

impl Gone {
    pub(crate) fn note(&self, key: &str) {
        let _ = self.0.set(key.to_owned());
    }

    pub(crate) fn first(&self) -> Option<&str> {
        self.0.get().map(String::as_str)
    }
}

/// What the scans of one query share.
pub(crate) struct Scope {
    pub(crate) store: TenantStore,
    pub(crate) view: Arc<View>,
    pub(crate) footers: Arc<Footers>,
    pub(crate) target_partitions: usize,
    pub(crate) sketch: bool,
    pub(crate) gone: Gone,
    /// What the scans read, when somebody wants to know.
    pub(crate) reads: Option<Mutex<Vec<Read>>>,
}

/// What one scan reads.
#[derive(Debug, Clone)]
pub(crate) struct Read {
    pub(crate) resolution: Resolution,
    conditions: filter::Conditions,
}

impl Read {
    /// Whether the rows that `file` holds may be among those wanted, by the log's statistics.
    pub(crate) fn may_hold(&self, file: &FileEntry) -> bool {
        self.conditions.may_match(&file.stats)
    }

    /// The windows of the wanted time.
    pub(crate) fn within(&self, windows: &WindowSet) -> WindowSet {
        plan::overlapping(windows, &self.conditions)
    }
}

impl Scope {
    /// What its scans have read so far.
    pub(crate) fn reads(&self) -> Vec<Read> {
        let reads = self.reads.as_ref();
        let reads = reads.map(|reads| reads.lock().unwrap_or_else(PoisonError::into_inner).clone());
        reads.unwrap_or_default()
    }

    fn note(&self, resolution: Resolution, conditions: &filter::Conditions) {
        if let Some(reads) = &self.reads
            && !conditions.ts.is_empty()
        {
            let mut reads = reads.lock().unwrap_or_else(PoisonError::into_inner);
            let conditions = conditions.clone();
            reads.push(Read {
                resolution,
                conditions,
            });
        }
    }
}

/// One of `samples`, `rollup_60s`, `rollup_15m`, `rollup_60m` at one view.
pub(crate) struct SampleTable {
    scope: Arc<Scope>,
    resolution: Resolution,
    schema: SchemaRef,
}

impl SampleTable {
    pub(crate) fn new(scope: Arc<Scope>, resolution: Resolution) -> Self {
        let schema = match resolution {
            Resolution::Raw => schema::logical_samples(),
            _ => schema::logical_rollups(),
        };
        Self {
            scope,
            resolution,
            schema,
        }
    }
}

impl fmt::Debug for SampleTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.resolution.table())
    }
}

#[async_trait]
impl TableProvider for SampleTable {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    fn supports_filters_pushdown(
        &self,
        filters: &[&Expr],
    ) -> Result<Vec<TableProviderFilterPushDown>> {
        let support = |filter: &&Expr| {
            if filter::is_exact(filter) {
                TableProviderFilterPushDown::Exact
            } else {
                TableProviderFilterPushDown::Unsupported
            }
        };
        Ok(filters.iter().map(support).collect())
    }

    async fn scan(
        &self,
        _: &dyn Session,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
        limit: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let all: Vec<usize> = (0..self.schema.fields().len()).collect();
        let projection = projection.cloned().unwrap_or(all);
        let scan = plan::Scan {
            scope: &self.scope,
            resolution: self.resolution,
            schema: &self.schema,
            projection,
            limit,
        };
        let conditions = filter::Conditions::of(filters)?;
        self.scope.note(self.resolution, &conditions);
        scan.plan(conditions).await
    }
}
