//! From the configuration to what the parts take; what is not said has the parts' own defaults.

use stele_compact::{Budget, Options};
use stele_ingest::QuotaOptions;
use stele_model::time::SECOND_US;
use stele_protect::Ladder;
use stele_runtime::Config;

use crate::error::{Error, Result};

/// Each is read whenever a snapshot may be due, and by every sweep of a new process.
const SNAPSHOTS_MAX: u32 = 1_000;

/// The compactor's choices.
#[must_use]
pub fn compact_options(config: &Config) -> Options {
    let default = Options::default();
    Options {
        seal_delay_us: config.seal_delay_us.unwrap_or(default.seal_delay_us),
        sketch: config.sketch.unwrap_or(default.sketch),
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
pub fn check(options: &Options, config: &Config) -> Result<()> {
    let deadline_us = config.budgets.query_deadline_us;
    let secs = |us: i64| us / SECOND_US;
    let grace_secs = secs(options.sweep_grace_us);
    if options.sweep_grace_us < 2 * deadline_us {
        return Err(Error::Grace {
            grace_secs,
            deadline_secs: secs(deadline_us),
        });
    }
    if options.history_us < options.sweep_grace_us {
        return Err(Error::History {
            history_secs: secs(options.history_us),
            grace_secs,
        });
    }
    Ok(())
}

/// What one compaction job may hold.
#[must_use]
pub fn budget(config: &Config) -> Budget {
    Budget {
        memory_bytes: config.budgets.compact_memory_bytes,
        ..Budget::unlimited()
    }
}

/// What each tenant may send.
#[must_use]
pub fn quotas(config: &Config) -> QuotaOptions {
    QuotaOptions {
        samples_per_sec: config.quota_samples_per_sec,
        series_active_max: config.quota_series,
        ..QuotaOptions::default()
    }
}

/// Which scheduled snapshots are kept: `None` for none at all. `text` is `on`, `off` or a list such
/// as `hourly=24,daily=7`; no text is `off`.
///
/// # Errors
/// Any other text.
pub fn ladder(text: Option<&str>) -> Result<Option<Ladder>> {
    let text = match text {
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
        let named = || (text.to_owned(), part.to_owned());
        let (rung, kept) = part.split_once('=').unwrap_or((part, ""));
        let place = match rung.trim() {
            "hourly" => &mut ladder.hourly,
            "daily" => &mut ladder.daily,
            "weekly" => &mut ladder.weekly,
            "monthly" => &mut ladder.monthly,
            _ => {
                let (text, part) = named();
                return Err(Error::Rung { text, part });
            }
        };
        *place = kept.trim().parse().map_err(|source| {
            let (text, part) = named();
            Error::Kept { text, part, source }
        })?;
        if *place > SNAPSHOTS_MAX {
            let (text, part) = named();
            let max = SNAPSHOTS_MAX;
            return Err(Error::TooMany { text, part, max });
        }
    }
    Ok(Some(ladder))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> std::result::Result<Option<[u32; 4]>, String> {
        let kept = |ladder: Ladder| ladder.rungs().map(|(_, kept)| kept);
        let read = ladder(Some(text));
        read.map(|ladder| ladder.map(kept))
            .map_err(|e| e.to_string())
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

    #[test]
    fn a_query_may_not_lose_what_it_reads() {
        let config = Config::default();
        let whole = compact_options(&config);
        assert!(check(&whole, &config).is_ok());
        let grace = Options {
            sweep_grace_us: 2 * config.budgets.query_deadline_us - 1,
            ..whole.clone()
        };
        assert!(matches!(check(&grace, &config), Err(Error::Grace { .. })));
        let history = Options {
            history_us: whole.sweep_grace_us - 1,
            ..whole
        };
        assert!(matches!(
            check(&history, &config),
            Err(Error::History { .. })
        ));
    }
}
