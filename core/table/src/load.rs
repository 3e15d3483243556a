//! Loading: cold from a head or from the log, warm from a known version.
//!
//! Whatever the start, the rest is the same: follow the entries to the first absent one.

use std::collections::BTreeSet;
use std::sync::Arc;

use bytes::Bytes;
use futures::{future, join};
use stele_model::sabotaged;
use stele_store::{ObjectInfo, keys};

use crate::apply::{Attached, apply, create, names};
use crate::checkpoint::{self, Hint};
use crate::codec;
use crate::entry::LogEntry;
use crate::error::{Damage, Error, Result};
use crate::head::{Manifest, decode_head, files_by_path, files_digest};
use crate::ledger::LedgerFile;
use crate::log::TableLog;
use crate::state::{LedgerObject, TableState};

/// A base version and the bytes of the entry after it, when that exists.
type Base = (TableState, Option<Bytes>);

impl TableLog {
    /// The newest version, starting from the head of `version`.
    ///
    /// The newest head can be an old one (writing them may fail for days), and sweep may leave its
    /// entry to a pin and take the next one. So an absent entry proves nothing here: a LIST of
    /// what comes after the head, beside the GETs, shows whether the log goes on beyond a gap.
    pub(crate) async fn load_at(&self, version: Option<u64>) -> Result<Option<Arc<TableState>>> {
        let Some(version) = version else {
            return self.load_by_log().await;
        };
        let (head, entry, after) = (
            keys::head(version),
            keys::log_entry(version),
            keys::log_entry(version + 1),
        );
        let (head, entry, after, later) = join!(
            self.store.get_opt(&head),
            self.store.get_opt(&entry),
            self.store.get_opt(&after),
            self.store.list_after(keys::LOG, &entry)
        );
        let (head, entry, after, later) = (head?, entry?, after?, later?);
        let usable = head.zip(entry).and_then(|(head, entry)| {
            usable_head(version, &head, &entry)
                .inspect_err(|damage| tracing::warn!(version, %damage, "a head is not usable"))
                .ok()
        });
        let Some(state) = usable else {
            return self.load_by_log().await;
        };
        let newest = later.iter().filter_map(|o| keys::log_entry_version(&o.key));
        let newest = newest.max().unwrap_or(version);
        match self.follow(Arc::new(state), after).await {
            Ok(state) if state.version >= newest => Ok(Some(state)),
            // A gap, or a ghost in it that names objects that are gone.
            Ok(_) | Err(Error::Corrupt { .. }) if newest > version => self.load_by_log().await,
            other => other.map(Some),
        }
    }

    /// Follows the log from `state`; `next` is the entry after it.
    pub(crate) async fn follow(
        &self,
        mut state: Arc<TableState>,
        mut next: Option<Bytes>,
    ) -> Result<Arc<TableState>> {
        while let Some(bytes) = next {
            let key = keys::log_entry(state.version + 1);
            let damaged = |damage| Error::corrupt(&key, damage);
            let entry = LogEntry::decode(&bytes).map_err(damaged)?;
            let after = keys::log_entry(state.version + 2);
            let (attached, after) = join!(self.attached(&entry), self.store.get_opt(&after));
            let digest = codec::digest(&bytes);
            let applied = apply(&state, &entry, digest, &attached?).map_err(damaged)?;
            state = Arc::new(applied);
            next = after?;
        }
        Ok(state)
    }

    /// Fetches and checks what an entry names beside itself.
    pub(crate) async fn attached(&self, entry: &LogEntry) -> Result<Attached> {
        match names(entry) {
            None => Ok(Attached::Nothing),
            Some((object, false)) => Ok(Attached::Ledger(self.ledger_file(object).await?)),
            Some((object, true)) => {
                let manifest = self.manifest(object).await?;
                Ok(Attached::Manifest(Arc::new(manifest)))
            }
        }
    }

    /// A ledger file, from memory or from the store.
    pub(crate) async fn ledger_file(&self, object: &LedgerObject) -> Result<Arc<LedgerFile>> {
        if let Some(file) = self.memory().ledgers.get(object.digest) {
            return Ok(file);
        }
        let bytes = self.named(object).await?;
        let file = LedgerFile::decode(&bytes);
        let file = Arc::new(file.map_err(|damage| Error::corrupt(&object.key, damage))?);
        self.memory().ledgers.insert(object.digest, &file);
        Ok(file)
    }

    async fn manifest(&self, object: &LedgerObject) -> Result<Manifest> {
        let bytes = self.named(object).await?;
        Manifest::decode(&bytes).map_err(|damage| Error::corrupt(&object.key, damage))
    }

    /// The bytes of an object the log names with its digest.
    async fn named(&self, object: &LedgerObject) -> Result<Bytes> {
        let damaged = |damage| Error::corrupt(&object.key, damage);
        let bytes = self.store.get_opt(&object.key).await?;
        let bytes = bytes.ok_or_else(|| damaged(Damage::Missing))?;
        let (got, expected) = (codec::digest(&bytes), object.digest);
        if got != expected {
            return Err(damaged(Damage::Digest { got, expected }));
        }
        Ok(bytes)
    }

