//! Seal: open files over closed windows become sorted raw files and their rollups.
//!
//! One commit replaces everything over the windows: open files (rows of other windows go to a new
//! open file), raw files (their windows are sealed along, so none is left half rewritten) and
//! rollup files (rows of other windows are carried over, row for row). L0 objects over the windows
//! do not matter: they keep them open for readers until they are absorbed and sealed in turn.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use stele_format::{
    Merge, MergeTally, Rollup, RollupReader, RollupSource, SampleChunk, SampleReader, SampleSource,
};
use stele_model::{Day, Resolution, Window, WindowSet};
use stele_store::keys;
use stele_table::{CommitKind, FileEntry, FileKind, TableState, rollups_paused};

use crate::absorb::Tell;
use crate::commit::{Draft, Published, add_conservation, conservation};
use crate::compactor::{Compactor, Pace};
use crate::error::{Error, Result};
use crate::files::check_rows;
use crate::memory::Shares;
use crate::options::Budget;
use crate::plan::{self, SealPlan, SealRules, Step};
use crate::reader::{damaged, fetch_file, fetch_files};
use crate::report::Report;
use crate::split::{Covers, RollupOut, RollupsOut, SampleOut};

impl Compactor {
    /// Seals every closed window that is due, day by day, until none is or the deadline comes.
    /// Reopened windows are due by debt or age, or, with `force_reopened`, always (once per run).
    /// Does nothing while rollups are paused.
    ///
    /// # Errors
    /// The store's and the table's; [`Error::Contended`]. What was committed before stays.
    pub async fn seal(&self, budget: &Budget, force_reopened: bool) -> Result<Report> {
        let sealed = self.seal_telling(budget, force_reopened, &|_, _| ()).await;
        self.watched(sealed).await
    }

    pub(crate) async fn seal_telling(
        &self,
        budget: &Budget,
        force_reopened: bool,
        tell: Tell<'_>,
    ) -> Result<Report> {
        let _turn = self.sealing.lock().await;
        let mut report = Report::default();
        let mut sealed = WindowSet::new();
        let mut stale = 0;
        loop {
            let Some(state) = self.newest_state().await? else {
                break;
            };
            let rules = self.seal_rules(force_reopened);
            let since = self.note_reopened(&state, &rules).await?;
            let mut plans = plan::seals(&state, &rules, &since);
            plans.retain(|plan| budget.part.has_day(plan.day));
            // A window reopened while this run sealed others waits for the next run.
            plans.retain(|plan| !plan.windows.difference(&sealed).is_empty());
            let Some(first) = plans.first() else {
                break;
            };
            if rollups_paused(&self.store).await?.is_some() {
                report.paused = true;
                break;
            }
            if self.is_past(budget) {
                report.stopped = true;
                break;
            }
            let left: usize = plans.iter().map(|plan| plan.windows.len()).sum();
            let done = sealed.len() as u64;
            tell(done, done + left as u64);
            let shares = self.shares(budget);
            let committed = match plan::step(&state, first, shares.input_bytes) {
                Step::Seal(plan) => {
                    let windows = plan.windows.clone();
                    let done = self
                        .seal_windows(&state, plan, &shares, &mut report)
                        .await?;
                    if done {
                        sealed.extend(&windows);
                    }
                    done
                }
                Step::Split(files) => self.split_open(&state, files, &shares, &mut report).await?,
            };
            stale = if committed { 0 } else { stale + 1 };
            if stale >= self.options.attempts_max {
                return Err(Error::Contended { attempts: stale });
            }
        }
        Ok(report)
    }

    pub(crate) fn seal_rules(&self, force_reopened: bool) -> SealRules {
        SealRules {
            now_us: self.clock.now_us(),
            seal_delay_us: self.options.seal_delay_us,
            reopen_ratio: self.options.reopen_ratio,
            reopen_age_us: self.options.reopen_age_us,
            force_reopened,
        }
    }

    /// Since when each day with reopened windows has had them: as this process has seen it, and
    /// for a day it sees for the first time, since its oldest open object was stored.
    async fn note_reopened(
        &self,
        state: &TableState,
        rules: &SealRules,
    ) -> Result<BTreeMap<Day, i64>> {
        let mut seen = BTreeMap::new();
        for day in plan::reopened_windows(state).days() {
            let mut since = self.reopened_known(day).unwrap_or(rules.now_us);
            if self.reopened_known(day).is_none() && !rules.force_reopened {
                since = since.min(self.oldest_open_us(state, day).await?.unwrap_or(since));
            }
            seen.insert(day, since);
        }
        Ok(self.reopened_since(seen))
    }

    async fn oldest_open_us(&self, state: &TableState, day: Day) -> Result<Option<i64>> {
        let kind = FileKind::Open.partition();
        let folder = format!("resolution={kind}/period={}", day.period());
        let listed = self.store.list(&keys::data_file(&folder)).await?;
        let live = plan::of_period(state, FileKind::Open, &day.period());
        let live: BTreeSet<String> = live.map(|file| keys::data_file(&file.path)).collect();
        let live = listed.iter().filter(|object| live.contains(&object.key));
        Ok(live.map(|object| object.modified_us).min())
    }

