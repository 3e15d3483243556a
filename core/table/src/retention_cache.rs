//! A tenant's raw retention, as ingest must know it for every request.

use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

use stele_model::time::SECOND_US;
use stele_model::{Clock, RawRetention};
use stele_store::TenantStore;

use crate::error::Result;
use crate::retention::retention;

/// Ingest never uses an older one, µs.
const AGES: Range<i64> = 0..60 * SECOND_US;

/// A tenant's raw retention, read from the store at most once a minute. Clones share it.
#[derive(Clone)]
pub struct RetentionCache {
    clock: Arc<dyn Clock>,
    known: Arc<Mutex<Option<Known>>>,
}

#[derive(Debug, Clone, Copy)]
struct Known {
    /// When it was asked for, by the steady clock and by the wall clock, µs.
    asked_us: (i64, i64),
    raw: RawRetention,
}

impl std::fmt::Debug for RetentionCache {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("RetentionCache").field(&self.known).finish()
    }
}

impl RetentionCache {
    /// Nothing is read yet.
    #[must_use]
    pub fn new(clock: Arc<dyn Clock>) -> Self {
        let known = Arc::default();
        Self { clock, known }
    }

    /// As of at most a minute ago, by both clocks: one of them stands still in a process that
    /// was suspended.
    ///
    /// # Errors
    /// When that cannot be read: then nothing may be accepted, because samples that are past
    /// their retention would be acknowledged and never kept.
    pub async fn raw(&self, store: &TenantStore) -> Result<RawRetention> {
        let known = *self.known.lock().unwrap_or_else(PoisonError::into_inner);
        // Before the request: the answer is as old as its question.
        let asked_us = (self.clock.steady_us(), self.clock.now_us());
        if let Some(known) = known
            && AGES.contains(&asked_us.0.saturating_sub(known.asked_us.0))
            && AGES.contains(&asked_us.1.saturating_sub(known.asked_us.1))
        {
            return Ok(known.raw);
        }
        let raw = retention(store).await?.raw();
        *self.known.lock().unwrap_or_else(PoisonError::into_inner) = Some(Known { asked_us, raw });
        Ok(raw)
    }

    /// The next request reads it anew.
    pub fn forget(&self) {
        *self.known.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }
}
