//! The actors: what each of them keeps in memory, and the tasks they run.

use std::rc::Rc;
use std::sync::Arc;

use futures::future::LocalBoxFuture;
use stele_compact::{Compactor, Options};
use stele_ingest::Ingestor;
use stele_model::{Clock, Digest, ErrorKind, L0Name, Resolution, TenantId};
use stele_store::{TenantStore, Tier};
use stele_table::{Expired, Pin, Retention, TableLog};

use super::fleet::{Fleet, Migrated, TierAsk, TierSettings};
use super::restores::{RestoreAsk, Restored};
use crate::clock::{ManualClock, SeededIds};
use crate::fault::FaultWorld;
use crate::oracle::{Rollups, Samples};

/// A clock that is wrong by a constant.
pub(super) struct Skewed(pub ManualClock, pub i64);

impl Clock for Skewed {
    fn now_us(&self) -> i64 {
        self.0.now_us() + self.1
    }
}

/// The parts that work on the tenant in one tier.
#[derive(Clone)]
pub(super) struct Node {
    pub store: TenantStore,
    pub log: Arc<TableLog>,
    pub compactor: Arc<Compactor>,
}

/// Where a process works.
#[derive(Clone)]
pub(super) enum Home {
    /// In the one store there is.
    Alone(Node),
    /// Wherever the tier set of the moment says.
    Among(Rc<Fleet>),
}

/// What one process keeps between its tasks. A crash replaces it.
#[derive(Clone)]
pub(super) struct Process {
    pub actor: String,
    pub ingestor: Ingestor,
    pub clock: Arc<dyn Clock>,
    pub home: Home,
}

/// What every process of a run has in common.
#[derive(Clone)]
pub(super) struct Settings {
    pub tenant: TenantId,
    pub clock: ManualClock,
    pub compact: Options,
    pub table: stele_table::Options,
    pub ingest: stele_ingest::Options,
    /// Some runs forget.
    pub retention: Retention,
    /// Some runs have tiers.
    pub tiers: Option<TierSettings>,
}

impl Node {
    /// The tenant in one tier, whatever set that may be part of.
    pub fn over(tier: &Tier, clock: &Arc<dyn Clock>, ids: u64, s: &Settings) -> Self {
        let store = tier.tenant(&s.tenant);
        let log = TableLog::new(store.clone(), s.table.clone(), Arc::clone(clock));
        let log = Arc::new(log);
        let ids = Arc::new(SeededIds::new(ids));
        let (options, log_of) = (s.compact.clone(), Arc::clone(&log));
        let compactor = Compactor::new(store.clone(), log_of, options, Arc::clone(clock), ids);
        Self {
            store,
            log,
            compactor: Arc::new(compactor),
        }
    }
}

impl Process {
    pub fn start(world: &FaultWorld, actor: &str, skew_us: i64, ids: u64, s: &Settings) -> Self {
        let clock: Arc<dyn Clock> = Arc::new(Skewed(s.clock.clone(), skew_us));
        if let Some(tiers) = &s.tiers {
            let fleet = Fleet::new(world, actor, Arc::clone(&clock), ids, s, tiers);
            let tenant = s.tenant.clone();
            let ingestor = Ingestor::over(fleet.tiers().clone(), tenant, s.ingest.clone());
            return Self {
                actor: actor.to_owned(),
                ingestor,
                clock,
                home: Home::Among(Rc::new(fleet)),
            };
        }
        let tier = Tier::from_store(world.actor(actor), "", "sim");
        let node = Node::over(&tier, &clock, ids, s);
        Self {
            actor: actor.to_owned(),
            ingestor: Ingestor::with_options(node.store.clone(), s.ingest.clone()),
            clock,
            home: Home::Alone(node),
        }
    }

    /// Where it works now.
    pub async fn node(&self) -> Result<Node, Failed> {
        match &self.home {
            Home::Alone(node) => Ok(node.clone()),
            Home::Among(fleet) => fleet.node().await,
        }
    }

    /// Where it may commit now.
    pub async fn ready_node(&self) -> Result<Option<Node>, Failed> {
        match &self.home {
            Home::Alone(node) => Ok(Some(node.clone())),
            Home::Among(fleet) => fleet.ready_node().await,
        }
    }

    /// The tiers it works on.
    pub fn fleet(&self) -> Option<&Rc<Fleet>> {
        match &self.home {
            Home::Alone(_) => None,
            Home::Among(fleet) => Some(fleet),
        }
    }
}

/// A compaction job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Job {
    Absorb,
    Seal {
        forced: bool,
    },
    Consolidate,
    Sweep,
    Expire,
    Settle,
    /// The sweep of one of the other tiers.
    SweepOther(usize),
    /// Rollups are paused, or resumed.
    Pause(bool),
}

/// What is asked about a snapshot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum PinAsk {
    Take,
    Drop,
    /// Dropped, and thought better of.
    DropAndUndelete,
    Undelete,
}

/// An error as a violation or the trace shows it.
#[derive(Debug)]
pub(super) struct Failed {
    pub kind: ErrorKind,
    pub text: String,
}

/// What a task came to.
#[derive(Debug)]
pub(super) enum Done {
    /// Batches sent in one object, and the receipt if they were acknowledged.
    Ingest {
        batches: Vec<Digest>,
        receipt: Result<L0Name, Failed>,
    },
    /// One attempt under an idempotency key, and the batch if it was acknowledged.
    Keyed {
        key: usize,
        receipt: Result<Digest, Failed>,
    },
    Job {
        job: Job,
        sealed: (u64, u64),
        deleted: u64,
        result: Result<String, Failed>,
    },
    Pinned {
        ask: PinAsk,
        name: String,
        /// The pin that was acknowledged; of a drop or undelete, none.
        result: Result<Option<Box<Pin>>, Failed>,
    },
    Query {
        began: Began,
        resolution: Resolution,
        answer: Result<Answer, Failed>,
    },
    /// A step of a restore.
    Restored {
        ask: RestoreAsk,
        name: String,
        result: Result<Restored, Failed>,
    },
    /// A step of an operator, or of the replication.
    Migrated {
        ask: TierAsk,
        result: Result<Migrated, Failed>,
    },
}

/// What had to be there when a query began.
#[derive(Debug)]
pub(super) enum Began {
    /// So many objects had landed.
    Landed(usize),
    /// In the tier set of this epoch, these samples had been acknowledged.
    Acked(u64, Samples),
}

#[derive(Debug)]
pub(super) struct Answer {
    /// The URL of the tier that was read.
    pub tier: String,
    pub expired: Expired,
    pub samples: Samples,
    pub rollups: Rollups,
}

pub(super) type Task = LocalBoxFuture<'static, Done>;
