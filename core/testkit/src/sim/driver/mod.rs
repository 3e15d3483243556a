//! Who goes on when: one step at a time, all decided by the seed.

mod begin;
mod calm;
mod finish;
mod settings;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::task::{Context, Poll};

use futures::task::noop_waker;
use stele_format::l0;
use stele_model::time::{HOUR_US, MINUTE_US, SECOND_US};
use stele_model::{Clock, Resolution};
use stele_store::Tier;
use stele_table::set_retention;

use self::settings::{forgets, settings};
use super::keyed::Keys;
use super::observer::Observer;
use super::pinned::Pinned;
use super::process::{Announced, Process, Settings, Task};
use super::registry::{Registry, l0_name};
use super::traffic::{ACTORS, TRAFFIC};
use super::{Failure, Outcome, Scenario, Tally, Violation};
use crate::clock::ManualClock;
use crate::fault::{FaultWorld, KeyClass, Plan, Ticket};
use crate::gen_rows::RowGen;
use crate::memory::{MemoryStore, Mutation};
use crate::rng::Rng;

/// 2026-11-30T21:40Z: a month ends soon.
const START_US: i64 = 1_796_074_800_000_000;
/// Keys on one page of a LIST.
const PAGE_KEYS: usize = 4;
const TASKS_MAX: usize = 10;
/// Requests before which a process freezes more often than by chance.
const RISKY: [&str; 3] = ["Put table/_delta_log", "Get table/_delta_log", "List l0"];

struct Running {
    actor: String,
    name: String,
    task: Task,
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
    registry: Registry,
    keys: Keys,
    pinned: Pinned,
    /// What keyed requests make of their marker, before they store it.
    announced: Announced,
    observer: Observer,
    /// Mutations of the store that the registry knows.
    tracked: usize,
    /// Of them, those the observer has not seen.
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
        let plan = scenario.plan.clone().unwrap_or_else(|| {
            let mut rng = rng.fork("faults");
            let faults = rng.below(scenario.faults + 1);
            Plan::random(&mut rng, &TRAFFIC, faults)
        });
        let world = FaultWorld::scheduled(Arc::new(store.clone()), plan.clone(), PAGE_KEYS);
        let mut settings = settings(&mut setup, &clock);
        let pinned = Pinned::new(settings.compact.history_us);
        settings.retention = forgets(&mut rng.fork("retention"));
        let start = |actor: &&str| {
            let skew_us = setup.between(-20, 20) * SECOND_US;
            Process::start(&world, actor, skew_us, setup.next_u64(), &settings)
        };
        let processes = ACTORS.iter().map(start).collect();
        let tier = Tier::from_store(Arc::new(store.clone()), "", "sim");
        let watcher = Process::over(tier, "observer", 0, 0, &settings);
        Self {
            rows: RowGen::new(rng.fork("rows"), 1 + setup.below(5)),
            sticky: setup.pick(&[0, 40, 80, 95]),
            scenario: scenario.clone(),
            rng: rng.fork("steps"),
            observer: Observer::new(store.clone(), watcher),
            clock,
            store,
            world,
            settings,
            processes,
            tasks: Vec::new(),
            registry: Registry::default(),
            keys: Keys::default(),
            pinned,
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
        self.tally.checks = self.observer.checks;
        let reused = self.store.reused_keys().into_iter();
        let log = reused.filter(|key| KeyClass::of(key) == KeyClass::Log);
        self.tally.ghosts = log.count() as u64;
        self.tally.landed = self.registry.moment() as u64;
        self.tally.samples = self.registry.expected().len() as u64;
        Outcome {
            tally: self.tally,
            store: self.store,
            tenant: self.settings.tenant,
            now_us: self.clock.now_us(),
            samples: self.observer.kept_now(self.registry.expected()),
            rollups: Resolution::ROLLUPS.map(|resolution| {
                let expected = self.registry.expected();
                (resolution, self.observer.rollups_now(expected, resolution))
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
        let tier = Tier::from_store(Arc::new(self.store.clone()), "", "sim");
        let store = tier.tenant(&self.settings.tenant);
        let set = set_retention(&store, retention).await;
        self.clock.advance(2 * HOUR_US);
        set.map_err(|error| Violation::new("no defect of ours", error))
    }

    async fn chaos(&mut self) -> Result<(), Violation> {
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
            let batch = self.registry.sent(rows);
            self.keys.announced(key, batch)?;
        }
        let mutations = self.store.mutations(self.tracked);
        self.tracked += mutations.len();
        let (now_us, keep_us) = (self.clock.now_us(), self.settings.compact.marker_keep_us);
        for mutation in &mutations {
            self.learn_group(mutation)?;
            self.registry.follow(mutation);
            self.tally.pins_swept += self.pinned.follow(mutation, now_us)?;
            self.keys.follow(mutation, now_us, keep_us)?;
        }
        self.unchecked.extend(mutations);
        Ok(())
    }

    /// What an object holds that an ingestor put together.
    fn learn_group(&mut self, mutation: &Mutation) -> Result<(), Violation> {
        let Mutation::Put(path) = mutation else {
            return Ok(());
        };
        let Some(name) = l0_name(path) else {
            return Ok(());
        };
        if !self.registry.knows(&name.digest) {
            let bytes = self.store.bytes(path).unwrap_or_default();
            let digests = l0::digests(bytes).map_err(|e| Violation::new("I3 no invention", e))?;
            self.registry.sent_together(name.digest, digests);
        }
        self.tally.groups += u64::from(self.registry.batches_of(&name.digest).len() > 1);
        Ok(())
    }

    async fn follow(&mut self) -> Result<(), Violation> {
        self.track()?;
        let changed = std::mem::take(&mut self.unchecked);
        let now_us = self.clock.now_us();
        let must_check = self.pinned.must_check();
        self.observer
            .follow(&changed, &self.registry, now_us)
            .await?;
        match must_check {
            true => self.follow_pins().await,
            false => Ok(()),
        }
    }

    /// I10: every pin that is acknowledged and not dropped is what it was.
    async fn follow_pins(&mut self) -> Result<(), Violation> {
        self.pinned
            .check(&self.store, self.observer.process())
            .await
    }

    fn step(&mut self) -> Result<(), Violation> {
        self.steps += 1;
        let waiting = self.awake();
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
                self.clock.advance(self.rng.between(0, SECOND_US / 2));
                self.note(format!("{}: {}", ticket.actor, ticket.what));
                self.last_actor.clone_from(&ticket.actor);
                self.world.grant(ticket.id);
                self.poll(&ticket.actor)?;
            }
        }
        Ok(())
    }

