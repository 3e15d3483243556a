//! What all actors share: the store below, the plan, and the requests that land late.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use object_store::path::Path;
use object_store::{Error, ObjectStore, ObjectStoreExt, PutMode, Result};

use super::gate::{Ticket, Turnstile};
use super::plan::{Fault, FaultKey, KeyClass, Operation, Plan, relative, root};
use super::store::FaultStore;

/// A world of actors over one store. Clones share it.
#[derive(Clone)]
pub struct FaultWorld {
    pub(super) inner: Arc<dyn ObjectStore>,
    shared: Arc<Shared>,
}

struct Shared {
    turnstile: Option<Turnstile>,
    page_keys: usize,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    plan: Plan,
    counts: BTreeMap<(String, KeyClass, Operation), u32>,
    crashed: BTreeSet<String>,
    /// Kinds of requests that still fail, and how many of them.
    outages: BTreeMap<(String, KeyClass, Operation), u32>,
    /// Tiers that answer nobody, by the prefix of their keys.
    dead: BTreeSet<String>,
    requests: u64,
    held: Vec<Held>,
    fired: Vec<Fired>,
}

/// A change that was promised nothing and lands later.
struct Held {
    due: u64,
    change: Change,
}

enum Change {
    Put(Path, Bytes, PutMode),
    Delete(Path),
}

/// A fault that struck.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fired {
    /// The request.
    pub key: FaultKey,
    /// What happened to it.
    pub fault: Fault,
    /// The object's key, relative to its tenant.
    pub object: String,
}

impl fmt::Display for Fired {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let FaultKey {
            actor,
            operation,
            nth,
            ..
        } = &self.key;
        let object = &self.object;
        write!(
            f,
            "{actor} {operation:?} {object} (#{nth}): {:?}",
            self.fault
        )
    }
}

/// The failure an actor sees.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Injected {
    /// A fault of the plan.
    #[error("injected fault: {0:?}")]
    Fault(Fault),
    /// The actor has crashed.
    #[error("{0} has crashed")]
    Crashed(String),
}

impl From<Injected> for Error {
    fn from(source: Injected) -> Self {
        Self::Generic {
            store: "FaultStore",
            source: source.into(),
        }
    }
}

impl FaultWorld {
    /// A world in which every request goes on at once; it yields to other tasks at each gate.
    #[must_use]
    pub fn immediate(inner: Arc<dyn ObjectStore>, plan: Plan) -> Self {
        Self::build(inner, plan, None, usize::MAX)
    }

    /// A world in which every request waits at its gates for [`Self::grant`], and a LIST comes in
    /// pages of `page_keys` keys. `inner` must list in key order.
    #[must_use]
    pub fn scheduled(inner: Arc<dyn ObjectStore>, plan: Plan, page_keys: usize) -> Self {
        Self::build(inner, plan, Some(Turnstile::default()), page_keys)
    }

    fn build(
        inner: Arc<dyn ObjectStore>,
        plan: Plan,
        turnstile: Option<Turnstile>,
        page_keys: usize,
    ) -> Self {
        let state = State {
            plan,
            ..State::default()
        };
        Self {
            inner,
            shared: Arc::new(Shared {
                turnstile,
                page_keys,
                state: Mutex::new(state),
            }),
        }
    }

