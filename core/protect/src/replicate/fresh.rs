//! A target without a table: everything that any kept version of the source needs.
//!
//! Data files and ledger go first. Then the entries of the history from the last down to the first,
//! then what pins keep below it, and last the checkpoint that all of it loads from (without one,
//! entry 0 is the last of the entries). Until then the target does not load: the last entry is
//! listed, and nothing leads to it. So nobody can make a table there, and no reader sees an old one.
//!
//! A log of which nothing was swept yet, neither an entry nor what one of them added, begins with
//! entry 0 instead, and goes on as any other: a mirror gets new tenants all the time, and must load
//! at every instant.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use stele_format::content_digest;
use stele_store::{Put, keys};
use stele_table::{Error, LogIndex, Reach, TableLog, TableState};

use super::fetch::{Copier, Wanted, wanted_file, wanted_ledger};
use super::follow::gone;
use super::pins::Kept;
use super::{PLANS_MAX, ReplicateError, Result, newest};

/// The table at a target; `None` when there is none, or one whose first copy was interrupted.
pub(super) async fn state_of(target: &TableLog) -> Result<Option<Arc<TableState>>> {
    match newest(target).await {
        Err(ReplicateError::Table(Error::Corrupt { key, damage })) => {
            // A head is written only when the table loads.
            match target.store().list_newest_head(keys::HEADS).await? {
                None => Ok(None),
                Some(_) => Err(Error::Corrupt { key, damage }.into()),
            }
        }
        other => other,
    }
}

/// Begins the table at a target that holds no entry, with entry 0, when all that followed it is
/// still at the source. Answers the version that the target has then.
pub(super) async fn begin(copier: &Copier<'_>) -> Result<Option<Arc<TableState>>> {
    let there = copier.there(keys::LOG).await?;
    let is_entry = |key: &String| keys::log_entry_version(key).is_some();
    if there.iter().any(is_entry) || !is_whole(copier.source).await? {
        return Ok(None);
    }
    let key = keys::log_entry(0);
    let bytes = copier.source.store().get(&key).await?;
    match copier.to().put_new(&key, bytes.clone()).await? {
        Put::Created | Put::Same => newest(copier.target).await,
        Put::Other(found) => Err(ReplicateError::Diverged {
            tenant: copier.to().tenant().clone(),
            version: 0,
            source_entry: content_digest(&bytes),
            target_entry: content_digest(&found),
        }),
    }
}

/// Whether the log has every entry, and whatever any of them added is still there.
async fn is_whole(source: &TableLog) -> Result<bool> {
    let index = source.index().await?;
    if index.first_of_tail() != Some(0) {
        return Ok(false);
    }
    let mut state = source.reach(&index, 0).await?.state;
    let mut named = BTreeSet::new();
    while let Some(step) = source.copy_step(&state).await? {
        let files = step.entry.add.iter();
        named.extend(files.map(|file| keys::data_file(&file.path)));
        named.extend(step.ledger.into_keys());
        state = step.state;
    }
    for prefix in ["table", keys::LEDGER] {
        for object in source.store().list(prefix).await? {
            named.remove(&object.key);
        }
    }
    Ok(named.is_empty())
}

struct Plan {
    /// The newest version and everything its history takes.
    tail: Reach,
    /// Data files and ledger objects.
    data: Vec<Wanted>,
    /// Entries, in the order in which they are put.
    entries: Vec<Wanted>,
    /// Checkpoints of pinned versions, then those of the history, oldest first.
    checkpoints: Vec<u64>,
}

/// Copies the table to a target that has none. Answers the version it has then.
pub(super) async fn copy(copier: &Copier<'_>, pins: &[Kept]) -> Result<Arc<TableState>> {
    let mut plans = 1;
    loop {
        let plan = Plan::of(copier.source, pins).await?;
        let version = plan.tail.state.version;
        match plan.run(copier).await {
            // The source has swept what the plan names; what it names now was not.
            Err(ReplicateError::Store(stele_store::Error::NotFound { key }))
                if plans < PLANS_MAX =>
            {
                tracing::info!(key, version, "the source moved on; planning again");
                plans += 1;
                copier.forget_plan();
            }
            other => return other.map_err(|error| gone(error, version)),
        }
    }
}

impl Plan {
    async fn of(source: &TableLog, pins: &[Kept]) -> Result<Self> {
        let listed = source.store().list(keys::LOG).await?;
        let index = LogIndex::new(&listed, source.options().history_us);
        let tail = source.reach_history(&index).await?;
        let first = tail.base.version;
        let mut data = BTreeMap::new();
        let mut add = |wanted: Wanted| {
            // Needed by one, it is needed.
            let slot = data.entry(wanted.key.clone()).or_insert(wanted.clone());
            slot.optional &= wanted.optional;
        };
        for file in tail.files.values() {
            add(wanted_file(
                file,
                !tail.state.files.contains_key(&file.path),
            ));
        }
        tail.ledger
            .values()
            .for_each(|o| add(wanted_ledger(o, false)));
        tail.between
            .values()
            .for_each(|o| add(wanted_ledger(o, true)));
        let mut entries: BTreeMap<u64, _> = tail.entries.iter().copied().collect();
        let mut checkpoints = BTreeSet::new();
        for pin in pins {
            let reach = source.reach(&index, pin.pin.version).await?;
            reach
                .state
                .files
                .values()
                .for_each(|f| add(wanted_file(f, false)));
            reach
                .ledger
                .values()
                .for_each(|o| add(wanted_ledger(o, false)));
            entries.extend(reach.entries.iter().copied());
            checkpoints.extend(reach.has_checkpoint.then_some(reach.base.version));
        }
        let pinned = checkpoints.iter().copied().filter(|c| *c < first);
        let ours = index
            .checkpoints()
            .filter(|c| *c >= first && *c <= tail.state.version);
        let checkpoints = pinned.chain(ours).collect();
        let sizes: BTreeMap<&str, u64> = listed
            .iter()
            .map(|object| (object.key.as_str(), object.size_bytes))
            .collect();
        let entries = entries.into_iter().rev().map(|(version, digest)| {
            let key = keys::log_entry(version);
            let size_bytes = sizes.get(key.as_str()).copied().unwrap_or(0);
            let optional = false;
            Wanted {
                key,
                size_bytes,
                digest,
                optional,
            }
        });
        Ok(Self {
            entries: entries.collect(),
            checkpoints,
            data: data.into_values().collect(),
            tail,
        })
    }

