//! February 2012 again, with every mistake that was made then: a store is moved while samples keep
//! coming, rollups are paused for days, the old store is to be removed too early, it loses what is
//! most recent, and the new one is cut off meanwhile. At the end every acknowledged sample must be
//! readable exactly once at every resolution, and the history must have been readable throughout.

mod acts;
mod stage;

use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use serde_json::json;
use stele_model::Ids;
use stele_runtime::{Config, RandomIds};
use stele_store::Tier;

use super::check;
use super::report::{Entry, Timeline};
use crate::cli::FebruaryArgs;
use crate::output;

/// Steps of the drill, for its bar.
const STEPS: u64 = 18;

/// Runs the drill.
///
/// # Errors
/// When a store cannot be used.
pub async fn run(args: FebruaryArgs, is_json: bool, config: Config) -> anyhow::Result<ExitCode> {
    let stores = Stores::new(args.at.as_deref(), &config)?;
    let mut timeline = Timeline::new(STEPS, is_json);
    let outcome = stage::play(&stores, args.seed, &mut timeline).await;
    let secs = timeline.secs();
    let steps = timeline.finish();
    let is_passed = outcome.is_ok();
    match outcome {
        Ok(passed) if is_json => output::json(&passed.json(&steps, secs))?,
        Ok(passed) => output::line(&passed.text(secs))?,
        Err(error) if is_json => {
            let error = format!("{error:#}");
            let last = steps.last().map(|entry| entry.step);
            output::json(&json!({
                "passed": false, "error": error, "after": last, "secs": secs, "timeline": steps,
            }))?;
        }
        Err(error) => output::line(&format!(
            "FAILED: {}",
            output::escape(&format!("{error:#}"))
        ))?,
    }
    Ok(match is_passed {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    })
}

/// The stores of the drill: what it makes it leaves nothing of, in a directory.
struct Stores {
    old: String,
    new: String,
    scratch: tempfile::TempDir,
    aws: Vec<(String, String)>,
}

impl Stores {
    fn new(at: Option<&str>, config: &Config) -> anyhow::Result<Self> {
        let scratch = tempfile::tempdir().context("a directory for the drill")?;
        let dir = |name: &str| -> anyhow::Result<String> {
            let path = scratch.path().join(name);
            std::fs::create_dir_all(&path)?;
            crate::stores::absolute(&path.to_string_lossy())
        };
        let (old, new) = match at {
            None => (dir("old")?, dir("new")?),
            Some(at) => {
                let at = at.trim_end_matches('/');
                let run = &RandomIds.operation_id()[..8];
                (
                    format!("{at}/drill-{run}/old"),
                    format!("{at}/drill-{run}/new"),
                )
            }
        };
        Ok(Self {
            old,
            new,
            aws: config.aws.clone(),
            scratch,
        })
    }

    fn open(&self, url: &str) -> anyhow::Result<Tier> {
        Ok(Tier::open(url, &self.aws)?)
    }

    fn restored(&self) -> std::path::PathBuf {
        self.scratch.path().join("restored")
    }
}

/// What the drill showed.
struct Passed {
    checked: Vec<check::Checked>,
    reads: super::reader::Reads,
    requests: (u64, u64, Duration),
    killed: u64,
    refused: Vec<String>,
    lost: u64,
    merged: u64,
}

impl Passed {
    fn json(&self, steps: &[Entry], secs: f64) -> serde_json::Value {
        json!({
            "passed": true,
            "secs": secs,
            "samples_acknowledged": self.checked.first().map(|raw| raw.samples),
            "checked": self.checked,
            "requests": self.requests.0,
            "requests_repeated": self.requests.1,
            "longest_wait_for_an_acknowledgement_secs": self.requests.2.as_secs_f64(),
            "queries": self.reads.answered,
            "queries_answered_by_a_mirror": self.reads.by_mirror,
            "queries_failed": self.reads.failed,
            "queries_that_missed_what_the_old_store_had_lost": self.reads.short,
            "longest_read_gap_secs": self.reads.longest_gap.as_secs_f64(),
            "compactors_killed": self.killed,
            "objects_lost_on_the_old_tier": self.lost,
            "samples_merged_back": self.merged,
            "refusals": self.refused,
            "timeline": steps,
        })
    }

    fn text(&self, secs: f64) -> String {
        let rows = self.checked.iter().map(|one| {
            format!(
                "  {:<4} {} rows, {} samples",
                one.resolution, one.rows, one.samples
            )
        });
        let rows: Vec<String> = rows.collect();
        format!(
            "PASSED in {secs:.1} s: every acknowledged sample is readable exactly once\n{}\n  \
             {} requests acknowledged, {} attempts repeated; longest wait {:.2} s\n  \
             {} queries answered, {} of them by a mirror, {} failed; longest read gap {:.2} s\n  \
             {} compactors killed, {} objects lost on the old store; until the next sync {} answers \
             missed some of them",
            rows.join("\n"),
            self.requests.0,
            self.requests.1,
            self.requests.2.as_secs_f64(),
            self.reads.answered,
            self.reads.by_mirror,
            self.reads.failed,
            self.reads.longest_gap.as_secs_f64(),
            self.killed,
            self.lost,
            self.reads.short,
        )
    }
}
