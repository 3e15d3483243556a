//! The log of one tenant's table: what others call, and what it remembers between calls.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures::{StreamExt, TryStreamExt, stream};
use stele_model::{Clock, Day, Digest, time};
use stele_store::{TenantStore, keys};

use crate::checkpoint;
use crate::codec;
use crate::entry::LogEntry;
use crate::error::{Damage, Error, Result};
use crate::fence::Owner;
use crate::ledger::{Ledger, LedgerCache, LedgerFile, LedgerRow};
use crate::load::usable_head;
use crate::restored::Revoked;
use crate::state::{LedgerObject, TableState};

/// Ledger files fetched at once.
const LEDGER_READS: usize = 16;
/// How often a read that took too long is begun again.
const READS_MAX: u32 = 3;

/// What the log must know of how it is operated.
#[derive(Debug, Clone)]
pub struct Options {
    /// How long sweep keeps superseded files and log entries, µs. A state held in memory is
    /// trusted for half of it, and a read or a commit may take a quarter.
    pub history_us: i64,
    /// Versions between two ledger commits with a checkpoint.
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

/// What one process remembers; nothing in it is needed for correctness.
#[derive(Debug, Default)]
pub(crate) struct Memory {
    pub ledgers: LedgerCache,
    /// The newest state seen.
    newest: Option<Arc<TableState>>,
    /// The entry last seen to be the newest, and when, µs.
    checked: Option<(Digest, i64)>,
}

/// The log of one tenant's table. Share one per tenant and process: it remembers ledger files.
pub struct TableLog {
    pub(crate) store: TenantStore,
    pub(crate) options: Options,
    pub(crate) owner: Option<Owner>,
    clock: Arc<dyn Clock>,
    memory: Mutex<Memory>,
}

impl fmt::Debug for TableLog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TableLog of {:?}", self.store)
    }
}

