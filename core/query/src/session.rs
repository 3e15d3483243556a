//! What DataFusion may see of the world: allowed functions, this tenant's tables, no store, no
//! disk, bounded memory.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::datatypes::DataType;
use chrono::DateTime;
use datafusion::common::{Result, TableReference, plan_err};
use datafusion::config::ConfigOptions;
use datafusion::execution::disk_manager::{DiskManagerBuilder, DiskManagerMode};
use datafusion::execution::memory_pool::{GreedyMemoryPool, TrackConsumersPool};
use datafusion::execution::object_store::ObjectStoreRegistry;
use datafusion::execution::runtime_env::RuntimeEnvBuilder;
use datafusion::execution::session_state::{SessionState, SessionStateBuilder};
use datafusion::logical_expr::planner::{ContextProvider, ExprPlanner};
use datafusion::logical_expr::{
    AggregateUDF, Expr, HigherOrderUDF, LogicalPlan, ScalarUDF, TableSource, WindowUDF,
};
use datafusion::prelude::{SQLOptions, SessionConfig};
use datafusion::sql::parser::Statement;
use datafusion::sql::planner::{ParserOptions, SqlToRel};
use object_store::ObjectStore;
use object_store::memory::InMemory;

use crate::bins;
use crate::config::QueryConfig;
use crate::error::{Error, not_allowed};
use crate::functions::ALLOWED;
use crate::nearest::nearest;
use crate::text::Operators;

/// Answers every URL with an empty store: scans bring their own readers, so nothing a query says
/// can name a place to read.
#[derive(Debug)]
struct NoStores;

impl ObjectStoreRegistry for NoStores {
    fn register_store(
        &self,
        _: &url::Url,
        _: Arc<dyn ObjectStore>,
    ) -> Option<Arc<dyn ObjectStore>> {
        None
    }

    fn get_store(&self, _: &url::Url) -> Result<Arc<dyn ObjectStore>> {
        Ok(Arc::new(InMemory::new()))
    }
}

/// The state that all queries of a process start from.
///
/// # Errors
/// When DataFusion refuses the configuration.
pub(crate) fn template(config: &QueryConfig) -> Result<SessionState> {
    let pool = TrackConsumersPool::new(
        GreedyMemoryPool::new(config.memory_pool_bytes),
        std::num::NonZeroUsize::MIN,
    );
    let disk = DiskManagerBuilder::default().with_mode(DiskManagerMode::Disabled);
    let runtime = RuntimeEnvBuilder::new()
        .with_memory_pool(Arc::new(pool))
        .with_disk_manager_builder(disk)
        .with_object_store_registry(Arc::new(NoStores))
        .build_arc()?;
    let mut session = SessionConfig::new()
        .with_target_partitions(config.target_partitions.max(1))
        .with_information_schema(false)
        .with_create_default_catalog_and_schema(false)
        .with_collect_statistics(false);
    let options = session.options_mut();
    options.sql_parser.dialect = datafusion::config::Dialect::PostgreSQL;
    options.execution.enable_recursive_ctes = false;
    options.execution.parquet.pushdown_filters = false;
    // Pages are chosen before the scan is built.
    options.execution.parquet.pruning = false;
    options.execution.parquet.enable_page_index = false;
    options.execution.parquet.bloom_filter_on_read = false;
    // A scan divides its rows itself, by how many there are.
    options.optimizer.repartition_file_scans = false;
    options.optimizer.enable_round_robin_repartition = false;
    options.explain.logical_plan_only = false;
    Ok(SessionStateBuilder::new()
        .with_config(session)
        .with_runtime_env(runtime)
        .with_default_features()
        .with_physical_optimizer_rule(Arc::new(crate::runs::AggregateRuns))
        .with_physical_optimizer_rule(Arc::new(crate::pauses::PauseJoins))
        .build())
}

