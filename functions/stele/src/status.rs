//! What is going on: `/status` as JSON and `/metrics` as Prometheus text, from one reading.

use std::fmt::Write as _;

use serde::Serialize;
use stele_model::limits::Limit;
use stele_model::time::rfc3339;
use stele_model::{Limits, Resolution};
use stele_node::{Backlog, Node, Windows};
use stele_store::{Current, keys};
use stele_table::{FileKind, TableState, View, deletion_frozen, rollups_paused};

use crate::jobs::Done;

/// One reading of a tenant.
#[derive(Debug, Serialize)]
pub struct Status {
    /// The program's version.
    pub version: &'static str,
    /// The store's URL.
    pub store: String,
    /// The tenant.
    pub tenant: String,
    /// When this was read.
    pub now: String,
    /// The table's version; null before the first absorb.
    pub table_version: Option<u64>,
    /// Accepted and not yet absorbed.
    pub backlog: Backlog,
    /// Windows that queries merge on the fly.
    pub windows: Windows,
    /// How far each resolution's stored files are behind, seconds.
    pub lag_secs: Lag,
    /// Bytes by what they hold.
    pub storage: Storage,
    /// Rows and batches since the table was made.
    pub totals: stele_table::Totals,
    /// Whether seals are paused, and since when.
    pub rollups_paused: bool,
    /// Since when rollups are paused.
    pub rollups_paused_since: Option<String>,
    /// Whether deletion is frozen, why and since when.
    pub deletion_frozen: Option<stele_table::Frozen>,
    /// The epoch of the tier set; 0 without one.
    pub epoch: u64,
    /// The tiers.
    pub tiers: Vec<TierStatus>,
    /// What this process's jobs did.
    pub jobs: Done,
    /// Every ingest limit.
    pub limits: Vec<Limit>,
}

/// One tier of the set.
#[derive(Debug, Serialize)]
pub struct TierStatus {
    /// Its name.
    pub tier: String,
    /// Its state.
    pub state: &'static str,
    /// Its URL.
    pub store: String,
    /// What was wrong with it when the set was read.
    pub trouble: Option<String>,
}

impl TierStatus {
    fn of(current: &Current) -> Vec<Self> {
        let members = current.members.iter().map(|open| Self {
            tier: open.member.id.to_string(),
            state: open.member.state.as_str(),
            store: open.member.url.clone(),
            trouble: open.trouble.as_ref().map(ToString::to_string),
        });
        members.collect()
    }
}

/// How far each resolution is behind, seconds.
#[derive(Debug, Default, Serialize)]
pub struct Lag {
    /// Age of the oldest unabsorbed object.
    pub raw: i64,
    /// Since the end of the earliest closed window that is not sealed.
    #[serde(rename = "60s")]
    pub s60: i64,
    /// The same: all rollups of a window are sealed in one commit.
    #[serde(rename = "15m")]
    pub m15: i64,
    /// The same.
    #[serde(rename = "60m")]
    pub m60: i64,
}

/// Bytes by what they hold.
#[derive(Debug, Default, Serialize)]
pub struct Storage {
    /// Sealed raw files.
    pub raw_bytes: u64,
    /// Sealed rollups of all three resolutions.
    pub rollup_bytes: u64,
    /// Open files.
    pub open_bytes: u64,
    /// Ledger objects the table needs.
    pub ledger_bytes: u64,
    /// Log entries, checkpoints and heads.
    pub log_bytes: u64,
    /// L0 objects not yet absorbed.
    pub l0_bytes: u64,
    /// Superseded objects that wait for sweep: absorbed L0, replaced files and ledger objects.
    pub superseded_bytes: u64,
}

impl Status {
    /// Reads the tenant: three LISTs and what the view needs.
    ///
    /// # Errors
    /// The store's, and damage found on the way.
    pub async fn read(
        node: &Node,
        current: &Current,
        seal_delay_us: i64,
        jobs: Done,
    ) -> stele_table::Result<Self> {
        let now_us = node.clock.now_us();
        let view = View::read_cached(&node.log).await?;
        let all_l0 = node.store.l0_list().await?;
        let log = node.store.list(keys::LOG).await?;
        let heads = node.store.list(keys::HEADS).await?;
        let paused = rollups_paused(&node.store).await?;
        let deletion_frozen = deletion_frozen(&node.store).await?;
        let listed_bytes: u64 = all_l0.iter().map(|object| object.size_bytes).sum();
        let backlog = Backlog::of(&view, now_us);
        let l0_bytes = backlog.l0_bytes;
        let absorbed_bytes = listed_bytes.saturating_sub(l0_bytes);
        let windows = Windows::of(&view, now_us, seal_delay_us);
        let not_sealed_secs = windows.not_sealed_secs;
        let log_bytes = log
            .iter()
            .chain(&heads)
            .map(|object| object.size_bytes)
            .sum();
        Ok(Self {
            version: env!("CARGO_PKG_VERSION"),
            store: node.store.tier().url().to_owned(),
            tenant: node.store.tenant().to_string(),
            now: rfc3339(now_us),
            table_version: view.state.exists().then_some(view.state.version),
            lag_secs: Lag {
                raw: backlog.oldest_unabsorbed_age_secs,
                s60: not_sealed_secs,
                m15: not_sealed_secs,
                m60: not_sealed_secs,
            },
            storage: Storage {
                log_bytes,
                l0_bytes,
                ..Storage::of(&view.state, absorbed_bytes)
            },
            backlog,
            windows,
            totals: view.state.totals,
            rollups_paused: paused.is_some(),
            rollups_paused_since: paused.map(|p| rfc3339(p.since_us)),
            deletion_frozen,
            epoch: current.epoch(),
            tiers: TierStatus::of(current),
            jobs,
            limits: Limits::default().table(),
        })
    }
}

