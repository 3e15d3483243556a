//! A restore that nobody needs, so that the one that is needed works: a snapshot of one tier is
//! restored into a scratch store, and compared.

use std::process::ExitCode;
use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context, ensure};
use futures::StreamExt;
use serde_json::{Value, json};
use stele_model::{Clock, Ids, Resolution, TenantId};
use stele_node::Node;
use stele_protect::{CopyProgress, Drilled, record_drill, restore, restore_plan, verify};
use stele_query::{QueryEngine, output as encoding};
use stele_runtime::{Config, RandomIds, SystemClock};
use stele_store::Tier;
use stele_table::{AsOf, PinName, PinState, Pins};

use crate::cli::RestoreDrillArgs;
use crate::commands::bar;
use crate::{output, settings};

/// A snapshot that can be drilled.
struct Candidate {
    tier: Tier,
    tier_name: String,
    tenant: TenantId,
    name: PinName,
    digest: stele_model::Digest,
}

/// What a drill came to.
struct Restored {
    objects: u64,
    bytes: u64,
    samples: u64,
}

/// Runs the drill.
///
/// # Errors
/// When there is nothing to drill, or no store can be read.
pub async fn run(
    args: RestoreDrillArgs,
    is_json: bool,
    config: Config,
) -> anyhow::Result<ExitCode> {
    let url = settings::existing_store(args.store.as_deref(), &config)?;
    let tiers = stele_node::open_tiers(&url, &config)?;
    let current = tiers.current().await?;
    let mut candidates = Vec::new();
    if current.members.is_empty() {
        find(&current.primary, "store", &args, &config, &mut candidates).await?;
    }
    for open in current.members.iter().filter(|open| open.trouble.is_none()) {
        let name = open.member.id.as_str();
        find(&open.tier, name, &args, &config, &mut candidates).await?;
    }
    let at = usize::try_from(random() % candidates.len().max(1) as u64)?;
    let chosen = candidates
        .get(at)
        .context("there is no live snapshot to drill")?;
    let began = Instant::now();
    let outcome = drill(chosen, &config).await;
    let drilled = Drilled {
        at_us: SystemClock.now_us(),
        has_passed: outcome.is_ok(),
    };
    // On the primary, where snapshots are listed; with nothing but a backup, there.
    let records = match &current.set {
        Some(_) if current.primary.tenants().await.is_ok() => &current.primary,
        _ => &chosen.tier,
    };
    let store = records.tenant(&chosen.tenant);
    record_drill(&store, &chosen.name, chosen.digest, drilled).await?;
    report(chosen, &outcome, began.elapsed().as_secs_f64(), is_json)?;
    Ok(match outcome {
        Ok(_) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    })
}

fn random() -> u64 {
    let id = RandomIds.operation_id();
    u64::from_str_radix(&id[..16], 16).unwrap_or_default()
}

async fn find(
    tier: &Tier,
    tier_name: &str,
    args: &RestoreDrillArgs,
    config: &Config,
    candidates: &mut Vec<Candidate>,
) -> anyhow::Result<()> {
    if args
        .tier
        .as_ref()
        .is_some_and(|wanted| wanted.as_str() != tier_name)
    {
        return Ok(());
    }
    let history_us = stele_node::compact_options(config).history_us;
    for tenant in tier.tenants().await? {
        if args
            .tenant
            .as_ref()
            .is_some_and(|wanted| *wanted != tenant.as_str())
        {
            continue;
        }
        let pins = Pins::read(&tier.tenant(&tenant)).await?;
        for stored in pins.pins.into_values() {
            let is_wanted = args
                .snapshot
                .as_ref()
                .is_none_or(|name| *name == stored.name);
            if is_wanted && matches!(stored.state(history_us), PinState::Live | PinState::Damaged) {
                candidates.push(Candidate {
                    tier: tier.clone(),
                    tier_name: tier_name.to_owned(),
                    tenant: tenant.clone(),
                    name: stored.name.clone(),
                    digest: stored.digest,
                });
            }
        }
    }
    Ok(())
}

