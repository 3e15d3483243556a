//! Old versions: loading one by the log, and everything that this takes.

use std::collections::BTreeMap;
use std::sync::Arc;

use futures::{StreamExt, stream};
use stele_model::Digest;
use stele_store::keys;

use crate::apply::{apply, create, names};
use crate::codec;
use crate::commit::CommitKind;
use crate::entry::LogEntry;
use crate::error::{Damage, Error, Result};
use crate::file::FileEntry;
use crate::index::LogIndex;
use crate::log::TableLog;
use crate::state::{LedgerObject, TableState};

/// Log entries fetched at once.
const ENTRY_READS: usize = 16;

/// One version and what its loading by the log alone takes.
#[derive(Debug, Clone)]
pub struct Reach {
    /// The version.
    pub state: Arc<TableState>,
    /// The version it was loaded from: that of a checkpoint, or 0.
    pub base: Arc<TableState>,
    /// Whether it was loaded from a checkpoint.
    pub has_checkpoint: bool,
    /// Every entry from the base to the version, with the digest of its bytes.
    pub entries: Vec<(u64, Digest)>,
    /// Every ledger object that those entries or the version name, by key.
    pub ledger: BTreeMap<String, LedgerObject>,
    /// Ledger objects that only versions in between name, by key: it loads without them.
    pub between: BTreeMap<String, LedgerObject>,
    /// Every file that is live in any version from the base on, by path.
    pub files: BTreeMap<String, Arc<FileEntry>>,
}

impl Reach {
    /// The keys of the log it takes: entries, then the checkpoint.
    #[must_use]
    pub fn log_keys(&self) -> Vec<String> {
        let entries = self.entries.iter().map(|(v, _)| keys::log_entry(*v));
        let checkpoint = self.has_checkpoint;
        let checkpoint = checkpoint.then(|| keys::checkpoint(self.base.version));
        entries.chain(checkpoint).collect()
    }
}

impl TableLog {
    /// What a LIST of the log shows now.
    ///
    /// # Errors
    /// The store's.
    pub async fn index(&self) -> Result<LogIndex> {
        let listed = self.store.list(keys::LOG).await?;
        Ok(LogIndex::new(&listed, self.options.history_us))
    }

    /// One version, which must still be loadable: by its head if that is usable, else by the log.
    /// Whether its files still exist is for the history and the pins to say: see
    /// [`TableLog::as_of`].
    ///
    /// # Errors
    /// The store's; [`Error::Corrupt`], [`Error::FutureVersion`], [`Error::NoTable`], and
    /// [`Error::Swept`] when nothing is left to load it from.
    pub async fn load_version(&self, version: u64) -> Result<Arc<TableState>> {
        if let Ok(Some(state)) = self.head(version).await {
            return Ok(Arc::new(state));
        }
        let index = self.index().await?;
        Ok(self.reach(&index, version).await?.state)
    }

    /// One version by the log alone, as `index` shows it.
    ///
    /// # Errors
    /// As [`TableLog::load_version`].
    pub async fn reach(&self, index: &LogIndex, version: u64) -> Result<Reach> {
        let bases = index.bases(version);
        self.reach_by(index, version, bases).await
    }

    /// The newest version by the log alone, from the base of the oldest version of the history: so
    /// with every version that is kept without a pin.
    ///
    /// # Errors
    /// As [`TableLog::load_version`].
    pub async fn reach_history(&self, index: &LogIndex) -> Result<Reach> {
        let newest = index.newest().ok_or(Error::NoTable)?;
        let oldest = index.oldest_kept(self.now_us()).unwrap_or(newest);
        let (mut later, below): (Vec<u64>, Vec<u64>) = index
            .bases(newest)
            .into_iter()
            .partition(|base| *base > oldest);
        later.reverse();
        self.reach_by(index, newest, [below, later].concat()).await
    }

