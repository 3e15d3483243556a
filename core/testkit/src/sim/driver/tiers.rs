//! The tiers of a run: what is asked of them, and what must hold of them.

use std::collections::BTreeSet;
use std::time::Duration;

use futures::FutureExt;
use stele_model::time::{MINUTE_US, SECOND_US};
use stele_model::{Clock, Digest, TierId};
use stele_protect::init;
use stele_store::{Role, TierSet, TierState, WritePolicy, newest_epoch, publish_epoch};

use super::Driver;
use crate::fault::relative;
use crate::memory::Mutation;
use crate::sim::Violation;
use crate::sim::fleet::{Migrated, TierAsk};
use crate::sim::place::Place;
use crate::sim::process::{Done, Job, Process, Task, job};

/// How often a step is asked for in the end, with the leases over in between.
const ROUNDS_MAX: usize = 8;
/// Tiers at once, and in all.
const TIERS_MAX: usize = 3;
const NAMES: [&str; 6] = ["a", "b", "c", "d", "e", "f"];

/// The names of tiers that were given out, and what is new of the sets.
#[derive(Default)]
pub(super) struct Names {
    used: usize,
    /// A set was published since the last check.
    is_new: bool,
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

    fn revive(&mut self, at: usize) {
        let root = self.places[at].root.clone();
        self.note(format!("tier {root} answers again"));
        self.world.set_dead(&root, false);
    }

    fn is_of_state(&self, at: usize, state: TierState) -> bool {
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

    fn of_state(&self, state: TierState) -> Vec<TierId> {
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
            return Some(TierAsk::Force(self.one_of(&mirrors)));
        }
        let can_be_drained = [joining.clone(), mirrors.clone()].concat();
        Some(match self.rng.below(100) {
            0..10 if active < TIERS_MAX => self.adding()?,
            _ if active == 1 => self.adding()?,
            0..30 if !joining.is_empty() => TierAsk::Sync,
            30..50 if !draining.is_empty() => TierAsk::Retire(self.one_of(&draining)),
            50..70 if !mirrors.is_empty() => TierAsk::Promote(self.one_of(&mirrors)),
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
            if migrated.text.contains(contradiction) {
                return Err(Violation::new("I11 tier equality", &migrated.text));
            }
        }
        Ok(())
    }

    /// I1 with tiers: a batch is on every tier that a set asks for which a process may act on; and
    /// on every tier that the newest set calls complete.
    pub(super) fn i1_durable_on_tiers(&mut self, batches: &[Digest]) -> Result<(), Violation> {
        const NAME: &str = "I1 durable ack";
        let now_us = self.clock.now_us();
        for batch in batches {
            let lacks = |set: &TierSet| self.lacks(set, batch);
            let lacking: Vec<String> = self.epochs.acted_on(now_us).filter_map(lacks).collect();
            if lacking.len() == self.epochs.acted_on(now_us).count() {
                let what = format!("batch {batch} is acknowledged; {}", lacking.join("; "));
                return Err(Violation::new(NAME, what));
            }
            let rows = self.home().registry.rows(batch).cloned();
            self.epochs.acknowledged(*batch, &rows.unwrap_or_default());
        }
        self.i1_complete_tiers_hold(batches.iter())
    }

    /// What of a batch is not where `set` asks for it.
    fn lacks(&self, set: &TierSet, batch: &Digest) -> Option<String> {
        let primary = set.primary().ok()?;
        let writes = set.members.iter().filter(|member| member.takes_writes());
        for member in writes {
            if self.holds(&member.url, batch) {
                continue;
            }
            let is_noted = set.policy == WritePolicy::Primary
                && member.id != primary.id
                && self.intends(&primary.url, &member.id, batch);
            if !is_noted {
                return Some(format!("epoch {}: not on tier {}", set.epoch, member.id));
            }
        }
        None
    }

    fn holds(&self, name: &str, batch: &Digest) -> bool {
        let place = self.places.iter().find(|place| place.name == name);
        place.is_some_and(|place| place.registry.has_landed(batch))
    }

    /// Whether `primary` has noted that `tier` lacks the batch.
    fn intends(&self, primary: &str, tier: &TierId, batch: &Digest) -> bool {
        let place = self.places.iter().find(|place| place.name == primary);
        let Some(place) = place else {
            return false;
        };
        let keys = place.keys(&self.store, &stele_store::keys::repairs(tier));
        keys.iter().any(|key| {
            let name = key.filename().and_then(|name| name.parse().ok());
            name.is_some_and(|name: stele_model::L0Name| {
                place.registry.batches_of(&name.digest).contains(batch)
            })
        })
    }

    /// I1: every tier that the newest set calls complete holds what was acknowledged.
    fn i1_complete_tiers_hold<'a>(
        &self,
        mut batches: impl Iterator<Item = &'a Digest> + Clone,
    ) -> Result<(), Violation> {
        for tier in self.epochs.complete() {
            let mut lacking = batches.by_ref().clone();
            if let Some(batch) = lacking.find(|batch| !self.holds(&tier, batch)) {
                let what = format!("tier {tier} counts as complete, and lacks batch {batch}");
                return Err(Violation::new("I1 complete at any instant", what));
            }
        }
        Ok(())
    }

