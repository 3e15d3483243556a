//! The read protocol: which files and which L0 objects together hold every sample exactly once.

use std::sync::Arc;

use stele_model::WindowSet;
use stele_store::L0Object;

use crate::error::{Damage, Error, Result};
use crate::log::TableLog;
use crate::state::TableState;

/// What a query reads: the live files of one version and the L0 objects it has not absorbed.
///
/// A GET of one of these objects that finds nothing means sweep has passed: restart with a new
/// view.
#[derive(Debug, Clone)]
pub struct View {
    /// The version; [`TableState::exists`] is false when nothing was ever absorbed.
    pub state: Arc<TableState>,
    /// L0 objects that the version's ledger does not know, by name.
    pub l0: Vec<L0Object>,
}

impl View {
    /// Reads L0 and the table in the one safe order: LIST L0 to its last page (and LIST heads
    /// beside it, when cold), and only then the log. `cached` is an earlier view's state.
    ///
    /// # Errors
    /// The store's, and [`Error::Corrupt`].
    pub async fn read(
        _log: &TableLog,
        _cached: Option<Arc<TableState>>,
        _now_us: i64,
    ) -> Result<Self> {
        Err(Error::corrupt("", Damage::Missing))
    }

    /// Like [`View::read`], from the newest state this log has seen in this process.
    ///
    /// # Errors
    /// The store's, and [`Error::Corrupt`].
    pub async fn read_cached(_log: &TableLog, _now_us: i64) -> Result<Self> {
        Err(Error::corrupt("", Damage::Missing))
    }

    /// Windows whose rollups are not valid: an `open` file or an L0 object covers them.
    #[must_use]
    pub fn open_windows(&self) -> WindowSet {
        let mut windows = self.state.open_windows_of_files();
        for object in &self.l0 {
            windows.extend(&object.name.windows());
        }
        windows
    }
}
