//! The actors: what each of them keeps in memory, and the tasks they run.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;

use futures::future::LocalBoxFuture;
use stele_compact::{Budget, Compactor, Options, reader};
use stele_ingest::{IdempotencyKey, Ingestor, Prepared};
use stele_model::{Clock, Digest, ErrorKind, L0Name, Resolution, Rows, TenantId, chain};
use stele_protect::NewSnapshot;
use stele_store::{TenantStore, Tier};
use stele_table::{Expired, Pin, PinName, Retention, TableLog, View, Why, set_rollups_paused};

use crate::clock::{ManualClock, SeededIds};
use crate::fault::FaultWorld;
use crate::oracle::{Rollups, Samples};

/// How often a query starts again because a sweep passed.
const RESTARTS_MAX: usize = 5;

/// A clock that is wrong by a constant.
struct Skewed(ManualClock, i64);

impl Clock for Skewed {
    fn now_us(&self) -> i64 {
        self.0.now_us() + self.1
    }
}

/// What one process keeps between its tasks. A crash replaces it.
#[derive(Clone)]
pub(super) struct Process {
    pub actor: String,
    pub store: TenantStore,
    pub log: Arc<TableLog>,
    pub ingestor: Ingestor,
    pub compactor: Arc<Compactor>,
    pub clock: Arc<dyn Clock>,
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
}

impl Process {
    pub fn start(world: &FaultWorld, actor: &str, skew_us: i64, ids: u64, s: &Settings) -> Self {
        let tier = Tier::from_store(world.actor(actor), "", "sim");
        Self::over(tier, actor, skew_us, ids, s)
    }

