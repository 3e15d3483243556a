//! Restores: what is asked, the tasks, and what an operator has seen and confirmed.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use stele_compact::{SWEEP_US_MAX, reader};
use stele_model::time::MINUTE_US;
use stele_model::{Digest, ErrorKind, TenantId, chain};
use stele_protect::{InPlace, InPlaceError, RestoreError};
use stele_store::Tier;
use stele_table::{Content, PinName, TableLog, View};

use super::Violation;
use super::process::{Done, Failed, Node, Process, Settings, Task};
use crate::clock::SeededIds;
use crate::oracle::Samples;

/// How long deletion is held before the last look at L0: a sweep, and its last request.
pub(super) const HOLD_US: i64 = SWEEP_US_MAX + MINUTE_US;
/// Restores in place in one run: each takes back what the others did.
pub(super) const IN_PLACE_MAX: usize = 3;

/// What is asked about a snapshot that is to come back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum RestoreAsk {
    /// What restoring it in place would do.
    Plan,
    /// To restore it by the plan of this hash, or to go on with that.
    GoOn(Digest),
    /// To let deletion go on.
    Abandon,
    /// To copy it to a tenant of its own.
    Copy(TenantId),
}

/// How far it has come.
#[derive(Debug)]
pub(super) enum Restored {
    /// A plan, and the batches it says are lost.
    Planned(Digest, BTreeSet<Digest>),
    /// Deletion is held, and not for long enough.
    Holding,
    InPlace {
        version: u64,
    },
    Abandoned,
    Copied {
        version: u64,
        content: Box<Content>,
    },
}

/// What operators know.
#[derive(Default)]
pub(super) struct Restores {
    /// The snapshot and the confirmed plan of a restore that has begun.
    pub going: Option<(String, Digest)>,
    /// The batches that each plan called lost.
    pub lost: BTreeMap<Digest, BTreeSet<Digest>>,
    /// Whether that plan was refused since.
    pub is_refused: bool,
    /// Restores in place that were begun.
    pub begun: usize,
    /// Snapshots for which deletion may be held.
    pub held: BTreeSet<String>,
    /// Questions that were not refused.
    pub answers: u64,
    /// Copies that nobody has looked at.
    copied: Vec<(TenantId, u64, Content)>,
}

impl Restores {
    /// Follows an answer to `ask` about the snapshot `name`.
    pub fn answered(&mut self, ask: &RestoreAsk, name: &str, restored: Restored) -> String {
        self.answers += 1;
        match restored {
            Restored::Planned(plan, lost) => {
                let text = format!("plan {plan}: {} batches are lost", lost.len());
                self.lost.insert(plan, lost);
                self.begun += usize::from(self.going.is_none());
                self.going = Some((name.to_owned(), plan));
                self.is_refused = false;
                text
            }
            Restored::Holding => "deletion is held".to_owned(),
            Restored::InPlace { version } => {
                self.ended(name);
                format!("version {version} is the snapshot")
            }
            Restored::Abandoned => {
                self.ended(name);
                "deletion goes on".to_owned()
            }
            Restored::Copied { version, content } => {
                if let RestoreAsk::Copy(tenant) = ask {
                    self.copied.push((tenant.clone(), version, *content));
                }
                format!("version {version} is copied")
            }
        }
    }

    /// The restore of the snapshot `name` is done or given up; one of another may go on.
    fn ended(&mut self, name: &str) {
        self.going.take_if(|(going, _)| going == name);
    }

    /// I10: every copy that was reported done is the pinned version, and all of it is readable.
    pub async fn check_copies(&mut self, tier: &Tier, s: &Settings) -> Result<u64, Violation> {
        let copied = std::mem::take(&mut self.copied);
        let count = copied.len() as u64;
        for (tenant, version, content) in copied {
            let broken = |what: String| {
                let what = format!("the copy {tenant} of version {version}: {what}");
                Violation::new("I10 a restored snapshot is what it was", what)
            };
            let clock = Arc::new(s.clock.clone());
            let log = TableLog::new(tier.tenant(&tenant), s.table.clone(), clock);
            let state = log.load().await.map_err(|error| broken(chain(&error)))?;
            let state = state.ok_or_else(|| broken("there is no table".to_owned()))?;
            if state.version != version || Content::of(&state) != content {
                return Err(broken(format!("it is version {}", state.version)));
            }
            let view = View {
                state,
                l0: Vec::new(),
            };
            let samples = reader::all_samples(log.store(), &view).await;
            let mut samples = samples.map_err(|error| broken(chain(&error)))?;
            Samples::read(samples.as_mut()).map_err(broken)?;
        }
        Ok(count)
    }
}

/// Plans a restore, goes on with one, or copies a snapshot.
pub(super) fn restore_task(process: &Process, ask: RestoreAsk, name: &str, ids: u64) -> Task {
    let (process, name) = (process.clone(), name.to_owned());
    Box::pin(async move {
        let result = match process.node().await {
            Err(failed) => Err(failed),
            Ok(node) => answer(&process, &node, &ask, &name, ids).await,
        };
        Done::Restored { ask, name, result }
    })
}

fn failed(kind: ErrorKind, error: &dyn std::error::Error) -> Failed {
    Failed {
        kind,
        text: chain(error),
    }
}

async fn answer(
    process: &Process,
    node: &Node,
    ask: &RestoreAsk,
    name: &str,
    ids: u64,
) -> Result<Restored, Failed> {
    let name: Result<PinName, stele_table::Error> = name.parse();
    let name = name.map_err(|error| failed(error.kind(), &error))?;
    match ask {
        RestoreAsk::Copy(tenant) => {
            let copied = copy(process, node, &name, tenant).await;
            copied.map_err(|error| failed(error.kind(), &error))
        }
        _ => {
            let done = in_place(process, node, ask, &name, ids).await;
            done.map_err(|error| failed(error.kind(), &error))
        }
    }
}

async fn in_place(
    process: &Process,
    node: &Node,
    ask: &RestoreAsk,
    name: &PinName,
    ids: u64,
) -> Result<Restored, InPlaceError> {
    let (log, clock) = (&node.log, process.clock.as_ref());
    match ask {
        RestoreAsk::GoOn(plan) => {
            let ids = SeededIds::new(ids);
            let done =
                stele_protect::restore_in_place(log, name, *plan, HOLD_US, clock, &ids).await?;
            Ok(match done {
                InPlace::Holding { .. } => Restored::Holding,
                InPlace::Restored { version } => Restored::InPlace { version },
            })
        }
        RestoreAsk::Abandon => {
            stele_protect::abandon_in_place(log, name, clock, &SeededIds::new(ids)).await?;
            Ok(Restored::Abandoned)
        }
        RestoreAsk::Plan | RestoreAsk::Copy(_) => {
            let plan = stele_protect::in_place_plan(log, name).await?;
            let lost = plan.lost.iter().map(|lost| lost.batch).collect();
            Ok(Restored::Planned(plan.hash, lost))
        }
    }
}

async fn copy(
    process: &Process,
    node: &Node,
    name: &PinName,
    tenant: &TenantId,
) -> Result<Restored, RestoreError> {
    let target = node.store.tier().tenant(tenant);
    let plan = stele_protect::restore_plan(&node.log, name, &target).await?;
    let options = node.log.options().clone();
    let target = TableLog::new(target, options, Arc::clone(&process.clock));
    stele_protect::restore(&plan, plan.hash, &node.store, &target, &|_| {}).await?;
    Ok(Restored::Copied {
        version: plan.version,
        content: Box::new(plan.content),
    })
}
