//! The ingest function: the routes of `stele-http` behind a Lambda function URL. One request is
//! one PUT to each tier; between requests only the tier set is kept, for the time of its lease.

use std::sync::Arc;

use anyhow::{Context, anyhow, ensure};
use stele_http::{IngestState, ingest_router};
use stele_ingest::{Ingestor, Options};
use stele_model::Limits;
use stele_runtime::{Config, SystemClock, telemetry};
use stele_store::{Tier, Tiers};

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let config = Config::from_env()?;
    telemetry::init(config.log_format, config.log.as_deref(), config.secrets())?;
    let url = config.store.as_deref().context("STELE_STORE is not set")?;
    ensure!(
        !url.starts_with("memory:"),
        "STELE_STORE={url} does not outlive a function: expected s3://bucket/prefix"
    );
    let (seed, clock) = (Tier::open(url, &config.aws)?, Arc::new(SystemClock));
    let aws = config.aws;
    let opener = move |url: &str| Tier::open(url, &aws);
    let tiers = Tiers::new(vec![seed], Arc::new(opener), clock.clone());
    let tenant = config.tenant.unwrap_or_default();
    let ingestor = Arc::new(Ingestor::over(tiers, tenant, Options::default()));
    let state = IngestState::new(ingestor, clock, Limits::default());
    lambda_http::run(ingest_router(state))
        .await
        .map_err(|error| anyhow!(error))
}
