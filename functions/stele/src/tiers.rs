//! `stele tier`: the stores that hold the same data.

use std::process::ExitCode;
use std::time::Duration;

use serde_json::{Map, Value, json};
use stele_model::{Clock, Ids, TierId};
use stele_protect::{CopyProgress, Migration, Step};
use stele_runtime::{Config, RandomIds, SystemClock};
use stele_store::{OpenTier, Role, TierSet, TierState, WritePolicy};

use crate::cli::{PolicyArg, RoleArg, TierAction, TierArgs, TierInit};
use crate::commands::bar;
use crate::{output, settings, stores};

/// Runs the command, on the stores themselves; servers may run on them meanwhile.
///
/// # Errors
/// What the step cannot do, and why.
pub async fn run(args: TierArgs, config: Config) -> anyhow::Result<ExitCode> {
    let url = settings::existing_store(args.store.as_deref(), &config)?;
    let rate = match &args.action {
        TierAction::Sync { rate } => *rate,
        _ => None,
    };
    let bytes_per_second = rate.map(|mib| u64::from(mib) << 20);
    let tiers = stele_node::open_tiers(&url, &config)?;
    let options = stele_node::compact_options(&config);
    let work = stele_node::migration(tiers, &options, bytes_per_second);
    let is_json = args.json;
    match args.action {
        TierAction::Init(new) => init(&url, new, &config, is_json).await?,
        TierAction::List => list(&work, &config, is_json).await?,
        TierAction::Add { name, url, role } => {
            let role = match role {
                RoleArg::Mirror => Role::Mirror,
                RoleArg::Backup => Role::Backup,
            };
            // Opened first: a directory is made, and gets its absolute path.
            let tier = stele_store::Tier::open(&url, &config.aws)?;
            let id = RandomIds.operation_id();
            tier.probe(SystemClock.now_us(), &id).await?;
            let url = stores::absolute(&url)?;
            let set = wait(async || work.add(name.clone(), &url, role).await).await?;
            told(
                &set,
                &format!("tier {name} joins: `stele tier sync` copies the history"),
                is_json,
            )?;
        }
        TierAction::Policy { policy } => {
            let policy = match policy {
                PolicyArg::All => WritePolicy::All,
                PolicyArg::Primary => WritePolicy::Primary,
            };
            let set = wait(async || work.set_policy(policy).await).await?;
            told(&set, "the write policy is published", is_json)?;
        }
        TierAction::Sync { .. } => return sync(&work, is_json).await,
        TierAction::Verify { name } => return verify(&work, name.as_ref(), is_json).await,
        TierAction::Promote { name, force } => promote(&work, &name, force, is_json).await?,
        TierAction::Drain { name } => {
            let set = wait(async || work.drain(&name).await).await?;
            told(&set, &format!("tier {name} gets no more batches"), is_json)?;
        }
        TierAction::Retire { name, plan } => retire(&work, &name, plan, is_json).await?,
    }
    Ok(ExitCode::SUCCESS)
}

/// Takes a step, as soon as nobody acts on the set before any more.
async fn wait<T>(
    step: impl AsyncFn() -> Result<Step<T>, stele_protect::MigrateError>,
) -> anyhow::Result<T> {
    loop {
        match step().await? {
            Step::Done(done) => return Ok(done),
            Step::Wait { us } => {
                let wait = Duration::from_micros(us.unsigned_abs());
                eprintln!(
                    "waiting {:.1} s until no process acts on the tier set before this one",
                    wait.as_secs_f64()
                );
                tokio::time::sleep(wait).await;
            }
        }
    }
}

fn told(set: &TierSet, text: &str, is_json: bool) -> anyhow::Result<()> {
    match is_json {
        true => output::json(set),
        false => output::line(&format!("epoch {}: {text}", set.epoch)),
    }
}

async fn init(url: &str, new: TierInit, config: &Config, is_json: bool) -> anyhow::Result<()> {
    let ms = |us: i64| us.unsigned_abs() / 1000;
    let mut first = TierSet::first(new.name, &stores::absolute(url)?);
    first.lease_ms = ms(new.lease);
    first.request_ms = ms(new.request);
    first.is_quiet = new.nobody_writes;
    let tier = stele_store::Tier::open(url, &config.aws)?;
    stele_protect::init(&tier, &first).await?;
    let text = "this store is the first tier, and the primary";
    told(&first, text, is_json)
}

async fn list(work: &Migration, config: &Config, is_json: bool) -> anyhow::Result<()> {
    let current = work.tiers().fetch().await?;
    let Some(set) = &current.set else {
        return match is_json {
            true => output::json(&Value::Null),
            false => output::line("there is no tier set: `stele tier init` makes one"),
        };
    };
    let tenant = settings::tenant(None, config)?;
    let mut rows = Vec::new();
    for member in &set.members {
        let mut row = Map::new();
        let mut put = |name: &str, value: Value| row.insert(name.to_owned(), value);
        put("tier", json!(member.id));
        put("state", json!(member.state.as_str()));
        put("role", json!(member.role));
        put("store", json!(member.url));
        let mut members = current.members.iter();
        let open = members.find(|open| open.member.id == member.id);
        let trouble = open.and_then(|open| open.trouble.as_ref());
        let lag = match (member.state, trouble) {
            (TierState::Joining | TierState::Mirror, None) => {
                Some(work.lag(&member.id, &tenant).await)
            }
            _ => None,
        };
        let lag = lag.transpose();
        let known = lag.as_ref().ok().and_then(Option::as_ref);
        put("versions_behind", json!(known.map(|lag| lag.versions)));
        put("objects_missing", json!(known.map(|lag| lag.objects)));
        put("repairs_open", json!(known.map(|lag| lag.intents)));
        let failed = lag
            .as_ref()
            .err()
            .map(|error| stele_model::chain(error).to_string());
        let trouble = trouble.map(ToString::to_string).or(failed);
        put("trouble", json!(trouble));
        rows.push(row);
    }
    if is_json {
        return output::json(&json!({"epoch": set.epoch, "policy": set.policy, "tiers": rows}));
    }
    output::line(&format!(
        "epoch {}, write policy {}",
        set.epoch,
        policy(set.policy)
    ))?;
    output::write(output::table(&rows).as_bytes())
}

