//! `stele snapshot restore --in-place`.

use std::time::Duration;

use serde_json::json;
use stele_compact::SWEEP_US_MAX;
use stele_model::time::{MINUTE_US, rfc3339};
use stele_node::Node;
use stele_protect::{InPlace, InPlacePlan, abandon_in_place, in_place_plan, restore_in_place};
use stele_runtime::RandomIds;

use crate::cli::SnapshotRestore;
use crate::output;

/// Batches that are named as lost.
const SHOWN: usize = 20;

/// Without the plan's hash it says what would become of the table; with it, puts it back.
/// Interrupted, the same command goes on.
///
/// # Errors
/// The table's and the store's; a plan that is not the one of now.
pub async fn run(node: &Node, to: SnapshotRestore, is_json: bool) -> anyhow::Result<()> {
    if to.abandon {
        abandon_in_place(&node.log, &to.name, node.clock.as_ref(), &RandomIds).await?;
        return told(
            &format!("snapshot {} is not restored; deletion goes on", to.name),
            is_json,
        );
    }
    let Some(hash) = to.plan else {
        return show(&in_place_plan(&node.log, &to.name).await?, is_json);
    };
    let hash = hash.parse().map_err(|_| {
        anyhow::anyhow!(
            "--plan {hash:?} is no hash: 32 hex digits, as the command without it prints"
        )
    })?;
    let wait_us = SWEEP_US_MAX + MINUTE_US;
    loop {
        let clock = node.clock.as_ref();
        let done = restore_in_place(&node.log, &to.name, hash, wait_us, clock, &RandomIds).await?;
        match done {
            InPlace::Restored { version } => {
                let text = format!("version {version} is snapshot {} again", to.name);
                return told(&text, is_json);
            }
            InPlace::Holding { until_us } => {
                let left_us = until_us.saturating_sub(clock.now_us()).max(1_000_000);
                eprintln!(
                    "deletion is held; a sweep that began before may run until {}",
                    rfc3339(until_us)
                );
                tokio::time::sleep(Duration::from_micros(left_us.unsigned_abs())).await;
            }
        }
    }
}

fn told(text: &str, is_json: bool) -> anyhow::Result<()> {
    match is_json {
        true => output::json(&json!({ "done": text })),
        false => output::line(text),
    }
}

fn show(plan: &InPlacePlan, is_json: bool) -> anyhow::Result<()> {
    let lost_rows: u64 = plan.lost.iter().map(|batch| batch.rows).sum();
    if is_json {
        let lost = plan.lost.iter().map(|batch| {
            json!({"batch": batch.batch.to_string(), "day": batch.day.period(), "rows": batch.rows})
        });
        let lost: Vec<_> = lost.collect();
        return output::json(&json!({
            "name": plan.name.as_str(),
            "version": plan.version,
            "newest": plan.newest,
            "samples_then": plan.then.samples.rows,
            "samples_now": plan.now.samples.rows,
            "windows_gone": plan.windows_gone.len(),
            "windows_back": plan.windows_back.len(),
            "windows_changed": plan.windows_changed.len(),
            "revoked_batches": plan.revoked_batches,
            "revoked_rows": plan.revoked_rows,
            "returning_batches": plan.returning_batches,
            "returning_rows": plan.returning_rows,
            "lost": lost,
            "plan": plan.hash.to_string(),
        }));
    }
    let mut text = format!(
        "version {} of the table would be version {} again, snapshot {}\n  \
         samples: {} now, {} then\n  windows: {} gone, {} back, {} changed\n  \
         {} batches ({} samples) came later; {} ({} samples) still exist and are absorbed again\n  \
         LOST: {} batches, {lost_rows} samples",
        plan.newest,
        plan.version,
        plan.name,
        plan.now.samples.rows,
        plan.then.samples.rows,
        plan.windows_gone.len(),
        plan.windows_back.len(),
        plan.windows_changed.len(),
        plan.revoked_batches,
        plan.revoked_rows,
        plan.returning_batches,
        plan.returning_rows,
        plan.lost.len(),
    );
    for batch in plan.lost.iter().take(SHOWN) {
        text.push_str(&format!(
            "\n    {} of {}: {} samples",
            batch.batch,
            batch.day.period(),
            batch.rows
        ));
    }
    if plan.lost.len() > SHOWN {
        text.push_str(&format!("\n    and {} more", plan.lost.len() - SHOWN));
    }
    output::line(&format!(
        "{text}\nnothing was changed; to do it, add --plan {}",
        plan.hash
    ))
}
