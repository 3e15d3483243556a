//! Expire: a period of one resolution that is past its retention leaves the table.
//!
//! Raw goes first, a day at a time, and only when nothing more can come of it: no open file and no
//! L0 object covers the day, and its rollups, recomputed from the raw files about to go, are the
//! stored ones bit for bit. The commit moves the day from which on the resolution is kept; what
//! still arrives of days before it is counted as expired, and rollups of such days are frozen.
//! Removed files are deleted by sweep, after the history, like any other.

use std::collections::BTreeSet;
use std::sync::Arc;

use stele_format::{
    Merge, RollupMerge, RollupReader, RollupSource, RollupTruth, SampleReader, SampleSource,
    SeriesPredicate,
};
use stele_model::time::HOUR_US;
use stele_model::{Digest, Resolution, RowsHash, Series, WindowSet, chain, sabotaged};
use stele_table::{
    CommitKind, Conservation, FileEntry, FileKind, Retention, TableState, View, retention,
    rollups_paused,
};

use crate::commit::{Draft, Published};
use crate::compactor::{Compactor, Pace};
use crate::confirm::{confirm, is_confirmed};
use crate::error::{Error, Result};
use crate::files::check_rows;
use crate::freeze::freezes;
use crate::options::Budget;
use crate::plan::{self, ExpireAsks, ExpirePlan, ExpireRules, ExpireStep};
use crate::reader::{damaged, fetch_file};
use crate::report::{ExpireReport, ExpireWaits, Report};

/// A retention counts for expiry once it has been in force for so long: ingest has learnt of it,
/// and a slip can be undone.
const SETTING_AGE_US: i64 = HOUR_US;

impl Compactor {
    /// Removes every period from the table that is past its retention, earliest first, one commit
    /// each, until none is due, one must wait, one must be confirmed, or the deadline comes. Does
    /// nothing while rollups are paused or deletion is frozen.
    ///
    /// # Errors
    /// The store's and the table's; [`Error::Skew`]; [`Error::Unproven`] when rollups are not
    /// what their raw samples fold to: then these stay; [`Error::Contended`]. What was committed
    /// before stays. What is damaged, or not proved, at a second look too freezes deletion.
    pub async fn expire(&self, budget: &Budget) -> Result<ExpireReport> {
        let _turn = self.sealing.lock().await;
        match self.expire_once(budget).await {
            Err(first) if freezes(&first) => match self.expire_once(budget).await {
                Err(again) if chain(&again) == chain(&first) => {
                    self.freeze(&again).await;
                    Err(again)
                }
                other => other,
            },
            other => other,
        }
    }

    /// What waits to be confirmed: [`ExpireReport::asks`] without expiring anything.
    ///
    /// # Errors
    /// The store's and the table's, and [`Error::Skew`].
    pub async fn expire_asks(&self) -> Result<Option<ExpireAsks>> {
        let mut report = ExpireReport::default();
        let Some(rules) = self.expire_rules(&mut report).await? else {
            return Ok(None);
        };
        let view = View::read(&self.log, None).await?;
        match plan::expire(&view.state, &view.l0, &rules) {
            ExpireStep::Expire(plan) => self.asks(&view.state, &rules, &plan).await,
            ExpireStep::Nothing | ExpireStep::Waits(_) => Ok(None),
        }
    }

    /// Confirms what [`Compactor::expire_asks`] asks, for every process and for good: nothing
    /// before those days is asked about again. Nothing expires by this alone.
    ///
    /// # Errors
    /// [`Error::NothingAsked`]; [`Error::OtherPlan`] when `hash` is not that of the question as
    /// it is now; else the store's and the table's.
    pub async fn confirm_expire(&self, hash: Digest) -> Result<ExpireAsks> {
        let asks = self.expire_asks().await?.ok_or(Error::NothingAsked)?;
        if asks.hash != hash {
            return Err(Error::OtherPlan {
                plan: asks.hash,
                confirmed: hash,
            });
        }
        confirm(&self.store, &asks, self.clock.now_us()).await?;
        Ok(asks)
    }

