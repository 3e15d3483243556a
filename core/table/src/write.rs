//! Committing: the strict protocol, and what follows a commit (head, ledger merge, checkpoint).

use std::sync::Arc;

use bytes::Bytes;
use futures::{StreamExt, TryStreamExt, join, stream};
use object_store::ObjectStoreExt;
use stele_model::{Digest, ErrorKind};
use stele_store::{Put, keys};

use crate::apply::{Attached, apply};
use crate::checkpoint;
use crate::codec;
use crate::commit::{Commit, Outcome};
use crate::entry::{self, LogEntry};
use crate::error::{Damage, Error, Refusal, Result};
use crate::head::{Manifest, encode_head};
use crate::ledger::{LedgerFile, OperationRows, SEGMENT_BATCHES_MAX, by_day};
use crate::log::TableLog;
use crate::reach::Reach;
use crate::state::{LedgerObject, LedgerSegment, LedgerState, Retired, TableState};

/// How often an entry is put, each time with the store's own retries, before its outcome is
/// reported as unknown.
const ENTRY_PUTS: u32 = 3;
/// How often a written entry is read back.
const READ_BACKS: u32 = 3;
/// Ledger files written at once.
const LEDGER_WRITES: usize = 8;

/// What became of an entry that was put.
pub(crate) enum Slot {
    Ours,
    Taken,
    /// The entry may be below what sweep has deleted, where no reader will ever see it: the one
    /// before it is gone, or so much time has passed that this proves nothing.
    Unproven,
}

impl TableLog {
    /// The newest version, for one who will commit; creates the table when there is none.
    ///
    /// # Errors
    /// [`Error::Fenced`] when the table is not the owner's; else the store's, [`Error::Corrupt`]
    /// and [`Error::Slow`].
    pub async fn load_or_create(&self, timestamp_us: i64) -> Result<Arc<TableState>> {
        let fence = self.fence_of_owner();
        let state = self.newest_or_created(timestamp_us, fence.as_ref()).await?;
        self.check_owner(&state)?;
        Ok(state)
    }

    /// Writes `commit` as the version after `planned_on`, or not at all.
    ///
    /// The ledger file is created first, then entry v + 1; an ambiguous outcome is resolved by
    /// putting the same bytes until the entry exists and comparing. Only after reading it back is
    /// the head written. Every `checkpoint_every` versions a ledger commit and a checkpoint
    /// follow; their failure does not undo the commit and is logged.
    ///
    /// # Errors
    /// [`Error::Refused`] when it breaks a rule and [`Error::Fenced`] when the table is not the
    /// owner's, both without an entry written; [`Error::Unresolved`] when the store never said whether it exists; else the store's and [`Error::Corrupt`].
    pub async fn commit(&self, planned_on: &Arc<TableState>, commit: Commit) -> Result<Outcome> {
        let refused = |refusal| Error::refused(&commit.operation.0, refusal);
        commit.check(planned_on).map_err(refused)?;
        self.check_owner(planned_on)?;
        let began_us = self.now_us();
        if !self.trusts(planned_on) {
            let newest = self.refresh(planned_on).await?;
            if newest.entry_digest != planned_on.entry_digest {
                return self.moved(newest);
            }
        }
        self.check_unconsumed(planned_on, &commit).await?;
        let ledger = self.write_ledger(planned_on, &commit).await?;
        let named = ledger.as_ref().map(|(object, _)| object);
        let version = planned_on.version + 1;
        let damaged = |damage| Error::corrupt(keys::log_entry(version), damage);
        let bytes = entry::encode(planned_on, &commit, named).map_err(damaged)?;
        let attached = match ledger {
            None => Attached::Nothing,
            Some((_, file)) => Attached::Ledger(file),
        };
        // The entry as every reader will see it; what they would refuse must not be written.
        let next = next_state(planned_on, &bytes, &attached).map_err(damaged)?;
        match self
            .put_entry(planned_on, &commit.operation.0, bytes, began_us)
            .await?
        {
            Slot::Taken => {
                let newest = self.refresh(planned_on).await?;
                self.moved(newest)
            }
            Slot::Unproven => {
                let newest = self.load().await?;
                let newest = newest.ok_or_else(|| damaged(Damage::Missing))?;
                self.remember(&newest, began_us);
                self.moved(newest)
            }
            Slot::Ours => {
                let state = self.settled(next, began_us).await;
                let state = self.keep_house(state, &commit).await;
                Ok(Outcome::Committed(state))
            }
        }
    }