    /// Learns of a tier set that was published.
    pub(super) fn learn_epoch(&mut self, change: &Mutation, at: usize) -> Result<(), Violation> {
        let Mutation::Put(path) = change else {
            return Ok(());
        };
        if self.settings.tiers.is_none() || !relative(path.as_ref()).starts_with("control/epoch/") {
            return Ok(());
        }
        let tier = self.places[at].as_tier(&self.store);
        let read = newest_epoch(&tier).now_or_never();
        let broken = |what: String| Violation::new("no defect of ours", what);
        let published = read.ok_or_else(|| broken("the tier set waits".to_owned()))?;
        let published = published.map_err(|error| broken(error.to_string()))?;
        let Some(published) = published else {
            return Ok(());
        };
        let text = format!("{:?}", published.set);
        let name = &self.places[at].name;
        if self.epochs.learn(published.set, name, self.clock.now_us())? {
            self.note(format!("tier set: {text}"));
            self.names.is_new = true;
        }
        Ok(())
    }

    /// What a new set promises must hold when it is published.
    pub(super) async fn follow_epochs(&mut self) -> Result<(), Violation> {
        if !std::mem::take(&mut self.names.is_new) {
            return Ok(());
        }
        let Some(set) = self.epochs.newest().cloned() else {
            return Ok(());
        };
        let now_us = self.clock.now_us();
        let primary = set.primary().map_or("", |primary| primary.url.as_str());
        let moved = self.places.iter().position(|place| place.name == primary);
        let moved = moved.unwrap_or(self.primary);
        if moved != self.primary {
            let was = std::mem::replace(&mut self.primary, moved);
            if set.promoted_from.is_none() {
                let bytes = |at: usize, key: &str| {
                    let root = &self.places[at].root;
                    self.store.bytes(&format!("{root}tenants/default/{key}").into())
                };
                let is_there = |key: &str| {
                    let here = bytes(moved, key);
                    here.is_some() && here == bytes(was, key)
                };
                let node = self.places[moved].observer.node();
                let newest = node.log.load().await.ok().flatten();
                let newest = newest.map_or(0, |state| state.version);
                self.pinned.keep(is_there, newest);
            }
            let marks = self.home().keys(&self.store, "pins").into_iter();
            let marks = marks.filter_map(|key| {
                let name = key.filename()?.strip_suffix(".dropped.json")?;
                Some(name.to_owned())
            });
            let marks: Vec<String> = marks.collect();
            self.pinned.moves(marks.into_iter(), now_us);
        }
        let root = self.home().root.clone();
        let frozen = self.home().observer.all_frozen();
        for place in &mut self.places {
            let mut members = set.members.iter();
            let member = members.find(|member| member.url == place.name);
            let state = member.map(|member| member.state);
            let holds_table = matches!(state, Some(TierState::Mirror | TierState::Primary));
            let is_over = member.is_none_or(|member| member.is_over());
            let is_new = holds_table && !place.is_watched;
            place.is_watched = (place.is_watched || holds_table) && !is_over;
            let copies = (place.root != root).then_some(root.as_str());
            let frozen = if is_new { frozen.clone() } else { Default::default() };
            place.observer.follows(copies, frozen);
            if place.is_watched {
                place.observer.check_all(&mut place.registry, now_us).await?;
            }
        }
        if set.promoted_from.is_none() && set.primary_since == set.epoch {
            self.lose_with_the_primary(&set);
        }
        self.i11_nothing_goes_with_a_tier()?;
        self.i1_complete_tiers_hold(self.epochs.acked().iter())
    }

