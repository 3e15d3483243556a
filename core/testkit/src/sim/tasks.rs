//! The tasks of the actors.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;

use stele_compact::{Budget, reader};
use stele_ingest::{IdempotencyKey, Prepared};
use stele_model::{Digest, ErrorKind, Resolution, Rows, chain};
use stele_protect::NewSnapshot;
use stele_table::{Pin, PinName, TableLog, View, Why, set_rollups_paused};

use super::process::{Answer, Began, Done, Failed, Home, Job, Node, PinAsk, Process, Task};
use crate::oracle::{Rollups, Samples};

/// How often a query starts again because a sweep passed.
const RESTARTS_MAX: usize = 5;

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
    let process = process.clone();
    Box::pin(async move {
        let receipt = match process.node().await {
            Err(failed) => Err(failed),
            Ok(node) => {
                let put = node.store.l0_put(&object.name, object.bytes).await;
                put.map(|_| object.name).map_err(|error| Failed {
                    kind: error.kind(),
                    text: chain(&error),
                })
            }
        };
        let batches = vec![object.name.digest];
        Done::Ingest { batches, receipt }
    })
}

pub(super) fn job(process: &Process, job: Job) -> Task {
    let process = process.clone();
    Box::pin(async move {
        let mut did = Did::default();
        let result = work(&process, job, &mut did).await;
        let Did { sealed, deleted } = did;
        Done::Job {
            job,
            sealed,
            deleted,
            result,
        }
    })
}

/// What a job did.
#[derive(Default)]
struct Did {
    sealed: (u64, u64),
    deleted: u64,
}

impl Did {
    fn note(&mut self, report: &stele_compact::Report) -> String {
        self.sealed.0 += report.windows_sealed;
        self.sealed.1 += report.windows_resealed;
        format!("{} commits", report.commits)
    }

    fn swept(&mut self, r: &stele_compact::SweepReport) -> String {
        self.deleted = r.objects_deleted + r.files_deleted + r.entries_deleted;
        match &r.refused {
            None => format!("{} deleted", self.deleted),
            Some(why) => format!("{} deleted; {why:?}", self.deleted),
        }
    }
}

async fn work(process: &Process, job: Job, did: &mut Did) -> Result<String, Failed> {
    let budget = Budget::unlimited();
    let Some(node) = process.ready_node().await? else {
        return Ok("no job runs before the promotion is finished".to_owned());
    };
    let compactor = &node.compactor;
    let result = match job {
        Job::Absorb => compactor.absorb(&budget).await.map(|r| did.note(&r)),
        Job::Seal { forced } => {
            let sealed = compactor.seal(&budget, forced).await;
            sealed.map(|r| did.note(&r))
        }
        Job::Consolidate => compactor.consolidate(&budget).await.map(|r| did.note(&r)),
        Job::Sweep => compactor.sweep(&budget).await.map(|r| did.swept(&r)),
        Job::SweepOther(n) => {
            let others = process.fleet().map(|fleet| fleet.sweepers());
            let others = others.unwrap_or_default();
            if others.is_empty() {
                return Ok("no other tier".to_owned());
            }
            let swept = others[n % others.len()].sweep(&budget).await;
            swept.map(|r| did.swept(&r))
        }
        Job::Expire => compactor
            .expire(&budget)
            .await
            .map(|r| format!("{} days of {} rows expire", r.days, r.rows)),
        Job::Settle => compactor
            .settle(&budget, &|_| ())
            .await
            .map(|r| did.note(&r.seal)),
        Job::Pause(paused) => set_rollups_paused(&node.store, paused, process.clock.now_us())
            .await
            .map(|_| "set".to_owned())
            .map_err(Into::into),
    };
    result.map_err(|error| Failed {
        kind: error.kind(),
        text: chain(&error),
    })
}

/// Takes, drops or undeletes a snapshot.
pub(super) fn pin_task(process: &Process, ask: PinAsk, name: &str) -> Task {
    let (process, name) = (process.clone(), name.to_owned());
    Box::pin(async move {
        let result = match process.node().await {
            Err(failed) => Err(failed),
            Ok(node) => {
                let asked = ask_pin(&process, &node, ask, &name).await;
                asked.map_err(|error| Failed {
                    kind: error.kind(),
                    text: chain(&error),
                })
            }
        };
        Done::Pinned { ask, name, result }
    })
}

async fn ask_pin(
    process: &Process,
    node: &Node,
    ask: PinAsk,
    name: &str,
) -> Result<Option<Box<Pin>>, stele_protect::SnapshotError> {
    let (log, clock) = (&node.log, process.clock.as_ref());
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

pub(super) fn query(process: &Process, began: Began, resolution: Resolution, nth: usize) -> Task {
    let process = process.clone();
    Box::pin(async move {
        Done::Query {
            began,
            resolution,
            answer: answer(&process, resolution, nth).await,
        }
    })
}

/// What a query does: a view, and everything in it; again when an object is gone. Of the tiers that
/// may be asked, the `nth`.
async fn answer(process: &Process, resolution: Resolution, nth: usize) -> Result<Answer, Failed> {
    let log = match &process.home {
        Home::Alone(node) => Arc::clone(&node.log),
        Home::Among(fleet) => fleet.readable(nth).await?,
    };
    let mut restarts = 0;
    loop {
        match read_all(&log, resolution).await {
            Err(failed) if failed.kind == ErrorKind::NotFound && restarts < RESTARTS_MAX => {
                restarts += 1;
            }
            other => return other,
        }
    }
}

async fn read_all(log: &TableLog, resolution: Resolution) -> Result<Answer, Failed> {
    let view = View::read_cached(log).await;
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
    let store = log.store();
    let samples = reader::all_samples(store, &view).await;
    let samples = Samples::read(samples.map_err(failed)?.as_mut()).map_err(damaged)?;
    let rollups = reader::all_rollups(store, &view, resolution).await;
    let rollups = Rollups::read(rollups.map_err(failed)?.as_mut()).map_err(damaged)?;
    let expired = view.state.expired;
    Ok(Answer {
        tier: store.tier().url().to_owned(),
        expired,
        samples,
        rollups,
    })
}