    /// Who waits and is not frozen; when only frozen ones wait, they go on.
    fn awake(&mut self) -> Vec<Ticket> {
        let steps = self.steps;
        self.frozen.retain(|_, until| *until > steps);
        let waiting = self.world.waiting();
        let frozen = |ticket: &&Ticket| !self.frozen.contains_key(&ticket.actor);
        let awake: Vec<Ticket> = waiting.iter().filter(frozen).cloned().collect();
        if awake.is_empty() {
            self.frozen.clear();
            return waiting;
        }
        awake
    }

    /// A process stands still in the middle of a request while the others go on.
    fn freeze(&mut self, waiting: &[Ticket]) {
        // Worst just before a commit, and before the first read of a view.
        let is_risky = |t: &&Ticket| RISKY.iter().any(|risky| t.what.starts_with(risky));
        let risky: Vec<&Ticket> = waiting.iter().filter(is_risky).collect();
        let actors: BTreeSet<&String> = match risky.is_empty() || self.rng.chance(40) {
            true => waiting.iter().map(|t| &t.actor).collect(),
            false => risky.iter().map(|t| &t.actor).collect(),
        };
        let actors: Vec<&String> = actors.into_iter().collect();
        let actor = actors[self.rng.below(actors.len())].clone();
        let most = self.rng.pick(&[100, 400, 1_200]);
        let steps = 1 + self.rng.below(most);
        self.note(format!("{actor}: freezes for {steps} steps"));
        self.frozen.insert(actor, self.steps + steps);
    }

    /// Time passes while everyone stands still.
    fn jump(&mut self) {
        let us = match self.rng.below(4) {
            0 => self.rng.between(HOUR_US, 3 * HOUR_US),
            1 => self.rng.between(10 * MINUTE_US, HOUR_US),
            _ => self.rng.between(MINUTE_US, 10 * MINUTE_US),
        };
        self.clock.advance(us);
        self.note(format!("time: {} s pass", us / SECOND_US));
    }

    /// A process that has work dies at whatever await it stands, and a new one takes its place.
    fn crash_one(&mut self) {
        let busy: BTreeSet<String> = self.tasks.iter().map(|t| t.actor.clone()).collect();
        let busy: Vec<&String> = busy.iter().collect();
        if busy.is_empty() {
            return;
        }
        let actor = busy[self.rng.below(busy.len())].clone();
        self.tally.crashes += 1;
        self.note(format!("{actor}: CRASH"));
        self.tasks.retain(|task| task.actor != actor);
        self.frozen.remove(&actor);
        self.restart(&actor);
    }

    fn restart(&mut self, actor: &str) {
        self.world.restart(actor);
        let skew_us = self.rng.between(-20, 20) * SECOND_US;
        let ids = self.rng.next_u64();
        let fresh = Process::start(&self.world, actor, skew_us, ids, &self.settings);
        if let Some(old) = self.processes.iter_mut().find(|p| p.actor == actor) {
            *old = fresh;
        }
    }

    fn process(&mut self, prefix: &str) -> Process {
        let of = |p: &&Process| p.actor.starts_with(prefix);
        let all: Vec<&Process> = self.processes.iter().filter(of).collect();
        all[self.rng.below(all.len())].clone()
    }

    fn spawn(&mut self, actor: &str, name: String, task: Task) -> Result<(), Violation> {
        self.note(format!("{actor}: begins {name}"));
        self.tasks.push(Running {
            actor: actor.to_owned(),
            name,
            task,
        });
        self.poll(actor)
    }

    /// Lets an actor's tasks run until all of them stand at a gate, hang, or are done.
    fn poll(&mut self, actor: &str) -> Result<(), Violation> {
        let waker = noop_waker();
        let mut cx = Context::from_waker(&waker);
        // Tasks of one process may wait for each other, and may yield without a request.
        let mut quiet = 0;
        while quiet < 3 {
            let before = self.world.gates_passed();
            let mut index = 0;
            let mut progressed = false;
            while index < self.tasks.len() {
                if self.tasks[index].actor != actor {
                    index += 1;
                    continue;
                }
                match self.tasks[index].task.as_mut().poll(&mut cx) {
                    Poll::Pending => index += 1,
                    Poll::Ready(done) => {
                        let Running { actor, name, .. } = self.tasks.remove(index);
                        self.finished(&actor, &name, done)?;
                        progressed = true;
                    }
                }
            }
            progressed |= self.world.gates_passed() != before;
            quiet = if progressed { 0 } else { quiet + 1 };
        }
        if self.world.has_crashed(actor) {
            self.tally.crashes += 1;
            self.tasks.retain(|task| task.actor != actor);
            self.restart(actor);
        }
        Ok(())
    }
}
