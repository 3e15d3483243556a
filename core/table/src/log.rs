//! The log of one tenant's table: load, refresh, commit.

use std::collections::HashMap;
use std::sync::Arc;

use stele_model::{Day, Digest, time};
use stele_store::TenantStore;

use crate::commit::{Commit, Outcome};
use crate::error::{Damage, Error, Result};
use crate::ledger::LedgerRow;
use crate::state::TableState;

/// What the log must know of how it is operated.
#[derive(Debug, Clone)]
pub struct Options {
    /// How long sweep keeps superseded files and log entries, µs. A state held in memory is
    /// trusted for half of it.
    pub history_us: i64,
    /// Commits between two ledger commits with a checkpoint.
    pub checkpoint_every: u64,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            history_us: time::DAY_US,
            checkpoint_every: 20,
        }
    }
}

/// The log of one tenant's table.
pub struct TableLog {
    store: TenantStore,
    options: Options,
}

fn missing<T>() -> Result<T> {
    Err(Error::corrupt("", Damage::Missing))
}

impl TableLog {
    /// The log in `store`; nothing is read yet.
    #[must_use]
    pub fn new(store: TenantStore, options: Options) -> Self {
        Self { store, options }
    }

    /// The store it is in.
    #[must_use]
    pub fn store(&self) -> &TenantStore {
        &self.store
    }

    /// How it is operated.
    #[must_use]
    pub fn options(&self) -> &Options {
        &self.options
    }

    /// Reads the newest version cold; `None` when there is no table.
    ///
    /// # Errors
    /// The store's, and [`Error::Corrupt`].
    pub async fn load(&self) -> Result<Option<Arc<TableState>>> {
        missing()
    }

    /// Like [`TableLog::load`], without any head.
    ///
    /// # Errors
    /// The store's, and [`Error::Corrupt`].
    pub async fn load_from_log(&self) -> Result<Option<Arc<TableState>>> {
        missing()
    }

    /// The newest version; creates the table when there is none.
    ///
    /// # Errors
    /// The store's, and [`Error::Corrupt`].
    pub async fn load_or_create(&self, _now_us: i64) -> Result<Arc<TableState>> {
        missing()
    }

    /// The newest version, from a known one: one GET of the next entry when nothing changed. A
    /// state last known to be the newest longer than half the history ago is read cold, because
    /// the entries after it may have been swept.
    ///
    /// # Errors
    /// The store's, and [`Error::Corrupt`].
    pub async fn refresh(&self, _known: &Arc<TableState>, _now_us: i64) -> Result<Arc<TableState>> {
        missing()
    }

    /// Writes `commit` as the version after `planned_on`, or not at all.
    ///
    /// # Errors
    /// [`Error::Refused`] when it breaks a rule (nothing was written), [`Error::Unresolved`] when
    /// the store never said whether it exists; else the store's and [`Error::Corrupt`].
    pub async fn commit(&self, _planned_on: &Arc<TableState>, _commit: Commit) -> Result<Outcome> {
        missing()
    }

    /// The operation each of `batches` (digest, day of its greatest timestamp) is effective in;
    /// batches the ledger does not know are not in the map.
    ///
    /// # Errors
    /// The store's, and [`Error::Corrupt`].
    pub async fn ledger_lookup(
        &self,
        _state: &TableState,
        _batches: &[(Digest, Day)],
    ) -> Result<HashMap<Digest, String>> {
        missing()
    }

    /// Every row of the ledger, by version and position.
    ///
    /// # Errors
    /// The store's, and [`Error::Corrupt`].
    pub async fn ledger_rows(&self, _state: &TableState) -> Result<Vec<LedgerRow>> {
        missing()
    }

    /// The version of the newest checkpoint whose bytes are what this crate would write, for
    /// sweep: entries before it are not needed to load the table.
    ///
    /// # Errors
    /// The store's.
    pub async fn checkpoint_version(&self) -> Result<Option<u64>> {
        missing()
    }
}
