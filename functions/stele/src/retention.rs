//! How long each resolution is kept: the command, the admin route, and what ingest must know of it.

use std::process::ExitCode;

use serde_json::{Value, json};
use stele_model::time::rfc3339;
use stele_runtime::Config;
use stele_table::{Kept, Retention, RetentionInForce, retention, set_retention};

use crate::cli::{RetentionArgs, RetentionDays};
use crate::commands::client;
use crate::output;
use crate::stores::to_write;

/// Days of each resolution, as the admin route and `--json` show them; null is for ever.
pub fn shown(in_force: &RetentionInForce) -> Value {
    let Retention {
        raw_days,
        s60_days,
        m15_days,
        m60_days,
    } = in_force.retention;
    let since = (in_force.since_us > 0).then(|| rfc3339(in_force.since_us));
    json!({
        "raw_days": raw_days,
        "s60_days": s60_days,
        "m15_days": m15_days,
        "m60_days": m60_days,
        "since": since,
    })
}

/// Runs the command.
pub async fn run(args: RetentionArgs, config: Config) -> anyhow::Result<ExitCode> {
    let days = args.days;
    let is_asking = days.is_empty();
    let answer = if args.target.store.is_some() {
        let node = to_write(&args.target, &config).await?;
        let now = retention(&node.store).await?;
        if !is_asking {
            set_retention(&node.store, changed(now.retention, &days)).await?;
        }
        shown(&retention(&node.store).await?)
    } else {
        let client = client(&args.target, &config);
        let now = client.get("/admin/retention").await?;
        if is_asking {
            now
        } else {
            let mut now = now;
            if let Some(fields) = now.as_object_mut() {
                fields.remove("since");
            }
            let wanted = changed(serde_json::from_value(now)?, &days);
            client
                .post("/admin/retention", &serde_json::to_value(wanted)?)
                .await?
        }
    };
    if args.json {
        output::json(&answer)?;
        return Ok(ExitCode::SUCCESS);
    }
    let kept = |name: &str| {
        let days = answer.get(name).and_then(Value::as_u64);
        Kept(days.and_then(|days| u32::try_from(days).ok()))
    };
    output::line(&format!(
        "raw samples  {}\n60 s         {}\n15 min       {}\n60 min       {}",
        kept("raw_days"),
        kept("s60_days"),
        kept("m15_days"),
        kept("m60_days"),
    ))?;
    if !is_asking {
        output::line("nothing expires by this within the next hour")?;
    }
    Ok(ExitCode::SUCCESS)
}

fn changed(now: Retention, days: &RetentionDays) -> Retention {
    let or = |asked: Option<Kept>, now: Option<u32>| asked.map_or(now, |kept| kept.0);
    Retention {
        raw_days: or(days.raw, now.raw_days),
        s60_days: or(days.s60, now.s60_days),
        m15_days: or(days.m15, now.m15_days),
        m60_days: or(days.m60, now.m60_days),
    }
}
