//! `stele token`: who may talk to a server that is not on loopback.

use std::process::ExitCode;

use stele_auth::{Listed, NewToken, TokenId};
use stele_model::Clock;
use stele_model::time::rfc3339;
use stele_runtime::{Config, OsEntropy, SystemClock};
use stele_store::ControlStore;

use crate::cli::{TokenAction, TokenArgs, TokenCreate};
use crate::{output, settings};

/// Runs the command, on the store itself: who can write there needs no token.
pub async fn run(args: TokenArgs, config: Config) -> anyhow::Result<ExitCode> {
    let store = settings::store(args.store.as_deref(), &config);
    anyhow::ensure!(
        !store.starts_with("memory:"),
        "{store}: tokens are kept in a store that outlives the command"
    );
    let current = stele_node::open_tiers(&store, &config)?.current().await?;
    let control = current.primary.control();
    match args.action {
        TokenAction::Create(new) => create(&control, new, args.json, &config).await?,
        TokenAction::List => list(&control, args.json).await?,
        TokenAction::Revoke { id } => revoke(&control, &id, args.json).await?,
    }
    Ok(ExitCode::SUCCESS)
}

async fn create(
    control: &ControlStore,
    new: TokenCreate,
    is_json: bool,
    config: &Config,
) -> anyhow::Result<()> {
    let new = NewToken {
        tenant: settings::tenant(new.tenant.as_deref(), config)?,
        scopes: new.scope.into_iter().collect(),
        note: new.note,
    };
    let now_us = SystemClock.now_us();
    let (text, record) = stele_auth::create(control, new, &OsEntropy, now_us).await?;
    if is_json {
        let id = record.id.to_string();
        let tenant = record.tenant.to_string();
        let scopes: Vec<&str> = record.scopes.iter().map(|scope| scope.as_str()).collect();
        return output::json(&serde_json::json!({
            "token": text.reveal(), "id": id, "tenant": tenant, "scopes": scopes,
        }));
    }
    // The text alone on standard output, so that a script can keep it.
    eprintln!(
        "token {} of tenant {}; its text is shown this once, the store keeps a hash:",
        record.id, record.tenant
    );
    output::line(text.reveal())
}

async fn list(control: &ControlStore, is_json: bool) -> anyhow::Result<()> {
    let listed = stele_auth::list(control).await?;
    if is_json {
        return output::json(&listed);
    }
    let rows: Vec<_> = listed.iter().map(row).collect();
    output::write(output::table(&rows).as_bytes())
}

fn row(listed: &Listed) -> serde_json::Map<String, serde_json::Value> {
    let record = listed.record.as_ref().ok();
    let scopes = record.map(|record| {
        let scopes = record.scopes.iter().map(|scope| scope.as_str());
        scopes.collect::<Vec<_>>().join(",")
    });
    let state = match (&listed.record, &listed.revoked) {
        (Err(_), _) => "damaged",
        (_, Some(_)) => "revoked",
        (Ok(_), None) => "active",
    };
    let pairs = [
        ("id", Some(listed.id.to_string())),
        ("tenant", record.map(|record| record.tenant.to_string())),
        ("scopes", scopes),
        ("state", Some(state.to_owned())),
        ("created", record.map(|record| rfc3339(record.created_us))),
        ("note", record.map(|record| record.note.clone())),
    ];
    let pairs = pairs.map(|(name, value)| (name.to_owned(), value.into()));
    pairs.into_iter().collect()
}

async fn revoke(control: &ControlStore, id: &str, is_json: bool) -> anyhow::Result<()> {
    let id: TokenId = id.parse()?;
    let revoked = stele_auth::revoke(control, &id, SystemClock.now_us()).await?;
    let since = rfc3339(revoked.revoked_us);
    if is_json {
        return output::json(&serde_json::json!({ "id": id.to_string(), "revoked": since }));
    }
    output::line(&format!(
        "token {id} is revoked since {since}; servers refuse it within 60 s"
    ))
}