    async fn run(&self, copier: &Copier<'_>) -> Result<Arc<TableState>> {
        copier.plan(&self.data);
        copier.plan(&self.entries);
        let there = copier.there("").await?;
        copier.all(&self.data, &there).await?;
        // Another that copied at the same time may have been quicker.
        if let Some(state) = state_of(copier.target).await? {
            return Ok(state);
        }
        self.check_nothing_else(copier).await?;
        let began_us = copier.target.now_us();
        self.copy_entries(copier).await?;
        let took_us = copier.target.now_us().saturating_sub(began_us);
        let limit_us = copier.target.options().history_us / 4;
        if took_us > limit_us {
            return Err(ReplicateError::Slow { took_us, limit_us });
        }
        self.copy_checkpoints(copier).await?;
        self.check_loads(copier).await
    }

    /// The last entry alone, so that from then on the target is no empty one; then the others in
    /// order, a few at once, and the first one alone.
    async fn copy_entries(&self, copier: &Copier<'_>) -> Result<()> {
        let there = copier.there(keys::LOG).await?;
        let Some((last, rest)) = self.entries.split_first() else {
            return Ok(());
        };
        self.put_entry(copier, last, &there).await?;
        let (first, rest) = match rest.split_last() {
            Some((first, rest)) => (Some(first), rest),
            None => (None, rest),
        };
        for some in rest.chunks(copier.options.copies) {
            let puts = some
                .iter()
                .map(|entry| self.put_entry(copier, entry, &there));
            futures::future::try_join_all(puts).await?;
        }
        match first {
            Some(first) => self.put_entry(copier, first, &there).await,
            None => Ok(()),
        }
    }

    async fn put_entry(
        &self,
        copier: &Copier<'_>,
        entry: &Wanted,
        there: &BTreeSet<String>,
    ) -> Result<()> {
        match there.contains(&entry.key) {
            true => copier.renew(entry).await,
            false => copier.all(std::slice::from_ref(entry), there).await,
        }
    }

    /// Entries beyond the last, which no copy of this source can have left.
    async fn check_nothing_else(&self, copier: &Copier<'_>) -> Result<()> {
        let newest = self.tail.state.version;
        let there = copier.there(keys::LOG).await?;
        let beyond = there.iter().filter_map(|key| keys::log_entry_version(key));
        match beyond.filter(|version| *version > newest).max() {
            None => Ok(()),
            Some(version) => Err(Error::FutureVersion { version, newest }.into()),
        }
    }

    /// The base of the history at last but for those after it, which are shortcuts. A damaged one
    /// is not copied: the tables of pins load without it, from an older one.
    async fn copy_checkpoints(&self, copier: &Copier<'_>) -> Result<()> {
        let there = copier.there(keys::LOG).await?;
        let base = self.tail.base.version;
        for version in &self.checkpoints {
            let key = keys::checkpoint(*version);
            let bytes = match copier.source.checkpoint_bytes(*version).await {
                Ok(bytes) => bytes,
                Err(Error::Corrupt { key, damage }) if *version > base => {
                    tracing::warn!(key, %damage, "a damaged checkpoint is not copied");
                    continue;
                }
                Err(error) => return Err(error.into()),
            };
            let checkpoint = Wanted {
                size_bytes: bytes.len() as u64,
                digest: content_digest(&bytes),
                key,
                optional: *version > base,
            };
            copier.plan(std::slice::from_ref(&checkpoint));
            copier
                .all(std::slice::from_ref(&checkpoint), &there)
                .await?;
        }
        Ok(())
    }

    /// What was copied must load, by the log, as the very version.
    async fn check_loads(&self, copier: &Copier<'_>) -> Result<Arc<TableState>> {
        let version = self.tail.state.version;
        let other = || ReplicateError::OtherTable {
            tenant: copier.to().tenant().clone(),
            version,
        };
        let loaded = copier.target.load_from_log().await?.ok_or_else(other)?;
        if loaded != self.tail.state {
            return Err(other());
        }
        mend_shortcuts(copier.target, &loaded).await?;
        Ok(loaded)
    }
}

/// Writes the hint and the head of a copied version, when there is no hint: a copy may have died
/// before it.
pub(super) async fn mend_shortcuts(target: &TableLog, state: &TableState) -> Result<()> {
    match target.hinted_version().await {
        Ok(_) => return Ok(()),
        Err(Error::Corrupt { .. }) => {}
        Err(error) => return Err(error.into()),
    }
    let index = target.index().await?;
    let reach = target.reach(&index, state.version).await?;
    target.write_shortcuts(&reach).await?;
    Ok(())
}