    async fn reach_by(&self, index: &LogIndex, version: u64, bases: Vec<u64>) -> Result<Reach> {
        let newest = index.newest().ok_or(Error::NoTable)?;
        if version > newest {
            return Err(Error::FutureVersion { version, newest });
        }
        let mut first_damage = None;
        for base in bases {
            match self.reach_from(base, version).await {
                Ok(reach) => return Ok(reach),
                Err(error @ Error::Corrupt { .. }) => {
                    tracing::warn!(version, base, %error, "a base is not usable");
                    first_damage.get_or_insert(error);
                }
                Err(error) => return Err(error),
            }
        }
        Err(first_damage.unwrap_or_else(|| {
            let oldest = index.oldest_kept(self.now_us()).unwrap_or(newest);
            Error::Swept { version, oldest }
        }))
    }

    async fn reach_from(&self, base: u64, version: u64) -> Result<Reach> {
        // Version 0 has no checkpoint: it is its entry.
        let has_checkpoint = base > 0;
        let base = match has_checkpoint {
            true => self.base_at_checkpoint(base).await?.0,
            false => self.version_zero().await?,
        };
        let mut reach = Reach {
            state: Arc::new(base.clone()),
            entries: vec![(base.version, base.entry_digest)],
            ledger: ledger_of(&base),
            between: BTreeMap::new(),
            files: base.files.clone(),
            base: Arc::new(base),
            has_checkpoint,
        };
        self.walk(&mut reach, version).await?;
        reach.ledger.extend(ledger_of(&reach.state));
        let ledger = &reach.ledger;
        reach.between.retain(|key, _| !ledger.contains_key(key));
        Ok(reach)
    }

    async fn version_zero(&self) -> Result<TableState> {
        let key = keys::log_entry(0);
        let bytes = self.store.get_opt(&key).await?;
        let bytes = bytes.ok_or_else(|| Error::corrupt(&key, Damage::Missing))?;
        let entry = LogEntry::decode(&bytes);
        let state = entry.and_then(|entry| create(&entry, codec::digest(&bytes)));
        state.map_err(|damage| Error::corrupt(key, damage))
    }

    /// Applies every entry from the base to `version`.
    async fn walk(&self, reach: &mut Reach, version: u64) -> Result<()> {
        let versions = reach.base.version + 1..=version;
        let reads = stream::iter(versions).map(|at| async move {
            let key = keys::log_entry(at);
            let bytes = self.store.get_opt(&key).await?;
            let bytes = bytes.ok_or_else(|| Error::corrupt(&key, Damage::Missing))?;
            let entry = LogEntry::decode(&bytes).map_err(|d| Error::corrupt(&key, d))?;
            let attached = self.attached(&entry).await?;
            Ok::<_, Error>((key, entry, codec::digest(&bytes), attached))
        });
        let mut reads = std::pin::pin!(reads.buffered(ENTRY_READS));
        while let Some(read) = reads.next().await {
            let (key, entry, digest, attached) = read?;
            let next = apply(&reach.state, &entry, digest, &attached);
            reach.state = Arc::new(next.map_err(|damage| Error::corrupt(key, damage))?);
            reach.entries.push((entry.version, digest));
            if let Some((object, _)) = names(&entry) {
                reach.ledger.insert(object.key.clone(), object.clone());
            }
            if entry.kind() == CommitKind::Ledger {
                reach.between.extend(ledger_of(&reach.state));
            }
            let added = entry.add.iter();
            let added = added.map(|file| (file.path.clone(), Arc::new(file.clone())));
            reach.files.extend(added);
        }
        Ok(())
    }
}

/// The ledger objects a version names.
pub(crate) fn ledger_of(state: &TableState) -> BTreeMap<String, LedgerObject> {
    let ledger = &state.ledger;
    let recent = ledger.recent.iter().map(|recent| &recent.object);
    let segments = ledger.days.values().flatten().map(|s| &s.object);
    let objects = recent.chain(segments).chain(&ledger.manifest);
    objects.map(|o| (o.key.clone(), o.clone())).collect()
}
