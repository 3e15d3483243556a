//! `stele deletion`: what is deleted, and whether anything may be.

use std::process::ExitCode;

use serde_json::json;
use stele_compact::SweepPlan;
use stele_model::time::rfc3339;
use stele_node::Node;
use stele_protect::held_for_restore;
use stele_runtime::Config;
use stele_table::{Frozen, deletion_frozen, set_deletion_frozen};

use crate::cli::{DeletionAction, DeletionArgs};
use crate::output;
use crate::stores::to_write;

/// Runs the command, on the store itself; servers may run on it meanwhile.
///
/// # Errors
/// The store's and the table's; a plan that is not the one that asks.
pub async fn run(args: DeletionArgs, config: Config) -> anyhow::Result<ExitCode> {
    let node = to_write(&args.on.target(), &config).await?;
    let now_us = node.clock.now_us();
    match args.action {
        DeletionAction::Status => {}
        DeletionAction::Freeze { reason } => {
            set_deletion_frozen(&node.store, Some(&reason), now_us).await?;
        }
        DeletionAction::Resume => {
            let frozen = deletion_frozen(&node.store).await?;
            let held = frozen.as_ref().and_then(|f| held_for_restore(&f.reason));
            if let Some(snapshot) = held {
                anyhow::bail!(
                    "deletion is held for a restore of snapshot {snapshot}: `stele snapshot restore \
                     {snapshot} --in-place --abandon` gives that up"
                );
            }
            set_deletion_frozen(&node.store, None, now_us).await?;
        }
        DeletionAction::Confirm { plan } => {
            let hash = plan.parse().map_err(|_| {
                anyhow::anyhow!("{plan:?} is no hash: 32 hex digits, as `status` prints")
            })?;
            let asks = node.compactor.confirm_expire(hash).await?;
            return confirmed(&asks, args.on.json);
        }
    }
    status(&node, args.on.json).await?;
    Ok(ExitCode::SUCCESS)
}

fn confirmed(asks: &stele_compact::plan::ExpireAsks, is_json: bool) -> anyhow::Result<ExitCode> {
    match is_json {
        true => output::json(asks)?,
        false => output::line(&format!(
            "confirmed: {} of live data expire at the next expiry",
            output::size(asks.bytes)
        ))?,
    }
    Ok(ExitCode::SUCCESS)
}

async fn status(node: &Node, is_json: bool) -> anyhow::Result<()> {
    let frozen = deletion_frozen(&node.store).await?;
    let plan = node.compactor.sweep_plan().await?;
    let asks = node.compactor.expire_asks().await?;
    if is_json {
        return output::json(&json!({"frozen": frozen, "sweep": plan, "expiry_asks": asks}));
    }
    output::line(&frozen_text(frozen.as_ref()))?;
    output::line(&sweep_text(&plan))?;
    match asks {
        None => Ok(()),
        Some(asks) => output::line(&format!(
            "an expiry of {} asks first; to let it go on: stele deletion confirm {}",
            output::size(asks.bytes),
            asks.hash
        )),
    }
}

fn frozen_text(frozen: Option<&Frozen>) -> String {
    frozen.map_or_else(
        || "deletion is not frozen".to_owned(),
        |frozen| {
            let (since, reason) = (rfc3339(frozen.since_us), output::escape(&frozen.reason));
            format!("deletion is FROZEN since {since}: {reason} (`stele deletion resume`)")
        },
    )
}

fn sweep_text(plan: &SweepPlan) -> String {
    if let Some(refused) = &plan.refused {
        return format!("a sweep would delete nothing: {refused}");
    }
    let kinds = [
        ("accepted objects that were absorbed", plan.l0),
        ("superseded files", plan.files),
        ("ledger objects", plan.ledger),
        ("log entries and checkpoints", plan.log),
        ("heads", plan.heads),
        ("markers of keys", plan.markers),
        ("dropped snapshots", plan.pins),
    ];
    let mut text = "a sweep would delete now:".to_owned();
    for (name, planned) in kinds.into_iter().filter(|(_, planned)| planned.objects > 0) {
        let size = output::size(planned.bytes);
        text.push_str(&format!("\n  {:>8} {name} ({size})", planned.objects));
    }
    if plan.kept.behind.is_empty() {
        return text;
    }
    text + &format!(
        "\nnot all that it could, until these tiers have caught up: {}",
        plan.kept.behind.join(", ")
    )
}
