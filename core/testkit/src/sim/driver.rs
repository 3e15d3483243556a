//! Who goes on when: one step at a time, all decided by the seed.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::task::{Context, Poll};

use futures::task::noop_waker;
use stele_format::l0;
use stele_ingest::GroupLimits;
use stele_model::time::{HOUR_US, MINUTE_US, SECOND_US};
use stele_model::{Batch, Clock, Digest, ErrorKind, Resolution, TenantId};
use stele_store::Tier;
use stele_table::{Retention, set_retention};

use super::keyed::Keys;
use super::observer::{Observer, i1_durable_ack, i2_a_query_is_complete, i9_rollup_truth};
use super::process::{
    Announced, Done, Failed, Job, Process, Settings, Submission, Task, ingest, ingest_group,
    ingest_keyed, job, query,
};
use super::registry::{Registry, l0_name};
use super::traffic::{ACTORS, TRAFFIC};
use super::{Failure, Outcome, Scenario, Tally, Violation};
use crate::clock::ManualClock;
use crate::fault::{Fault, FaultWorld, KeyClass, Plan, Ticket};
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
/// Rounds in which the end must be reached once nothing fails any more.
const SETTLE_ROUNDS: usize = 4;

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
        self.observer.follow(&changed, &self.registry, now_us).await
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

    /// Begins one task.
    fn begin(&mut self) -> Result<(), Violation> {
        let (process, name, task) = match self.rng.below(100) {
            0..42 => self.begin_ingest()?,
            42..84 => {
                let process = self.process("c-");
                let forgets = !self.settings.retention.is_for_ever();
                let kind = match self.rng.below(100) {
                    _ if forgets && self.rng.chance(12) => Job::Expire,
                    0..38 => Job::Absorb,
                    38..58 => Job::Seal { forced: false },
                    58..68 => Job::Seal { forced: true },
                    68..76 => Job::Consolidate,
                    76..92 => Job::Sweep,
                    92..94 => Job::Pause(true),
                    94..96 => Job::Pause(false),
                    _ => Job::Settle,
                };
                let task = job(&process, kind);
                (process, format!("{kind:?}"), task)
            }
            _ => {
                let process = self.process("q-");
                let resolution = self.rng.pick(&Resolution::ROLLUPS);
                let task = query(&process, self.registry.moment(), resolution);
                (process, format!("query {}", resolution.table()), task)
            }
        };
        self.spawn(&process.actor, name, task)
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

    fn begin_ingest(&mut self) -> Result<(Process, String, Task), Violation> {
        let process = self.process("in-");
        if self.rng.chance(20) {
            let submission = self.submission();
            let name = format!("ingest key {}", submission.key);
            let task = ingest_keyed(&process, &submission, &self.announced);
            return Ok((process, name, task));
        }
        let sent = self.registry.digests();
        if !sent.is_empty() && self.rng.chance(15) {
            let digest = self.rng.pick(&sent);
            return Ok(self.ingest_on(process, digest, "again"));
        }
        if sent.len() > 2 && self.rng.chance(15) {
            // What comes while this PUT is in flight becomes one object: a known batch, a new one.
            let together = [self.new_batch(), self.rng.pick(&sent)];
            for digest in together {
                let (process, name, task) = self.ingest_on(process.clone(), digest, "together");
                self.spawn(&process.actor, name, task)?;
            }
        }
        let digest = self.new_batch();
        Ok(self.ingest_on(process, digest, ""))
    }

    fn ingest_on(&self, process: Process, digest: Digest, how: &str) -> (Process, String, Task) {
        let rows = self.registry.rows(&digest).cloned().unwrap_or_default();
        let task = ingest(&process, rows, digest);
        (process, format!("ingest {digest} {how}"), task)
    }

    /// A keyed submission: a new one, or one that was sent before, perhaps long ago.
    fn submission(&mut self) -> Submission {
        let alive = self.keys.alive();
        if !alive.is_empty() && self.rng.chance(60) {
            return alive[self.rng.below(alive.len())].0.clone();
        }
        let rows_max = self.rng.pick(&[1, 4]);
        let rows = self.rows.rows(self.clock.now_us(), 2, rows_max);
        self.keys.begin(rows)
    }

    fn new_batch(&mut self) -> Digest {
        // Where raw samples expire, some come too late, and some just before.
        let late_hours = match self.settings.retention.is_for_ever() {
            true => self.rng.pick(&[0, 2, 30]),
            false => self.rng.pick(&[0, 30, 100, 160]),
        };
        let rows_max = self.rng.pick(&[1, 4, 12]);
        let rows = self.rows.rows(self.clock.now_us(), late_hours, rows_max);
        self.registry.sent(rows)
    }

    fn group(&mut self, digests: &[Digest]) -> l0::Encoded {
        let unique: BTreeSet<Digest> = digests.iter().copied().collect();
        let batches = unique.iter().map(|digest| Batch {
            digest: *digest,
            rows: self.registry.rows(digest).cloned().unwrap_or_default(),
        });
        let batches: Vec<Batch> = batches.collect();
        let object = l0::encode(&batches).expect("batches that were encoded before");
        let unique = unique.into_iter().collect();
        self.registry.sent_together(object.name.digest, unique);
        object
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

    fn finished(&mut self, actor: &str, name: &str, done: Done) -> Result<(), Violation> {
        // What landed in this very step counts.
        self.track()?;
        let failed = match done {
            Done::Ingest { batches, receipt } => match receipt {
                Ok(object) => {
                    self.note(format!("{actor}: acknowledges {object}"));
                    self.tally.acks += 1;
                    let of = batches.iter().flat_map(|o| self.registry.batches_of(o));
                    let of: Vec<Digest> = of.copied().collect();
                    i1_durable_ack(&self.registry, &of)?;
                    None
                }
                Err(failed) => Some(failed),
            },
            Done::Keyed { key, receipt } => self.attempted(actor, key, receipt)?,
            Done::Job {
                job,
                sealed,
                deleted,
                result,
            } => {
                self.tally.windows_sealed += sealed.0;
                self.tally.windows_resealed += sealed.1;
                self.tally.deleted += deleted;
                if let Ok(text) = &result {
                    self.note(format!("{actor}: {job:?} is done: {text}"));
                }
                result.err()
            }
            Done::Query {
                began,
                resolution,
                answer,
            } => match answer {
                Ok(answer) => {
                    self.tally.queries += 1;
                    self.note(format!("{actor}: answers {} samples", answer.samples.len()));
                    let least = self.registry.expected_at(began);
                    let least = self.observer.kept(&least, &answer.expired);
                    let most = self.registry.expected_at(self.registry.moment());
                    i2_a_query_is_complete(&least, &most, &answer.samples)?;
                    let frozen = self.observer.frozen(resolution, &answer.expired);
                    i9_rollup_truth(&answer.samples, &frozen, &answer.rollups, resolution)?;
                    None
                }
                Err(failed) => Some(failed),
            },
        };
        match failed {
            None => Ok(()),
            Some(failed) => self.failed(actor, name, &failed),
        }
    }

    /// An attempt with a key came to its end.
    fn attempted(
        &mut self,
        actor: &str,
        key: usize,
        receipt: Result<Digest, Failed>,
    ) -> Result<Option<Failed>, Violation> {
        let age_us_max = self.settings.ingest.key_age_us_max;
        match receipt {
            Ok(batch) => {
                self.note(format!("{actor}: acknowledges {batch} with key {key}"));
                self.tally.acks += 1;
                self.tally.retries += u64::from(self.keys.acked(key));
                i1_durable_ack(&self.registry, &[batch])?;
                Ok(None)
            }
            Err(failed) if failed.kind == ErrorKind::Conflict => {
                self.note(format!("{actor}: key {key} is old"));
                match self.keys.may_be_old(key, self.clock.now_us(), age_us_max) {
                    true => Ok(None),
                    false => Err(Violation::new("no defect of ours", failed.text)),
                }
            }
            Err(failed) => Ok(Some(failed)),
        }
    }

    /// I13: a fault may become an error, but only of a kind that says what it is; and nobody may
    /// find anything corrupt whose bytes were not damaged on the way.
    fn failed(&mut self, actor: &str, name: &str, failed: &Failed) -> Result<(), Violation> {
        self.tally.errors += 1;
        self.note(format!(
            "{actor}: {name} fails ({}): {}",
            failed.kind, failed.text
        ));
        let damaged = self.world.fired().iter().any(|fired| {
            fired.key.actor == actor && matches!(fired.fault, Fault::BitFlip | Fault::Missing)
        });
        let fine = match failed.kind {
            ErrorKind::Unavailable | ErrorKind::NotFound => true,
            ErrorKind::Corrupt => damaged,
            _ => false,
        };
        if fine {
            return Ok(());
        }
        let what = format!(
            "{actor}'s {name} failed as {}: {}",
            failed.kind, failed.text
        );
        Err(Violation::new("no defect of ours", what))
    }

    /// The faults stop: everything must settle, and nothing may be left over.
    async fn calm(&mut self) -> Result<(), Violation> {
        self.note("the faults stop".to_owned());
        self.tasks.clear();
        self.world.end_faults();
        self.world.land_all().await;
        self.follow().await?;
        for actor in ACTORS {
            self.restart(actor);
        }
        self.job(Job::Pause(false)).await?;
        self.settle().await?;
        if !self.settings.retention.is_for_ever() {
            self.job(Job::Expire).await?;
        }
        self.i12_replayed_batches_change_nothing().await?;
        self.i15_nothing_is_left_over().await?;
        self.observer
            .check_all(&self.registry, self.clock.now_us())
            .await
    }

    /// Runs one task to its end with nobody else about.
    async fn alone(&mut self, actor: &str, name: &str, task: Task) -> Result<(), Violation> {
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

    async fn job(&mut self, kind: Job) -> Result<(), Violation> {
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

    async fn settle(&mut self) -> Result<(), Violation> {
        self.clock.advance(3 * HOUR_US);
        for _ in 0..SETTLE_ROUNDS {
            self.job(Job::Settle).await?;
        }
        self.observer
            .check_all(&self.registry, self.clock.now_us())
            .await?;
        let state = self.process("c-0").compactor.cached_state();
        let state = state.unwrap_or_default();
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
    async fn i12_replayed_batches_change_nothing(&mut self) -> Result<(), Violation> {
        let landed: Vec<Digest> = self.registry.digests();
        let landed: Vec<Digest> = landed
            .into_iter()
            .filter(|batch| self.registry.has_landed(batch))
            .collect();
        if landed.len() < 2 {
            return Ok(());
        }
        let before = self.registry.expected().clone();
        let process = self.process("in-");
        for _ in 0..3 {
            let digest = self.rng.pick(&landed);
            let rows = self.registry.rows(&digest).cloned().unwrap_or_default();
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
        match before.first_difference(self.registry.expected()) {
            None => Ok(()),
            Some(what) => Err(Violation::new("I12 convergence", what)),
        }
    }

    /// I15: after the history has passed, sweep leaves what is live and little else.
    async fn i15_nothing_is_left_over(&mut self) -> Result<(), Violation> {
        const NAME: &str = "I15 garbage is bounded";
        for _ in 0..3 {
            self.clock
                .advance(self.settings.compact.history_us + MINUTE_US);
            self.job(Job::Sweep).await?;
        }
        self.clock.advance(self.settings.compact.marker_keep_us);
        self.job(Job::Sweep).await?;
        if let Some(key) = self.store.keys("tenants/default/idem/").first() {
            return Err(Violation::new(NAME, format!("{key} stays")));
        }
        let left = self.store.keys("tenants/default/l0/");
        if let Some(key) = left.first() {
            let what = format!("{key} and {} other L0 objects stay", left.len() - 1);
            return Err(Violation::new(NAME, what));
        }
        let heads = self.store.keys("tenants/default/table/heads/").len();
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

/// Short times and small limits, so that everything happens within a run.
fn settings(rng: &mut Rng, clock: &ManualClock) -> Settings {
    let history_us = rng.pick(&[40, 90]) * MINUTE_US;
    let key_age_us_max = rng.pick(&[1, 20]) * HOUR_US;
    let compact = stele_compact::Options {
        seal_delay_us: rng.between(1, 10) * MINUTE_US,
        reopen_ratio: rng.pick(&[0.0, 0.1, 5.0]),
        reopen_age_us: rng.pick(&[5, 60]) * MINUTE_US,
        sweep_grace_us: rng.pick(&[5, 15]) * MINUTE_US,
        history_us,
        marker_keep_us: 2 * key_age_us_max,
        target_file_bytes: rng.pick(&[8 << 10, 64 << 20]),
        heads_kept: rng.pick(&[2, 20]),
        ..stele_compact::Options::default()
    };
    let table = stele_table::Options {
        history_us,
        checkpoint_every: rng.pick(&[3, 5, 20]),
    };
    let ingest = stele_ingest::Options {
        group: Some(GroupLimits::default()),
        key_age_us_max,
    };
    Settings {
        tenant: TenantId::default(),
        clock: clock.clone(),
        compact,
        table,
        ingest,
        retention: Retention::default(),
    }
}

/// One run in four keeps raw samples for a day or two, and some of those rollups little longer.
fn forgets(rng: &mut Rng) -> Retention {
    if !rng.chance(25) {
        return Retention::default();
    }
    let raw_days = rng.pick(&[1, 2]);
    let rollup_days = rng.pick(&[None, Some(raw_days), Some(raw_days + 1)]);
    Retention {
        raw_days: Some(raw_days),
        s60_days: rollup_days,
        m15_days: rollup_days,
        m60_days: rollup_days,
    }
}
