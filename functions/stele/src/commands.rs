//! The operator's commands. Each works through a running server (`--url`) or on the store itself
//! (`--store`); both are correct while servers run, because every job and every read is.

use std::io::Read;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use futures::StreamExt;
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::{Map, Value, json};
use stele_compact::{Progress, SettleReport, Stage};
use stele_model::chain;
use stele_model::time::rfc3339;
use stele_node::Node;
use stele_protect::{VerifyReport, record_losses};
use stele_query::{QueryEngine, QueryStream, output as encoding};
use stele_runtime::Config;
use stele_store::Tier;
use stele_table::{LossesChanged, rollups_paused, set_rollups_paused};

use crate::cli::{
    Format, RollupsAction, RollupsArgs, SettleArgs, SqlArgs, StatusArgs, Target, VerifyArgs,
};
use crate::client::Client;
use crate::stores::{to_read, to_write};
use crate::{output, settings};

/// The server that `target` names, or the environment's.
pub fn url(target: &Target, config: &Config) -> String {
    match (&target.url, &config.url) {
        (None, Some(url)) => url.trim_end_matches('/').to_owned(),
        _ => target.url().to_owned(),
    }
}

/// A client of the server that `target` or the environment names.
pub fn client(target: &Target, config: &Config) -> Client {
    Client::new(url(target, config), config.token.clone())
}

/// `stele sql`.
pub async fn sql(args: SqlArgs, config: Config) -> anyhow::Result<ExitCode> {
    let mut query = args.query;
    if query == "-" {
        query.clear();
        std::io::stdin()
            .read_to_string(&mut query)
            .context("reading the query")?;
    }
    let person = output::is_terminal() && !args.json;
    let form = args
        .format
        .unwrap_or(if person { Format::Table } else { Format::Json });
    let wire = match form {
        Format::Table | Format::Ndjson => "ndjson",
        Format::Json => "json",
        Format::Csv => "csv",
        Format::Arrow => "arrow",
    };
    let mut held = Vec::new();
    let mut last = 0;
    let mut piece = |bytes: &[u8]| {
        last = bytes.last().copied().unwrap_or(last);
        if form == Format::Table {
            held.extend_from_slice(bytes);
            return Ok(());
        }
        output::write(bytes)
    };
    let as_of = args.as_of.as_ref();
    let coverage = if args.target.store.is_some() {
        let node = to_read(&args.target, &config)?;
        let engine = engine(&node, &config)?;
        let answer = match args.coverage {
            true => engine.query_covered(&node.log, &query, as_of).await?,
            false => engine.query_as_of(&node.log, &query, as_of).await?,
        };
        let coverage = answer.coverage().map(ToString::to_string);
        print(answer, wire, &mut piece).await?;
        coverage
    } else {
        let client = client(&args.target, &config);
        client
            .sql(query, wire, as_of, args.coverage, &mut piece)
            .await?
    };
    if form == Format::Table {
        let rows = serde_json::Deserializer::from_slice(&held).into_iter();
        let rows: Vec<Map<String, Value>> = rows.collect::<Result<_, _>>()?;
        output::write(output::table(&rows).as_bytes())?;
    } else if form == Format::Json && last != b'\n' {
        output::line("")?;
    }
    if args.coverage {
        let coverage = coverage.context("the server did not say what is lost: it is older")?;
        eprintln!("coverage: {}", output::escape(&coverage));
    }
    Ok(ExitCode::SUCCESS)
}

fn engine(node: &Node, config: &Config) -> anyhow::Result<QueryEngine> {
    let sketch = config.sketch.unwrap_or(true);
    let limits = settings::query_config(config, sketch)?;
    Ok(QueryEngine::new(limits, Arc::clone(&node.clock))?)
}

async fn print(
    answer: QueryStream,
    format: &str,
    piece: &mut impl FnMut(&[u8]) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let format = encoding::Format::of_name(format)?;
    let mut body = encoding::encode(answer, format).await?;
    while let Some(bytes) = body.next().await {
        piece(&bytes?)?;
    }
    Ok(())
}

