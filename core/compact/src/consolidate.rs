//! Consolidate: small sealed files of one resolution and period become one, row for row.

use std::sync::Arc;

use stele_format::{Merge, RollupMerge, RollupReader, RollupSource, SampleReader, SampleSource};
use stele_model::{Resolution, WindowSet};
use stele_table::{CommitKind, FileKind, TableState};

use crate::absorb::Tell;
use crate::commit::{Draft, Published, conservation};
use crate::compactor::{Compactor, Pace};
use crate::error::{Error, Result};
use crate::files::check_rows;
use crate::options::Budget;
use crate::plan::{self, ConsolidatePlan, ConsolidateRules};
use crate::reader::{damaged, fetch_files};
use crate::report::Report;
use crate::split::{Covers, RollupOut, SampleOut};

impl Compactor {
    /// Merges small sealed files where it is worth it, until nothing is or the deadline comes.
    ///
    /// # Errors
    /// The store's and the table's; [`Error::NotDisjoint`] when two files hold one row;
    /// [`Error::Contended`]. What was committed before stays.
    pub async fn consolidate(&self, budget: &Budget) -> Result<Report> {
        let merged = self.consolidate_telling(budget, false, &|_, _| ()).await;
        self.watched(merged).await
    }

    /// As [`Compactor::consolidate`]; with `force`, periods that may still grow are merged, too.
    pub(crate) async fn consolidate_telling(
        &self,
        budget: &Budget,
        force: bool,
        tell: Tell<'_>,
    ) -> Result<Report> {
        let _turn = self.sealing.lock().await;
        let mut report = Report::default();
        let (mut done, mut stale) = (0, 0);
        while let Some(state) = self.newest_state().await? {
            let shares = self.shares(budget);
            let rules = ConsolidateRules {
                now_us: self.clock.now_us(),
                seal_delay_us: self.options.seal_delay_us,
                target_bytes: self.options.target_file_bytes,
                input_bytes_max: shares.input_bytes,
                force,
            };
            let plans = plan::consolidations(&state, &rules);
            let Some(plan) = plans.first() else {
                break;
            };
            if self.is_past(budget) {
                report.stopped = true;
                break;
            }
            tell(done, done + plans.len() as u64);
            if self.consolidate_one(&state, plan, &mut report).await? {
                (done, stale) = (done + 1, 0);
            } else {
                stale += 1;
            }
            if stale >= self.options.attempts_max {
                return Err(Error::Contended { attempts: stale });
            }
        }
        Ok(report)
    }

    async fn consolidate_one(
        &self,
        state: &Arc<TableState>,
        plan: &ConsolidatePlan,
        report: &mut Report,
    ) -> Result<bool> {
        let mut draft = Draft::new(CommitKind::Consolidate);
        draft.remove = plan.files.iter().map(|file| file.path.clone()).collect();
        let _busy = self.rewrite(&draft.remove);
        let mut windows = WindowSet::new();
        plan.files
            .iter()
            .for_each(|file| windows.extend(&file.windows));
        match plan.resolution {
            Resolution::Raw => {
                self.consolidate_raw(state, plan, windows, &mut draft, report)
                    .await?;
            }
            _ => {
                self.consolidate_rollup(state, plan, windows, &mut draft, report)
                    .await?
            }
        }
        let published = self.publish(Arc::clone(state), &draft, report).await?;
        Ok(matches!(published, Published::Committed(_)))
    }

    async fn consolidate_raw(
        &self,
        state: &TableState,
        plan: &ConsolidatePlan,
        windows: WindowSet,
        draft: &mut Draft,
        report: &mut Report,
    ) -> Result<()> {
        let mut sources: Vec<Box<dyn SampleSource>> = Vec::new();
        for (file, bytes) in fetch_files(&self.store, plan.files.clone()).await? {
            report.read_bytes += file.stats.size_bytes;
            let reader = SampleReader::open(bytes).map_err(|e| damaged(&file, e))?;
            sources.push(Box::new(reader));
        }
        let mut merge = Merge::new(sources);
        let kind = FileKind::Sealed(plan.resolution);
        let mut out = SampleOut::new(kind, plan.period.clone(), Covers::All(windows), u64::MAX);
        let mut pace = Pace::default();
        while let Some(chunk) = merge.next_chunk()? {
            out.push(&chunk.series, &chunk.rows)?;
            pace.after(chunk.rows.len()).await;
        }
        let file = out.take()?;
        self.store_outputs(state, &mut draft.add, file, report)
            .await?;
        let tally = merge.tally();
        let twice = tally.duplicates + tally.overridden;
        if twice > 0 {
            return Err(not_disjoint(plan, twice));
        }
        check_rows("consolidate", rows_of(plan), tally.rows_out, 0)?;
        draft.conservation = conservation(&tally);
        Ok(())
    }

    async fn consolidate_rollup(
        &self,
        state: &TableState,
        plan: &ConsolidatePlan,
        windows: WindowSet,
        draft: &mut Draft,
        report: &mut Report,
    ) -> Result<()> {
        let mut sources: Vec<Box<dyn RollupSource>> = Vec::new();
        for (file, bytes) in fetch_files(&self.store, plan.files.clone()).await? {
            report.read_bytes += file.stats.size_bytes;
            let reader = RollupReader::open(bytes).map_err(|e| damaged(&file, e))?;
            sources.push(Box::new(reader));
        }
        let mut merge = RollupMerge::new(sources);
        let period = plan.period.clone();
        let mut out = RollupOut::new(plan.resolution, period, windows, true, u64::MAX);
        let mut pace = Pace::default();
        while let Some(chunk) = merge.next_chunk()? {
            out.push_chunk(&chunk)?;
            pace.after(chunk.bins.len()).await;
        }
        let rows = out.rows;
        let file = out.take()?;
        self.store_outputs(state, &mut draft.add, file, report)
            .await?;
        report.rollup_rows += rows;
        check_rows("consolidate", rows_of(plan), rows, 0)?;
        let (before, after) = (hash_of(plan), draft.add.first().map(|f| f.stats.rows_hash));
        match after == Some(before) {
            true => Ok(()),
            false => Err(not_disjoint(plan, 0)),
        }
    }
}

fn rows_of(plan: &ConsolidatePlan) -> u64 {
    plan.files.iter().map(|file| file.stats.rows).sum()
}

fn hash_of(plan: &ConsolidatePlan) -> stele_model::RowsHash {
    let hashes = plan.files.iter().map(|file| file.stats.rows_hash);
    hashes.fold(
        stele_model::RowsHash::default(),
        stele_model::RowsHash::union,
    )
}

fn not_disjoint(plan: &ConsolidatePlan, rows: u64) -> Error {
    let path = plan.files.first().map(|file| file.path.clone());
    Error::NotDisjoint {
        path: path.unwrap_or_default(),
        rows,
    }
}
