//! The end of a run with tiers: whatever was begun is finished, and all tiers are equal.

use stele_model::time::{MINUTE_US, SECOND_US};
use stele_model::{Clock, TierId};
use stele_store::{Member, Role, TierState, WritePolicy};
use stele_table::set_deletion_frozen;

use super::Driver;
use super::tiers::{TIERS_MAX, migrate};
use crate::fault::relative;
use crate::sim::Violation;
use crate::sim::fleet::TierAsk;
use crate::sim::place::Place;
use crate::sim::process::Job;

/// How often a step is asked for in the end, with the leases over in between.
const ROUNDS_MAX: usize = 8;

impl Driver {
    /// Until nobody acts on the set before the newest.
    fn pass_lease(&mut self) {
        let set = self.epochs.newest();
        let wait_us = set.map_or(0, |set| set.wait_us());
        self.pass(wait_us + 2 * SECOND_US);
    }

    /// Asks for a step until it is done, as a patient operator does.
    async fn patiently(&mut self, ask: TierAsk) -> Result<(), Violation> {
        for _ in 0..ROUNDS_MAX {
            self.pass_lease();
            let events = self.trace.len();
            let process = self.process("m-0");
            let name = format!("{ask:?}");
            let task = migrate(&process, ask.clone());
            self.alone(&process.actor, &name, task).await?;
            let said = self.trace.iter().skip(events).rev();
            let prefix = format!("m-0: {ask:?}: ");
            let mut said = said.filter_map(|line| line.strip_prefix(&prefix));
            let said = said.next().unwrap_or_default();
            if is_well(said) {
                return Ok(());
            }
        }
        let what = self.trace.last().cloned().unwrap_or_default();
        Err(Violation::new("I15 progress", format!("{ask:?}: {what}")))
    }

    /// Nothing fails any more: every tier joins, and what is half done is finished.
    pub(super) async fn calm_tiers(&mut self) -> Result<(), Violation> {
        if self.settings.tiers.is_none() {
            return Ok(());
        }
        self.calm_the_dead().await?;
        if self
            .epochs
            .newest()
            .is_some_and(|set| set.policy != WritePolicy::All)
        {
            self.patiently(TierAsk::Policy(WritePolicy::All)).await?;
        }
        if self.is_given_up {
            for joining in self.of_state(TierState::Joining) {
                self.patiently(TierAsk::Drain(joining)).await?;
            }
            self.resume_deletion().await?;
        }
        for round in 0..ROUNDS_MAX {
            self.patiently(TierAsk::Sync).await?;
            if self.of_state(TierState::Joining).is_empty() {
                // No job runs before nobody acts on the set before.
                self.pass_lease();
                return Ok(());
            }
            self.note(format!("tiers join, round {round}"));
        }
        let what = format!("{:?} never join", self.of_state(TierState::Joining));
        Err(Violation::new("I15 progress", what))
    }

    /// An operator resumes deletion, which a tier has frozen that held more than the new primary.
    async fn resume_deletion(&self) -> Result<(), Violation> {
        for place in &self.places {
            let store = place.as_tier(&self.store).tenant(&self.settings.tenant);
            let resumed = set_deletion_frozen(&store, None, self.clock.now_us()).await;
            resumed.map_err(|error| Violation::new("no defect of ours", error))?;
        }
        Ok(())
    }

    /// A dead primary is given up when a mirror can take its place; any other tier comes back.
    async fn calm_the_dead(&mut self) -> Result<(), Violation> {
        let Some(at) = self.dead.take() else {
            return Ok(());
        };
        let mirrors = self.of_state(TierState::Mirror);
        let is_given_up = self.is_given_up || self.rng.chance(50);
        if self.is_of_state(at, TierState::Primary) && !mirrors.is_empty() && is_given_up {
            let foremost = self.foremost(&mirrors);
            return self.patiently(TierAsk::Force(foremost)).await;
        }
        if !self.is_of_state(at, TierState::Lost) {
            self.revive(at);
        }
        Ok(())
    }

    /// The mirror that knows most.
    fn foremost(&self, mirrors: &[TierId]) -> TierId {
        let version = |id: &&TierId| {
            let place = self.places.iter().find(|place| place.name == id.as_str());
            let state = place.and_then(|place| place.observer.state());
            state
                .filter(|state| state.exists())
                .map(|state| state.version)
        };
        mirrors
            .iter()
            .max_by_key(version)
            .expect("not empty")
            .clone()
    }

