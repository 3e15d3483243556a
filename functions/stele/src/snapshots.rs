//! `stele snapshot` and `stele undelete`: versions that nothing deletes.

use std::process::ExitCode;

use anyhow::ensure;
use serde_json::{Map, Value, json};
use stele_compact::Budget;
use stele_model::time::rfc3339;
use stele_protect::snapshot::{self, Listed, NewSnapshot};
use stele_runtime::Config;
use stele_table::{AsOf, Content, Pin, PinName, PinState, Why};

use crate::cli::{SnapshotAction, SnapshotArgs, SnapshotCreate, UndeleteArgs};
use crate::commands::open;
use crate::node::Node;
use crate::output;

/// Runs `stele snapshot`, on the store itself; a server may run on it meanwhile.
pub async fn run(args: SnapshotArgs, config: Config) -> anyhow::Result<ExitCode> {
    let node = open(&args.target(), &config)?;
    match args.action {
        SnapshotAction::Create(new) => create(&node, new, args.json).await?,
        SnapshotAction::List => list(&node, args.json).await?,
        SnapshotAction::Show { name } => show(&node, &name, args.json).await?,
        SnapshotAction::Drop { name, plan } => drop(&node, &name, plan, args.json).await?,
    }
    Ok(ExitCode::SUCCESS)
}

/// Runs `stele undelete`.
pub async fn undelete(args: UndeleteArgs, config: Config) -> anyhow::Result<ExitCode> {
    let node = open(&args.target(), &config)?;
    snapshot::undelete(&node.log, &args.name).await?;
    match args.json {
        true => output::json(&json!({"name": args.name.as_str(), "state": "live"}))?,
        false => output::line(&format!("snapshot {} is back", args.name))?,
    }
    Ok(ExitCode::SUCCESS)
}

/// Absorbs what is there and pins the version that holds it.
pub async fn take(node: &Node, new: &NewSnapshot) -> anyhow::Result<Pin> {
    let absorbed = node.compactor.absorb(&Budget::default()).await?;
    ensure!(
        absorbed.damaged == 0 && !absorbed.stopped,
        "{} L0 objects cannot be read: a snapshot would not hold them; `stele verify` names them",
        absorbed.damaged
    );
    Ok(snapshot::create(&node.log, new, node.clock.as_ref()).await?)
}

async fn create(node: &Node, new: SnapshotCreate, is_json: bool) -> anyhow::Result<()> {
    let new = NewSnapshot {
        name: new.name,
        why: Why::Manual,
        note: new.note,
    };
    let pin = take(node, &new).await?;
    if is_json {
        return output::json(&shown(&pin));
    }
    output::line(&described(&pin))
}

async fn list(node: &Node, is_json: bool) -> anyhow::Result<()> {
    let listed = snapshot::list(&node.log).await?;
    let rows: Vec<Map<String, Value>> = listed.iter().map(row).collect();
    match is_json {
        true => output::json(&rows),
        false => output::write(output::table(&rows).as_bytes()),
    }
}

fn row(listed: &Listed) -> Map<String, Value> {
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
        ("why", json!(pin.map(|pin| pin.why.as_str()))),
        ("samples", json!(pin.map(|pin| pin.content.samples.rows))),
        ("note", json!(pin.map(|pin| pin.note.as_str()))),
    ];
    let pairs = pairs.into_iter();
    pairs.map(|(name, value)| (name.to_owned(), value)).collect()
}

async fn find(node: &Node, name: &PinName) -> anyhow::Result<Listed> {
    let listed = snapshot::list(&node.log).await?;
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
    let until_us = snapshot::drop_snapshot(&node.log, name, node.clock.as_ref()).await?;
    let until = rfc3339(until_us);
    match is_json {
        true => output::json(&json!({"name": name.as_str(), "state": "dropped", "until": until})),
        false => output::line(&format!(
            "snapshot {name} is dropped; until {until} `stele undelete {name}` brings it back"
        )),
    }
}

fn shown(pin: &Pin) -> Value {
    let content: Map<String, Value> = resolutions(&pin.content)
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
        })
        .collect();
    json!({
        "name": pin.name.as_str(),
        "version": pin.version,
        "taken": rfc3339(pin.taken_us),
        "why": pin.why.as_str(),
        "note": pin.note,
        "content": content,
    })
}

fn described(pin: &Pin) -> String {
    let mut text = format!(
        "snapshot {} of version {}, taken {}",
        pin.name,
        pin.version,
        rfc3339(pin.taken_us)
    );
    if !pin.note.is_empty() {
        text.push_str(&format!(": {}", output::escape(&pin.note)));
    }
    for (resolution, sums) in resolutions(&pin.content) {
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

fn resolutions(content: &Content) -> impl Iterator<Item = (&'static str, stele_table::Sums)> {
    content.by_resolution().into_iter()
}
