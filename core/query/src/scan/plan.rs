//! Builds the physical plan of one scan.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use arrow::array::Array;
use arrow::datatypes::{Schema, SchemaRef};
use datafusion::common::stats::Precision;
use datafusion::common::{Result, Statistics};
use datafusion::datasource::listing::PartitionedFile;
use datafusion::datasource::physical_plan::{
    FileGroup, FileScanConfigBuilder, FileSource, ParquetSource,
};
use datafusion::datasource::source::DataSourceExec;
use datafusion::execution::object_store::ObjectStoreUrl;
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_expr::expressions::Column;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::empty::EmptyExec;
use datafusion::physical_plan::filter::FilterExec;
use datafusion::physical_plan::metrics::MetricBuilder;
use datafusion::physical_plan::projection::ProjectionExec;
use datafusion::physical_plan::union::UnionExec;
use futures::{StreamExt, TryStreamExt};
use object_store::ObjectMeta;
use stele_format::schema;
use stele_model::{Resolution, Window, WindowSet};
use stele_store::keys;
use stele_table::{FileEntry, FileKind};

use super::Scope;
use super::filter::Conditions;
use super::footer::{Cost, Footer, METRIC, TAGS, TS};
use super::merged::{Merged, MergedExec};
use super::parts::{Selected, split};
use super::prune::{self, GroupRows, Wanted};
use super::reader::{BYTES, PlannedFooter, REQUESTS, Readers};
use super::rows::{Made, MadeColumn, RowFilter};
use crate::error::{Error, is_not_found};

/// Footers fetched at the same time.
const FETCHES: usize = 16;
/// Above so many matching tags a row group's pages are not pruned by tags: nearly all would stay.
const TAGS_MAX: usize = 400;

/// One scan of one table.
pub(crate) struct Scan<'a> {
    pub(crate) scope: &'a Arc<Scope>,
    pub(crate) resolution: Resolution,
    pub(crate) schema: &'a SchemaRef,
    /// Columns of the logical schema, in order of output.
    pub(crate) projection: Vec<usize>,
    pub(crate) limit: Option<usize>,
}

/// Which columns a part's row filter needs.
#[derive(Debug, Clone, Copy, Default)]
struct Needs {
    metric: bool,
    tags: bool,
    ts: bool,
}

impl Needs {
    fn any(self) -> bool {
        self.metric || self.tags || self.ts
    }
}