async fn drill(chosen: &Candidate, config: &Config) -> anyhow::Result<Restored> {
    let options = stele_node::compact_options(config);
    let source = Node::as_is(&chosen.tier, &chosen.tenant, options.clone());
    let scratch = tempfile::tempdir().context("a directory for the drill")?;
    let tier = Tier::open(&scratch.path().to_string_lossy(), &[])?;
    let target = Node::as_is(&tier, &chosen.tenant, options);
    let plan = restore_plan(&source.log, &chosen.name, &target.store).await?;
    let bar = bar("bytes");
    let tell = |progress: CopyProgress| {
        bar.set_length(progress.bytes_total);
        bar.set_position(progress.bytes);
    };
    let done = restore(&plan, plan.hash, &source.store, &target.log, &tell).await;
    bar.finish_and_clear();
    done?;
    let report = verify(&target.store, &target.log, &|_| {}).await;
    // Versions before the snapshot load from the copied log and have no files: none is asked for.
    ensure!(
        report.is_clean(),
        "the restored store: {:?}",
        report.findings.first()
    );
    let engine = QueryEngine::new(settings::query_config(config, true)?, Arc::new(SystemClock))?;
    let pinned = AsOf::Pin(chosen.name.clone());
    for resolution in [Resolution::Raw].into_iter().chain(Resolution::ROLLUPS) {
        let sql = question(resolution);
        let then = ask(&engine, &source, &sql, Some(&pinned)).await?;
        let now = ask(&engine, &target, &sql, None).await?;
        ensure!(
            then == now,
            "{}: the snapshot answers {then}, the restored store {now}",
            resolution.table()
        );
    }
    Ok(Restored {
        objects: plan.objects,
        bytes: plan.bytes,
        samples: plan.content.samples.rows,
    })
}

/// What must be the same, by metric.
fn question(resolution: Resolution) -> String {
    let sums = match resolution {
        Resolution::Raw => "count(value) AS n, min(value) AS least, max(value) AS most",
        _ => "sum(\"count\") AS n, min(\"min\") AS least, max(\"max\") AS most",
    };
    format!(
        "SELECT metric, {sums}, min(ts) AS first, max(ts) AS last FROM {} \
         GROUP BY metric ORDER BY metric",
        resolution.table()
    )
}

async fn ask(
    engine: &QueryEngine,
    node: &Node,
    sql: &str,
    as_of: Option<&AsOf>,
) -> anyhow::Result<Value> {
    let answer = engine.query_as_of(&node.log, sql, as_of).await?;
    let mut encoded = encoding::encode(answer, encoding::Format::of_name("json")?).await?;
    let mut body = Vec::new();
    while let Some(chunk) = encoded.next().await {
        body.extend_from_slice(&chunk?);
    }
    Ok(serde_json::from_slice(&body)?)
}

fn report(
    chosen: &Candidate,
    outcome: &anyhow::Result<Restored>,
    secs: f64,
    is_json: bool,
) -> anyhow::Result<()> {
    let Candidate {
        tier_name,
        tenant,
        name,
        ..
    } = chosen;
    if is_json {
        let restored = outcome.as_ref().ok();
        return output::json(&json!({
            "passed": restored.is_some(),
            "snapshot": name.as_str(),
            "tenant": tenant.as_str(),
            "tier": tier_name,
            "objects": restored.map(|r| r.objects),
            "bytes": restored.map(|r| r.bytes),
            "samples": restored.map(|r| r.samples),
            "secs": secs,
            "error": outcome.as_ref().err().map(|error| format!("{error:#}")),
        }));
    }
    let what = format!("snapshot {name} of tenant {tenant} from {tier_name}");
    match outcome {
        Ok(restored) => output::line(&format!(
            "{what} was restored in {secs:.1} s and answers the same: {} samples in {} objects, {}",
            restored.samples,
            restored.objects,
            output::size(restored.bytes)
        )),
        Err(error) => {
            let error = output::escape(&format!("{error:#}"));
            output::line(&format!("{what}: FAILED: {error}"))
        }
    }
}