/// `stele settle`.
pub async fn settle(args: SettleArgs, config: Config) -> anyhow::Result<ExitCode> {
    let report: SettleReport = if args.target.store.is_some() {
        let node = to_write(&args.target, &config).await?;
        let bar = bar("");
        let show = |progress: Progress| {
            let stage = match progress.stage {
                Stage::Absorb => "absorb: objects",
                Stage::Seal => "seal: windows",
                Stage::Consolidate => "consolidate: files",
            };
            bar.set_message(stage);
            bar.set_length(progress.total);
            bar.set_position(progress.done);
        };
        let report = node
            .compactor
            .settle(&stele_node::budget(&config), &show)
            .await?;
        bar.finish_and_clear();
        report
    } else {
        let spinner = bar("the server is settling");
        let report = client(&args.target, &config)
            .post("/admin/settle", &Value::Null)
            .await?;
        spinner.finish_and_clear();
        serde_json::from_value(report)?
    };
    if args.json {
        output::json(&report)?;
    } else {
        output::line(&settled(&report))?;
    }
    Ok(if report.complete {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

fn settled(report: &SettleReport) -> String {
    let (absorb, seal) = (&report.absorb, &report.seal);
    let mut text = format!(
        "absorbed {} objects with {} batches ({} known before)\n\
         sealed {} windows ({} again) in {} commits, {} rollup rows\n\
         kept {} of {} samples read: {} duplicates, {} overridden\n\
         table version {}",
        absorb.objects,
        absorb.batches,
        absorb.batches_duplicate,
        seal.windows_sealed,
        seal.windows_resealed,
        seal.commits,
        seal.rollup_rows,
        absorb.rows_out,
        absorb.rows_in,
        absorb.duplicates,
        absorb.overridden,
        report.version,
    );
    let left = &report.left;
    if left.objects > 0 {
        text.push_str(&format!("\nleft: {} objects not absorbed", left.objects));
    }
    let mut windows = |count: u64, since_us: Option<i64>, why: &str| {
        if count > 0 {
            let since = since_us.map(rfc3339).unwrap_or_default();
            text.push_str(&format!("\nleft: {count} windows {why}, from {since}"));
        }
    };
    windows(
        left.windows_not_closed,
        left.not_closed_since_us,
        "not closed yet",
    );
    windows(
        left.windows_not_sealed,
        left.not_sealed_since_us,
        "closed and not sealed",
    );
    if left.paused {
        text.push_str("\nrollups are paused: nothing was sealed (`stele rollups resume`)");
    }
    text
}

/// `stele rollups`.
pub async fn rollups(args: RollupsArgs, config: Config) -> anyhow::Result<ExitCode> {
    let state = if args.target.store.is_some() {
        let node = to_write(&args.target, &config).await?;
        match args.action {
            RollupsAction::Pause => {
                set_rollups_paused(&node.store, true, node.clock.now_us()).await?
            }
            RollupsAction::Resume => {
                set_rollups_paused(&node.store, false, node.clock.now_us()).await?
            }
            RollupsAction::Status => {}
        }
        let paused = rollups_paused(&node.store).await?;
        json!({"rollups_paused": paused.is_some(), "since": paused.map(|p| rfc3339(p.since_us))})
    } else {
        let client = client(&args.target, &config);
        match args.action {
            RollupsAction::Pause => client.post("/admin/rollups/pause", &Value::Null).await?,
            RollupsAction::Resume => client.post("/admin/rollups/resume", &Value::Null).await?,
            RollupsAction::Status => client.get("/admin/rollups").await?,
        }
    };
    if args.json {
        output::json(&state)?;
    } else {
        let since = state
            .get("since")
            .and_then(Value::as_str)
            .map(|s| format!(" since {s}"));
        let paused = state
            .get("rollups_paused")
            .and_then(Value::as_bool)
            .unwrap_or_default();
        let word = if paused { "paused" } else { "running" };
        output::line(&format!("rollups are {word}{}", since.unwrap_or_default()))?;
    }
    Ok(ExitCode::SUCCESS)
}

/// `stele verify`.
pub async fn verify_store(args: VerifyArgs, config: Config) -> anyhow::Result<ExitCode> {
    let url = settings::existing_store(args.store.as_deref(), &config)?;
    let tier = Tier::open(&url, &config.aws)?;
    let tenants = match args.tenant.as_deref() {
        Some(name) => vec![name.parse()?],
        None => tier.tenants().await?,
    };
    anyhow::ensure!(!tenants.is_empty(), "{url} holds no tenant");
    let mut clean = true;
    let mut reports = Map::new();
    for tenant in tenants {
        let options = stele_node::compact_options(&config);
        let node = Node::as_is(&tier, &tenant, options);
        let bar = bar("");
        let show = |progress: stele_protect::Progress| {
            bar.set_message(match progress.stage {
                stele_protect::Stage::History => "log, heads and ledger",
                stele_protect::Stage::Files => "files and rollups",
                stele_protect::Stage::Objects => "L0 objects",
                stele_protect::Stage::Snapshots => "files of snapshots",
            });
            bar.set_length(progress.total);
            bar.set_position(progress.done);
        };
        let report = stele_protect::verify(&node.store, &node.log, &show).await;
        bar.finish_and_clear();
        clean &= report.is_clean();
        if !args.json {
            output::line(&format!("tenant {tenant}: {}", verified(&report)))?;
        }
        let mut told = serde_json::to_value(&report)?;
        if args.record {
            let recorded = record_losses(&node.log, &report, node.clock.now_us()).await;
            clean &= recorded.is_ok();
            let recorded = recorded.map_err(|error| chain(&error).to_string());
            if !args.json {
                output::line(&output::escape(&said(&recorded)))?;
            }
            let recorded = recorded.map_or_else(|error| json!({"error": error}), |r| json!(r));
            if let Some(told) = told.as_object_mut() {
                told.insert("recorded".to_owned(), recorded);
            }
        }
        reports.insert(tenant.to_string(), told);
    }
    let control = stele_protect::verify_control(&tier.control()).await;
    clean &= control.is_empty();
    if args.json {
        output::json(&json!({"clean": clean, "tenants": reports, "control": control}))?;
    } else {
        for finding in &control {
            output::line(&output::escape(&finding.to_string()))?;
        }
    }
    Ok(if clean {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

fn said(recorded: &Result<LossesChanged, String>) -> String {
    match recorded {
        Ok(LossesChanged {
            noted,
            withdrawn,
            losses,
        }) => format!("  losses on record: {losses}; new: {noted}; over: {withdrawn}"),
        Err(error) => format!("  what is lost was NOT recorded: {error}"),
    }
}

fn verified(report: &VerifyReport) -> String {
    let mut text = format!(
        "{}: version {}, {} log entries, {} heads, {} ledger rows, {} files ({}), {} L0 objects,\n\
         \x20 {} sample rows, {} rollup rows compared with their samples bit for bit",
        if report.is_clean() {
            "nothing wrong"
        } else {
            "DAMAGED"
        },
        report
            .version
            .map_or_else(|| "none".to_owned(), |v| v.to_string()),
        report.entries,
        report.heads,
        report.batches,
        report.files,
        output::size(report.files_bytes),
        report.objects,
        report.sample_rows,
        report.rollup_rows,
    );
    for finding in &report.findings {
        text.push_str(&format!("\n  {}", output::escape(&finding.to_string())));
    }
    let more = report.findings_total - report.findings.len() as u64;
    if more > 0 {
        text.push_str(&format!("\n  and {more} more"));
    }
    text
}

/// `stele status`.
pub async fn status(args: StatusArgs, config: Config) -> anyhow::Result<ExitCode> {
    let target = Target {
        url: args.url,
        store: None,
        tenant: None,
    };
    let status = client(&target, &config).get("/status").await?;
    if args.json {
        output::json(&status)?;
        return Ok(ExitCode::SUCCESS);
    }
    let text = |pointer: &str| match status.pointer(pointer) {
        None | Some(Value::Null) => "none".to_owned(),
        Some(Value::String(text)) => output::escape(text),
        Some(other) => other.to_string(),
    };
    let size = |name: &str| {
        let bytes = status
            .pointer(&format!("/storage/{name}_bytes"))
            .and_then(Value::as_u64);
        output::size(bytes.unwrap_or_default())
    };
    output::line(&format!(
        "store      {} (tenant {}, table version {})\n\
         backlog    {} objects, oldest waits {} s\n\
         windows    {} open, {} closed and not sealed, {} reopened\n\
         rollups    {}, {} s behind\n\
         storage    raw {}, rollups {}, open {}, l0 {}, ledger {}, log {}; waiting for sweep {}\n\
         failures   {} ({})",
        text("/store"),
        text("/tenant"),
        text("/table_version"),
        text("/backlog/l0_objects"),
        text("/backlog/oldest_unabsorbed_age_secs"),
        text("/windows/open"),
        text("/windows/not_sealed"),
        text("/windows/reopened"),
        if text("/rollups_paused") == "true" {
            "paused"
        } else {
            "running"
        },
        text("/lag_secs/60s"),
        size("raw"),
        size("rollup"),
        size("open"),
        size("l0"),
        size("ledger"),
        size("log"),
        size("superseded"),
        text("/jobs/failures"),
        text("/jobs/last_error"),
    ))?;
    Ok(ExitCode::SUCCESS)
}

/// A progress bar on standard error; silent when that is no terminal.
/// A bar of work with a known end.
pub fn bar(message: &'static str) -> ProgressBar {
    let bar = ProgressBar::new(0).with_message(message);
    let style = "{msg:<22} {wide_bar} {pos}/{len} {elapsed} eta {eta}";
    if let Ok(style) = ProgressStyle::with_template(style) {
        bar.set_style(style);
    }
    bar.enable_steady_tick(Duration::from_millis(200));
    bar
}