    /// What must be confirmed before `plan`, if anything.
    async fn asks(
        &self,
        state: &TableState,
        rules: &ExpireRules,
        plan: &ExpirePlan,
    ) -> Result<Option<ExpireAsks>> {
        let due = plan::due_in_all(state, rules);
        let bytes_min = self.options.asks_live_bytes_min;
        let Some(asks) = due.asks(plan, self.store.tenant(), bytes_min) else {
            return Ok(None);
        };
        Ok((!is_confirmed(&self.store, plan, due.restore).await?).then_some(asks))
    }

    async fn expire_once(&self, budget: &Budget) -> Result<ExpireReport> {
        let mut report = ExpireReport::default();
        let mut stale = 0;
        loop {
            let Some(rules) = self.expire_rules(&mut report).await? else {
                break;
            };
            // Cold: nothing is forgotten on what a process merely remembers.
            let view = View::read(&self.log, None).await?;
            let plan = match plan::expire(&view.state, &view.l0, &rules) {
                ExpireStep::Nothing => break,
                ExpireStep::Waits(waits) => {
                    report.waits = Some(waits);
                    break;
                }
                ExpireStep::Expire(plan) => plan,
            };
            report.refused = self.deletion_refused().await?;
            if report.refused.is_some() {
                break;
            }
            report.asks = self.asks(&view.state, &rules, &plan).await?;
            if report.asks.is_some() {
                break;
            }
            if self.is_past(budget) {
                report.stopped = true;
                break;
            }
            if plan.resolution == Resolution::Raw && !sabotaged!(RollupsUnproven) {
                self.prove(&plan, budget, &mut report).await?;
            }
            match self.publish_expire(plan, &rules, &mut report).await? {
                true => stale = 0,
                false => stale += 1,
            }
            if stale >= self.options.attempts_max {
                return Err(Error::Contended { attempts: stale });
            }
        }
        Ok(report)
    }

    /// What expires by now; `None` when nothing may.
    async fn expire_rules(&self, report: &mut ExpireReport) -> Result<Option<ExpireRules>> {
        let in_force = retention(&self.store).await?;
        if in_force.retention.is_for_ever() {
            return Ok(None);
        }
        if rollups_paused(&self.store).await?.is_some() {
            report.paused = true;
            return Ok(None);
        }
        let now_us = self.store_now_us().await?;
        let since_us = in_force.since_us;
        if now_us.saturating_sub(since_us) < SETTING_AGE_US {
            report.waits = Some(ExpireWaits::Setting { since_us });
            return Ok(None);
        }
        Ok(Some(ExpireRules {
            now_us,
            retention: in_force.retention,
        }))
    }

    /// Commits a plan, when after all the reading the switches, the table and L0 still say the
    /// same; false when something has changed.
    async fn publish_expire(
        &self,
        plan: ExpirePlan,
        rules: &ExpireRules,
        report: &mut ExpireReport,
    ) -> Result<bool> {
        if self.deletion_refused().await?.is_some()
            || !self.is_still_wanted(&rules.retention).await?
        {
            return Ok(false);
        }
        let view = View::read(&self.log, None).await?;
        self.remember(&view.state);
        match plan::expire(&view.state, &view.l0, rules) {
            ExpireStep::Expire(again) if again == plan => {}
            _ => return Ok(false),
        }
        let mut draft = Draft::new(CommitKind::Expire);
        draft.remove = plan.remove.iter().map(|file| file.path.clone()).collect();
        draft.conservation = all_expired(&plan);
        let days = match plan.resolution {
            Resolution::Raw => plan.days().len() as u64,
            _ => 0,
        };
        let removed = plan.remove.iter().map(|file| file.stats.size_bytes);
        let removed_bytes: u64 = removed.sum();
        draft.expire = Some(plan);
        let mut done = Report::default();
        let published = self.publish(view.state, &draft, &mut done).await?;
        report.replans += done.replans;
        if let Published::Stale(_) = published {
            return Ok(false);
        }
        report.commits += done.commits;
        report.days += days;
        report.rows += done.expired;
        report.files_removed += done.files_removed;
        report.files_removed_bytes += removed_bytes;
        Ok(true)
    }