    /// The newest version by the log alone: the newest checkpoint that is still whole, else
    /// version 0. The LIST beside it shows gaps, which GETs alone cannot.
    pub(crate) async fn load_by_log(&self) -> Result<Option<Arc<TableState>>> {
        let hint_key = keys::last_checkpoint();
        let (hint, listed) = join!(self.store.get_opt(&hint_key), self.store.list(keys::LOG));
        let (hint, listed) = (hint?, listed?);
        let Some((base, after)) = self.base(hint, &listed).await? else {
            return Ok(None);
        };
        let state = self.follow(Arc::new(base), after).await?;
        let newest = listed
            .iter()
            .filter_map(|o| keys::log_entry_version(&o.key))
            .max();
        match newest.filter(|newest| *newest > state.version) {
            None => Ok(Some(state)),
            Some(exists) => {
                let missing = state.version + 1;
                let damage = Damage::Gap { missing, exists };
                Err(Error::corrupt(keys::log_entry(missing), damage))
            }
        }
    }

    async fn base(&self, hint: Option<Bytes>, listed: &[ObjectInfo]) -> Result<Option<Base>> {
        let hinted = hint.and_then(|bytes| {
            Hint::decode(&bytes)
                .inspect_err(|damage| tracing::warn!(%damage, "_last_checkpoint is not usable"))
                .ok()
        });
        // The newest first: after an older one, of a pin or of a hint that stayed behind, there
        // may be a gap.
        let checkpoints = listed.iter();
        let checkpoints = checkpoints.filter_map(|o| keys::checkpoint_version(&o.key));
        let hinted = hinted.map(|hint| hint.version);
        let checkpoints: BTreeSet<u64> = checkpoints.chain(hinted).collect();
        let mut first_damage = None;
        for version in checkpoints.into_iter().rev() {
            match self.base_at_checkpoint(version).await {
                Ok(base) => return Ok(Some(base)),
                Err(error @ Error::Corrupt { .. }) => {
                    tracing::warn!(version, %error, "a checkpoint is not usable");
                    first_damage.get_or_insert(error);
                }
                Err(error) => return Err(error),
            }
        }
        if let Some(base) = self.base_at_zero().await? {
            return Ok(Some(base));
        }
        let newest = listed
            .iter()
            .filter_map(|o| keys::log_entry_version(&o.key))
            .max();
        match (first_damage, newest) {
            (Some(damage), _) => Err(damage),
            (None, None) => Ok(None),
            (None, Some(exists)) => {
                let damage = Damage::Gap { missing: 0, exists };
                Err(Error::corrupt(keys::log_entry(0), damage))
            }
        }
    }

    async fn base_at_zero(&self) -> Result<Option<Base>> {
        let (first, second) = (keys::log_entry(0), keys::log_entry(1));
        let (bytes, after) = join!(self.store.get_opt(&first), self.store.get_opt(&second));
        let Some(bytes) = bytes? else {
            return Ok(None);
        };
        let state = LogEntry::decode(&bytes)
            .and_then(|entry| create(&entry, codec::digest(&bytes)))
            .map_err(|damage| Error::corrupt(first, damage))?;
        Ok(Some((state, after?)))
    }

    /// The version of a checkpoint: its files, and the manifest its entry names for the rest.
    pub(crate) async fn base_at_checkpoint(&self, version: u64) -> Result<Base> {
        let key = keys::checkpoint(version);
        let entry_key = keys::log_entry(version);
        let after_key = keys::log_entry(version.saturating_add(1));
        let (checkpoint, entry, after) = future::join3(
            self.store.get_opt(&key),
            self.store.get_opt(&entry_key),
            self.store.get_opt(&after_key),
        )
        .await;
        let damaged = |damage| Error::corrupt(&key, damage);
        let missing = || Error::corrupt(&entry_key, Damage::Missing);
        let bytes = checkpoint?.ok_or_else(|| damaged(Damage::Missing))?;
        let entry_bytes = entry?.ok_or_else(missing)?;
        let decoded = checkpoint::decode(bytes).map_err(damaged)?;
        let entry = LogEntry::decode(&entry_bytes);
        let entry = entry.map_err(|damage| Error::corrupt(&entry_key, damage))?;
        let disagrees = |what| Err(damaged(Damage::Disagrees { what }));
        let Some(object) = entry.facts.manifest.as_ref() else {
            return disagrees("the entry of its version");
        };
        if entry.version != version || decoded.version != version || decoded.manifest != object.key
        {
            return disagrees("the entry of its version");
        }
        let manifest = self.manifest(object).await?;
        let files = files_by_path(decoded.files).map_err(damaged)?;
        let digest = files_digest(&files).map_err(damaged)?;
        if manifest.version != version || manifest.files_digest != digest {
            return disagrees("the file list of its manifest");
        }
        let state = TableState {
            version,
            timestamp_us: entry.timestamp_us(),
            entry_digest: codec::digest(&entry_bytes),
            operation: entry.operation().to_owned(),
            meta: manifest.meta.clone(),
            files,
            unswept: manifest.unswept_by_digest(),
            ledger: manifest.ledger_at(object),
            totals: manifest.totals,
            removed: manifest.removed,
            expired: manifest.expired,
            revoked: manifest.revoked,
            fence: manifest.fence,
        };
        Ok((state, after?))
    }
}

/// A head is believed only when it is of the version it is stored as and names the very entry.
pub(crate) fn usable_head(version: u64, head: &[u8], entry: &[u8]) -> Result<TableState, Damage> {
    let state = decode_head(head)?;
    if sabotaged!(HeadTrusted) {
        return Ok(state);
    }
    let digest = codec::digest(entry);
    if state.version != version {
        return Err(Damage::Version {
            got: state.version,
            expected: version,
        });
    }
    if state.entry_digest != digest {
        return Err(Damage::Digest {
            got: digest,
            expected: state.entry_digest,
        });
    }
    let entry = LogEntry::decode(entry)?;
    if entry.version != version || entry.operation() != state.operation {
        return Err(Damage::value("operation", &state.operation));
    }
    Ok(state)
}
