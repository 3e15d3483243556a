//! The seeded simulation: the real ingestor, compactors, sweep and merge reader over one store in
//! memory, with faults, crashes, skewed clocks and every interleaving of requests.
//!
//! One seed in three has tiers: stores that are added, followed, promoted, lost, drained and retired
//! while processes act on a tier set for its lease, and may stand still for longer than that. In the
//! others that keep everything for ever, snapshots are restored in place.
//!
//! A seed decides everything: the faults, the batches, who goes on at each step, when time jumps.
//! Actors are futures that stop at the gates of a [`FaultWorld`](crate::FaultWorld), two per
//! request; the [`Driver`](driver) lets one of them go on at a time, so a run is one sequence of
//! request effects and answers, and the same seed gives the same sequence. After each step that
//! changed the store, the [`Observer`](observer) reads everything without faults and asserts the
//! invariants of HAZARDS by name. In the end the faults stop, and what is left must settle.

mod driver;
mod epochs;
mod fleet;
mod invariants;
mod keyed;
mod observer;
mod pinned;
mod place;
mod process;
mod registry;
mod restores;
mod tasks;
mod traffic;

use std::fmt;

use stele_model::{Resolution, TenantId};

use crate::fault::Plan;
use crate::memory::MemoryStore;
use crate::oracle::{Rollups, Samples};

/// One run.
#[derive(Debug, Clone)]
pub struct Scenario {
    /// Decides everything that is not said here.
    pub seed: u64,
    /// Steps of the driver before the faults stop.
    pub steps: usize,
    /// Faults drawn for the plan; some of them strike no request.
    pub faults: usize,
    /// Use this plan instead of the seed's.
    pub plan: Option<Plan>,
}

impl Scenario {
    /// The run of `seed` with the usual length.
    #[must_use]
    pub fn of(seed: u64) -> Self {
        Self {
            seed,
            steps: 3_600,
            faults: 80,
            plan: None,
        }
    }
}

/// How much happened in a run, so that a quiet simulation cannot pass for a thorough one.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tally {
    /// Requests that took effect or failed.
    pub requests: u64,
    /// Faults that struck.
    pub faults: u64,
    /// Processes that died.
    pub crashes: u64,
    /// Batches acknowledged.
    pub acks: u64,
    /// Of them, attempts with a key that was sent before.
    pub retries: u64,
    /// L0 objects of several batches that landed.
    pub groups: u64,
    /// L0 objects that landed.
    pub landed: u64,
    /// Versions of the table.
    pub versions: u64,
    /// Windows sealed.
    pub windows_sealed: u64,
    /// Windows sealed again.
    pub windows_resealed: u64,
    /// Objects that sweeps deleted.
    pub deleted: u64,
    /// Rows that expired.
    pub expired: u64,
    /// Pins acknowledged.
    pub pins: u64,
    /// Acknowledged pins that were dropped and swept.
    pub pins_swept: u64,
    /// Snapshots restored in place.
    pub restored: u64,
    /// Snapshots restored to a tenant of their own.
    pub copied: u64,
    /// Batches that restores in place took back for good.
    pub lost: u64,
    /// Queries answered.
    pub queries: u64,
    /// Queries, jobs and ingests that ended in an error.
    pub errors: u64,
    /// Log entries that a writer re-created below a sweep.
    pub ghosts: u64,
    /// Complete checks of everything stored.
    pub checks: u64,
    /// Samples in the end.
    pub samples: u64,
    /// Tier sets, of runs with tiers.
    pub tier_sets: u64,
    /// Tiers that became the primary.
    pub promoted: u64,
    /// Tiers that were retired.
    pub retired: u64,
}