    /// Seals the windows of one plan in one commit; false when the table moved under it.
    async fn seal_windows(
        &self,
        state: &Arc<TableState>,
        plan: SealPlan,
        shares: &Shares,
        report: &mut Report,
    ) -> Result<bool> {
        let paths: Vec<String> = plan.replaced().map(|file| file.path.clone()).collect();
        let _busy = self.rewrite(&paths);
        let mut draft = Draft::new(CommitKind::Seal);
        draft.remove = paths;
        self.seal_samples(state, &plan, shares, &mut draft, report)
            .await?;
        for file in &plan.rollups {
            self.carry(state, file, &plan.windows, shares, &mut draft, report)
                .await?;
        }
        let (windows, resealed) = (plan.windows.len() as u64, plan.resealed.len() as u64);
        draft.seal = Some(plan);
        match self.publish(Arc::clone(state), &draft, report).await? {
            Published::Committed(_) => {
                report.windows_sealed += windows;
                report.windows_resealed += resealed;
                Ok(true)
            }
            Published::Stale(_) => Ok(false),
        }
    }

    /// Merges the samples and folds those of the plan's windows.
    async fn seal_samples(
        &self,
        state: &TableState,
        plan: &SealPlan,
        shares: &Shares,
        draft: &mut Draft,
        report: &mut Report,
    ) -> Result<()> {
        let inputs = plan.open.iter().chain(&plan.raw).cloned().collect();
        let mut merge = self.open_merge(inputs, report).await?;
        let mut outs = SealOut::new(plan, self.options.sketch, shares.split_bytes);
        let mut rollup = Rollup::new(self.options.sketch);
        let mut pace = Pace::default();
        while let Some(chunk) = merge.next_chunk()? {
            outs.push(&chunk, &plan.windows, &mut rollup)?;
            let full = outs.take(SampleOut::take_full, RollupOut::take_full)?;
            self.store_outputs(state, &mut draft.add, full, report)
                .await?;
            pace.after(chunk.rows.len()).await;
        }
        rollup.finish(&mut outs.rollups)?;
        let rest = outs.take(SampleOut::take, RollupOut::take)?;
        self.store_outputs(state, &mut draft.add, rest, report)
            .await?;
        report.rollup_rows += outs.rollups.0.iter().map(|out| out.rows).sum::<u64>();
        let rows_in: u64 = plan
            .open
            .iter()
            .chain(&plan.raw)
            .map(|f| f.stats.rows)
            .sum();
        conserve("seal", rows_in, &merge.tally(), draft, 0)
    }

    async fn open_merge(&self, files: Vec<Arc<FileEntry>>, report: &mut Report) -> Result<Merge> {
        let mut sources: Vec<Box<dyn SampleSource>> = Vec::new();
        for (file, bytes) in fetch_files(&self.store, files).await? {
            report.read_bytes += file.stats.size_bytes;
            let reader = SampleReader::open(bytes).map_err(|e| damaged(&file, e))?;
            sources.push(Box::new(reader));
        }
        Ok(Merge::new(sources))
    }

    /// Writes the rows of a rollup file that lie outside `windows` to a new file.
    async fn carry(
        &self,
        state: &TableState,
        file: &FileEntry,
        windows: &WindowSet,
        shares: &Shares,
        draft: &mut Draft,
        report: &mut Report,
    ) -> Result<()> {
        let rest = file.windows.difference(windows);
        let FileKind::Sealed(resolution) = file.kind else {
            return Ok(());
        };
        if rest.is_empty() {
            return Ok(());
        }
        let bytes = fetch_file(&self.store, file).await?;
        report.read_bytes += file.stats.size_bytes;
        let mut source = RollupReader::open(bytes).map_err(|e| damaged(file, e))?;
        let period = file.period.clone();
        let mut out = RollupOut::new(resolution, period, rest.clone(), true, shares.split_bytes);
        let (mut dropped, mut pace, first) = (0, Pace::default(), draft.add.len());
        while let Some(mut chunk) = source.next_chunk()? {
            let bins = chunk.bins.len();
            chunk
                .bins
                .retain(|(start, _)| rest.contains(Window::of(*start)));
            dropped += (bins - chunk.bins.len()) as u64;
            out.push_chunk(&chunk)?;
            let full = out.take_full()?;
            self.store_outputs(state, &mut draft.add, full, report)
                .await?;
            pace.after(bins).await;
        }
        let last = out.take()?;
        self.store_outputs(state, &mut draft.add, last, report)
            .await?;
        let carried = draft.add[first..].iter().map(|file| file.stats.rows).sum();
        report.rollup_rows += carried;
        check_rows("carrying rollups", file.stats.rows, carried, dropped)
    }

