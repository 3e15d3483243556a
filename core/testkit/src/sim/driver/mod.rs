//! Who goes on when: one step at a time, all decided by the seed.

mod begin;
mod calm;
mod equal;
mod finish;
mod promises;
mod restores;
mod settings;
mod tiers;
mod turns;

use std::collections::BTreeMap;
use std::sync::Arc;

use stele_format::l0;
use stele_model::time::{HOUR_US, SECOND_US};
use stele_model::{Clock, Digest, Resolution, Rows, TierId};
use stele_table::set_retention;

use self::settings::{forgets, settings, tiers};
use self::tiers::Names;
use super::epochs::Epochs;
use super::keyed::Keys;
use super::pinned::Pinned;
use super::place::Place;
use super::process::{Process, Settings, Task};
use super::registry::l0_name;
use super::restores::Restores;
use super::tasks::Announced;
use super::traffic::{ACTORS, TIER_ACTORS, TIER_TRAFFIC, TRAFFIC};
use super::{Failure, Outcome, Scenario, Tally, Violation};
use crate::clock::ManualClock;
use crate::fault::{FaultWorld, KeyClass, Plan, root};
use crate::gen_rows::RowGen;
use crate::memory::{MemoryStore, Mutation};
use crate::rng::Rng;

/// 2026-11-30T21:40Z: a month ends soon.
const START_US: i64 = 1_796_074_800_000_000;
/// Keys on one page of a LIST.
const PAGE_KEYS: usize = 4;
/// The same with tiers, where more is listed.
const TIER_PAGE_KEYS: usize = 40;
/// One seed in three has tiers: those with this remainder.
const TIERED: u64 = 1;
const TASKS_MAX: usize = 10;
struct Running {
    actor: String,
    name: String,
    task: Task,
}

/// Every process of a run.
fn actors(settings: &Settings) -> &'static [&'static str] {
    match settings.tiers {
        Some(_) => &TIER_ACTORS,
        None => &ACTORS,
    }
}

pub(super) struct Driver {
    scenario: Scenario,
    rng: Rng,
    rows: RowGen,
    clock: ManualClock,
    store: MemoryStore,
    world: FaultWorld,
    settings: Settings,
    processes: Vec<Process>,
    tasks: Vec<Running>,
    /// The stores: the only one, or every tier that ever was.
    places: Vec<Place>,
    /// Which of them is the primary.
    primary: usize,
    epochs: Epochs,
    names: Names,
    /// The place that answers nobody.
    dead: Option<usize>,
    /// Somebody has begun to promote another for the dead primary.
    is_given_up: bool,
    /// Which tier takes its place: two operators who force two tiers at once have two Steles.
    forced: Option<TierId>,
    /// Time that the timers have not seen yet, µs.
    passed_us: i64,
    keys: Keys,
    pinned: Pinned,
    restores: Restores,
    /// Requests that were under way are over.
    must_land: bool,
    /// What keyed requests make of their marker, before they store it.
    announced: Announced,
    /// Mutations of the store that the registries know.
    tracked: usize,
    /// Of them, those the observers have not seen.
    unchecked: Vec<Mutation>,
    tally: Tally,
    trace: Vec<String>,
    plan: Plan,
    /// How many of 100 steps the same actor goes on.
    sticky: u64,
    last_actor: String,
    /// Processes that stand still, as a paused machine does, and until which step.
    frozen: BTreeMap<String, usize>,
    steps: usize,
}

