//! The end of a run: the faults stop, everything settles, nothing is left over.

use stele_model::time::{HOUR_US, MINUTE_US};
use stele_model::{Clock, Digest};

use super::{Driver, actors};
use crate::sim::Violation;
use crate::sim::place::Place;
use crate::sim::process::{Job, PinAsk, Task};
use crate::sim::tasks::{ingest, ingest_group, ingest_keyed, job, pin_task};

/// Rounds in which the end must be reached once nothing fails any more.
const SETTLE_ROUNDS: usize = 4;

impl Driver {
    /// The faults stop: everything must settle, and nothing may be left over.
    pub(super) async fn calm(&mut self) -> Result<(), Violation> {
        self.note("the faults stop".to_owned());
        self.tasks.clear();
        self.world.end_faults();
        self.world.land_all().await;
        self.follow().await?;
        for actor in actors(&self.settings) {
            self.restart(actor);
        }
        self.calm_tiers().await?;
        self.end_restores().await?;
        self.job(Job::Pause(false)).await?;
        self.settle().await?;
        if !self.settings.retention.is_for_ever() {
            self.job(Job::Expire).await?;
        }
        self.i12_replayed_batches_change_nothing().await?;
        self.i10_pins_are_stable().await?;
        self.drop_all_pins().await?;
        self.i15_nothing_is_left_over().await?;
        self.check_home().await?;
        self.i15_tiers_are_equal().await?;
        self.i11_the_primary_retires().await
    }

    /// Checks everything on the primary.
    pub(super) async fn check_home(&mut self) -> Result<(), Violation> {
        let now_us = self.clock.now_us();
        let Place {
            observer, registry, ..
        } = &mut self.places[self.primary];
        observer.check_all(registry, now_us).await
    }

    /// Runs one task to its end with nobody else about.
    pub(super) async fn alone(
        &mut self,
        actor: &str,
        name: &str,
        task: Task,
    ) -> Result<(), Violation> {
        self.spawn(actor, name.to_owned(), task)?;
        while !self.tasks.is_empty() {
            let Some(ticket) = self.world.waiting().first().cloned() else {
                let what = format!("{actor}'s {name} waits for nothing");
                return Err(Violation::new("I15 progress", what));
            };
            self.world.grant(ticket.id);
            self.poll(&ticket.actor)?;
            self.follow().await?;
        }
        Ok(())
    }

    pub(super) async fn job(&mut self, kind: Job) -> Result<(), Violation> {
        let process = self.process("c-0");
        let errors = self.tally.errors;
        let name = format!("{kind:?}");
        self.alone(&process.actor, &name, job(&process, kind))
            .await?;
        if self.tally.errors > errors {
            let what = self.trace.last().cloned().unwrap_or_default();
            return Err(Violation::new("I15 progress", what));
        }
        Ok(())
    }

    pub(super) async fn settle(&mut self) -> Result<(), Violation> {
        self.pass(3 * HOUR_US);
        for _ in 0..SETTLE_ROUNDS {
            self.job(Job::Settle).await?;
        }
        self.check_home().await?;
        let newest = self.home().observer.state();
        let state = newest.cloned().unwrap_or_default();
        self.tally.versions = state.version;
        self.tally.expired = state.totals.expired;
        let open = state.open_windows_of_files();
        if !open.is_empty() {
            let what = format!("windows {open:?} are still open");
            return Err(Violation::new("I15 progress", what));
        }
        Ok(())
    }

    /// I12: the same batches again, alone and together, change no answer.
    pub(super) async fn i12_replayed_batches_change_nothing(&mut self) -> Result<(), Violation> {
        let registry = &self.home().registry;
        let landed: Vec<Digest> = registry.digests();
        let landed: Vec<Digest> = landed
            .into_iter()
            .filter(|batch| registry.has_landed(batch))
            .collect();
        if landed.len() < 2 {
            return Ok(());
        }
        let before = self.home().registry.expected().clone();
        let process = self.process("in-");
        for _ in 0..3 {
            let digest = self.rng.pick(&landed);
            let rows = self
                .home()
                .registry
                .rows(&digest)
                .cloned()
                .unwrap_or_default();
            let task = ingest(&process, rows, digest);
            self.alone(&process.actor, "replay", task).await?;
        }
        for (submission, batch) in self.keys.alive().iter().rev().take(3) {
            if batch.is_some_and(|batch| landed.contains(&batch)) {
                let task = ingest_keyed(&process, submission, &self.announced);
                self.alone(&process.actor, "replay with a key", task)
                    .await?;
            }
        }
        let object = self.group(&[landed[0], landed[landed.len() - 1]]);
        let task = ingest_group(&process, object);
        self.alone(&process.actor, "replay together", task).await?;
        self.settle().await?;
        match before.first_difference(self.home().registry.expected()) {
            None => Ok(()),
            Some(what) => Err(Violation::new("I12 convergence", what)),
        }
    }

    /// I10, long after: what is not dropped loads as it was, and all of it is there.
    async fn i10_pins_are_stable(&mut self) -> Result<(), Violation> {
        self.pass(3 * self.settings.compact.history_us);
        self.sweep_all().await?;
        self.follow_pins().await
    }

    /// Of those that nobody acknowledged, too.
    async fn drop_all_pins(&mut self) -> Result<(), Violation> {
        let process = self.process("p-");
        for key in self.home().keys(&self.store, "pins") {
            let name = key.filename().and_then(|name| name.strip_suffix(".json"));
            let Some(name) = name.filter(|name| !name.contains('.')) else {
                continue;
            };
            let task = pin_task(&process, PinAsk::Drop, name);
            self.alone(&process.actor, "drop", task).await?;
        }
        Ok(())
    }

    /// I15: after the history has passed, sweep leaves what is live and little else.
    pub(super) async fn i15_nothing_is_left_over(&mut self) -> Result<(), Violation> {
        const NAME: &str = "I15 garbage is bounded";
        let rounds = if self.settings.tiers.is_some() { 6 } else { 3 };
        for _ in 0..rounds {
            self.pass(self.settings.compact.history_us + MINUTE_US);
            self.sweep_all().await?;
        }
        self.pass(self.settings.compact.marker_keep_us);
        self.sweep_all().await?;
        let active: Vec<usize> = (0..self.places.len())
            .filter(|at| self.is_active(*at))
            .collect();
        for at in active {
            for folder in ["idem", "pins", "l0"] {
                let left = self.places[at].keys(&self.store, folder);
                if let Some(key) = left.first() {
                    let what = format!("{key} and {} others stay", left.len() - 1);
                    return Err(Violation::new(NAME, what));
                }
            }
        }
        let heads = self.home().keys(&self.store, "table/heads").len();
        let kept = self.settings.compact.heads_kept;
        if heads > kept + 2 {
            return Err(Violation::new(
                NAME,
                format!("{heads} heads of {kept} to keep"),
            ));
        }
        Ok(())
    }
}