    /// Planning again is for those who may commit there.
    fn moved(&self, newest: Arc<TableState>) -> Result<Outcome> {
        self.check_owner(&newest)?;
        Ok(Outcome::Moved(newest))
    }

    /// I5: no batch may become effective twice, and none may count as a duplicate of one that is
    /// not effective (any more): its rows would be nowhere.
    async fn check_unconsumed(&self, on: &TableState, commit: &Commit) -> Result<()> {
        let batches = commit.consumed.iter().flat_map(|object| &object.batches);
        let own = Some(commit.operation.0.as_str());
        let asked = batches.filter(|batch| batch.duplicate_of.as_deref() != own);
        let asked: Vec<_> = asked.collect();
        let batches: Vec<_> = asked
            .iter()
            .map(|batch| (batch.digest, batch.day))
            .collect();
        let known = self.ledger_lookup(on, &batches).await?;
        for batch in asked {
            let origin = known.get(&batch.digest);
            if origin == batch.duplicate_of.as_ref() {
                continue;
            }
            let refusal = match (origin, &batch.duplicate_of) {
                (Some(operation), None) => Refusal::Consumed {
                    batch: batch.digest,
                    operation: operation.clone(),
                },
                _ => Refusal::NotConsumed {
                    batch: batch.digest,
                },
            };
            return Err(Error::refused(&commit.operation.0, refusal));
        }
        Ok(())
    }

    async fn write_ledger(
        &self,
        on: &TableState,
        commit: &Commit,
    ) -> Result<Option<(LedgerObject, Arc<LedgerFile>)>> {
        let overridden = commit.conservation.overridden;
        if commit.consumed.is_empty() && overridden == 0 {
            return Ok(None);
        }
        let operation = &commit.operation.0;
        let rows = OperationRows {
            operation: operation.clone(),
            version: on.version + 1,
            committed_us: commit.timestamp_us,
            objects: commit.consumed.clone(),
            overridden,
        };
        let encoded = LedgerFile::encode_operation(operation, rows.clone());
        let (object, bytes) = encoded.map_err(|damage| Error::corrupt(operation, damage))?;
        if let Put::Other(_) = self.store.put_new(&object.key, bytes).await? {
            return Err(Error::refused(operation, Refusal::OperationReused));
        }
        let file = Arc::new(LedgerFile::new(vec![rows]));
        self.memory().ledgers.insert(object.digest, &file);
        Ok(Some((object, file)))
    }

    /// Puts the entry after `on`, which was trusted at `began_us`, until it is known whose it is.
    pub(crate) async fn put_entry(
        &self,
        on: &TableState,
        operation: &str,
        bytes: Bytes,
        began_us: i64,
    ) -> Result<Slot> {
        let version = on.version + 1;
        let key = keys::log_entry(version);
        let mut puts = 0;
        let put = loop {
            puts += 1;
            match self.store.put_new(&key, bytes.clone()).await {
                Ok(put) => break put,
                Err(source) if source.kind() != ErrorKind::Unavailable => {
                    return Err(Error::Store(source));
                }
                Err(source) if puts == ENTRY_PUTS => {
                    return Err(Error::Unresolved {
                        operation: operation.to_owned(),
                        version,
                        source,
                    });
                }
                Err(error) => tracing::warn!(%error, version, "the outcome of a commit is unknown"),
            }
        };
        if let Put::Other(theirs) = put {
            let theirs = LogEntry::decode(&theirs).map_err(|d| Error::corrupt(&key, d))?;
            if theirs.operation() == operation {
                return Err(Error::refused(operation, Refusal::OperationReused));
            }
            return Ok(Slot::Taken);
        }
        let slot = self.read_back(on, operation, &bytes).await;
        match self.in_time(began_us) {
            true => slot,
            // Whatever was read: sweep may have passed, and an entry that is gone is no damage.
            false => Ok(Slot::Unproven),
        }
    }