impl Driver {
    pub fn new(scenario: &Scenario) -> Self {
        let rng = Rng::new(scenario.seed);
        let mut setup = rng.fork("setup");
        let clock = ManualClock::new(START_US + setup.between(0, 3 * HOUR_US));
        let store = MemoryStore::new(clock.clone());
        let tiers = (scenario.seed % 3 == TIERED).then(|| tiers(&mut rng.fork("tiers")));
        let plan = scenario.plan.clone().unwrap_or_else(|| {
            let mut rng = rng.fork("faults");
            let faults = rng.below(scenario.faults + 1);
            match tiers.is_some() {
                true => Plan::random(&mut rng, &TIER_TRAFFIC, faults),
                false => Plan::random(&mut rng, &TRAFFIC, faults),
            }
        });
        let page_keys = tiers.as_ref().map_or(PAGE_KEYS, |_| TIER_PAGE_KEYS);
        let world = FaultWorld::scheduled(Arc::new(store.clone()), plan.clone(), page_keys);
        let mut settings = settings(&mut setup, &clock);
        settings.tiers = tiers;
        let pinned = Pinned::new(settings.compact.history_us);
        settings.retention = forgets(&mut rng.fork("retention"));
        let start = |actor: &&str| {
            let skew_us = setup.between(-20, 20) * SECOND_US;
            Process::start(&world, actor, skew_us, setup.next_u64(), &settings)
        };
        let processes = actors(&settings).iter().map(start).collect();
        let places = match &settings.tiers {
            None => vec![Place::new("sim", "", &store, &settings)],
            Some(_) => Vec::new(),
        };
        Self {
            rows: RowGen::new(rng.fork("rows"), 1 + setup.below(5)),
            sticky: setup.pick(&[0, 40, 80, 95]),
            scenario: scenario.clone(),
            rng: rng.fork("steps"),
            clock,
            store,
            world,
            settings,
            processes,
            tasks: Vec::new(),
            places,
            primary: 0,
            epochs: Epochs::default(),
            names: Names::default(),
            dead: None,
            is_given_up: false,
            forced: None,
            passed_us: 0,
            keys: Keys::default(),
            pinned,
            restores: Restores::default(),
            must_land: false,
            announced: Announced::default(),
            tracked: 0,
            unchecked: Vec::new(),
            tally: Tally::default(),
            trace: Vec::new(),
            plan,
            last_actor: String::new(),
            frozen: BTreeMap::new(),
            steps: 0,
        }
    }

    pub async fn run(mut self) -> Result<Outcome, Box<Failure>> {
        let ended = match self.chaos().await {
            Ok(()) => self.calm().await,
            Err(violation) => Err(violation),
        };
        match ended {
            Ok(()) => Ok(self.outcome()),
            Err(violation) => Err(Box::new(Failure {
                seed: self.scenario.seed,
                violation,
                plan: self.plan,
                trace: self.trace,
            })),
        }
    }

    fn outcome(mut self) -> Outcome {
        self.tally.faults = self.world.fired().len() as u64;
        self.tally.requests = self.world.requests();
        self.tally.checks = self.places.iter().map(|place| place.observer.checks).sum();
        let reused = self.store.reused_keys().into_iter();
        let log = reused.filter(|key| KeyClass::of(key) == KeyClass::Log);
        self.tally.ghosts = log.count() as u64;
        let Place {
            registry, observer, ..
        } = &self.places[self.primary];
        self.tally.landed = registry.moment() as u64;
        self.tally.samples = registry.expected().len() as u64;
        Outcome {
            tally: self.tally,
            store: self.store,
            tenant: self.settings.tenant,
            root: self.places[self.primary].root.clone(),
            now_us: self.clock.now_us(),
            samples: observer.kept_now(registry.expected()),
            rollups: Resolution::ROLLUPS.map(|resolution| {
                let expected = registry.expected();
                (resolution, observer.rollups_now(expected, resolution))
            }),
            trace: self.trace,
        }
    }

    fn note(&mut self, line: String) {
        self.trace.push(line);
    }

    /// Sets the retention of a run that forgets, long enough ago to be in force.
    async fn set_retention(&mut self) -> Result<(), Violation> {
        let retention = self.settings.retention;
        if retention.is_for_ever() {
            return Ok(());
        }
        let tier = self.home().as_tier(&self.store);
        let store = tier.tenant(&self.settings.tenant);
        let set = set_retention(&store, retention).await;
        self.clock.advance(2 * HOUR_US);
        set.map_err(|error| Violation::new("no defect of ours", error))
    }

    /// The place of the primary.
    fn home(&self) -> &Place {
        &self.places[self.primary]
    }

    /// Notes a batch before it is sent, wherever it may land.
    fn sent(&mut self, rows: Rows) -> Digest {
        let batch = stele_format::batch(rows);
        for place in &mut self.places {
            place.registry.sent(batch.clone());
        }
        batch.digest
    }

    /// Notes an object of several batches before it is sent.
    fn sent_together(&mut self, object: Digest, batches: &[Digest]) {
        for place in &mut self.places {
            place.registry.sent_together(object, batches.to_vec());
        }
    }

    async fn chaos(&mut self) -> Result<(), Violation> {
        self.begin_tiers().await?;
        self.set_retention().await?;
        for _ in 0..self.scenario.steps {
            self.step()?;
            self.follow().await?;
        }
        Ok(())
    }