    /// Under the policy `primary`, a batch that the lost primary alone held is lost with it.
    fn lose_with_the_primary(&mut self, set: &TierSet) {
        if set.policy == WritePolicy::All {
            return;
        }
        let acked = self.epochs.acked().iter().copied();
        let lost: BTreeSet<Digest> = acked.filter(|batch| !self.is_somewhere(batch)).collect();
        if !lost.is_empty() {
            self.note(format!("{} batches are lost with the primary", lost.len()));
            let registry = &self.places[self.primary].registry;
            let rows = |batch: &Digest| registry.rows(batch).cloned().unwrap_or_default();
            self.epochs.lost(&lost, rows);
        }
    }

    /// Whether a tier of the newest set whose table loads holds the batch.
    fn is_somewhere(&self, batch: &Digest) -> bool {
        let places = self.places.iter().enumerate();
        let mut of_set = places.filter(|(at, place)| place.is_watched && self.is_active(*at));
        of_set.any(|(_, place)| place.registry.has_landed(batch))
    }

    /// I11: whoever leaves the set, what was acknowledged is on a tier that stays.
    fn i11_nothing_goes_with_a_tier(&self) -> Result<(), Violation> {
        let mut acked = self.epochs.acked().iter();
        match acked.find(|batch| !self.is_somewhere(batch)) {
            None => Ok(()),
            Some(batch) => {
                let what = format!("batch {batch} was acknowledged, and no tier that stays has it");
                Err(Violation::new("I11 tier equality", what))
            }
        }
    }

    /// Until nobody acts on the set before the newest.
    fn pass_lease(&mut self) {
        let set = self.epochs.newest();
        let wait_us = set.map_or(0, |set| set.wait_us());
        self.pass(wait_us + 2 * SECOND_US);
    }

    /// Whether the last promotion has not come to the table of its tier.
    pub(super) fn is_promoting(&self) -> bool {
        let since = self.epochs.newest().map_or(0, |set| set.primary_since);
        let state = self.home().observer.state();
        let fence = state.and_then(|state| state.fence.as_ref());
        fence.map_or(0, |fence| fence.epoch) != since
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
        if self.epochs.newest().is_some_and(|set| set.policy != WritePolicy::All) {
            self.patiently(TierAsk::Policy(WritePolicy::All)).await?;
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
            state.filter(|state| state.exists()).map(|state| state.version)
        };
        mirrors.iter().max_by_key(version).expect("not empty").clone()
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
                place.observer.check_all(&mut place.registry, now_us).await?;
                if let Some(what) = expected.first_difference(place.registry.expected()) {
                    let what = format!("tier {mirror}: {what}");
                    return Err(Violation::new("I15 tiers are equal", what));
                }
            }
            self.patiently(TierAsk::Compare(mirror)).await?;
        }
        self.i6_deletion_is_not_frozen()
    }

    /// Nothing that a run shows may freeze deletion: only a defect does.
    fn i6_deletion_is_not_frozen(&self) -> Result<(), Violation> {
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