    async fn is_still_wanted(&self, planned: &Retention) -> Result<bool> {
        let is_paused = rollups_paused(&self.store).await?.is_some();
        Ok(!is_paused && retention(&self.store).await?.retention == *planned)
    }

    /// Recomputes the rollups of the raw files of a plan and compares them with the stored ones,
    /// bit for bit, in stripes of metrics that fit the memory. One metric of one day is not
    /// bounded: its files are read at once.
    async fn prove(
        &self,
        plan: &ExpirePlan,
        budget: &Budget,
        report: &mut ExpireReport,
    ) -> Result<()> {
        prove_coverage(plan)?;
        let files: Vec<_> = plan.remove.iter().chain(&plan.rollups).cloned().collect();
        let (mut rows, mut hash) = (0, RowsHash::default());
        for stripe in stripes(&files, self.shares(budget).input_bytes) {
            let mut merge = self.stripe_samples(plan, &stripe, report).await?;
            let stored = self.stripe_rollups(plan, &stripe, report).await?;
            let mut truth = RollupTruth::new(stored);
            let mut pace = Pace::default();
            while let Some(chunk) = merge.next_chunk()? {
                truth.push(&chunk.series, &chunk.rows)?;
                pace.after(chunk.rows.len()).await;
            }
            for compared in truth.finish()? {
                report.rollup_rows_verified += compared.rows;
                if let Some(what) = compared.found.into_iter().next() {
                    return Err(unproven(plan, compared.resolution, what));
                }
            }
            let tally = merge.tally();
            let twice = tally.duplicates + tally.overridden;
            if twice > 0 {
                return Err(Error::NotDisjoint {
                    path: period(plan),
                    rows: twice,
                });
            }
            rows += tally.rows_in;
            hash = hash.union(tally.hash_in);
        }
        // Every row of every file was folded, whatever stripe it lies in.
        let all = all_expired(plan);
        check_rows("expire", all.rows_in, rows, 0)?;
        match hash == all.hash_in {
            true => Ok(()),
            false => Err(unproven(
                plan,
                Resolution::Raw,
                "other rows were read than the log says".to_owned(),
            )),
        }
    }

    async fn stripe_samples(
        &self,
        plan: &ExpirePlan,
        stripe: &Stripe,
        report: &mut ExpireReport,
    ) -> Result<Merge> {
        let mut sources: Vec<Box<dyn SampleSource>> = Vec::new();
        for file in plan.remove.iter().filter(|file| stripe.overlaps(file)) {
            let bytes = fetch_file(&self.store, file).await?;
            report.read_bytes += file.stats.size_bytes;
            let reader = SampleReader::open(bytes).map_err(|e| damaged(file, e))?;
            sources.push(Box::new(reader.with_series(stripe.predicate())));
        }
        Ok(Merge::new(sources))
    }

    async fn stripe_rollups(
        &self,
        plan: &ExpirePlan,
        stripe: &Stripe,
        report: &mut ExpireReport,
    ) -> Result<Vec<(Resolution, Box<dyn RollupSource>)>> {
        let windows = plan.windows();
        let mut stored = Vec::new();
        for resolution in Resolution::ROLLUPS {
            let kind = FileKind::Sealed(resolution);
            let of_kind = plan.rollups.iter().filter(|file| file.kind == kind);
            let mut sources: Vec<Box<dyn RollupSource>> = Vec::new();
            for file in of_kind.filter(|file| stripe.overlaps(file)) {
                let bytes = fetch_file(&self.store, file).await?;
                report.read_bytes += file.stats.size_bytes;
                let reader = RollupReader::open(bytes).map_err(|e| damaged(file, e))?;
                let reader = reader.with_windows(windows.clone());
                sources.push(Box::new(reader.with_series(stripe.predicate())));
            }
            let merged: Box<dyn RollupSource> = Box::new(RollupMerge::new(sources));
            stored.push((resolution, merged));
        }
        Ok(stored)
    }
}

