//! `stele snapshot` and `stele undelete`: versions that nothing deletes.

use std::process::ExitCode;

use anyhow::ensure;
use serde_json::{Map, Value, json};
use stele_compact::Budget;
use stele_model::time::rfc3339;
use stele_node::Node;
use stele_protect::{
    CopyProgress, Drilled, Listed, NewSnapshot, Progress, RestorePlan, last_drills,
};
use stele_runtime::Config;
use stele_table::{AsOf, Content, Pin, PinName, PinState, Why};

use crate::cli::{SnapshotAction, SnapshotArgs, SnapshotCreate, SnapshotRestore, UndeleteArgs};
use crate::commands::bar;
use crate::stores::{node_as_is, to_read, to_write};
use crate::{in_place, output, settings};

/// Runs `stele snapshot`, on the store itself; a server may run on it meanwhile.
pub async fn run(args: SnapshotArgs, config: Config) -> anyhow::Result<ExitCode> {
    let target = args.on.target();
    let writes = match &args.action {
        SnapshotAction::Create(_) | SnapshotAction::Drop { .. } => true,
        SnapshotAction::Restore(to) => to.in_place,
        _ => false,
    };
    let node = match writes {
        true => to_write(&target, &config).await?,
        false => to_read(&target, &config)?,
    };
    match args.action {
        SnapshotAction::Create(new) => create(&node, new, args.on.json).await?,
        SnapshotAction::List => list(&node, args.on.json).await?,
        SnapshotAction::Show { name } => show(&node, &name, args.on.json).await?,
        SnapshotAction::Verify { name } => return verify(&node, &name, args.on.json).await,
        SnapshotAction::Drop { name, plan } => drop(&node, &name, plan, args.on.json).await?,
        SnapshotAction::Restore(to) if to.in_place => {
            in_place::run(&node, to, args.on.json).await?
        }
        SnapshotAction::Restore(to) => {
            restore(&node, args.on.store, to, args.on.json, &config).await?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Runs `stele undelete`.
pub async fn undelete(args: UndeleteArgs, config: Config) -> anyhow::Result<ExitCode> {
    let node = to_write(&args.on.target(), &config).await?;
    stele_protect::undelete(&node.log, &args.name).await?;
    match args.on.json {
        true => output::json(&json!({"name": args.name.as_str(), "state": "live"}))?,
        false => output::line(&format!("snapshot {} is back", args.name))?,
    }
    Ok(ExitCode::SUCCESS)
}

async fn create(node: &Node, new: SnapshotCreate, is_json: bool) -> anyhow::Result<()> {
    let new = NewSnapshot {
        name: new.name,
        why: Why::Manual,
        note: new.note,
    };
    node.absorb_all(&Budget::unlimited()).await?;
    let pin = stele_protect::create(&node.log, &new, node.clock.as_ref()).await?;
    if is_json {
        return output::json(&shown(&pin));
    }
    output::line(&described(&pin))
}

async fn list(node: &Node, is_json: bool) -> anyhow::Result<()> {
    let listed = stele_protect::list(&node.log).await?;
    let drills = last_drills(&node.store).await?;
    let now_us = node.clock.now_us();
    let rows = listed.iter().map(|listed| {
        let of = (listed.name.as_str().to_owned(), listed.digest);
        row(listed, drills.get(&of), now_us)
    });
    let rows: Vec<Map<String, Value>> = rows.collect();
    match is_json {
        true => output::json(&rows),
        false => output::write(output::table(&rows).as_bytes()),
    }
}

fn row(listed: &Listed, drilled: Option<&Drilled>, now_us: i64) -> Map<String, Value> {
    let pin = listed.pin.as_ref().ok();
    let state = match &listed.state {
        PinState::Dropped { until_us } => format!("dropped, until {}", rfc3339(*until_us)),
        _ if pin.is_none() => "damaged".to_owned(),
        PinState::Live => "live".to_owned(),
        _ => "over".to_owned(),
    };
    let pairs = [
        ("name", json!(listed.name.as_str())),
        ("state", json!(state)),
        ("version", json!(pin.map(|pin| pin.version))),
        ("taken", json!(pin.map(|pin| rfc3339(pin.taken_us)))),
        ("proven", json!(proven(drilled, now_us))),
        ("why", json!(pin.map(|pin| pin.why.as_str()))),
        ("samples", json!(pin.map(|pin| pin.content.samples.rows))),
        ("note", json!(pin.map(|pin| pin.note.as_str()))),
    ];
    let pairs = pairs.into_iter();
    pairs
        .map(|(name, value)| (name.to_owned(), value))
        .collect()
}

/// When it was last restored in a drill, if that was lately.
fn proven(drilled: Option<&Drilled>, now_us: i64) -> String {
    match drilled {
        Some(drilled) if drilled.proves(now_us) => rfc3339(drilled.at_us),
        Some(drilled) if !drilled.has_passed => format!("FAILED {}", rfc3339(drilled.at_us)),
        _ => "unproven".to_owned(),
    }
}

async fn find(node: &Node, name: &PinName) -> anyhow::Result<Listed> {
    let listed = stele_protect::list(&node.log).await?;
    let found = listed.into_iter().find(|listed| listed.name == *name);
    match found {
        Some(found) => Ok(found),
        None => Err(node.log.no_snapshot(name).await?.into()),
    }
}

/// What a snapshot says, after its version was loaded and compared with it.
async fn show(node: &Node, name: &PinName, is_json: bool) -> anyhow::Result<()> {
    let pin = find(node, name).await?.pin?;
    node.log.as_of(&AsOf::Pin(name.clone())).await?;
    match is_json {
        true => output::json(&shown(&pin)),
        false => output::line(&described(&pin)),
    }
}

/// Reads every object of the snapshot.
async fn verify(node: &Node, name: &PinName, is_json: bool) -> anyhow::Result<ExitCode> {
    let bar = bar("files");
    let tell = |progress: Progress| {
        bar.set_length(progress.total);
        bar.set_position(progress.done);
    };
    let report = stele_protect::verify_snapshot(&node.log, name, &tell).await?;
    bar.finish_and_clear();
    if is_json {
        output::json(&report)?;
    } else if report.is_clean() {
        output::line(&format!(
            "snapshot {name}: nothing wrong in {} files ({})",
            report.files,
            output::size(report.files_bytes)
        ))?;
    } else {
        output::line(&format!("snapshot {name}: DAMAGED"))?;
        for finding in &report.findings {
            output::line(&format!("  {}", output::escape(&finding.to_string())))?;
        }
    }
    Ok(match report.is_clean() {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    })
}

/// Without the plan's hash it says what would be copied; with it, copies. Interrupted, the same
/// command goes on.
async fn restore(
    node: &Node,
    from: Option<String>,
    to: SnapshotRestore,
    is_json: bool,
    config: &Config,
) -> anyhow::Result<()> {
    let url = settings::store(to.to_store.or(from).as_deref(), config);
    let tenant = to
        .to_tenant
        .unwrap_or_else(|| node.store.tenant().to_string());
    let tenant = settings::tenant(Some(&tenant), config)?;
    let target = node_as_is(&url, &tenant, config)?;
    let plan = stele_protect::restore_plan(&node.log, &to.name, &target.store).await?;
    let Some(hash) = to.plan else {
        return show_plan(&plan, &url, &tenant.to_string(), is_json);
    };
    let hash = hash.parse().map_err(|_| {
        anyhow::anyhow!(
            "--plan {hash:?} is no hash: 32 hex digits, as the command without it prints"
        )
    })?;
    let bar = bar("bytes");
    let tell = |progress: CopyProgress| {
        bar.set_length(progress.bytes_total);
        bar.set_position(progress.bytes);
    };
    let report = stele_protect::restore(&plan, hash, &node.store, &target.log, &tell).await?;
    bar.finish_and_clear();
    if is_json {
        return output::json(&json!({
            "version": report.version,
            "copied": report.copied,
            "copied_bytes": report.copied_bytes,
            "skipped": report.skipped,
        }));
    }
    output::line(&format!(
        "snapshot {} is tenant {tenant} of {url}: {} objects copied ({}), {} were there",
        plan.name,
        report.copied,
        output::size(report.copied_bytes),
        report.skipped
    ))
}

fn show_plan(plan: &RestorePlan, url: &str, tenant: &str, is_json: bool) -> anyhow::Result<()> {
    if is_json {
        return output::json(&json!({
            "name": plan.name.as_str(),
            "version": plan.version,
            "content": content(&plan.content),
            "objects": plan.objects,
            "bytes": plan.bytes,
            "to": {"store": url, "tenant": tenant},
            "plan": plan.hash.to_string(),
        }));
    }
    output::line(&format!(
        "snapshot {} of version {}{}\nto tenant {tenant} of {url}: {} objects, {}\n\
         nothing was copied; to copy them, add --plan {}",
        plan.name,
        plan.version,
        sums(&plan.content),
        plan.objects,
        output::size(plan.bytes),
        plan.hash
    ))
}

/// Without the plan's hash it says what would be dropped; with it, drops that very snapshot.
async fn drop(
    node: &Node,
    name: &PinName,
    plan: Option<String>,
    is_json: bool,
) -> anyhow::Result<()> {
    let found = find(node, name).await?;
    let hash = found.digest.to_string();
    let Some(plan) = plan else {
        if is_json {
            return output::json(&json!({"name": name.as_str(), "plan": hash}));
        }
        let what = found.pin.map_or_else(
            |damage| format!("snapshot {name} is damaged: {damage}"),
            |pin| described(&pin),
        );
        return output::line(&format!(
            "{what}\nnothing was dropped; to drop it:\n  stele snapshot drop {name} --plan {hash}"
        ));
    };
    ensure!(
        plan == hash,
        "--plan {plan} is not the plan for snapshot {name} as it is now, {hash}"
    );
    let until_us = stele_protect::drop_snapshot(&node.log, name, node.clock.as_ref()).await?;
    let until = rfc3339(until_us);
    match is_json {
        true => output::json(&json!({"name": name.as_str(), "state": "dropped", "until": until})),
        false => output::line(&format!(
            "snapshot {name} is dropped; until {until} `stele undelete {name}` brings it back"
        )),
    }
}

fn shown(pin: &Pin) -> Value {
    json!({
        "name": pin.name.as_str(),
        "version": pin.version,
        "taken": rfc3339(pin.taken_us),
        "why": pin.why.as_str(),
        "note": pin.note,
        "content": content(&pin.content),
    })
}

fn content(content: &Content) -> Map<String, Value> {
    let pairs = content
        .by_resolution()
        .into_iter()
        .map(|(resolution, sums)| {
            let value = json!({
                "rows": sums.rows,
                "hash": sums.hash.to_string(),
                "from": sums.ts_min_us.map(rfc3339),
                "to": sums.ts_max_us.map(rfc3339),
                "files": sums.files,
                "bytes": sums.bytes,
            });
            (resolution.to_owned(), value)
        });
    pairs.collect()
}

fn described(pin: &Pin) -> String {
    let note = match pin.note.as_str() {
        "" => String::new(),
        note => format!(": {}", output::escape(note)),
    };
    format!(
        "snapshot {} of version {}, taken {}{note}{}",
        pin.name,
        pin.version,
        rfc3339(pin.taken_us),
        sums(&pin.content)
    )
}

/// A line for each resolution.
fn sums(content: &Content) -> String {
    let mut text = String::new();
    for (resolution, sums) in content.by_resolution() {
        let span = match (sums.ts_min_us, sums.ts_max_us) {
            (Some(from), Some(to)) => format!(", {} to {}", rfc3339(from), rfc3339(to)),
            _ => String::new(),
        };
        text.push_str(&format!(
            "\n  {resolution:<8} {} rows in {} files, {}{span}",
            sums.rows,
            sums.files,
            output::size(sums.bytes)
        ));
    }
    text
}