    /// Reads the written entry and the one before it. Sweep deletes in ascending order, so the
    /// one before proves that version v + 1 was never swept: a writer that slept through sweep
    /// would otherwise have re-created an old version, which no reader will ever see.
    async fn read_back(&self, on: &TableState, operation: &str, bytes: &[u8]) -> Result<Slot> {
        let version = on.version + 1;
        let (key, before) = (keys::log_entry(version), keys::log_entry(on.version));
        let mut reads = 0;
        loop {
            reads += 1;
            let (written, before) = join!(self.store.get_opt(&key), self.store.get_opt(&before));
            match written.and_then(|written| Ok((written, before?))) {
                Ok((Some(written), Some(before))) => {
                    let (got, expected) = (codec::digest(&written), codec::digest(bytes));
                    if got != expected {
                        return Err(Error::corrupt(key, Damage::Digest { got, expected }));
                    }
                    let chained = codec::digest(&before) == on.entry_digest;
                    return Ok(if chained { Slot::Ours } else { Slot::Unproven });
                }
                Ok((None, _)) => return Err(Error::corrupt(key, Damage::Missing)),
                Ok((_, None)) => return Ok(Slot::Unproven),
                Err(source) if reads == READ_BACKS => {
                    return Err(Error::Unresolved {
                        operation: operation.to_owned(),
                        version,
                        source,
                    });
                }
                Err(error) => tracing::warn!(%error, version, "cannot read a commit back"),
            }
        }
    }

    /// Publishes a committed state: head and memory.
    pub(crate) async fn settled(&self, state: TableState, seen_us: i64) -> Arc<TableState> {
        let state = Arc::new(state);
        self.write_head(&state).await;
        self.remember(&state, seen_us);
        state
    }

    /// Writes the head, best effort: a reader without it uses an older one or the log.
    pub(crate) async fn write_head(&self, state: &TableState) {
        let key = keys::head(state.version);
        let put = match encode_head(state) {
            Ok(bytes) => self.store.put_new(&key, bytes).await.map_err(Error::Store),
            Err(damage) => Err(Error::corrupt(&key, damage)),
        };
        match put {
            Ok(Put::Created | Put::Same) => {}
            Ok(Put::Other(_)) => tracing::warn!(key, "a head holds other bytes"),
            Err(error) => tracing::warn!(key, %error, "cannot write a head"),
        }
    }

    /// Writes the shortcuts to a version that was copied here: the hint at its checkpoint and its
    /// head.
    ///
    /// # Errors
    /// The store's, and [`Error::Corrupt`] when they cannot be encoded.
    pub async fn write_shortcuts(&self, reach: &Reach) -> Result<()> {
        if reach.has_checkpoint {
            let key = keys::last_checkpoint();
            let encoded = checkpoint::encode(&reach.base);
            let hint = encoded.map_err(|damage| Error::corrupt(&key, damage))?.hint;
            self.write_hint(hint).await;
        }
        let key = keys::head(reach.state.version);
        let head = encode_head(&reach.state).map_err(|damage| Error::corrupt(&key, damage))?;
        self.store.put_new(&key, head).await?;
        Ok(())
    }

    /// Writes the hint at the newest checkpoint, best effort.
    async fn write_hint(&self, hint: Bytes) {
        let path = self.store.path(&keys::last_checkpoint());
        let put = self.store.tier().object_store();
        if let Err(error) = put.put(&path, hint.into()).await {
            tracing::warn!(%error, "cannot write _last_checkpoint");
        }
    }

    /// Merges the ledger and writes a checkpoint when it is time.
    async fn keep_house(&self, state: Arc<TableState>, commit: &Commit) -> Arc<TableState> {
        let since = (state.version + 1).saturating_sub(state.ledger.manifest_version);
        if since < self.options.checkpoint_every {
            return state;
        }
        let seed = format!("ledger after {}", commit.operation.0);
        let operation = codec::digest(seed.as_bytes()).to_string();
        let merged = self.merge(&state, &operation, commit.timestamp_us).await;
        match merged {
            Ok(Some(merged)) => merged,
            Ok(None) => state,
            Err(error) => {
                tracing::warn!(%error, version = state.version, "cannot merge the ledger");
                state
            }
        }
    }

    /// The ledger commit after `state` and its checkpoint; `None` when the version was taken.
    async fn merge(
        &self,
        state: &Arc<TableState>,
        operation: &str,
        timestamp_us: i64,
    ) -> Result<Option<Arc<TableState>>> {
        let began_us = self.now_us();
        self.check_owner(state)?;
        if !self.trusts(state) {
            return Ok(None);
        }
        let ledger = self.merge_days(state, timestamp_us).await?;
        let version = state.version + 1;
        let damaged = |damage| Error::corrupt(keys::log_entry(version), damage);
        let manifest = Manifest::new(state, ledger).map_err(damaged)?;
        let (object, bytes) = manifest.encode().map_err(damaged)?;
        self.put_content(&object, bytes).await?;
        let bytes = entry::encode_ledger(state, operation, &object, timestamp_us);
        let bytes = bytes.map_err(damaged)?;
        let attached = Attached::Manifest(Arc::new(manifest));
        let next = next_state(state, &bytes, &attached).map_err(damaged)?;
        match self.put_entry(state, operation, bytes, began_us).await? {
            Slot::Taken | Slot::Unproven => Ok(None),
            Slot::Ours => {
                let next = self.settled(next, began_us).await;
                if let Err(error) = self.write_checkpoint(&next).await {
                    tracing::warn!(%error, version, "cannot write a checkpoint");
                }
                Ok(Some(next))
            }
        }
    }