impl Storage {
    fn of(state: &TableState, absorbed_l0_bytes: u64) -> Self {
        let size = |kind| {
            state
                .files_of(kind)
                .map(|file| file.stats.size_bytes)
                .sum::<u64>()
        };
        let ledger = &state.ledger;
        let segments = ledger
            .days
            .values()
            .flatten()
            .map(|segment| &segment.object);
        let operations = ledger.recent.iter().map(|operation| &operation.object);
        let live = segments.chain(operations).chain(&ledger.manifest);
        let removed: u64 = state.removed.iter().map(|file| file.size_bytes).sum();
        let retired: u64 = ledger.retired.iter().map(|object| object.size_bytes).sum();
        Self {
            raw_bytes: size(FileKind::Sealed(Resolution::Raw)),
            rollup_bytes: Resolution::ROLLUPS
                .iter()
                .map(|r| size(FileKind::Sealed(*r)))
                .sum(),
            open_bytes: size(FileKind::Open),
            ledger_bytes: live.map(|object| object.size_bytes).sum(),
            superseded_bytes: absorbed_l0_bytes + removed + retired,
            ..Self::default()
        }
    }
}

/// The reading as Prometheus text (exposition format 0.0.4).
pub fn prometheus(status: &Status) -> String {
    let mut out = String::new();
    let mut metric = |name: &str, kind: &str, help: &str, samples: &[(&str, i64)]| {
        let _ = writeln!(
            out,
            "# HELP stele_{name} {help}\n# TYPE stele_{name} {kind}"
        );
        for (labels, value) in samples {
            let _ = writeln!(out, "stele_{name}{labels} {value}");
        }
    };
    let int = |n: u64| i64::try_from(n).unwrap_or(i64::MAX);
    let storage = &status.storage;
    metric(
        "l0_objects",
        "gauge",
        "L0 objects not yet absorbed",
        &[("", int(status.backlog.l0_objects))],
    );
    metric(
        "lag_seconds",
        "gauge",
        "How far stored files are behind",
        &[
            ("{resolution=\"raw\"}", status.lag_secs.raw),
            ("{resolution=\"60s\"}", status.lag_secs.s60),
            ("{resolution=\"15m\"}", status.lag_secs.m15),
            ("{resolution=\"60m\"}", status.lag_secs.m60),
        ],
    );
    metric(
        "windows",
        "gauge",
        "Windows that queries merge on the fly",
        &[
            ("{state=\"open\"}", int(status.windows.open as u64)),
            (
                "{state=\"not_sealed\"}",
                int(status.windows.not_sealed as u64),
            ),
            ("{state=\"reopened\"}", int(status.windows.reopened as u64)),
        ],
    );
    metric(
        "storage_bytes",
        "gauge",
        "Bytes in the store by what they hold",
        &[
            ("{kind=\"raw\"}", int(storage.raw_bytes)),
            ("{kind=\"rollup\"}", int(storage.rollup_bytes)),
            ("{kind=\"open\"}", int(storage.open_bytes)),
            ("{kind=\"ledger\"}", int(storage.ledger_bytes)),
            ("{kind=\"log\"}", int(storage.log_bytes)),
            ("{kind=\"l0\"}", int(storage.l0_bytes)),
            ("{kind=\"superseded\"}", int(storage.superseded_bytes)),
        ],
    );
    metric(
        "rollups_paused",
        "gauge",
        "1 while seals are paused",
        &[("", i64::from(status.rollups_paused))],
    );
    metric(
        "table_version",
        "gauge",
        "Version of the table, -1 before the first",
        &[("", status.table_version.map_or(-1, int))],
    );
    let totals = &status.totals;
    metric(
        "absorbed_rows_total",
        "counter",
        "Rows of consumed batches",
        &[("", int(totals.rows))],
    );
    metric(
        "absorbed_batches_total",
        "counter",
        "Batches consumed",
        &[("", int(totals.batches))],
    );
    metric(
        "dropped_rows_total",
        "counter",
        "Rows that were not kept",
        &[
            ("{reason=\"duplicate\"}", int(totals.duplicates)),
            ("{reason=\"overridden\"}", int(totals.overridden)),
            ("{reason=\"expired\"}", int(totals.expired)),
        ],
    );
    let jobs = &status.jobs;
    metric(
        "job_failures_total",
        "counter",
        "Runs of jobs that failed in this process",
        &[("", int(jobs.failures))],
    );
    metric(
        "commits_total",
        "counter",
        "Commits of this process",
        &[
            ("{job=\"absorb\"}", int(jobs.absorb.commits)),
            ("{job=\"seal\"}", int(jobs.seal.commits)),
            ("{job=\"consolidate\"}", int(jobs.consolidate.commits)),
        ],
    );
    out
}
