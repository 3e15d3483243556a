//! What a run of the program uses: flags over `STELE_*` variables over defaults.

use std::path::Path;
use std::time::Duration;

use anyhow::Context;
use stele_model::TenantId;
use stele_query::QueryConfig;
use stele_runtime::Config;

/// The address when neither flag nor variable names one.
pub const LISTEN: &str = "127.0.0.1:8686";
/// The store when neither flag nor variable names one.
pub const STORE: &str = "./stele-data";

/// The tenant named by flag or variable.
///
/// # Errors
/// A name that is no tenant.
pub fn tenant(flag: Option<&str>, config: &Config) -> anyhow::Result<TenantId> {
    match flag {
        Some(name) => Ok(name.parse()?),
        None => Ok(config.tenant.clone().unwrap_or_default()),
    }
}

/// The store named by flag or variable, as a URL or a path.
pub fn store(flag: Option<&str>, config: &Config) -> String {
    flag.or(config.store.as_deref()).unwrap_or(STORE).to_owned()
}

/// The store a command reads; a directory that does not exist is a mistake, not a new store.
///
/// # Errors
/// `memory://`, and a directory that is not there.
pub fn existing_store(flag: Option<&str>, config: &Config) -> anyhow::Result<String> {
    let store = store(flag, config);
    anyhow::ensure!(
        !store.starts_with("memory:"),
        "{store}: a store in memory lives inside `stele serve` only"
    );
    let path = store.strip_prefix("file://").unwrap_or(&store);
    anyhow::ensure!(
        path.contains("://") || Path::new(path).is_dir(),
        "there is no store at {store}"
    );
    Ok(store)
}

/// How queries are bounded.
///
/// # Errors
/// A memory pool that this machine cannot address.
pub fn query_config(config: &Config, sketch: bool) -> anyhow::Result<QueryConfig> {
    let budgets = config.budgets;
    Ok(QueryConfig {
        deadline: Duration::from_micros(budgets.query_deadline_us.unsigned_abs()),
        memory_pool_bytes: usize::try_from(budgets.query_memory_bytes)
            .context("STELE_QUERY_MEMORY_BYTES is more than this machine can address")?,
        sketch,
        ..QueryConfig::default()
    })
}