    /// Rewrites open files that cover many windows into files of one window each, so that a day
    /// too large for memory can be sealed window by window. Files are taken together up to the
    /// share of memory; one commit each.
    async fn split_open(
        &self,
        base: &Arc<TableState>,
        mut files: Vec<Arc<FileEntry>>,
        shares: &Shares,
        report: &mut Report,
    ) -> Result<bool> {
        let mut bytes = 0;
        let mut taken = 0;
        for file in &files {
            bytes += file.stats.size_bytes;
            if taken > 0 && bytes > shares.input_bytes {
                break;
            }
            taken += 1;
        }
        files.truncate(taken);
        let mut draft = Draft::new(CommitKind::Absorb);
        draft.remove = files.iter().map(|file| file.path.clone()).collect();
        let _busy = self.rewrite(&draft.remove);
        let rows_in: u64 = files.iter().map(|file| file.stats.rows).sum();
        let mut merge = self.open_merge(files, report).await?;
        let mut outs: BTreeMap<Window, SampleOut> = BTreeMap::new();
        let mut pace = Pace::default();
        while let Some(chunk) = merge.next_chunk()? {
            for rows in chunk
                .rows
                .chunk_by(|a, b| Window::of(a.ts_us) == Window::of(b.ts_us))
            {
                let window = Window::of(rows[0].ts_us);
                let new = || {
                    let period = window.day().period();
                    SampleOut::new(FileKind::Open, period, Covers::Rows, shares.split_bytes)
                };
                let out = outs.entry(window).or_insert_with(new);
                out.push(&chunk.series, rows)?;
                let full = out.take_full()?;
                self.store_outputs(base, &mut draft.add, full, report)
                    .await?;
            }
            pace.after(chunk.rows.len()).await;
        }
        for (_, mut out) in outs {
            let rest = out.take()?;
            self.store_outputs(base, &mut draft.add, rest, report)
                .await?;
        }
        conserve("split", rows_in, &merge.tally(), &mut draft, 0)?;
        let published = self.publish(Arc::clone(base), &draft, report).await?;
        Ok(matches!(published, Published::Committed(_)))
    }
}

/// Checks that the sample files added since `first` hold what the merge let through, and states
/// it in the draft.
pub(crate) fn conserve(
    job: &'static str,
    rows_in: u64,
    tally: &MergeTally,
    draft: &mut Draft,
    first: usize,
) -> Result<()> {
    let samples = draft.add[first..]
        .iter()
        .filter(|file| file.kind.holds_samples());
    let written = samples.map(|file| file.stats.rows).sum();
    check_rows(job, rows_in, written, tally.duplicates + tally.overridden)?;
    add_conservation(&mut draft.conservation, &conservation(tally));
    Ok(())
}

/// The outputs of one seal.
struct SealOut {
    raw: SampleOut,
    /// Rows of the same open files that lie in other windows.
    open: SampleOut,
    rollups: RollupsOut,
}

impl SealOut {
    fn new(plan: &SealPlan, sketch: bool, split_bytes: u64) -> Self {
        let (day, month) = (plan.day.period(), plan.day.month().period());
        let windows = || plan.windows.clone();
        let raw = FileKind::Sealed(Resolution::Raw);
        let rollup = |resolution, period: &str| {
            RollupOut::new(
                resolution,
                period.to_owned(),
                windows(),
                sketch,
                split_bytes,
            )
        };
        Self {
            raw: SampleOut::new(raw, day.clone(), Covers::All(windows()), split_bytes),
            open: SampleOut::new(FileKind::Open, day.clone(), Covers::Rows, split_bytes),
            rollups: RollupsOut([
                rollup(Resolution::S60, &day),
                rollup(Resolution::M15, &day),
                rollup(Resolution::M60, &month),
            ]),
        }
    }

    /// Sends runs of rows to the raw file and the fold, or to the open file.
    fn push(
        &mut self,
        chunk: &SampleChunk,
        windows: &WindowSet,
        rollup: &mut Rollup,
    ) -> stele_format::Result<()> {
        let runs = chunk
            .rows
            .chunk_by(|a, b| Window::of(a.ts_us) == Window::of(b.ts_us));
        for rows in runs {
            if windows.contains(Window::of(rows[0].ts_us)) {
                self.raw.push(&chunk.series, rows)?;
                rollup.push(&chunk.series, rows, &mut self.rollups)?;
            } else {
                self.open.push(&chunk.series, rows)?;
            }
        }
        Ok(())
    }

    /// What each writer gives up by the given rule.
    fn take(
        &mut self,
        samples: impl Fn(&mut SampleOut) -> TakeResult,
        rollups: impl Fn(&mut RollupOut) -> TakeResult,
    ) -> stele_format::Result<Vec<crate::split::Output>> {
        let mut outputs = Vec::new();
        outputs.extend(samples(&mut self.raw)?);
        outputs.extend(samples(&mut self.open)?);
        for out in &mut self.rollups.0 {
            outputs.extend(rollups(out)?);
        }
        Ok(outputs)
    }
}

type TakeResult = stele_format::Result<Option<crate::split::Output>>;
