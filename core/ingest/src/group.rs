//! Group commit: while a PUT is in flight, batches gather, and then go out as one object.
//!
//! Nothing is spawned: a group's work is one shared future that all its requests poll. A request
//! whose sender went away takes nothing from the others; when the last one goes, so does the
//! work. So no work outlives the acknowledgements it is for.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::FutureExt;
use futures::future::{BoxFuture, Shared, WeakShared};
use stele_model::Batch;
use tokio::sync::{Notify, watch};

use crate::durable::{Durable, Stored};
use crate::error::{Error, Result};
use crate::object::{Batches, Object};

/// How long and how much batches gather.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GroupLimits {
    /// The longest that a batch waits for a PUT in flight to end.
    pub gather_max: Duration,
    /// A group whose rows take this many bytes of memory goes out at once; its last batch may
    /// exceed it. Encoded rows are smaller.
    pub bytes_max: u64,
}

impl Default for GroupLimits {
    fn default() -> Self {
        Self {
            gather_max: Duration::from_millis(100),
            bytes_max: 8 << 20,
        }
    }
}

/// What a group comes to, for each of its requests.
type Outcome = std::result::Result<Stored, Arc<Error>>;
type Work = BoxFuture<'static, Outcome>;

/// The groups of one tenant.
pub(crate) struct Groups {
    durable: Arc<Durable>,
    limits: GroupLimits,
    gathering: Mutex<Option<Gathering>>,
    /// PUTs in flight.
    in_flight: watch::Sender<usize>,
}

/// The group that takes new batches.
struct Gathering {
    group: Arc<Group>,
    /// Weak, so that the work ends with its last request.
    work: WeakShared<Work>,
}

struct Group {
    held: Mutex<Held>,
    full: Notify,
}

#[derive(Default)]
struct Held {
    batches: Batches,
    bytes: u64,
}

impl Group {
    fn of(batch: Batch) -> Arc<Self> {
        let group = Self {
            held: Mutex::default(),
            full: Notify::new(),
        };
        group.add(batch);
        Arc::new(group)
    }

    fn held(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a batch; answers the bytes held with it. A batch that is there already is not held
    /// twice.
    fn add(&self, batch: Batch) -> u64 {
        let mut held = self.held();
        let bytes = batch.rows.memory_bytes();
        if held.batches.insert(batch.digest, batch).is_none() {
            held.bytes += bytes;
        }
        held.bytes
    }

    fn take(&self) -> Batches {
        std::mem::take(&mut self.held().batches)
    }
}

/// One PUT in flight, until it is dropped.
struct Flight(Arc<Groups>);

impl Flight {
    fn begin(groups: &Arc<Groups>) -> Self {
        groups.in_flight.send_modify(|flights| *flights += 1);
        Self(Arc::clone(groups))
    }
}

impl Drop for Flight {
    fn drop(&mut self) {
        self.0.in_flight.send_modify(|flights| *flights -= 1);
    }
}

/// Keeps a group open for more batches, until it is dropped.
struct Open {
    groups: Arc<Groups>,
    group: Arc<Group>,
}

impl Drop for Open {
    fn drop(&mut self) {
        let mut gathering = self.groups.gathering();
        if matches!(&*gathering, Some(open) if Arc::ptr_eq(&open.group, &self.group)) {
            *gathering = None;
        }
    }
}

impl Groups {
    pub fn new(durable: Arc<Durable>, limits: GroupLimits) -> Arc<Self> {
        Arc::new(Self {
            durable,
            limits,
            gathering: Mutex::default(),
            in_flight: watch::Sender::new(0),
        })
    }

    fn gathering(&self) -> MutexGuard<'_, Option<Gathering>> {
        self.gathering
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Stores the batch in an object with whatever else there is to store. When it returns, the
    /// object is durable.
    pub async fn put(self: &Arc<Self>, batch: Batch) -> Result<Stored> {
        self.join(batch).await.map_err(Error::Group)
    }

    /// Puts the batch into a group.
    fn join(self: &Arc<Self>, batch: Batch) -> Shared<Work> {
        let mut gathering = self.gathering();
        let open = gathering
            .as_ref()
            .and_then(|open| Some((Arc::clone(&open.group), open.work.upgrade()?)));
        if let Some((group, work)) = open {
            if group.add(batch) >= self.limits.bytes_max {
                group.full.notify_one();
                *gathering = None;
            }
            return work;
        }
        let is_full = batch.rows.memory_bytes() >= self.limits.bytes_max;
        let group = Group::of(batch);
        if is_full || *self.in_flight.borrow() == 0 {
            return send(group, Flight::begin(self)).boxed().shared();
        }
        let open = Open {
            groups: Arc::clone(self),
            group: Arc::clone(&group),
        };
        let work = gather(open).boxed().shared();
        *gathering = work.downgrade().map(|work| Gathering { group, work });
        work
    }
}

/// Waits for more batches until no PUT is in flight, the group is full, or it waited enough.
async fn gather(open: Open) -> Outcome {
    let groups = Arc::clone(&open.groups);
    let group = Arc::clone(&open.group);
    let mut flights = groups.in_flight.subscribe();
    tokio::select! {
        biased;
        () = group.full.notified() => {}
        // An error means that the sender is gone; `groups` holds it.
        _ = flights.wait_for(|flights| *flights == 0) => {}
        () = tokio::time::sleep(groups.limits.gather_max) => {}
    }
    let flight = Flight::begin(&groups);
    drop(open);
    send(group, flight).await
}

async fn send(group: Arc<Group>, flight: Flight) -> Outcome {
    let put = async {
        let object = Object::of(group.take()).await?;
        flight.0.durable.put(&object).await
    };
    let put = put.await;
    drop(flight);
    put.map_err(Arc::new)
}
