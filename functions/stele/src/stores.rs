//! From what a command names to the tiers it works on.

use std::path::Path;

use anyhow::ensure;
use stele_model::TenantId;
use stele_node::Node;
use stele_runtime::Config;
use stele_store::Tier;

use crate::cli::Target;
use crate::settings;

/// The name by which every process finds a store: an absolute path, or the URL.
///
/// # Errors
/// A path that cannot be made absolute.
pub fn absolute(url: &str) -> anyhow::Result<String> {
    let path = url.strip_prefix("file://").unwrap_or(url);
    if path.contains("://") {
        return Ok(url.trim_end_matches('/').to_owned());
    }
    let path = Path::new(path);
    let path = path.canonicalize().or_else(|_| std::path::absolute(path))?;
    let path = path.to_str();
    let path = path.ok_or_else(|| anyhow::anyhow!("{url}: the path is not UTF-8"))?;
    Ok(path.to_owned())
}

/// A tenant of the store that `target` names, as that store has it: a mirror as well as a primary.
///
/// # Errors
/// A store that is not there.
pub fn to_read(target: &Target, config: &Config) -> anyhow::Result<Node> {
    let url = settings::existing_store(target.store.as_deref(), config)?;
    let tenant = settings::tenant(target.tenant.as_deref(), config)?;
    node_as_is(&url, &tenant, config)
}

/// A tenant of the very store `url`, whatever tiers it is one of.
///
/// # Errors
/// A URL that names no store.
pub fn node_as_is(url: &str, tenant: &TenantId, config: &Config) -> anyhow::Result<Node> {
    let tier = Tier::open(url, &config.aws)?;
    Ok(Node::as_is(
        &tier,
        tenant,
        stele_node::compact_options(config),
    ))
}

/// A tenant of the store that `target` names, which must be the primary of its tiers.
///
/// # Errors
/// A store that is not there, or that is a mirror.
pub async fn to_write(target: &Target, config: &Config) -> anyhow::Result<Node> {
    let url = settings::existing_store(target.store.as_deref(), config)?;
    let tenant = settings::tenant(target.tenant.as_deref(), config)?;
    let tiers = stele_node::open_tiers(&url, config)?;
    let current = tiers.current().await?;
    if let Some(set) = &current.set {
        let primary = &set.primary()?.url;
        ensure!(
            absolute(&url)? == *primary,
            "{url} is not the primary of its tiers: name that, {primary}"
        );
    }
    Ok(Node::new(
        &tiers,
        &current,
        &tenant,
        stele_node::compact_options(config),
    ))
}