fn policy(policy: WritePolicy) -> &'static str {
    match policy {
        WritePolicy::All => "all",
        WritePolicy::Primary => "primary",
    }
}

async fn sync(work: &Migration, is_json: bool) -> anyhow::Result<ExitCode> {
    let bar = bar("objects");
    let tell = |_: &TierId, progress: CopyProgress| {
        bar.set_length(progress.objects_total);
        bar.set_position(progress.objects);
    };
    let mut report = work.sync(&tell).await?;
    // Who joins is copied once more when every batch of the days before has come to its end.
    while report.is_whole() && report.tiers.iter().any(|t| t.state == TierState::Joining) {
        bar.set_message("waiting to join");
        tokio::time::sleep(Duration::from_millis(500)).await;
        report = work.sync(&tell).await?;
    }
    bar.finish_and_clear();
    if is_json {
        let tiers = report.tiers.iter().map(|tier| {
            json!({
                "tier": tier.id, "state": tier.state.as_str(), "copied": tier.copied,
                "copied_bytes": tier.copied_bytes, "returned": tier.returned,
                "healed": tier.healed,
                "repaired": tier.repaired, "failed": tier.failed,
            })
        });
        let tiers: Vec<Value> = tiers.collect();
        output::json(&json!({"epoch": report.epoch, "fenced": report.fenced, "tiers": tiers}))?;
    } else {
        for tier in &report.tiers {
            let done = format!(
                "tier {} ({}): {} objects copied ({}), {} accepted ones brought to the primary, \
                 {} lost ones brought back",
                tier.id,
                tier.state.as_str(),
                tier.copied,
                output::size(tier.copied_bytes),
                tier.returned,
                tier.healed
            );
            let failed = tier.failed.as_ref();
            let failed = failed.map(|why| format!("\n  NOT whole: {}", output::escape(why)));
            output::line(&(done + &failed.unwrap_or_default()))?;
        }
        if report.tiers.is_empty() {
            output::line("there is no other tier")?;
        }
    }
    Ok(code(report.is_whole()))
}

fn code(is_well: bool) -> ExitCode {
    match is_well {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    }
}

async fn verify(
    work: &Migration,
    name: Option<&TierId>,
    is_json: bool,
) -> anyhow::Result<ExitCode> {
    let current = work.tiers().fetch().await?;
    let is_asked = |open: &&OpenTier| match name {
        Some(name) => open.member.id == *name,
        None => open.member.is_active() && open.member.state != TierState::Primary,
    };
    if let (Some(name), Some(set)) = (name, &current.set) {
        set.member(name)?;
    }
    let mut rows = Vec::new();
    let mut is_equal = true;
    for open in current.members.iter().filter(is_asked) {
        let missing = work.compare(&open.member.id).await?;
        is_equal &= missing.total == 0;
        if !is_json {
            let text = match missing.total {
                0 => "equal to the primary".to_owned(),
                _ => format!("NOT equal to the primary: {missing}"),
            };
            output::line(&format!(
                "tier {}: {}",
                open.member.id,
                output::escape(&text)
            ))?;
        }
        rows.push(json!({
            "tier": open.member.id, "unequal": missing.total, "examples": missing.examples,
        }));
    }
    if is_json {
        output::json(&json!({"equal": is_equal, "tiers": rows}))?;
    }
    Ok(code(is_equal))
}

async fn promote(
    work: &Migration,
    name: &TierId,
    is_forced: bool,
    is_json: bool,
) -> anyhow::Result<()> {
    let bar = bar("objects");
    let tell = |progress: CopyProgress| {
        bar.set_length(progress.objects_total);
        bar.set_position(progress.objects);
    };
    let promoted = wait(async || match is_forced {
        true => work.promote_forced(name).await,
        false => work.promote(name, &tell).await,
    });
    let promoted = promoted.await?;
    bar.finish_and_clear();
    told(
        &promoted.set,
        &format!("tier {name} is the primary"),
        is_json,
    )
}

async fn retire(
    work: &Migration,
    name: &TierId,
    plan: Option<String>,
    is_json: bool,
) -> anyhow::Result<()> {
    let Some(hash) = plan else {
        let plan = wait(async || work.retire_plan(name).await).await?;
        if is_json {
            return output::json(&plan);
        }
        return output::line(&format!(
            "tier {} holds all of tier {name}: {} objects ({}) of {} tenants have equal digests\n\
             nothing was retired; to retire it:\n  stele tier retire {name} --plan {}",
            plan.survivor,
            plan.objects,
            output::size(plan.bytes),
            plan.tenants,
            plan.hash
        ));
    };
    let hash = hash.parse().map_err(|_| {
        anyhow::anyhow!(
            "--plan {hash:?} is no hash: 32 hex digits, as the command without it prints"
        )
    })?;
    let set = wait(async || work.retire(name, hash).await).await?;
    let text = format!("tier {name} is retired: nothing reads or writes its store any more");
    told(&set, &text, is_json)
}
