//! The tiers of a run: which there are, and what is asked of them.

use std::time::Duration;

use stele_model::TierId;
use stele_model::time::SECOND_US;
use stele_protect::init;
use stele_store::{Role, TierSet, TierState, WritePolicy, publish_epoch};

use super::Driver;
use crate::sim::Violation;
use crate::sim::fleet::{Migrated, TierAsk};
use crate::sim::place::Place;
use crate::sim::process::{Done, Job, Process, Task};
use crate::sim::tasks::job;

/// Tiers at once.
pub(super) const TIERS_MAX: usize = 3;
/// Tiers in all.
const NAMES: [&str; 6] = ["a", "b", "c", "d", "e", "f"];

/// The names of tiers that were given out, and what is new of the sets.
#[derive(Default)]
pub(super) struct Names {
    used: usize,
    /// A set was published since the last check.
    pub is_new: bool,
}

fn id(name: &str) -> TierId {
    name.parse().expect("a letter")
}

pub(super) fn migrate(process: &Process, ask: TierAsk) -> Task {
    let process = process.clone();
    Box::pin(async move {
        let result = match process.fleet() {
            Some(fleet) => fleet.migrate(&ask).await,
            None => Ok(Migrated {
                text: "there are no tiers".to_owned(),
            }),
        };
        Done::Migrated { ask, result }
    })
}

impl Driver {
    /// The first tier set, before anybody begins.
    pub(super) async fn begin_tiers(&mut self) -> Result<(), Violation> {
        let Some(settings) = self.settings.tiers.clone() else {
            return Ok(());
        };
        let broken = |error: &dyn std::error::Error| Violation::new("no defect of ours", error);
        self.new_place();
        let mut first = TierSet::first(id("a"), "a");
        (first.lease_ms, first.request_ms) = (settings.lease_ms, settings.request_ms);
        first.is_quiet = true;
        let tier = self.home().as_tier(&self.store);
        init(&tier, &first).await.map_err(|error| broken(&error))?;
        // Mostly, one or two have joined long ago.
        for _ in 0..self.rng.pick(&[0, 1, 1, 1, 2, 2]) {
            let Some(name) = self.new_place() else {
                break;
            };
            let joining = first.adding(id(&name), &name, Role::Mirror);
            let joining = joining.map_err(|error| broken(&error))?;
            first = joining.joined(&id(&name)).map_err(|error| broken(&error))?;
            for place in &self.places {
                for set in [&joining, &first] {
                    let published = publish_epoch(&place.as_tier(&self.store), set).await;
                    published.map_err(|error| broken(&error))?;
                }
            }
            self.pass(first.wait_us() + SECOND_US);
        }
        self.follow().await
    }

    /// Time passes, for the clocks and for the timers.
    pub(super) fn pass(&mut self, us: i64) {
        self.clock.advance(us);
        self.passed_us += us;
    }

    /// Lets the timers see the time that has passed.
    pub(super) async fn fire_timers(&mut self) {
        let passed_us = std::mem::take(&mut self.passed_us).unsigned_abs();
        if self.settings.tiers.is_some() && passed_us > 0 {
            tokio::time::advance(Duration::from_micros(passed_us)).await;
        }
    }

    /// A tier answers nobody, or does again.
    pub(super) fn kill_or_revive(&mut self) {
        if let Some(at) = self.dead.take() {
            // One that was given up must never come back as it was.
            let is_over = self.is_given_up || self.is_of_state(at, TierState::Lost);
            match is_over || self.rng.chance(60) {
                true => self.dead = Some(at),
                false => self.revive(at),
            }
            return;
        }
        let complete = self.epochs.complete();
        let active = (0..self.places.len()).filter(|at| self.is_active(*at));
        let active: Vec<usize> = active.collect();
        if active.len() < 2 || complete.len() < 2 {
            return;
        }
        let at = match self.rng.chance(60) {
            true => self.primary,
            false => active[self.rng.below(active.len())],
        };
        let root = self.places[at].root.clone();
        self.note(format!("tier {root} answers nobody"));
        self.world.set_dead(&root, true);
        self.dead = Some(at);
    }

    pub(super) fn revive(&mut self, at: usize) {
        let root = self.places[at].root.clone();
        self.note(format!("tier {root} answers again"));
        self.world.set_dead(&root, false);
    }

    pub(super) fn is_of_state(&self, at: usize, state: TierState) -> bool {
        let name = &self.places[at].name;
        self.of_state(state).iter().any(|id| id.as_str() == name)
    }