    /// Sweeps every tier; the others follow first, for sweep waits for them.
    pub(super) async fn sweep_all(&mut self) -> Result<(), Violation> {
        if self.settings.tiers.is_none() {
            return self.job(Job::Sweep).await;
        }
        self.patiently(TierAsk::Follow).await?;
        self.job(Job::Sweep).await?;
        for nth in 0..TIERS_MAX {
            self.job(Job::SweepOther(nth)).await?;
        }
        self.pass(MINUTE_US);
        self.patiently(TierAsk::Follow).await
    }

    /// I11 and I15: in the end every tier holds what the primary holds, byte for byte, and answers
    /// the same.
    pub(super) async fn i15_tiers_are_equal(&mut self) -> Result<(), Violation> {
        if self.settings.tiers.is_none() {
            return Ok(());
        }
        self.patiently(TierAsk::Follow).await?;
        let acked = self.epochs.acked().clone();
        let primary = self.home().name.clone();
        if let Some(batch) = acked.iter().find(|batch| !self.holds(&primary, batch)) {
            let what = format!("batch {batch} was acknowledged, and is not on {primary}");
            return Err(Violation::new("I2 exactly once", what));
        }
        let now_us = self.clock.now_us();
        let expected = self.home().registry.expected().clone();
        let mirrors = self.of_state(TierState::Mirror);
        for mirror in mirrors {
            let of_mirror = |place: &&mut Place| place.name == mirror.as_str();
            if let Some(place) = self.places.iter_mut().find(of_mirror) {
                place.observer.follows(None, Default::default());
                place
                    .observer
                    .check_all(&mut place.registry, now_us)
                    .await?;
                if let Some(what) = expected.first_difference(place.registry.expected()) {
                    let what = format!("tier {mirror}: {what}");
                    return Err(Violation::new("I15 tiers are equal", what));
                }
            }
            self.patiently(TierAsk::Compare(mirror)).await?;
        }
        self.i6_deletion_is_not_frozen()
    }

    /// I11: the primary hands over, is drained and goes with the proof; all of it is on the survivor.
    pub(super) async fn i11_the_primary_retires(&mut self) -> Result<(), Violation> {
        let set = self.epochs.newest();
        let mut members = set.into_iter().flat_map(|set| &set.members);
        let can_take_over = |m: &&Member| m.state == TierState::Mirror && m.role == Role::Mirror;
        let Some(next) = members.find(can_take_over).map(|m| m.id.clone()) else {
            return Ok(());
        };
        let [old] = &self.of_state(TierState::Primary)[..] else {
            return Err(Violation::new("I14 epochs", "there is not one primary"));
        };
        let old = old.clone();
        let expected = self.home().registry.expected().clone();
        self.patiently(TierAsk::Promote(next.clone())).await?;
        self.patiently(TierAsk::Sync).await?;
        self.pass_lease();
        self.job(Job::Settle).await?;
        self.patiently(TierAsk::Drain(old.clone())).await?;
        self.patiently(TierAsk::Retire(old.clone())).await?;
        if self
            .of_state(TierState::Retired)
            .iter()
            .all(|id| *id != old)
        {
            return Err(Violation::new(
                "I15 progress",
                format!("{old} is not retired"),
            ));
        }
        self.check_home().await?;
        let survivor = self.home();
        match expected.first_difference(survivor.registry.expected()) {
            None if survivor.name == next.as_str() => Ok(()),
            None => Err(Violation::new(
                "I14 epochs",
                format!("{next} is not the primary"),
            )),
            Some(what) => Err(Violation::new("I11 proof to retire", what)),
        }
    }

    /// Nothing that a run shows may freeze deletion: only a defect does.
    fn i6_deletion_is_not_frozen(&self) -> Result<(), Violation> {
        if self.is_given_up {
            return Ok(());
        }
        let keys = self.store.keys("").into_iter();
        let mut frozen = keys.filter(|key| relative(key.as_ref()).starts_with("control/deletion/"));
        match frozen.next() {
            None => Ok(()),
            Some(key) => {
                let bytes = self.store.bytes(&key).unwrap_or_default();
                let text = String::from_utf8_lossy(&bytes).into_owned();
                Err(Violation::new("I6 safe delete", format!("{key}: {text}")))
            }
        }
    }
}

/// Whether a step came to its end for every tier.
fn is_well(said: &str) -> bool {
    let waits = said.is_empty() || said.starts_with("must wait");
    !waits && !said.contains("failed: Some") && !said.contains("is not equal")
}