impl Tally {
    /// Adds another run.
    pub fn add(&mut self, other: &Self) {
        self.requests += other.requests;
        self.faults += other.faults;
        self.crashes += other.crashes;
        self.acks += other.acks;
        self.retries += other.retries;
        self.groups += other.groups;
        self.landed += other.landed;
        self.versions += other.versions;
        self.windows_sealed += other.windows_sealed;
        self.windows_resealed += other.windows_resealed;
        self.deleted += other.deleted;
        self.expired += other.expired;
        self.pins += other.pins;
        self.pins_swept += other.pins_swept;
        self.restored += other.restored;
        self.copied += other.copied;
        self.lost += other.lost;
        self.queries += other.queries;
        self.errors += other.errors;
        self.ghosts += other.ghosts;
        self.checks += other.checks;
        self.samples += other.samples;
        self.tier_sets += other.tier_sets;
        self.promoted += other.promoted;
        self.retired += other.retired;
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} requests, {} faults, {} crashes, {} acks ({} with a known key), \
             {} L0 objects ({} groups), {} versions, {} windows sealed ({} again), \
             {} deleted, {} expired, {} pins ({} swept), \
             {} restores ({} copies, {} batches lost), {} queries, {} errors, {} ghost entries, {} checks, \
             {} samples, {} tier sets ({} promoted, {} retired)",
            self.requests,
            self.faults,
            self.crashes,
            self.acks,
            self.retries,
            self.landed,
            self.groups,
            self.versions,
            self.windows_sealed,
            self.windows_resealed,
            self.deleted,
            self.expired,
            self.pins,
            self.pins_swept,
            self.restored + self.copied,
            self.copied,
            self.lost,
            self.queries,
            self.errors,
            self.ghosts,
            self.checks,
            self.samples,
            self.tier_sets,
            self.promoted,
            self.retired
        )
    }
}

/// A run that held every invariant, and what it left: for further checks by other readers.
#[derive(Debug, Clone)]
pub struct Outcome {
    /// What happened.
    pub tally: Tally,
    /// The settled store.
    pub store: MemoryStore,
    /// What the keys of the primary begin with: empty for the only tier.
    pub root: String,
    /// Its tenant.
    pub tenant: TenantId,
    /// The time at the end, µs.
    pub now_us: i64,
    /// What it holds.
    pub samples: Samples,
    /// What each rollup table must answer; of days that have expired, as they were sealed.
    pub rollups: [(Resolution, Rollups); 3],
    /// What happened in order, one line per event.
    pub trace: Vec<String>,
}

/// An invariant that did not hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// The name of the invariant, as HAZARDS numbers it.
    pub invariant: &'static str,
    /// What was seen.
    pub what: String,
}

impl Violation {
    pub(crate) fn new(invariant: &'static str, what: impl fmt::Display) -> Self {
        let what = what.to_string();
        Self { invariant, what }
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.invariant, self.what)
    }
}

/// A failed run: everything that is needed to look at it again.
#[derive(Debug, Clone)]
pub struct Failure {
    /// The seed.
    pub seed: u64,
    /// What did not hold.
    pub violation: Violation,
    /// The faults of the run.
    pub plan: Plan,
    /// What happened before, one line per event.
    pub trace: Vec<String>,
}

/// Lines of a trace that a failure shows.
const TRACE_SHOWN: usize = 60;

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            seed, violation, ..
        } = self;
        writeln!(f, "seed {seed} violates {violation}")?;
        let hidden = self.trace.len().saturating_sub(TRACE_SHOWN);
        writeln!(f, "the last of {} events:", self.trace.len())?;
        for line in &self.trace[hidden..] {
            writeln!(f, "  {line}")?;
        }
        let simulate = "cargo run -p stele-testkit --bin simulate --";
        write!(f, "again: {simulate} --seed {seed} --trace")
    }
}

/// Runs one scenario to its end.
///
/// # Errors
/// The first invariant that did not hold, with the trace up to it.
pub fn run(scenario: &Scenario) -> Result<Outcome, Box<Failure>> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .expect("a current-thread runtime needs nothing");
    let driver = driver::Driver::new(scenario);
    runtime.block_on(tokio::task::unconstrained(driver.run()))
}