/// The conservation of a plan: every sample expires.
fn all_expired(plan: &ExpirePlan) -> Conservation {
    let mut all = Conservation::default();
    for file in plan.remove.iter().filter(|file| file.kind.holds_samples()) {
        all.rows_in += file.stats.rows;
        all.hash_in = all.hash_in.union(file.stats.rows_hash);
    }
    all.expired = all.rows_in;
    all.hash_dropped = all.hash_in;
    all
}

fn period(plan: &ExpirePlan) -> String {
    let first = plan.remove.first();
    first.map_or_else(String::new, |file| file.period.clone())
}

fn unproven(plan: &ExpirePlan, resolution: Resolution, what: String) -> Error {
    Error::Unproven {
        period: period(plan),
        resolution: resolution.partition(),
        what,
    }
}

/// On the days of the plan every rollup covers exactly what raw covers.
fn prove_coverage(plan: &ExpirePlan) -> Result<()> {
    let windows = plan.windows();
    let mut days = WindowSet::new();
    for day in windows.days() {
        days.extend(&day.windows().collect());
    }
    for resolution in Resolution::ROLLUPS {
        let mut covered = WindowSet::new();
        let kind = FileKind::Sealed(resolution);
        for file in plan.rollups.iter().filter(|file| file.kind == kind) {
            covered.extend(&file.windows.intersection(&days));
        }
        if covered != windows {
            let missed = windows.difference(&covered).len();
            let more = covered.difference(&windows).len();
            let what = format!("they miss {missed} of its windows and cover {more} others");
            return Err(unproven(plan, resolution, what));
        }
    }
    Ok(())
}

/// Metrics from one name up to, not including, another.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Stripe {
    from: String,
    to: Option<String>,
}

impl Stripe {
    fn overlaps(&self, file: &FileEntry) -> bool {
        let below = |to: &String| file.stats.metric_min < *to;
        file.stats.metric_max >= self.from && self.to.as_ref().is_none_or(below)
    }

    fn predicate(&self) -> SeriesPredicate {
        let Self { from, to } = self.clone();
        Arc::new(move |series: &Series| {
            series.metric >= from && to.as_ref().is_none_or(|to| series.metric < *to)
        })
    }
}

/// Stripes that together hold every metric, each over files of at most `bytes_max` where the
/// files' ranges allow.
fn stripes(files: &[Arc<FileEntry>], bytes_max: u64) -> Vec<Stripe> {
    let bytes = |from: &str, to: Option<&String>| {
        let stripe = Stripe {
            from: from.to_owned(),
            to: to.cloned(),
        };
        let over = files.iter().filter(|file| stripe.overlaps(file));
        over.map(|file| file.stats.size_bytes).sum::<u64>()
    };
    let firsts = files.iter().map(|file| file.stats.metric_min.clone());
    let cuts: BTreeSet<String> = firsts.collect();
    let mut stripes = Vec::new();
    let mut from = String::new();
    let mut last: Option<String> = None;
    for cut in cuts {
        // Grow the stripe up to `cut` while it fits; the one before was the last that did.
        if let Some(last) = last.take()
            && bytes(&from, Some(&cut)) > bytes_max
        {
            stripes.push(Stripe {
                from: std::mem::replace(&mut from, last.clone()),
                to: Some(last),
            });
        }
        last = (cut > from).then_some(cut);
    }
    if let Some(last) = last
        && bytes(&from, None) > bytes_max
    {
        stripes.push(Stripe {
            from: std::mem::replace(&mut from, last.clone()),
            to: Some(last),
        });
    }
    stripes.push(Stripe { from, to: None });
    stripes
}
