//! Where actors of a scheduled world wait until the driver lets them go on.

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

/// One waiting request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ticket {
    /// Grows with every request of the world.
    pub id: u64,
    /// Who waits.
    pub actor: String,
    /// For what, as a trace shows it.
    pub what: String,
}

#[derive(Default)]
struct Gates {
    next: u64,
    waiting: BTreeMap<u64, (Ticket, Option<Waker>)>,
    granted: BTreeSet<u64>,
}

/// The gates of one world.
#[derive(Clone, Default)]
pub(crate) struct Turnstile(Arc<Mutex<Gates>>);

impl Turnstile {
    fn gates(&self) -> MutexGuard<'_, Gates> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A future that is ready once its ticket is granted.
    pub(crate) fn wait(&self, actor: &str, what: String) -> Turn {
        let mut gates = self.gates();
        let id = gates.next;
        gates.next += 1;
        let ticket = Ticket {
            id,
            actor: actor.to_owned(),
            what,
        };
        gates.waiting.insert(id, (ticket, None));
        Turn {
            turnstile: self.clone(),
            id,
        }
    }

    pub(crate) fn issued(&self) -> u64 {
        self.gates().next
    }

    pub(crate) fn waiting(&self) -> Vec<Ticket> {
        let gates = self.gates();
        gates.waiting.values().map(|(t, _)| t.clone()).collect()
    }

    pub(crate) fn grant(&self, id: u64) {
        let mut gates = self.gates();
        if let Some((_, waker)) = gates.waiting.remove(&id) {
            gates.granted.insert(id);
            drop(gates);
            if let Some(waker) = waker {
                waker.wake();
            }
        }
    }
}

pub(crate) struct Turn {
    turnstile: Turnstile,
    id: u64,
}

impl Future for Turn {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let mut gates = self.turnstile.gates();
        if gates.granted.remove(&self.id) {
            return Poll::Ready(());
        }
        if let Some((_, waker)) = gates.waiting.get_mut(&self.id) {
            *waker = Some(cx.waker().clone());
        }
        Poll::Pending
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let mut gates = self.turnstile.gates();
        gates.waiting.remove(&self.id);
        gates.granted.remove(&self.id);
    }
}