impl Scan<'_> {
    /// The plan of the rows for which `conditions` hold, exactly.
    pub(crate) async fn plan(self, conditions: Conditions) -> Result<Arc<dyn ExecutionPlan>> {
        if conditions.ts.is_empty() {
            return self.nothing();
        }
        let open = self.scope.view.open_windows();
        let mut inputs = Vec::new();
        if let Some(files) = self.files_part(&conditions, &open).await? {
            inputs.push(files);
        }
        let merged = overlapping(&open, &conditions);
        if !merged.is_empty() {
            inputs.push(self.merged_part(conditions, merged)?);
        }
        match inputs.len() {
            0 => self.nothing(),
            _ => UnionExec::try_new(inputs),
        }
    }

    fn output_schema(&self) -> Result<SchemaRef> {
        Ok(Arc::new(self.schema.project(&self.projection)?))
    }

    fn nothing(&self) -> Result<Arc<dyn ExecutionPlan>> {
        Ok(Arc::new(EmptyExec::new(self.output_schema()?)))
    }

    fn merged_part(
        &self,
        conditions: Conditions,
        windows: WindowSet,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let scope = self.scope;
        let merged = Merged {
            store: scope.store.clone(),
            view: Arc::clone(&scope.view),
            resolution: self.resolution,
            windows,
            conditions,
            sketch: scope.sketch,
            gone: scope.gone.clone(),
            projection: self.projection.clone(),
        };
        Ok(Arc::new(MergedExec::new(merged, self.output_schema()?)))
    }

    /// The sealed files that may hold a match, pruned to pages; `None` when there is none.
    async fn files_part(
        &self,
        conditions: &Conditions,
        open: &WindowSet,
    ) -> Result<Option<Arc<dyn ExecutionPlan>>> {
        let cost = Cost::default();
        let kind = FileKind::Sealed(self.resolution);
        let wanted = self.scope.view.state.files_of(kind).filter(|file| {
            conditions.may_match(&file.stats) && !file.windows.difference(open).is_empty()
        });
        let wanted: Vec<Arc<FileEntry>> = wanted.cloned().collect();
        let selecting = wanted.into_iter().map(|file| {
            let cost = &cost;
            async move {
                let key = stele_store::keys::data_file(&file.path);
                let selected = self.select(file, conditions, cost).await;
                selected.inspect_err(|error| {
                    if is_not_found(error) {
                        self.scope.gone.note(&key);
                    }
                })
            }
        });
        let selected = futures::stream::iter(selecting).buffered(FETCHES);
        let selected: Result<Vec<Selected>, Error> = selected.try_collect().await;
        let selected = selected.map_err(datafusion::error::DataFusionError::from)?;
        let selected: Vec<Selected> = selected
            .into_iter()
            .filter(|file| !file.groups.is_empty())
            .collect();
        if selected.is_empty() {
            return Ok(None);
        }
        self.read(selected, conditions, open, &cost).map(Some)
    }

    /// The rows of one file whose pages may hold a match.
    async fn select(
        &self,
        file: Arc<FileEntry>,
        conditions: &Conditions,
        cost: &Cost,
    ) -> Result<Selected, Error> {
        let scope = self.scope;
        let footer = scope.footers.get(&scope.store, &file, cost).await?;
        let metadata = &footer.metadata;
        let mut groups = Vec::new();
        for group in 0..metadata.num_row_groups() {
            if !prune::group_may_match(metadata, group, conditions) {
                continue;
            }
            let tags = self.tags(&file, &footer, group, conditions, cost).await?;
            let wanted = match &tags {
                Some(set) if set.is_empty() => continue,
                Some(set) if set.len() <= TAGS_MAX => Wanted::Only(set),
                _ => Wanted::Any,
            };
            let rows = prune::group_rows(metadata, group, conditions, &wanted);
            if !rows.ranges.is_empty() {
                groups.push(rows);
            }
        }
        Ok(Selected {
            file,
            footer,
            groups,
        })
    }

    /// The tags of a row group that match; `None` when that is not known without reading rows.
    async fn tags(
        &self,
        file: &FileEntry,
        footer: &Footer,
        group: usize,
        conditions: &Conditions,
        cost: &Cost,
    ) -> Result<Option<BTreeSet<String>>, Error> {
        let Some(condition) = &conditions.tags else {
            return Ok(None);
        };
        if let Some(candidates) = condition.candidates() {
            return Ok(Some(candidates.clone()));
        }
        let scope = self.scope;
        let distinct = scope
            .footers
            .tags(&scope.store, file, footer, group, cost)
            .await?;
        let Some(distinct) = distinct else {
            return Ok(None);
        };
        let verdicts = condition
            .of_dictionary(&distinct)
            .map_err(|e| crate::error::from_datafusion(e, 0))?;
        let matching = (0..distinct.len())
            .filter(|i| verdicts.value(*i))
            .take(TAGS_MAX + 1)
            .map(|i| distinct.value(i).to_owned());
        Ok(Some(matching.collect()))
    }

    /// Reads `selected`: Parquet scan, exact row filter, logical columns.
    fn read(
        &self,
        selected: Vec<Selected>,
        conditions: &Conditions,
        open: &WindowSet,
        cost: &Cost,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let stored = match self.resolution {
            Resolution::Raw => schema::stored_samples(),
            _ => schema::stored_rollups(),
        };
        let needs = needs(&selected, conditions, open);
        let mut columns = BTreeSet::new();
        for index in &self.projection {
            for name in stored_names(self.schema.field(*index).name(), self.resolution) {
                columns.insert(stored.index_of(name)?);
            }
        }
        columns.extend(needs.metric.then_some(METRIC));
        columns.extend(needs.tags.then_some(TAGS));
        columns.extend(needs.ts.then_some(TS));
        let columns: Vec<usize> = columns.into_iter().collect();
        let limit = self.limit.filter(|_| !needs.any());
        let scanned = self.parquet(&selected, &stored, &columns, needs, limit, cost)?;
        let filtered: Arc<dyn ExecutionPlan> = if needs.any() {
            let filter = row_filter(&scanned.schema(), needs, conditions, open)?;
            Arc::new(FilterExec::try_new(Arc::new(filter), scanned)?)
        } else {
            scanned
        };
        let input = filtered.schema();
        let logical = self.projection.iter().map(|index| {
            let field = self.schema.field(*index);
            let made = logical_column(field.name(), self.resolution, &input)?;
            Ok((made, field.name().clone()))
        });
        let logical = logical.collect::<Result<Vec<_>>>()?;
        Ok(Arc::new(ProjectionExec::try_new(logical, filtered)?))
    }

    fn parquet(
        &self,
        selected: &[Selected],
        stored: &SchemaRef,
        columns: &[usize],
        needs: Needs,
        limit: Option<usize>,
        cost: &Cost,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let scope = self.scope;
        let rows: usize = selected.iter().map(Selected::rows).sum();
        let groups = split(selected, scope.target_partitions);
        let groups: Vec<FileGroup> = groups
            .into_iter()
            .map(|part| {
                let files = part.iter().map(|file| self.partitioned(file, stored));
                FileGroup::new(files.collect())
            })
            .collect();
        let readers = Readers::new(scope.store.tier().object_store(), scope.gone.clone());
        let source = ParquetSource::new(Arc::clone(stored))
            .with_parquet_file_reader_factory(Arc::new(readers));
        let metrics = source.metrics();
        let counter = |name: &'static str| MetricBuilder::new(metrics).global_counter(name);
        let load = |n: &std::sync::atomic::AtomicU64| n.load(Ordering::Relaxed) as usize;
        counter(REQUESTS).add(load(&cost.requests));
        counter(BYTES).add(load(&cost.bytes));
        let mut statistics = Statistics::new_unknown(stored);
        statistics.num_rows = if needs.any() {
            Precision::Inexact(rows)
        } else {
            Precision::Exact(rows)
        };
        // The session's registry holds no store: the readers bring their own.
        let url = ObjectStoreUrl::parse("stele://tenant")?;
        let config = FileScanConfigBuilder::new(url, Arc::new(source))
            .with_file_groups(groups)
            .with_projection_indices(Some(columns.to_vec()))?
            .with_statistics(statistics)
            .with_limit(limit)
            .build();
        Ok(DataSourceExec::from_data_source(config))
    }

    fn partitioned(&self, selected: &Selected, stored: &Schema) -> PartitionedFile {
        let file = &selected.file;
        let metadata = &selected.footer.metadata;
        let meta = ObjectMeta {
            location: self.scope.store.path(&keys::data_file(&file.path)),
            last_modified: Default::default(),
            size: file.stats.size_bytes,
            e_tag: None,
            version: None,
        };
        let columns = metadata.file_metadata().schema_descr().columns();
        let fields = columns
            .iter()
            .filter_map(|column| stored.field_with_name(column.name()).ok().cloned());
        let schema = Schema::new(fields.collect::<Vec<_>>());
        let mut planned = PartitionedFile::new_from_meta(meta)
            .with_extension(PlannedFooter(Arc::clone(&selected.footer)))
            .with_extension(prune::access_plan(metadata, &selected.groups));
        if schema.fields().len() == columns.len() {
            planned = planned.with_arrow_schema(Arc::new(schema));
        }
        planned
    }
}