    /// The store as `actor` sees it.
    #[must_use]
    pub fn actor(&self, actor: &str) -> Arc<FaultStore> {
        Arc::new(FaultStore::new(self.clone(), actor))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.shared
            .state
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn page_keys(&self) -> usize {
        self.shared.page_keys
    }

    /// Who waits at a gate, in the order they came.
    #[must_use]
    pub fn waiting(&self) -> Vec<Ticket> {
        let turnstile = self.shared.turnstile.as_ref();
        turnstile.map(Turnstile::waiting).unwrap_or_default()
    }

    /// Lets one waiting request go on.
    pub fn grant(&self, id: u64) {
        if let Some(turnstile) = &self.shared.turnstile {
            turnstile.grant(id);
        }
    }

    /// How many gates have been reached so far: a driver sees by it whether anything went on.
    #[must_use]
    pub fn gates_passed(&self) -> u64 {
        self.shared.turnstile.as_ref().map_or(0, Turnstile::issued)
    }

    /// How many requests have begun to take effect.
    #[must_use]
    pub fn requests(&self) -> u64 {
        self.state().requests
    }

    /// Lets a crashed actor send requests again, as its next process.
    pub fn restart(&self, actor: &str) {
        self.state().crashed.remove(actor);
    }

    /// Whether the actor has crashed.
    #[must_use]
    pub fn has_crashed(&self, actor: &str) -> bool {
        self.state().crashed.contains(actor)
    }

    /// From now on every request below `root` fails, whoever sends it; or none any more. What is
    /// held still lands there.
    pub fn set_dead(&self, root: &str, is_dead: bool) {
        let mut state = self.state();
        match is_dead {
            true => state.dead.insert(root.to_owned()),
            false => state.dead.remove(root),
        };
    }

    /// The faults that struck so far.
    #[must_use]
    pub fn fired(&self) -> Vec<Fired> {
        self.state().fired.clone()
    }

    /// From now on nothing fails any more; what is held still lands in its time.
    pub fn end_faults(&self) {
        let mut state = self.state();
        state.plan = Plan::none();
        state.crashed.clear();
        state.outages.clear();
    }

    /// Lets everything land that is still held.
    pub async fn land_all(&self) {
        let held = std::mem::take(&mut self.state().held);
        for held in held {
            self.land(held.change).await;
        }
    }

    async fn land_due(&self) {
        loop {
            let next = {
                let mut state = self.state();
                let now = state.requests;
                let due = state.held.iter().position(|held| held.due <= now);
                due.map(|index| state.held.remove(index))
            };
            match next {
                Some(held) => self.land(held.change).await,
                None => return,
            }
        }
    }

    /// Nobody hears whether it worked: the sender gave up long ago.
    async fn land(&self, change: Change) {
        match change {
            Change::Put(path, bytes, mode) => {
                let put = self.inner.put_opts(&path, bytes.into(), mode.into());
                drop(put.await);
            }
            Change::Delete(path) => drop(self.inner.delete(&path).await),
        }
    }

    pub(super) fn hold_put(&self, after: u32, path: &Path, bytes: Bytes, mode: PutMode) {
        let change = Change::Put(path.clone(), bytes, mode);
        self.hold(after, change);
    }

    pub(super) fn hold_delete(&self, after: u32, path: &Path) {
        self.hold(after, Change::Delete(path.clone()));
    }

    fn hold(&self, after: u32, change: Change) {
        let mut state = self.state();
        let due = state.requests + u64::from(after);
        state.held.push(Held { due, change });
    }

    /// Waits for a turn, then checks that the actor still lives.
    pub(super) async fn gate(&self, actor: &str, what: String) -> Result<()> {
        match &self.shared.turnstile {
            Some(turnstile) => turnstile.wait(actor, what).await,
            None => tokio::task::yield_now().await,
        }
        self.alive(actor)
    }

    fn alive(&self, actor: &str) -> Result<()> {
        if self.has_crashed(actor) {
            return Err(Injected::Crashed(actor.to_owned()).into());
        }
        Ok(())
    }

    pub(super) fn crash(&self, actor: &str) -> Error {
        self.state().crashed.insert(actor.to_owned());
        Injected::Crashed(actor.to_owned()).into()
    }

    /// Begins one request: counts it, waits for its turn, lands what is due, and says which fault
    /// strikes it.
    pub(super) async fn begin(
        &self,
        actor: &str,
        operation: Operation,
        path: &Path,
    ) -> Result<Option<Fault>> {
        self.alive(actor)?;
        let fault = self.count(actor, operation, path);
        if let Some(Fault::Delay { turns }) = fault {
            for _ in 0..turns {
                self.gate(actor, format!("delayed {operation:?}")).await?;
            }
        }
        let at = root(path.as_ref());
        let place = match at.strip_suffix('/') {
            Some(place) => format!(" at {place}"),
            None => String::new(),
        };
        let object = relative(path.as_ref());
        let what = format!("{operation:?} {object}{place}");
        self.gate(actor, what).await?;
        self.state().requests += 1;
        self.land_due().await;
        if self.state().dead.contains(at) {
            return Err(Injected::Fault(Fault::ErrorBefore).into());
        }
        match fault {
            Some(Fault::ErrorBefore) => Err(Injected::Fault(Fault::ErrorBefore).into()),
            Some(Fault::CrashBefore) => Err(self.crash(actor)),
            Some(Fault::HangBefore) => std::future::pending().await,
            other => Ok(other),
        }
    }

    /// Ends one request that took effect: waits for the turn of its answer.
    pub(super) async fn end(
        &self,
        actor: &str,
        operation: Operation,
        fault: Option<Fault>,
    ) -> Result<()> {
        match fault {
            Some(Fault::HangAfter) => return std::future::pending().await,
            Some(Fault::CrashAfter) => return Err(self.crash(actor)),
            _ => {}
        }
        self.gate(actor, format!("answer {operation:?}")).await?;
        match fault {
            Some(fault @ Fault::ErrorAfter) => Err(Injected::Fault(fault).into()),
            _ => Ok(()),
        }
    }

    fn count(&self, actor: &str, operation: Operation, path: &Path) -> Option<Fault> {
        let class = KeyClass::of(path);
        let kind = (actor.to_owned(), class, operation);
        let mut state = self.state();
        let count = state.counts.entry(kind.clone()).or_default();
        let nth = *count;
        *count += 1;
        if let Some(left) = state.outages.get_mut(&kind) {
            *left -= 1;
            if *left == 0 {
                state.outages.remove(&kind);
            }
            return Some(Fault::ErrorBefore);
        }
        let key = FaultKey {
            actor: actor.to_owned(),
            class,
            operation,
            nth,
        };
        let fault = state.plan.get(&key)?;
        let object = relative(path.as_ref()).to_owned();
        state.fired.push(Fired { key, fault, object });
        match fault {
            Fault::Outage { requests } => {
                if requests > 0 {
                    state.outages.insert(kind, requests);
                }
                Some(match operation {
                    // Each failed PUT is read back in between.
                    Operation::Put => Fault::Late {
                        requests: requests * 2 + 2,
                    },
                    _ => Fault::ErrorBefore,
                })
            }
            fault => Some(fault),
        }
    }
}