/// A state for one query that starts now.
pub(crate) fn started(template: &SessionState, now_us: i64) -> SessionState {
    let mut state = template.clone();
    state.mark_start_execution();
    state.execution_props_mut().query_execution_start_time =
        DateTime::from_timestamp_micros(now_us);
    state
}

/// The names one query may use.
pub(crate) struct Names<'a> {
    state: &'a SessionState,
    tables: HashMap<&'static str, Arc<dyn TableSource>>,
    planners: Vec<Arc<dyn ExprPlanner>>,
}

impl<'a> Names<'a> {
    pub(crate) fn new(
        state: &'a SessionState,
        tables: HashMap<&'static str, Arc<dyn TableSource>>,
    ) -> Self {
        let mut planners: Vec<Arc<dyn ExprPlanner>> = vec![Arc::new(Operators::new())];
        planners.extend(state.expr_planners().iter().cloned());
        Self {
            state,
            tables,
            planners,
        }
    }

    /// Plans a checked statement over these names.
    ///
    /// # Errors
    /// When it names what does not exist, or is no valid query.
    pub(crate) fn plan(&self, statement: Statement) -> Result<LogicalPlan> {
        let options = ParserOptions::from(&self.state.config_options().sql_parser);
        let plan = SqlToRel::new_with_options(self, options).statement_to_plan(statement)?;
        let reads_only = SQLOptions::new()
            .with_allow_ddl(false)
            .with_allow_dml(false)
            .with_allow_statements(false);
        reads_only.verify_plan(&plan)?;
        Ok(plan)
    }
}

impl ContextProvider for Names<'_> {
    fn get_table_source(&self, name: TableReference) -> Result<Arc<dyn TableSource>> {
        let plain = match &name {
            TableReference::Bare { table } => Some(table),
            TableReference::Partial { schema, table } if schema.as_ref() == "public" => Some(table),
            _ => None,
        };
        if let Some(found) = plain.and_then(|table| self.tables.get(table.as_ref())) {
            return Ok(Arc::clone(found));
        }
        let tables = self.tables.keys().copied();
        Err(Error::NoSuchTable {
            name: name.table().chars().take(100).collect(),
            nearest: nearest(name.table(), tables),
        }
        .into())
    }

    fn get_table_function_source(
        &self,
        name: &str,
        args: Vec<Expr>,
    ) -> Result<Arc<dyn TableSource>> {
        if name.eq_ignore_ascii_case(bins::NAME) {
            return bins::source(args, self.state);
        }
        Err(not_allowed("a table function").into())
    }

    fn get_file_type(
        &self,
        _: &str,
    ) -> Result<Arc<dyn datafusion::common::file_options::file_type::FileType>> {
        plan_err!("there are no file types")
    }

    fn get_expr_planners(&self) -> &[Arc<dyn ExprPlanner>] {
        &self.planners
    }

    fn get_function_meta(&self, name: &str) -> Option<Arc<ScalarUDF>> {
        ALLOWED.scalar.get(name).cloned()
    }

    fn get_higher_order_meta(&self, _: &str) -> Option<Arc<HigherOrderUDF>> {
        None
    }

    fn get_aggregate_meta(&self, name: &str) -> Option<Arc<AggregateUDF>> {
        ALLOWED.aggregate.get(name).cloned()
    }

    fn get_window_meta(&self, name: &str) -> Option<Arc<WindowUDF>> {
        ALLOWED.window.get(name).cloned()
    }

    fn get_variable_type(&self, _: &[String]) -> Option<DataType> {
        None
    }

    fn options(&self) -> &ConfigOptions {
        self.state.config_options()
    }

    fn udf_names(&self) -> Vec<String> {
        ALLOWED.scalar.keys().cloned().collect()
    }

    fn higher_order_function_names(&self) -> Vec<String> {
        Vec::new()
    }

    fn udaf_names(&self) -> Vec<String> {
        ALLOWED.aggregate.keys().cloned().collect()
    }

    fn udwf_names(&self) -> Vec<String> {
        ALLOWED.window.keys().cloned().collect()
    }
}