/// The windows that may hold a row of the wanted time.
pub(super) fn overlapping(windows: &WindowSet, conditions: &Conditions) -> WindowSet {
    let wanted = |w: &Window| conditions.ts.overlaps(w.start_us(), w.end_us() - 1);
    windows.iter().filter(wanted).collect()
}

/// Which conditions the selected row groups do not already satisfy as a whole.
fn needs(selected: &[Selected], conditions: &Conditions, open: &WindowSet) -> Needs {
    let mut needs = Needs::default();
    for file in selected {
        needs.ts |= file.file.windows.intersects(open);
        for GroupRows { group, .. } in &file.groups {
            let whole = prune::whole(&file.footer.metadata, *group, conditions);
            needs.metric |= conditions.metric.is_some() && !whole.metric;
            needs.tags |= conditions.tags.is_some() && !whole.tags;
            needs.ts |= !whole.ts;
        }
    }
    needs
}

fn stored_column(name: &str, input: &Schema) -> Result<Arc<dyn PhysicalExpr>> {
    Ok(Arc::new(Column::new(name, input.index_of(name)?)))
}

fn row_filter(
    input: &Schema,
    needs: Needs,
    conditions: &Conditions,
    open: &WindowSet,
) -> Result<RowFilter> {
    let text = |needed: bool, name: &str, condition: &Option<Arc<super::filter::TextCondition>>| {
        match condition {
            Some(condition) if needed => {
                Ok(Some((stored_column(name, input)?, Arc::clone(condition))))
            }
            _ => Ok::<_, datafusion::error::DataFusionError>(None),
        }
    };
    let ts = if needs.ts {
        Some((stored_column("ts", input)?, conditions.ts, open.ranges_us()))
    } else {
        None
    };
    Ok(RowFilter::new(
        text(needs.metric, "metric", &conditions.metric)?,
        text(needs.tags, "tags", &conditions.tags)?,
        ts,
    ))
}

/// The stored columns that a logical one is made from.
fn stored_names(name: &str, resolution: Resolution) -> Vec<&str> {
    match (name, resolution) {
        ("value", Resolution::Raw) => vec!["value", "value_int", "value_div"],
        _ => vec![name],
    }
}

fn logical_column(
    name: &str,
    resolution: Resolution,
    input: &Schema,
) -> Result<Arc<dyn PhysicalExpr>> {
    let from = stored_names(name, resolution)
        .into_iter()
        .map(|name| stored_column(name, input))
        .collect::<Result<Vec<_>>>()?;
    Ok(match (name, resolution) {
        ("value", Resolution::Raw) => Arc::new(MadeColumn::new(Made::Value, from)),
        ("kind", Resolution::Raw) => Arc::new(MadeColumn::new(Made::Kind, from)),
        _ => stored_column(name, input)?,
    })
}
