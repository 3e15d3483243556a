//! Time and names that a test owns.

use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use stele_model::{Clock, Ids};

use crate::rng::Rng;

/// A clock that moves only when told. Clones share the time.
#[derive(Debug, Clone)]
pub struct ManualClock(Arc<AtomicI64>);

impl ManualClock {
    /// A clock that stands at `now_us`.
    #[must_use]
    pub fn new(now_us: i64) -> Self {
        Self(Arc::new(AtomicI64::new(now_us)))
    }

    /// Moves the clock on by `us`.
    pub fn advance(&self, us: i64) {
        self.0.fetch_add(us, Ordering::SeqCst);
    }

    /// Sets the clock.
    pub fn set(&self, now_us: i64) {
        self.0.store(now_us, Ordering::SeqCst);
    }
}

impl Clock for ManualClock {
    fn now_us(&self) -> i64 {
        self.0.load(Ordering::SeqCst)
    }
}

/// Operation ids from a seed.
#[derive(Debug)]
pub struct SeededIds(Mutex<Rng>);

impl SeededIds {
    /// The ids of `seed`; two generators of one seed collide, so give each actor its own.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self(Mutex::new(Rng::new(seed)))
    }
}

impl Ids for SeededIds {
    fn operation_id(&self) -> String {
        let mut rng = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        format!("{:016x}{:016x}", rng.next_u64(), rng.next_u64())
    }
}
