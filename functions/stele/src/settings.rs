//! What a run of the program uses: flags over `STELE_*` variables over defaults.

use std::path::Path;
use std::time::Duration;

use anyhow::Context;
use stele_compact::{Budget, Options};
use stele_ingest::QuotaOptions;
use stele_model::TenantId;
use stele_protect::Ladder;
use stele_query::QueryConfig;
use stele_runtime::Config;

/// Each is read whenever a snapshot may be due, and by every sweep of a new process.
const SNAPSHOTS_MAX: u32 = 1_000;

/// The address when neither flag nor variable names one.
pub const LISTEN: &str = "127.0.0.1:8686";
/// The store when neither flag nor variable names one.
pub const STORE: &str = "./stele-data";

/// The tenant named by flag or variable.
///
/// # Errors
/// A name that is no tenant.
pub fn tenant(flag: Option<&str>, config: &Config) -> anyhow::Result<TenantId> {
    match flag {
        Some(name) => Ok(name.parse()?),
        None => Ok(config.tenant.clone().unwrap_or_default()),
    }
}

/// The store named by flag or variable, as a URL or a path.
pub fn store(flag: Option<&str>, config: &Config) -> String {
    flag.or(config.store.as_deref()).unwrap_or(STORE).to_owned()
}

/// The store a command reads; a directory that does not exist is a mistake, not a new store.
///
/// # Errors
/// `memory://`, and a directory that is not there.
pub fn existing_store(flag: Option<&str>, config: &Config) -> anyhow::Result<String> {
    let store = store(flag, config);
    anyhow::ensure!(
        !store.starts_with("memory:"),
        "{store}: a store in memory lives inside `stele serve` only"
    );
    let path = store.strip_prefix("file://").unwrap_or(&store);
    anyhow::ensure!(
        path.contains("://") || Path::new(path).is_dir(),
        "there is no store at {store}"
    );
    Ok(store)
}

/// Which scheduled snapshots are kept: `None` for none at all.
pub fn ladder(flag: Option<&str>, config: &Config) -> anyhow::Result<Option<Ladder>> {
    let text = match flag.or(config.snapshots.as_deref()) {
        None | Some("off") => return Ok(None),
        Some("on") => return Ok(Some(Ladder::default())),
        Some(text) => text,
    };
    let mut ladder = Ladder {
        hourly: 0,
        daily: 0,
        weekly: 0,
        monthly: 0,
    };
    for part in text.split(',') {
        let (rung, kept) = part.split_once('=').unwrap_or((part, ""));
        let place = match rung.trim() {
            "hourly" => &mut ladder.hourly,
            "daily" => &mut ladder.daily,
            "weekly" => &mut ladder.weekly,
            "monthly" => &mut ladder.monthly,
            _ => anyhow::bail!(
                "{text:?}: {part:?} is none of hourly=N, daily=N, weekly=N and monthly=N"
            ),
        };
        *place = kept
            .trim()
            .parse()
            .with_context(|| format!("{text:?}: {part:?} says no number of snapshots to keep"))?;
        anyhow::ensure!(
            *place <= SNAPSHOTS_MAX,
            "{text:?}: {part:?} is over {SNAPSHOTS_MAX}, the most of a kind"
        );
    }
    Ok(Some(ladder))
}

/// The compactor's choices.
pub fn compact_options(config: &Config, seal_delay_us: Option<i64>, no_sketch: bool) -> Options {
    let default = Options::default();
    Options {
        seal_delay_us: seal_delay_us
            .or(config.seal_delay_us)
            .unwrap_or(default.seal_delay_us),
        sketch: !no_sketch && config.sketch.unwrap_or(true),
        sweep_grace_us: config.sweep_grace_us.unwrap_or(default.sweep_grace_us),
        history_us: config.history_us.unwrap_or(default.history_us),
        ..default
    }
}

/// Checks rules between settings.
///
/// # Errors
/// A sweep grace shorter than two queries, or a history shorter than the grace: a running query
/// could lose its files.
pub fn check(options: &Options, config: &Config) -> anyhow::Result<()> {
    let deadline = config.budgets.query_deadline_us;
    let secs = |us: i64| us / stele_model::time::SECOND_US;
    anyhow::ensure!(
        options.sweep_grace_us >= 2 * deadline,
        "the sweep grace of {} s is under twice the query deadline of {} s",
        secs(options.sweep_grace_us),
        secs(deadline),
    );
    anyhow::ensure!(
        options.history_us >= options.sweep_grace_us,
        "the history of {} s is under the sweep grace of {} s",
        secs(options.history_us),
        secs(options.sweep_grace_us),
    );
    Ok(())
}

/// What one compaction job may hold.
pub fn budget(config: &Config) -> Budget {
    Budget {
        memory_bytes: config.budgets.compact_memory_bytes,
        ..Budget::unlimited()
    }
}

/// What each tenant may send.
pub fn quotas(config: &Config) -> QuotaOptions {
    QuotaOptions {
        samples_per_sec: config.quota_samples_per_sec,
        series_active_max: config.quota_series,
        ..QuotaOptions::default()
    }
}

/// How queries are bounded.
///
/// # Errors
/// A memory pool that this machine cannot address.
pub fn query_config(config: &Config, sketch: bool) -> anyhow::Result<QueryConfig> {
    let budgets = config.budgets;
    Ok(QueryConfig {
        deadline: Duration::from_micros(budgets.query_deadline_us.unsigned_abs()),
        memory_pool_bytes: usize::try_from(budgets.query_memory_bytes)
            .context("STELE_QUERY_MEMORY_BYTES is more than this machine can address")?,
        sketch,
        ..QueryConfig::default()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Option<[u32; 4]>, String> {
        let read = ladder(Some(text), &Config::default());
        let kept = |ladder: Ladder| ladder.rungs().map(|(_, kept)| kept);
        read.map(|ladder| ladder.map(kept))
            .map_err(|e| format!("{e:#}"))
    }

    #[test]
    fn a_ladder_names_its_rungs() {
        assert_eq!(read("off"), Ok(None));
        assert_eq!(read("on"), Ok(Some([24, 7, 5, 12])));
        assert_eq!(read("daily=30, hourly=3"), Ok(Some([3, 30, 0, 0])));
        for (text, said) in [
            ("yearly=1", "\"yearly=1\" is none of hourly=N"),
            ("daily", "\"daily\" says no number"),
            ("daily=-1", "\"daily=-1\" says no number"),
            ("hourly=1001", "\"hourly=1001\" is over 1000"),
            ("", "is none of"),
        ] {
            let error = read(text).expect_err(text);
            assert!(error.contains(said), "{error}");
        }
    }
}
