//! Settle: absorb, seal and consolidate to the end, and say what stayed open.

use stele_model::WindowSet;
use stele_table::{View, rollups_paused};

use crate::compactor::Compactor;
use crate::error::Result;
use crate::options::Budget;
use crate::report::{Left, Progress, SettleReport, Stage};

impl Compactor {
    /// Absorbs what LIST shows, seals all closed windows, reopened ones included, and merges
    /// small files. What was accepted meanwhile, and windows that have not closed, are left.
    ///
    /// # Errors
    /// Those of the three jobs. What was committed before stays.
    pub async fn settle(
        &self,
        budget: &Budget,
        progress: &(dyn Fn(Progress) + Sync),
    ) -> Result<SettleReport> {
        let tell = |stage: Stage| move |done, total| progress(Progress { stage, done, total });
        let absorb = self.absorb_telling(budget, &tell(Stage::Absorb)).await;
        let absorb = self.watched(absorb).await?;
        let seal = self.seal_telling(budget, true, &tell(Stage::Seal)).await;
        let seal = self.watched(seal).await?;
        let merged = self
            .consolidate_telling(budget, true, &tell(Stage::Consolidate))
            .await;
        let consolidate = self.watched(merged).await?;
        let view = View::read(&self.log, self.cached_state()).await?;
        let paused = rollups_paused(&self.store).await?.is_some();
        let left = self.left(&view, paused);
        let stopped = absorb.stopped || seal.stopped || consolidate.stopped;
        let complete = !stopped && absorb.damaged == 0 && left.windows_not_sealed == 0;
        Ok(SettleReport {
            absorb,
            seal,
            consolidate,
            left,
            version: view.state.version,
            complete,
        })
    }

    fn left(&self, view: &View, paused: bool) -> Left {
        let rules = self.seal_rules(true);
        let open = view.state.open_windows_of_files();
        let closed: WindowSet = open
            .iter()
            .filter(|window| rules.is_closed(*window))
            .collect();
        let not_closed = open.difference(&closed);
        let first = |windows: &WindowSet| windows.iter().next().map(|w| w.start_us());
        Left {
            objects: view.l0.len() as u64,
            windows_not_closed: not_closed.len() as u64,
            not_closed_since_us: first(&not_closed),
            windows_not_sealed: closed.len() as u64,
            not_sealed_since_us: first(&closed),
            paused,
        }
    }
}