    /// The place of the next name.
    fn new_place(&mut self) -> Option<String> {
        let name = *NAMES.get(self.names.used)?;
        self.names.used += 1;
        let mut place = Place::new(name, &format!("{name}/"), &self.store, &self.settings);
        if let Some(first) = self.places.first() {
            place.registry = first.registry.beside();
        }
        self.places.push(place);
        Some(name.to_owned())
    }

    /// Whether deletion must heed the place.
    pub(super) fn is_active(&self, at: usize) -> bool {
        let Some(set) = self.epochs.newest() else {
            return true;
        };
        let name = &self.places[at].name;
        let mut members = set.members.iter();
        members.any(|member| member.url == *name && member.is_active())
    }

    pub(super) fn of_state(&self, state: TierState) -> Vec<TierId> {
        let set = self.epochs.newest();
        let members = set.into_iter().flat_map(|set| &set.members);
        let of_state = members.filter(|member| member.state == state);
        of_state.map(|member| member.id.clone()).collect()
    }

    /// Begins a task about the tiers.
    pub(super) fn begin_with_tiers(&mut self) -> Result<(), Violation> {
        if self.rng.chance(25) {
            let process = self.process("c-");
            let kind = Job::SweepOther(self.steps);
            return self.spawn(&process.actor, format!("{kind:?}"), job(&process, kind));
        }
        let process = self.process("m-");
        let Some(ask) = self.tier_ask() else {
            return Ok(());
        };
        let name = format!("{ask:?}");
        self.spawn(&process.actor, name, migrate(&process, ask))
    }

    fn tier_ask(&mut self) -> Option<TierAsk> {
        let joining = self.of_state(TierState::Joining);
        let mirrors = self.of_state(TierState::Mirror);
        let draining = self.of_state(TierState::Draining);
        let active = 1 + joining.len() + mirrors.len();
        if !mirrors.is_empty() && self.dead == Some(self.primary) && self.rng.chance(60) {
            self.is_given_up = true;
            let forced = match self.forced.take() {
                Some(forced) if mirrors.contains(&forced) => forced,
                _ => self.one_of(&mirrors),
            };
            self.forced = Some(forced.clone());
            return Some(TierAsk::Force(forced));
        }
        let can_be_drained = [joining.clone(), mirrors.clone()].concat();
        if !draining.is_empty() && self.rng.chance(30) {
            return Some(TierAsk::Retire(self.one_of(&draining)));
        }
        Some(match self.rng.below(100) {
            0..10 if active < TIERS_MAX => self.adding()?,
            _ if active == 1 => self.adding()?,
            0..30 if !joining.is_empty() => TierAsk::Sync,
            30..70 if !mirrors.is_empty() => TierAsk::Promote(self.one_of(&mirrors)),
            70..80 if !can_be_drained.is_empty() => TierAsk::Drain(self.one_of(&can_be_drained)),
            80..86 => TierAsk::Policy(self.rng.pick(&[WritePolicy::Primary, WritePolicy::All])),
            86..90 => TierAsk::Sync,
            _ => TierAsk::Follow,
        })
    }

    fn one_of(&mut self, ids: &[TierId]) -> TierId {
        ids[self.rng.below(ids.len())].clone()
    }

    /// One more tier: one that was begun with and is not in the set yet, or a new one.
    fn adding(&mut self) -> Option<TierAsk> {
        let role = match self.rng.chance(15) {
            true => Role::Backup,
            false => Role::Mirror,
        };
        let set = self.epochs.newest();
        let is_known = |place: &Place| {
            let mut members = set.into_iter().flat_map(|set| &set.members);
            members.any(|member| member.url == place.name)
        };
        let waiting = self.places.iter().find(|place| !is_known(place));
        let waiting = waiting.map(|place| place.name.clone());
        let name = waiting.or_else(|| self.new_place())?;
        Some(TierAsk::Add(id(&name), role))
    }

    /// A step on the tiers came to its end.
    pub(super) fn migrated(
        &mut self,
        actor: &str,
        ask: &TierAsk,
        migrated: &Migrated,
    ) -> Result<(), Violation> {
        self.note(format!("{actor}: {ask:?}: {}", migrated.text));
        for contradiction in ["have diverged", "holds other bytes"] {
            // One that was joining may have got what was lost with the primary.
            if !self.is_given_up && migrated.text.contains(contradiction) {
                return Err(Violation::new("I11 tier equality", &migrated.text));
            }
        }
        Ok(())
    }

    /// Whether the last promotion has not come to the table of its tier.
    pub(super) fn is_promoting(&self) -> bool {
        let since = self.epochs.newest().map_or(0, |set| set.primary_since);
        let state = self.home().observer.state();
        let fence = state.and_then(|state| state.fence.as_ref());
        fence.map_or(0, |fence| fence.epoch) != since
    }
}