    /// Learns what has changed in the store.
    fn track(&mut self) -> Result<(), Violation> {
        for (key, rows) in self.announced.take() {
            let batch = self.sent(rows);
            self.keys.announced(key, batch)?;
        }
        let mutations = self.store.mutations(self.tracked);
        self.tracked += mutations.len();
        let (now_us, keep_us) = (self.clock.now_us(), self.settings.compact.marker_keep_us);
        for mutation in &mutations {
            let (Mutation::Put(path) | Mutation::Deleted(path)) = mutation;
            let Some(at) = self.place_at(root(path.as_ref())) else {
                continue;
            };
            self.learn_group(mutation, at)?;
            self.places[at].registry.follow(mutation);
            let is_primary = at == self.primary;
            let is_active = self.is_active(at);
            if is_active {
                self.tally.pins_swept += self.pinned.follow(mutation, now_us, is_primary)?;
            }
            if is_primary {
                self.keys.follow(mutation, now_us, keep_us)?;
            }
            self.learn_epoch(mutation, at)?;
        }
        self.unchecked.extend(mutations);
        Ok(())
    }

    fn place_at(&self, root: &str) -> Option<usize> {
        self.places.iter().position(|place| place.root == root)
    }

    /// What an object holds that an ingestor put together.
    fn learn_group(&mut self, mutation: &Mutation, at: usize) -> Result<(), Violation> {
        let Mutation::Put(path) = mutation else {
            return Ok(());
        };
        let Some(name) = l0_name(path) else {
            return Ok(());
        };
        if !self.places[at].registry.knows(&name.digest) {
            let bytes = self.store.bytes(path).unwrap_or_default();
            let digests = l0::digests(bytes).map_err(|e| Violation::new("I3 no invention", e))?;
            self.sent_together(name.digest, &digests);
        }
        let batches = self.places[at].registry.batches_of(&name.digest);
        self.tally.groups += u64::from(batches.len() > 1);
        Ok(())
    }

    async fn follow(&mut self) -> Result<(), Violation> {
        self.fire_timers().await;
        if std::mem::take(&mut self.must_land) {
            self.world.land_all().await;
        }
        self.track()?;
        let changed = std::mem::take(&mut self.unchecked);
        let now_us = self.clock.now_us();
        let must_check = self.pinned.must_check();
        for place in self.places.iter_mut().filter(|place| place.is_watched) {
            let is_here = |mutation: &&Mutation| {
                let (Mutation::Put(path) | Mutation::Deleted(path)) = mutation;
                root(path.as_ref()) == place.root
            };
            let changed: Vec<Mutation> = changed.iter().filter(is_here).cloned().collect();
            place
                .observer
                .follow(&changed, &mut place.registry, now_us)
                .await?;
        }
        self.follow_epochs().await?;
        self.follow_copies().await?;
        match must_check && !self.is_promoting() {
            true => self.follow_pins().await,
            false => Ok(()),
        }
    }

    /// I10: every pin that is acknowledged and not dropped is what it was.
    async fn follow_pins(&mut self) -> Result<(), Violation> {
        let node = self.places[self.primary].observer.node();
        self.pinned.check(&self.store, node).await
    }

    fn step(&mut self) -> Result<(), Violation> {
        self.steps += 1;
        let waiting = self.awake();
        if self.settings.tiers.is_some() && self.rng.below(1_000) < 2 {
            self.kill_or_revive();
        }
        match self.rng.below(400) {
            0..4 => self.jump(),
            4..7 => self.crash_one(),
            7..14 if !waiting.is_empty() => self.freeze(&waiting),
            14..74 if self.tasks.len() < TASKS_MAX => self.begin()?,
            _ if waiting.is_empty() && self.tasks.is_empty() => self.begin()?,
            _ if waiting.is_empty() => self.crash_one(),
            _ => {
                let same = waiting.iter().find(|t| t.actor == self.last_actor);
                let same = same.filter(|_| self.rng.chance(self.sticky)).cloned();
                let ticket = match same {
                    Some(ticket) => ticket,
                    None => waiting[self.rng.below(waiting.len())].clone(),
                };
                let us = self.rng.between(0, SECOND_US / 2);
                self.pass(us);
                self.note(format!("{}: {}", ticket.actor, ticket.what));
                self.last_actor.clone_from(&ticket.actor);
                self.world.grant(ticket.id);
                self.poll(&ticket.actor)?;
            }
        }
        Ok(())
    }
}