    /// Moves the recent operations into the segments of their days.
    async fn merge_days(&self, state: &TableState, retired_us: i64) -> Result<LedgerState> {
        let recent = state.ledger.recent.iter().map(|recent| &recent.object);
        let files = self.ledger_files(state, recent.clone()).await?;
        let mut ledger = LedgerState {
            recent: Vec::new(),
            manifest: None,
            ..state.ledger.clone()
        };
        let old_manifest = state.ledger.manifest.iter();
        for object in recent.chain(old_manifest) {
            ledger.retired.push(retired(object, retired_us));
        }
        let merges = by_day(&files).into_iter().map(|(period, rows)| {
            let last = ledger
                .days
                .get(&period)
                .and_then(|segments| segments.last());
            let last = last.filter(|last| last.batches < SEGMENT_BATCHES_MAX);
            self.write_segment(period, last.cloned(), rows)
        });
        let merges: Vec<_> = merges.collect();
        let mut written = stream::iter(merges).buffered(LEDGER_WRITES);
        while let Some((period, replaced, segment)) = written.try_next().await? {
            let segments = ledger.days.entry(period).or_default();
            if let Some(replaced) = replaced {
                segments.pop();
                ledger.retired.push(retired(&replaced.object, retired_us));
            }
            segments.push(segment);
        }
        Ok(ledger)
    }

    async fn write_segment(
        &self,
        period: String,
        last: Option<LedgerSegment>,
        rows: Vec<OperationRows>,
    ) -> Result<(String, Option<LedgerSegment>, LedgerSegment)> {
        let mut operations = Vec::new();
        if let Some(last) = &last {
            let file = self.ledger_file(&last.object).await?;
            operations.extend(file.operations.iter().cloned());
        }
        operations.extend(rows);
        let encoded = LedgerFile::encode_day(&period, &operations);
        let (object, bytes) = encoded.map_err(|damage| Error::corrupt(&period, damage))?;
        self.put_content(&object, bytes).await?;
        let file = Arc::new(LedgerFile::new(operations));
        self.memory().ledgers.insert(object.digest, &file);
        let batches = file.batches as u64;
        Ok((period, last, LedgerSegment { object, batches }))
    }

    /// Puts an object that is named by its content.
    async fn put_content(&self, object: &LedgerObject, bytes: Bytes) -> Result<()> {
        match self.store.put_new(&object.key, bytes).await? {
            Put::Created | Put::Same => Ok(()),
            Put::Other(found) => {
                let (got, expected) = (codec::digest(&found), object.digest);
                Err(Error::corrupt(
                    &object.key,
                    Damage::Digest { got, expected },
                ))
            }
        }
    }

    /// The checkpoint of a ledger commit, then the hint at it: the one object that is overwritten,
    /// because Delta says so; losing a race over it costs a reader a few more entries.
    pub(crate) async fn write_checkpoint(&self, state: &TableState) -> Result<()> {
        let key = keys::checkpoint(state.version);
        let encoded = checkpoint::encode(state).map_err(|d| Error::corrupt(&key, d))?;
        self.store.put_new(&key, encoded.bytes).await?;
        self.write_hint(encoded.hint).await;
        Ok(())
    }
}

pub(crate) fn next_state(
    on: &TableState,
    bytes: &[u8],
    attached: &Attached,
) -> Result<TableState, Damage> {
    let entry = LogEntry::decode(bytes)?;
    apply(on, &entry, codec::digest(bytes), attached)
}

fn retired(object: &LedgerObject, retired_us: i64) -> Retired {
    Retired {
        key: object.key.clone(),
        size_bytes: object.size_bytes,
        retired_us,
    }
}

/// A digest in the form foreign readers expect of a table id.
pub(crate) fn uuid_like(digest: Digest) -> String {
    let text = digest.to_string();
    format!(
        "{}-{}-{}-{}-{}",
        &text[..8],
        &text[8..12],
        &text[12..16],
        &text[16..20],
        &text[20..]
    )
}
