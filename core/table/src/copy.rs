//! What a copy of this log elsewhere takes: one entry of the source on an equal version, checked
//! before it is put, and read back.
//!
//! A copied log is a prefix of its source, byte for byte. Nothing here plans a commit: whose table
//! it is does not matter, because the entry is the owner's own.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use stele_model::sabotaged;
use stele_store::{Put, keys};

use crate::apply::apply;
use crate::checkpoint;
use crate::codec;
use crate::commit::CommitKind;
use crate::entry::LogEntry;
use crate::error::{Damage, Error, Result};
use crate::log::TableLog;
use crate::reach::ledger_of;
use crate::state::{LedgerObject, TableState};

/// One entry of a source, and what it adds to the version before it.
#[derive(Debug, Clone)]
pub struct CopyStep {
    /// The version after it.
    pub state: Arc<TableState>,
    /// The entry.
    pub entry: LogEntry,
    /// Its bytes.
    pub bytes: Bytes,
    /// Ledger objects that the version names and the one before did not, by key.
    pub ledger: BTreeMap<String, LedgerObject>,
}

impl TableLog {
    /// Reads the entry after `on`, a version of this log, with everything it names in the log and
    /// the ledger; `None` when there is none.
    ///
    /// # Errors
    /// The store's, and [`Error::Corrupt`] when it does not continue `on`, or is damaged.
    pub async fn copy_step(&self, on: &TableState) -> Result<Option<CopyStep>> {
        let key = keys::log_entry(on.version + 1);
        let damaged = |damage| Error::corrupt(&key, damage);
        let Some(bytes) = self.store.get_opt(&key).await? else {
            return Ok(None);
        };
        let entry = LogEntry::decode(&bytes).map_err(damaged)?;
        let attached = self.attached(&entry).await?;
        let state = apply(on, &entry, codec::digest(&bytes), &attached).map_err(damaged)?;
        let mut ledger = ledger_of(&state);
        let known = ledger_of(on);
        ledger.retain(|key, _| !known.contains_key(key));
        Ok(Some(CopyStep {
            state: Arc::new(state),
            entry,
            bytes,
            ledger,
        }))
    }

    /// Writes `step` of a source after `on`, the newest version here, which is equal to the
    /// source's. What the entry names must be here. True when the entry is there now; false when
    /// the slot holds another.
    ///
    /// # Errors
    /// [`Error::Slow`] when it took so long that sweep may have passed; else the store's and
    /// [`Error::Corrupt`].
    pub async fn copy_entry(&self, on: &TableState, step: &CopyStep) -> Result<bool> {
        let began_us = self.now_us();
        let key = keys::log_entry(step.state.version);
        if step.entry.facts.previous != on.entry_digest && !sabotaged!(CopyUnchained) {
            return Ok(false);
        }
        if let Put::Other(_) = self.store.put_new(&key, step.bytes.clone()).await? {
            return Ok(false);
        }
        // The one before proves that the slot was never swept.
        let before = self.store.get_opt(&keys::log_entry(on.version)).await?;
        let written = self.store.get_opt(&key).await?;
        let is = |found: &Option<Bytes>, digest| {
            found.as_ref().is_some_and(|b| codec::digest(b) == digest)
        };
        let is_chained = is(&before, on.entry_digest) || sabotaged!(CopyUnchained);
        if !self.in_time(began_us) || !is_chained {
            return Err(Error::Slow {
                took_us: self.now_us().saturating_sub(began_us),
                limit_us: self.options.history_us / 4,
            });
        }
        if !is(&written, step.state.entry_digest) {
            let got = written.map(|bytes| codec::digest(&bytes));
            let damage = got.map_or(Damage::Missing, |got| Damage::Digest {
                got,
                expected: step.state.entry_digest,
            });
            return Err(Error::corrupt(key, damage));
        }
        self.remember(&step.state, began_us);
        if step.entry.kind() == CommitKind::Ledger
            && let Err(error) = self.write_checkpoint(&step.state).await
        {
            tracing::warn!(%error, version = step.state.version, "cannot write a checkpoint");
        }
        Ok(true)
    }

    /// Writes the head of a copied version, best effort.
    pub async fn copy_head(&self, state: &TableState) {
        self.write_head(state).await;
    }

    /// A checkpoint, whole, and of the entry of its version; an error when a table could not be
    /// loaded from it.
    ///
    /// # Errors
    /// The store's, and [`Error::Corrupt`].
    pub async fn checkpoint_bytes(&self, version: u64) -> Result<Bytes> {
        self.check_checkpoint(version).await?;
        let key = keys::checkpoint(version);
        let bytes = self.store.get(&key).await?;
        checkpoint::decode(bytes.clone()).map_err(|damage| Error::corrupt(key, damage))?;
        Ok(bytes)
    }
}
