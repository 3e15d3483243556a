//! The query function: SQL and receipts behind a Lambda function URL that streams. It reads only.

use std::sync::Arc;
use std::time::Duration;

use stele_lambda::{Error, Start};
use stele_model::TenantId;
use stele_node::{Met, Tenants, compact_options, with_lease};
use stele_query::{QueryConfig, QueryEngine, QueryState};

#[tokio::main]
async fn main() -> Result<(), Error> {
    let start = Start::from_env()?;
    let (options, budgets) = (compact_options(&start.config), start.config.budgets);
    stele_node::check(&options, &start.config)?;
    let config = QueryConfig {
        deadline: Duration::from_micros(budgets.query_deadline_us.unsigned_abs()),
        // Half of the function's memory: the other half is for what is not counted.
        memory_pool_bytes: budgets
            .query_memory_bytes
            .min(start.memory_bytes() / 2)
            .try_into()?,
        sketch: options.sketch,
        ..QueryConfig::default()
    };
    let tenants = Tenants::open(start.tiers.clone(), options, Met::default()).await?;
    let of_logs = tenants.clone();
    let logs = move |tenant: &TenantId| of_logs.get(tenant).log;
    let router = stele_query::router(QueryState {
        engine: Arc::new(QueryEngine::new(config, start.clock.clone())?),
        tables: Arc::new(tenants.clone()),
        tenant: start.tenant(),
    });
    let router = router.merge(stele_protect::receipts_router(Arc::new(logs)));
    stele_lambda::stream(&start, with_lease(router, tenants)).await
}