    pub fn over(tier: Tier, actor: &str, skew_us: i64, ids: u64, s: &Settings) -> Self {
        let store = tier.tenant(&s.tenant);
        let clock: Arc<dyn Clock> = Arc::new(Skewed(s.clock.clone(), skew_us));
        let log = TableLog::new(store.clone(), s.table.clone(), Arc::clone(&clock));
        let log = Arc::new(log);
        let ids = Arc::new(SeededIds::new(ids));
        let options = s.compact.clone();
        let log_of = Arc::clone(&log);
        let compactor = Compactor::new(store.clone(), log_of, options, Arc::clone(&clock), ids);
        let ingestor = Ingestor::with_options(store.clone(), s.ingest.clone());
        Self {
            actor: actor.to_owned(),
            store,
            log,
            ingestor,
            compactor: Arc::new(compactor),
            clock,
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
        began: usize,
        resolution: Resolution,
        answer: Result<Answer, Failed>,
    },
}

#[derive(Debug)]
pub(super) struct Answer {
    pub expired: Expired,
    pub samples: Samples,
    pub rollups: Rollups,
}

pub(super) type Task = LocalBoxFuture<'static, Done>;

pub(super) fn ingest(process: &Process, rows: Rows, digest: Digest) -> Task {
    let ingestor = process.ingestor.clone();
    Box::pin(async move {
        let receipt = match ingestor.accept(rows).await {
            Ok(Some(receipt)) => Ok(receipt.name),
            Ok(None) => Err(no_receipt()),
            Err(error) => Err(failed(&error)),
        };
        let batches = vec![digest];
        Done::Ingest { batches, receipt }
    })
}

fn no_receipt() -> Failed {
    Failed {
        kind: ErrorKind::Internal,
        text: "no receipt for a batch with rows".to_owned(),
    }
}

fn failed(error: &stele_ingest::Error) -> Failed {
    Failed {
        kind: error.kind(),
        text: chain(error),
    }
}

/// A submission with a key; its first sample has no timestamp.
#[derive(Clone)]
pub(super) struct Submission {
    pub key: usize,
    pub rows: Rows,
}

impl Submission {
    pub fn idempotency_key(&self) -> IdempotencyKey {
        let text = format!("submission-{}", self.key);
        IdempotencyKey::new(text.as_bytes()).expect("visible ASCII")
    }
}

/// What keyed requests are about to store: key and rows.
pub(super) type Announced = Rc<RefCell<Vec<(usize, Rows)>>>;

/// One attempt at a keyed submission.
pub(super) fn ingest_keyed(process: &Process, of: &Submission, announced: &Announced) -> Task {
    let (process, of, announced) = (process.clone(), of.clone(), Rc::clone(announced));
    Box::pin(async move {
        let key = of.key;
        let receipt = attempt(&process, of, &announced).await;
        Done::Keyed { key, receipt }
    })
}

async fn attempt(
    process: &Process,
    of: Submission,
    announced: &Announced,
) -> Result<Digest, Failed> {
    let key = of.idempotency_key();
    let body = stele_format::batch_digest(&of.rows);
    let received = process
        .ingestor
        .received_us(&key, body, process.clock.now_us());
    let received_us = received.await.map_err(|error| failed(&error))?;
    let mut rows = of.rows;
    rows.rows
        .iter_mut()
        .take(1)
        .for_each(|row| row.ts_us = received_us);
    announced.borrow_mut().push((of.key, rows.clone()));
    let prepared = Prepared::new(rows).ok_or_else(no_receipt)?;
    let receipt = process.ingestor.put(prepared).await;
    receipt
        .map(|receipt| receipt.id.digest)
        .map_err(|error| failed(&error))
}

/// Several batches in one object, whatever is in flight.
pub(super) fn ingest_group(process: &Process, object: stele_format::l0::Encoded) -> Task {
    let store = process.store.clone();
    Box::pin(async move {
        let put = store.l0_put(&object.name, object.bytes).await;
        let receipt = put.map(|_| object.name).map_err(|error| Failed {
            kind: error.kind(),
            text: chain(&error),
        });
        let batches = vec![object.name.digest];
        Done::Ingest { batches, receipt }
    })
}

pub(super) fn job(process: &Process, job: Job) -> Task {
    let Process {
        compactor,
        store,
        clock,
        ..
    } = process.clone();
    Box::pin(async move {
        let budget = Budget::unlimited();
        let (mut sealed, mut deleted) = ((0, 0), 0);
        let mut note = |report: &stele_compact::Report| {
            sealed.0 += report.windows_sealed;
            sealed.1 += report.windows_resealed;
            format!("{} commits", report.commits)
        };
        let result = match job {
            Job::Absorb => compactor.absorb(&budget).await.map(|r| note(&r)),
            Job::Seal { forced } => compactor.seal(&budget, forced).await.map(|r| note(&r)),
            Job::Consolidate => compactor.consolidate(&budget).await.map(|r| note(&r)),
            Job::Sweep => compactor.sweep(&budget).await.map(|r| {
                deleted = r.objects_deleted + r.files_deleted + r.entries_deleted;
                format!("{deleted} deleted")
            }),
            Job::Expire => compactor
                .expire(&budget)
                .await
                .map(|r| format!("{} days of {} rows expire", r.days, r.rows)),
            Job::Settle => compactor
                .settle(&budget, &|_| ())
                .await
                .map(|r| note(&r.seal)),
            Job::Pause(paused) => set_rollups_paused(&store, paused, clock.now_us())
                .await
                .map(|_| "set".to_owned())
                .map_err(Into::into),
        };
        let result = result.map_err(|error| Failed {
            kind: error.kind(),
            text: chain(&error),
        });
        Done::Job {
            job,
            sealed,
            deleted,
            result,
        }
    })
}

/// Takes, drops or undeletes a snapshot.
pub(super) fn pin_task(process: &Process, ask: PinAsk, name: &str) -> Task {
    let (process, name) = (process.clone(), name.to_owned());
    Box::pin(async move {
        let result = ask_pin(&process, ask, &name).await;
        let result = result.map_err(|error| Failed {
            kind: error.kind(),
            text: chain(&error),
        });
        Done::Pinned { ask, name, result }
    })
}

async fn ask_pin(
    process: &Process,
    ask: PinAsk,
    name: &str,
) -> Result<Option<Box<Pin>>, stele_protect::SnapshotError> {
    let (log, clock) = (&process.log, process.clock.as_ref());
    let name: PinName = name.parse()?;
    match ask {
        PinAsk::Take => {
            let new = NewSnapshot {
                name,
                why: Why::Manual,
                note: String::new(),
            };
            let pin = stele_protect::create(log, &new, clock).await?;
            Ok(Some(Box::new(pin)))
        }
        PinAsk::Drop => {
            let dropped = stele_protect::drop_snapshot(log, &name, clock).await;
            dropped.map(|_| None)
        }
        PinAsk::DropAndUndelete => {
            stele_protect::drop_snapshot(log, &name, clock).await?;
            stele_protect::undelete(log, &name).await.map(|()| None)
        }
        PinAsk::Undelete => stele_protect::undelete(log, &name).await.map(|()| None),
    }
}

pub(super) fn query(process: &Process, began: usize, resolution: Resolution) -> Task {
    let process = process.clone();
    Box::pin(async move {
        Done::Query {
            began,
            resolution,
            answer: answer(&process, resolution).await,
        }
    })
}

/// What a query does: a view, and everything in it; again when an object is gone.
async fn answer(process: &Process, resolution: Resolution) -> Result<Answer, Failed> {
    let mut restarts = 0;
    loop {
        match read_all(process, resolution).await {
            Err(failed) if failed.kind == ErrorKind::NotFound && restarts < RESTARTS_MAX => {
                restarts += 1;
            }
            other => return other,
        }
    }
}

async fn read_all(process: &Process, resolution: Resolution) -> Result<Answer, Failed> {
    let view = View::read_cached(&process.log).await;
    let view = view.map_err(|error| Failed {
        kind: error.kind(),
        text: chain(&error),
    })?;
    let failed = |error: stele_compact::Error| Failed {
        kind: error.kind(),
        text: chain(&error),
    };
    let damaged = |text: String| Failed {
        kind: ErrorKind::Corrupt,
        text,
    };
    let samples = reader::all_samples(&process.store, &view).await;
    let samples = Samples::read(samples.map_err(failed)?.as_mut()).map_err(damaged)?;
    let rollups = reader::all_rollups(&process.store, &view, resolution).await;
    let rollups = Rollups::read(rollups.map_err(failed)?.as_mut()).map_err(damaged)?;
    let expired = view.state.expired;
    Ok(Answer {
        expired,
        samples,
        rollups,
    })
}
