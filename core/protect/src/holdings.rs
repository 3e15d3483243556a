//! What one tenant holds in one tier that must not be lost: live, pinned or not yet absorbed.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use stele_model::{Digest, L0Name};
use stele_store::keys;
use stele_table::{PinState, Pins, Reach, TableLog, TableState, Verdict, View};

use crate::replicate::ReplicateError;

/// Why an object must be there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Need {
    /// The newest version needs it; a later one may have superseded it.
    Newest,
    /// A pin needs it, whatever the newest version is.
    Pinned,
}

/// An object that must be there, by the digest of its bytes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Held {
    pub digest: Digest,
    pub need: Need,
}

/// What a tenant holds.
pub(crate) struct Holdings {
    /// Its newest version; none exists when nothing was ever absorbed.
    pub state: Arc<TableState>,
    /// Objects by key: data files, ledger, log entries and pins.
    pub objects: BTreeMap<String, Held>,
    /// Accepted batches that are not absorbed.
    pub l0: Vec<L0Name>,
}

impl Holdings {
    /// Reads what `log` holds.
    ///
    /// # Errors
    /// The store's and the table's; damage of a pin or of the log.
    pub async fn of(log: &TableLog) -> Result<Self, ReplicateError> {
        let pins = Pins::read(log.store()).await?;
        let view = View::read(log, None).await?;
        let mut holdings = Self {
            state: view.state,
            objects: BTreeMap::new(),
            l0: view.l0.into_iter().map(|object| object.name).collect(),
        };
        if !holdings.state.exists() {
            return Ok(holdings);
        }
        let index = log.index().await?;
        let version = holdings.state.version;
        holdings.add(&log.reach(&index, version).await?, Need::Newest);
        let history_us = log.options().history_us;
        for stored in pins.pins.into_values() {
            let is_kept = match stored.state(history_us) {
                PinState::Withdrawn => false,
                PinState::Dropped { until_us } => log.now_us() < until_us,
                PinState::Live | PinState::Damaged => true,
            };
            let never = |pin: &stele_table::Pin| {
                index.judge(pin.version, stored.stored_us) == Verdict::Never
            };
            if !is_kept || stored.pin.as_ref().is_ok_and(never) {
                continue;
            }
            let (key, digest) = (stored.name.key(), stored.digest);
            let pin = stored.whole()?;
            let reach = log.reach(&index, pin.version).await?;
            holdings.add(&reach, Need::Pinned);
            let need = Need::Pinned;
            holdings.objects.insert(key, Held { digest, need });
        }
        Ok(holdings)
    }

    fn add(&mut self, reach: &Reach, need: Need) {
        let files = reach.state.files.values();
        let files = files.map(|file| (keys::data_file(&file.path), file.stats.digest));
        let ledger = reach.ledger.values();
        let ledger = ledger.map(|object| (object.key.clone(), object.digest));
        let entries = reach.entries.iter();
        let entries = entries.map(|(version, digest)| (keys::log_entry(*version), *digest));
        for (key, digest) in files.chain(ledger).chain(entries) {
            self.objects.insert(key, Held { digest, need });
        }
    }

    /// What of it `other` does not name, or as something else.
    pub fn beyond(&self, other: &Self) -> Self {
        let is_other = |(key, held): &(&String, &Held)| {
            let there = other.objects.get(*key);
            there.is_none_or(|there| there.digest != held.digest)
        };
        let objects = self.objects.iter().filter(is_other);
        let l0: HashSet<&L0Name> = other.l0.iter().collect();
        let l0 = self.l0.iter().filter(|name| !l0.contains(name));
        Self {
            state: Arc::clone(&self.state),
            objects: objects.map(|(key, held)| (key.clone(), *held)).collect(),
            l0: l0.copied().collect(),
        }
    }

    /// Sample rows of the newest version.
    pub fn rows(&self) -> u64 {
        let files = self.state.files.values();
        let samples = files.filter(|file| file.kind.holds_samples());
        samples.map(|file| file.stats.rows).sum()
    }
}
