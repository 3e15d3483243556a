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
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use datafusion::catalog::{Session, TableProvider};
use datafusion::common::Result;
use datafusion::logical_expr::{Expr, TableProviderFilterPushDown, TableType};
use datafusion::physical_plan::ExecutionPlan;
use stele_format::schema;
use stele_model::Resolution;
use stele_store::TenantStore;
use stele_table::View;

use self::footer::Footers;

/// What the scans of one query share.
pub(crate) struct Scope {
    pub(crate) store: TenantStore,
    pub(crate) view: Arc<View>,
    pub(crate) footers: Arc<Footers>,
    pub(crate) target_partitions: usize,
    pub(crate) sketch: bool,
    /// Set when a data file was gone: the query starts over with a new view.
    pub(crate) gone: Arc<AtomicBool>,
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
        scan.plan(filter::Conditions::of(filters)?).await
    }
}
