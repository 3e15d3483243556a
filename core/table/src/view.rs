//! The read protocol: which files and which L0 objects together hold every sample exactly once.

use std::sync::Arc;

use futures::join;
use stele_model::{Resolution, WindowSet, sabotaged};
use stele_store::{L0Object, keys};

use crate::as_of::AsOf;
use crate::error::Result;
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
    /// beside it, when cold), and only then the log. `cached` is an earlier view's state. Warm
    /// and unchanged, that is one LIST and one GET.
    ///
    /// In the other order a commit and a sweep between the two reads would hide rows from both.
    ///
    /// # Errors
    /// The store's, [`crate::Error::Corrupt`] and [`crate::Error::Slow`].
    pub async fn read(log: &TableLog, cached: Option<Arc<TableState>>) -> Result<Self> {
        log.timely(|began_us, is_first| {
            let cached = cached
                .as_ref()
                .filter(|known| is_first && log.trusts(known));
            Self::read_once(log, cached.map(Arc::clone), began_us)
        })
        .await
    }

    async fn read_once(
        log: &TableLog,
        cached: Option<Arc<TableState>>,
        began_us: i64,
    ) -> Result<Self> {
        let (l0, state) = match cached {
            Some(known) if sabotaged!(LogBeforeL0) => {
                let state = log.advance(known).await?;
                (log.store.l0_list().await?, Some(state))
            }
            Some(known) => {
                let l0 = log.store.l0_list().await?;
                (l0, Some(log.advance(known).await?))
            }
            None => {
                let heads = log.store.list_newest_head(keys::HEADS);
                let (l0, newest) = join!(log.store.l0_list(), heads);
                let (l0, newest) = (l0?, newest?);
                let newest = newest.as_deref().and_then(keys::head_version);
                (l0, log.load_at(newest).await?)
            }
        };
        let state = state.unwrap_or_default();
        if state.exists() {
            log.remember(&state, began_us);
        }
        let unabsorbed = |object: &L0Object| match sabotaged!(WatermarkForLedger) {
            true => object.stored_us > state.timestamp_us,
            false => !state.unswept.contains_key(&object.name.digest) || sabotaged!(LedgerIgnored),
        };
        let l0 = l0.into_iter().filter(unabsorbed).collect();
        Ok(Self { state, l0 })
    }

    /// Like [`View::read`], from the newest state this log has seen in this process.
    ///
    /// # Errors
    /// As [`View::read`].
    pub async fn read_cached(log: &TableLog) -> Result<Self> {
        Self::read(log, log.newest_seen()).await
    }

    /// An old version, which has no L0: what was not absorbed then is not in it. A GET of one of
    /// its files that finds nothing means that it is not kept any more: ask again, for the reason.
    ///
    /// # Errors
    /// As [`TableLog::as_of`].
    pub async fn as_of(log: &TableLog, at: &AsOf) -> Result<Self> {
        let state = log.as_of(at).await?;
        let l0 = Vec::new();
        Ok(Self { state, l0 })
    }

    /// Windows whose rollups are not valid: an `open` file or an L0 object covers them, and their
    /// raw data has not expired. Rollups of an expired window are frozen, whatever still arrives.
    #[must_use]
    pub fn open_windows(&self) -> WindowSet {
        let mut windows = self.state.open_windows_of_files();
        for object in &self.l0 {
            windows.extend(&object.name.windows());
        }
        self.state.expired.not_of(Resolution::Raw, &windows)
    }
}
