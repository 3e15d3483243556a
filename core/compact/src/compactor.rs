//! One compactor: what its jobs share.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use stele_model::{Clock, Day, Ids, L0Name};
use stele_store::TenantStore;
use stele_table::{TableLog, TableState};

use crate::error::Result;
use crate::memory::Shares;
use crate::options::{Budget, Options};
use crate::sweep::PinCache;
use crate::witness::Witnesses;

/// Rows merged between two points at which other tasks may run.
const ROWS_PER_YIELD: usize = 16_384;

/// Compacts the table of one tenant. Share one per process (in an `Arc`): its jobs take turns
/// where they must and otherwise run beside each other.
pub struct Compactor {
    pub(crate) store: TenantStore,
    pub(crate) log: Arc<TableLog>,
    pub(crate) options: Options,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) ids: Arc<dyn Ids>,
    /// Absorbs of this process take turns.
    pub(crate) absorbing: tokio::sync::Mutex<()>,
    /// Seals and consolidations of this process take turns.
    pub(crate) sealing: tokio::sync::Mutex<()>,
    /// Sweeps of this process take turns.
    pub(crate) sweeping: tokio::sync::Mutex<()>,
    state: Mutex<Option<Arc<TableState>>>,
    /// Files a job of this process is rewriting; others leave them alone, so that frequent
    /// absorbs do not starve a long seal. Only a courtesy: the commit decides.
    busy: Mutex<BTreeSet<String>>,
    /// Since when each day has been known to have reopened windows, µs.
    reopened: Mutex<BTreeMap<Day, i64>>,
    /// Damaged L0 objects that this process has recorded as lost.
    pub(crate) noted: Mutex<BTreeSet<L0Name>>,
    /// What pins keep.
    pub(crate) pins: Mutex<PinCache>,
    /// Who knows the other tiers; none when there are none.
    pub(crate) witnesses: Option<Arc<dyn Witnesses>>,
}

impl fmt::Debug for Compactor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Compactor")
            .field("store", &self.store)
            .field("options", &self.options)
            .finish_non_exhaustive()
    }
}

/// The values guarded here are replaced whole, so a panic elsewhere cannot leave half of one.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Compactor {
    /// A compactor of the table in `log`; nothing is read yet.
    #[must_use]
    pub fn new(
        store: TenantStore,
        log: Arc<TableLog>,
        options: Options,
        clock: Arc<dyn Clock>,
        ids: Arc<dyn Ids>,
    ) -> Self {
        Self {
            store,
            log,
            options,
            clock,
            ids,
            absorbing: tokio::sync::Mutex::new(()),
            sealing: tokio::sync::Mutex::new(()),
            sweeping: tokio::sync::Mutex::new(()),
            state: Mutex::new(None),
            busy: Mutex::new(BTreeSet::new()),
            reopened: Mutex::new(BTreeMap::new()),
            noted: Mutex::default(),
            pins: Mutex::default(),
            witnesses: None,
        }
    }

    /// A compactor whose deletions ask the other tiers, which `witnesses` names to every run.
    #[must_use]
    pub fn with_witnesses(self, witnesses: Arc<dyn Witnesses>) -> Self {
        Self {
            witnesses: Some(witnesses),
            ..self
        }
    }

    /// The options it runs with.
    #[must_use]
    pub fn options(&self) -> &Options {
        &self.options
    }

    /// The newest state a job of this compactor has seen.
    #[must_use]
    pub fn cached_state(&self) -> Option<Arc<TableState>> {
        lock(&self.state).clone()
    }

    pub(crate) fn remember(&self, state: &Arc<TableState>) {
        let mut cached = lock(&self.state);
        if cached
            .as_ref()
            .is_none_or(|known| known.version <= state.version)
        {
            *cached = Some(Arc::clone(state));
        }
    }

    /// The newest version; `None` when the tenant has no table.
    pub(crate) async fn newest_state(&self) -> Result<Option<Arc<TableState>>> {
        let state = match self.cached_state() {
            Some(known) if known.exists() => Some(self.log.refresh(&known).await?),
            _ => self.log.load().await?,
        };
        if let Some(state) = &state {
            self.remember(state);
        }
        Ok(state)
    }

    pub(crate) fn is_past(&self, budget: &Budget) -> bool {
        self.clock.now_us() >= budget.deadline_us
    }

    pub(crate) fn shares(&self, budget: &Budget) -> Shares {
        Shares::of(budget, &self.options)
    }

    /// Marks files as being rewritten until the guard is dropped.
    pub(crate) fn rewrite(&self, paths: &[String]) -> Rewriting<'_> {
        let paths = paths.to_vec();
        lock(&self.busy).extend(paths.iter().cloned());
        Rewriting {
            compactor: self,
            paths,
        }
    }

    pub(crate) fn is_busy(&self, path: &str) -> bool {
        lock(&self.busy).contains(path)
    }

    /// Notes which days have reopened windows now, and answers since when.
    pub(crate) fn reopened_since(&self, seen: BTreeMap<Day, i64>) -> BTreeMap<Day, i64> {
        let mut known = lock(&self.reopened);
        let since = seen.into_iter().map(|(day, since)| {
            let earlier = known.get(&day).copied().unwrap_or(since);
            (day, since.min(earlier))
        });
        let since: BTreeMap<Day, i64> = since.collect();
        known.clone_from(&since);
        since
    }

    pub(crate) fn reopened_known(&self, day: Day) -> Option<i64> {
        lock(&self.reopened).get(&day).copied()
    }
}

/// Files marked as being rewritten; see [`Compactor::rewrite`].
pub(crate) struct Rewriting<'a> {
    compactor: &'a Compactor,
    paths: Vec<String>,
}

impl Drop for Rewriting<'_> {
    fn drop(&mut self) {
        let mut busy = lock(&self.compactor.busy);
        for path in &self.paths {
            busy.remove(path);
        }
    }
}

/// Lets other tasks run now and then during a long merge.
#[derive(Default)]
pub(crate) struct Pace(usize);

impl Pace {
    /// Counts rows of work, and yields when they are many.
    pub async fn after(&mut self, rows: usize) {
        self.0 += rows;
        if self.0 >= ROWS_PER_YIELD {
            self.0 = 0;
            tokio::task::yield_now().await;
        }
    }
}