impl TableLog {
    /// The log in `store`; nothing is read yet.
    #[must_use]
    pub fn new(store: TenantStore, options: Options, clock: Arc<dyn Clock>) -> Self {
        Self {
            store,
            options,
            owner: None,
            clock,
            memory: Mutex::default(),
        }
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

    pub(crate) fn memory(&self) -> MutexGuard<'_, Memory> {
        self.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The newest state this process has seen; possibly not the newest there is.
    #[must_use]
    pub fn newest_seen(&self) -> Option<Arc<TableState>> {
        self.memory().newest.clone()
    }

    /// The time by its clock, µs.
    #[must_use]
    pub fn now_us(&self) -> i64 {
        self.clock.now_us()
    }

    /// Remembers that `state` was the newest at `seen_us`.
    pub(crate) fn remember(&self, state: &Arc<TableState>, seen_us: i64) {
        let mut memory = self.memory();
        let older = |newest: &Arc<TableState>| newest.version <= state.version;
        if memory.newest.as_ref().is_none_or(older) {
            memory.newest = Some(Arc::clone(state));
            memory.checked = Some((state.entry_digest, seen_us));
        }
    }

    /// Whether what began at `began_us` ended before a sweep could have passed beneath it. A
    /// process can stand still between any two requests (a suspended machine): an entry that is
    /// absent afterwards may have come and gone.
    pub(crate) fn in_time(&self, began_us: i64) -> bool {
        self.took_us(began_us) <= self.options.history_us / 4
    }

    fn took_us(&self, began_us: i64) -> i64 {
        self.now_us().saturating_sub(began_us)
    }

    /// Reads until an attempt ends in time. `read` gets the time at which its attempt begins, and
    /// whether it is the first; only that one may start from memory.
    pub(crate) async fn timely<T, F: Future<Output = Result<T>>>(
        &self,
        mut read: impl FnMut(i64, bool) -> F,
    ) -> Result<T> {
        for attempt in 1.. {
            let began_us = self.now_us();
            let got = read(began_us, attempt == 1).await;
            if self.in_time(began_us) {
                return got;
            }
            let (took_us, limit_us) = (self.took_us(began_us), self.options.history_us / 4);
            tracing::warn!(took_us, limit_us, "a read of the log took too long");
            if attempt == READS_MAX {
                return Err(Error::Slow { took_us, limit_us });
            }
        }
        unreachable!("the last attempt returns")
    }

    /// Whether the entries after `known` cannot have been swept yet. An absent next entry proves
    /// that `known` is the newest version only then: one that was swept is absent too.
    pub(crate) fn trusts(&self, known: &TableState) -> bool {
        let checked = self.memory().checked;
        let checked = checked.filter(|(digest, _)| *digest == known.entry_digest);
        let newest_at = checked.map_or(known.timestamp_us, |(_, at)| at.max(known.timestamp_us));
        known.exists() && self.took_us(newest_at) <= self.options.history_us / 2
    }

    /// Reads the newest version cold: LIST heads (one page), then head h, entry h and entry
    /// h + 1 together, then the entries to the first absent one. `None` when there is no table.
    ///
    /// # Errors
    /// The store's, [`Error::Corrupt`] and [`Error::Slow`].
    pub async fn load(&self) -> Result<Option<Arc<TableState>>> {
        self.timely(|_, _| self.load_once()).await
    }

    pub(crate) async fn load_once(&self) -> Result<Option<Arc<TableState>>> {
        let newest = self.store.list_newest_head(keys::HEADS).await?;
        self.load_at(newest.as_deref().and_then(keys::head_version))
            .await
    }

    /// Like [`TableLog::load`], without any head: checkpoint, manifest and entries, or entries
    /// alone. `verify` compares both.
    ///
    /// # Errors
    /// The store's, [`Error::Corrupt`] and [`Error::Slow`].
    pub async fn load_from_log(&self) -> Result<Option<Arc<TableState>>> {
        self.timely(|_, _| self.load_by_log()).await
    }

    /// The newest version, from a known one: one GET of the next entry when nothing changed. A
    /// state last known to be the newest longer than half the history ago is read cold, because
    /// the entries after it may have been swept.
    ///
    /// # Errors
    /// The store's, [`Error::Corrupt`] and [`Error::Slow`].
    pub async fn refresh(&self, known: &Arc<TableState>) -> Result<Arc<TableState>> {
        self.timely(|began_us, is_first| async move {
            let state = if is_first && self.trusts(known) {
                self.advance(Arc::clone(known)).await?
            } else {
                let loaded = self.load_once().await?;
                loaded.unwrap_or_else(|| Arc::clone(known))
            };
            self.remember(&state, began_us);
            Ok(state)
        })
        .await
    }

    /// Follows the log from a trusted state.
    pub(crate) async fn advance(&self, known: Arc<TableState>) -> Result<Arc<TableState>> {
        let next = keys::log_entry(known.version + 1);
        let next = self.store.get_opt(&next).await?;
        self.follow(known, next).await
    }

    /// One entry of the log as it stands; `None` when it is absent (not yet written, or swept).
    ///
    /// # Errors
    /// The store's, and [`Error::Corrupt`].
    pub async fn entry(&self, version: u64) -> Result<Option<LogEntry>> {
        let key = keys::log_entry(version);
        let Some(bytes) = self.store.get_opt(&key).await? else {
            return Ok(None);
        };
        let entry = LogEntry::decode(&bytes);
        entry
            .map(Some)
            .map_err(|damage| Error::corrupt(key, damage))
    }

    /// The digest of one entry's bytes, when it is whole and of that version; `None` when it is
    /// absent. Entries name the digest of the one before, so logs with the same entry are the
    /// same log up to it.
    ///
    /// # Errors
    /// The store's, and [`Error::Corrupt`].
    pub async fn entry_digest(&self, version: u64) -> Result<Option<Digest>> {
        let key = keys::log_entry(version);
        let Some(bytes) = self.store.get_opt(&key).await? else {
            return Ok(None);
        };
        let entry = LogEntry::decode(&bytes).map_err(|damage| Error::corrupt(&key, damage))?;
        match entry.version == version {
            true => Ok(Some(codec::digest(&bytes))),
            false => {
                let (got, expected) = (entry.version, version);
                Err(Error::corrupt(key, Damage::Version { got, expected }))
            }
        }
    }

    /// One head as it stands, for verify: whole, and of the very entry of its version. `None` when
    /// head or entry is absent.
    ///
    /// # Errors
    /// The store's, and [`Error::Corrupt`] for a head no reader would use.
    pub async fn head(&self, version: u64) -> Result<Option<TableState>> {
        let key = keys::head(version);
        let entry = self.store.get_opt(&keys::log_entry(version)).await?;
        let (Some(head), Some(entry)) = (self.store.get_opt(&key).await?, entry) else {
            return Ok(None);
        };
        let state = usable_head(version, &head, &entry);
        state
            .map(Some)
            .map_err(|damage| Error::corrupt(key, damage))
    }

    /// The version of the checkpoint `_last_checkpoint` names, when it is whole and agrees with
    /// its manifest, for sweep: entries before it (not its own) are not needed to load the table.
    ///
    /// # Errors
    /// The store's. A damaged or missing checkpoint is `None`.
    pub async fn checkpoint_version(&self) -> Result<Option<u64>> {
        let checked = match self.hinted_version().await {
            Ok(version) => self.check_checkpoint(version).await.map(|()| version),
            Err(error) => Err(error),
        };
        match checked {
            Ok(version) => Ok(Some(version)),
            Err(Error::Corrupt { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The version `_last_checkpoint` names.
    ///
    /// # Errors
    /// The store's, and [`Error::Corrupt`] when there is none or it is damaged.
    pub async fn hinted_version(&self) -> Result<u64> {
        let key = keys::last_checkpoint();
        let hint = match self.store.get_opt(&key).await? {
            Some(bytes) => checkpoint::Hint::decode(&bytes),
            None => Err(Damage::Missing),
        };
        hint.map(|hint| hint.version)
            .map_err(|damage| Error::corrupt(key, damage))
    }

    /// Whether the table can be loaded from the checkpoint of `version`, for verify.
    ///
    /// # Errors
    /// The store's, and [`Error::Corrupt`] when it cannot: the key is that of what is damaged.
    pub async fn check_checkpoint(&self, version: u64) -> Result<()> {
        self.base_at_checkpoint(version).await.map(drop)
    }

    /// The operation each of `batches` (digest, day of its greatest timestamp) is effective in;
    /// batches the ledger does not know are not in the map.
    ///
    /// # Errors
    /// The store's, and [`Error::Corrupt`] when a ledger file is missing or damaged.
    pub async fn ledger_lookup(
        &self,
        state: &TableState,
        batches: &[(Digest, Day)],
    ) -> Result<HashMap<Digest, String>> {
        let mut found = HashMap::new();
        if batches.is_empty() {
            return Ok(found);
        }
        // Ordered, so that the same question sends the same requests in the same order.
        let mut by_day: BTreeMap<Day, Vec<Digest>> = BTreeMap::new();
        for (digest, day) in batches {
            by_day.entry(*day).or_default().push(*digest);
        }
        let recent = state.ledger.recent.iter().map(|recent| &recent.object);
        for file in self.ledger_files(state, recent).await? {
            let asked = batches.iter().map(|(digest, _)| *digest);
            look_up(&file, asked, &state.revoked, &mut found);
        }
        for (day, digests) in by_day {
            let segments = state.ledger.days.get(&day.period());
            let segments = segments.into_iter().flatten().map(|s| &s.object);
            for file in self.ledger_files(state, segments).await? {
                look_up(&file, digests.iter().copied(), &state.revoked, &mut found);
            }
        }
        Ok(found)
    }

    /// The row in which a batch is effective, and the key of the ledger object with it. `day` is
    /// that of its greatest timestamp. `None` when the ledger does not know the batch.
    ///
    /// # Errors
    /// The store's, and [`Error::Corrupt`] when a ledger file is missing or damaged.
    pub async fn ledger_find(
        &self,
        state: &TableState,
        batch: Digest,
        day: Day,
    ) -> Result<Option<(LedgerRow, String)>> {
        let objects = ledger_of_day(state, day);
        let files = self.ledger_files(state, objects.iter().copied()).await?;
        let mut pairs = files.iter().zip(objects);
        let found = |(file, object): (&Arc<LedgerFile>, &LedgerObject)| {
            Some((file.row(batch, &state.revoked)?, object.key.clone()))
        };
        Ok(pairs.find_map(found))
    }

    /// The row in which a batch was effective until a restore in place revoked it; for a batch
    /// that [`TableLog::ledger_find`] does not find.
    ///
    /// # Errors
    /// As there.
    pub async fn ledger_find_revoked(
        &self,
        state: &TableState,
        batch: Digest,
        day: Day,
    ) -> Result<Option<LedgerRow>> {
        if state.revoked.is_empty() {
            return Ok(None);
        }
        let objects = ledger_of_day(state, day);
        let files = self.ledger_files(state, objects.into_iter()).await?;
        let mut files = files.iter();
        Ok(files.find_map(|file| file.revoked_row(batch, &state.revoked)))
    }

    /// The whole ledger; each of its files is read once.
    ///
    /// # Errors
    /// The store's, and [`Error::Corrupt`] when a ledger file is missing or damaged.
    pub async fn ledger(&self, state: &TableState) -> Result<Ledger> {
        let segments = state.ledger.days.values().flatten().map(|s| &s.object);
        let recent = state.ledger.recent.iter().map(|recent| &recent.object);
        let files = self.ledger_files(state, segments.chain(recent)).await?;
        let mut rows: Vec<_> = files
            .iter()
            .flat_map(|file| file.rows(&state.revoked))
            .collect();
        rows.sort_by_key(|row| row.version);
        let mut conflicts: Vec<_> = files
            .iter()
            .flat_map(|f| f.conflicts(&state.revoked))
            .collect();
        conflicts.sort_by_key(|conflict| conflict.version);
        Ok(Ledger { rows, conflicts })
    }

    /// Every row of the ledger, by version and then by position.
    ///
    /// # Errors
    /// As [`TableLog::ledger`].
    pub async fn ledger_rows(&self, state: &TableState) -> Result<Vec<LedgerRow>> {
        Ok(self.ledger(state).await?.rows)
    }

    /// Several ledger files that `state` names, in the order given.
    pub(crate) async fn ledger_files<'a>(
        &self,
        state: &TableState,
        objects: impl Iterator<Item = &'a LedgerObject>,
    ) -> Result<Vec<Arc<LedgerFile>>> {
        let reads: Vec<_> = objects.map(|object| self.ledger_file(object)).collect();
        let files = stream::iter(reads).buffered(LEDGER_READS).try_collect();
        match files.await {
            // A process can stand still for longer than the history: sweep has passed then.
            Err(Error::Corrupt { key, damage }) if matches!(damage, Damage::Missing) => {
                let index = self.index().await?;
                self.check_kept(&index, state.version).await?;
                Err(Error::corrupt(key, damage))
            }
            files => files,
        }
    }
}

/// The ledger objects that may hold a batch of `day`.
fn ledger_of_day(state: &TableState, day: Day) -> Vec<&LedgerObject> {
    let recent = state.ledger.recent.iter().map(|recent| &recent.object);
    let segments = state.ledger.days.get(&day.period());
    let segments = segments.into_iter().flatten().map(|s| &s.object);
    recent.chain(segments).collect()
}

fn look_up(
    file: &LedgerFile,
    batches: impl Iterator<Item = Digest>,
    revoked: &[Revoked],
    found: &mut HashMap<Digest, String>,
) {
    for batch in batches {
        if let Some(operation) = file.find(batch, revoked) {
            found.insert(batch, operation.to_owned());
        }
    }
}
