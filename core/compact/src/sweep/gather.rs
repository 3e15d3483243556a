//! What a run knows before it deletes anything, and what follows from it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use stele_model::sabotaged;
use stele_store::{L0Object, ObjectInfo, keys};
use stele_table::{LogIndex, Pins, TableState};

use super::Doomed;
use super::others::{Common, Others};
use super::pins::{Asking, Pinned};
use crate::compactor::Compactor;
use crate::error::Result;
use crate::report::{DeletionRefused, SweepReport};

/// How gathering ended.
pub(super) enum Gather {
    /// The tenant has no table.
    NoTable,
    /// Nothing may be deleted.
    Refused(DeletionRefused),
    /// All is known.
    Ready(Box<Gathered>),
}

/// What a run gathered before it deletes anything.
pub(super) struct Gathered {
    /// The store's time, taken before anything was listed.
    pub now_us: i64,
    pub state: Arc<TableState>,
    pub l0: Vec<L0Object>,
    pub log: Vec<ObjectInfo>,
    pub index: LogIndex,
    pub heads: Vec<ObjectInfo>,
    pub markers: Vec<ObjectInfo>,
    /// When the markers were listed, µs by our clock.
    pub markers_us: i64,
    pub pinned: Pinned,
    pub others: Others,
    /// What lies before the history; `None` while nothing of it may go.
    old: Option<Old>,
}

/// The newest version that is older than the history, as far as deletion has to know it. By the
/// store's clock: a commit can land long after the time that it says.
struct Old {
    /// The checkpoint it loads from: with what follows, every version of the history loads.
    first_kept: u64,
    /// The files that were removed by then, and since when.
    removed: BTreeMap<String, i64>,
    /// The ledger objects that were retired before `first_kept`: no entry from there on names one.
    retired: BTreeSet<String>,
}

#[cfg(test)]
impl Gathered {
    /// A run over one tier that found this table and nothing else.
    pub fn of(state: TableState) -> Self {
        Self {
            now_us: 0,
            state: Arc::new(state),
            l0: Vec::new(),
            log: Vec::new(),
            index: LogIndex::default(),
            heads: Vec::new(),
            markers: Vec::new(),
            markers_us: 0,
            pinned: Pinned::default(),
            others: Others {
                may_commit: true,
                each: Vec::new(),
            },
            old: None,
        }
    }
}

impl Compactor {
    /// What a run must know. With `marks`, pins that nobody can have acknowledged are marked so;
    /// without, nothing is written.
    pub(super) async fn gather(&self, marks: bool) -> Result<Gather> {
        if let Some(refused) = self.own_freeze().await? {
            return Ok(Gather::Refused(refused));
        }
        let now_us = self.store_now_us().await?;
        // Before the table: a pin that is not seen here was stored after this time, and whoever
        // stored it acknowledges it only if its version is younger than half the history.
        let mut pins = Pins::read(&self.store).await?;
        if sabotaged!(PinsIgnored) {
            pins.pins.clear();
        }
        let mut others = match self.others().await {
            Ok(others) => others,
            Err(refused) => return Ok(Gather::Refused(refused)),
        };
        // Cold: no deletion is ever planned on what a process merely remembers.
        let Some(state) = self.log.load().await? else {
            return Ok(Gather::NoTable);
        };
        self.remember(&state);
        // After the state, so that an object missing here is known to be gone.
        let l0 = self.store.l0_list().await?;
        let log = self.store.list(keys::LOG).await?;
        let heads = self.store.list(keys::HEADS).await?;
        let markers_us = self.clock.now_us();
        let markers = self.store.list(keys::IDEM).await?;
        let index = LogIndex::new(&log, self.history_us());
        if let Err(refused) = self.others_now(&mut others, &state, &index).await {
            return Ok(Gather::Refused(refused));
        }
        if let Some(refused) = diverged(&others) {
            return Ok(Gather::Refused(refused));
        }
        let asking = Asking {
            index: &index,
            own: &state,
            others: &others,
            now_us,
            marks,
        };
        let pinned = match self.pinned(pins, &asking).await? {
            Ok(pinned) => pinned,
            Err(refused) => return Ok(Gather::Refused(refused)),
        };
        let mut gathered = Gathered {
            now_us,
            state,
            l0,
            log,
            index,
            heads,
            markers,
            markers_us,
            pinned,
            others,
            old: None,
        };
        gathered.old = self.old(&gathered).await?;
        Ok(Gather::Ready(Box::new(gathered)))
    }

    /// Never shorter than what readers of the log count on.
    pub(super) fn history_us(&self) -> i64 {
        self.options.history_us.max(self.log.options().history_us)
    }

    /// Loads the newest version older than the history, when anything of its time could go. It is
    /// one that every other tier has: what was removed, and retired, by then, was so in each.
    async fn old(&self, gathered: &Gathered) -> Result<Option<Old>> {
        let before_us = gathered.now_us.saturating_sub(self.history_us());
        let version = gathered.index.at(before_us).zip(gathered.others.common());
        let version = version.map(|(old, common)| old.min(common));
        let first = gathered.index.first_of_tail();
        let Some(version) = version.filter(|version| first.is_some_and(|f| f <= *version)) else {
            return Ok(None);
        };
        let state = &gathered.state;
        let is_past = |since_us: i64| since_us <= before_us;
        let files = state.removed.iter().any(|file| is_past(file.removed_us));
        let ledger = &state.ledger.retired;
        let ledger = ledger.iter().any(|object| is_past(object.retired_us));
        let base = gathered.index.bases(version).first().copied();
        let is_old = |object: &&ObjectInfo| {
            let below = base.zip(version_of(object)).is_some_and(|(b, v)| v < b);
            below && !gathered.pinned.log.contains(object.key.as_str())
        };
        if !files && !ledger && gathered.log.iter().find(is_old).is_none() {
            return Ok(None);
        }
        let reach = match self.log.reach(&gathered.index, version).await {
            Ok(reach) => reach,
            // Another sweep has passed since the LIST: it leaves nothing to this one.
            Err(error @ stele_table::Error::Corrupt { .. }) => {
                let now = self.log.index().await?.first_of_tail();
                return match now == gathered.index.first_of_tail() {
                    true => Err(error.into()),
                    false => Ok(None),
                };
            }
            Err(error) => return Err(error.into()),
        };
        let removed = reach.state.removed.iter();
        let retired = reach.base.ledger.retired.iter();
        Ok(Some(Old {
            first_kept: reach.base.version,
            removed: removed.map(|f| (f.path.clone(), f.removed_us)).collect(),
            retired: retired.map(|object| object.key.clone()).collect(),
        }))
    }

    /// Consumed objects past the grace.
    pub(super) fn doomed_objects(
        &self,
        gathered: &Gathered,
        report: &mut SweepReport,
    ) -> Vec<Doomed> {
        let grace_us = self.options.sweep_grace_us;
        let mut doomed = Vec::new();
        for object in &gathered.l0 {
            let Some(consumed) = gathered.state.unswept.get(&object.name.digest) else {
                continue;
            };
            // An entry no longer listed was swept: it is older than the history.
            let version = consumed.version;
            let since_us = gathered.index.stored_us(version);
            let since_us = since_us.unwrap_or(consumed.committed_us);
            if since_us.saturating_add(grace_us) > gathered.now_us && !sabotaged!(NoGrace) {
                report.objects_waiting += 1;
            } else if !gathered.others.have(&object.name, version) {
                report.objects_unwitnessed += 1;
            } else {
                doomed.push(Doomed::L0 {
                    name: object.name,
                    version,
                    size_bytes: object.size_bytes,
                });
            }
        }
        doomed
    }

    /// Files that had been removed before the history began.
    pub(super) fn doomed_files(
        &self,
        gathered: &Gathered,
        doomed: &mut Vec<Doomed>,
        report: &mut SweepReport,
    ) {
        let history_us = self.history_us();
        for file in &gathered.state.removed {
            let since_us = gathered.old.as_ref();
            let since_us = since_us.and_then(|old| old.removed.get(&file.path));
            let is_past = file.removed_us.saturating_add(history_us) <= gathered.now_us;
            let is_known = since_us == Some(&file.removed_us);
            if !is_past || (!is_known && gathered.others.is_alone()) {
                report.files_waiting += 1;
            } else if !is_known
                || !gathered
                    .others
                    .let_file_go(&file.path, file.removed_us, &gathered.state)
            {
                report.files_unwitnessed += 1;
            } else if gathered.pinned.files.contains(file.path.as_str()) {
                report.files_pinned += 1;
                report.files_pinned_bytes += file.size_bytes;
            } else if !gathered.state.files.contains_key(&file.path) {
                doomed.push(Doomed::File {
                    path: file.path.clone(),
                    size_bytes: file.size_bytes,
                    removed_us: file.removed_us,
                });
            }
        }
    }

    /// Entries and checkpoints that no version of the history and no pinned one needs, oldest
    /// first, and then ledger objects that only such entries name.
    pub(super) fn doomed_log(
        &self,
        gathered: &Gathered,
        doomed: &mut Vec<Doomed>,
        report: &mut SweepReport,
    ) {
        let Some(old) = &gathered.old else {
            return;
        };
        let history_us = self.history_us();
        let is_old =
            |object: &&ObjectInfo| object.modified_us.saturating_add(history_us) <= gathered.now_us;
        for object in gathered.log.iter().filter(is_old) {
            if version_of(object).is_none_or(|version| version >= old.first_kept) {
                continue;
            }
            let key = object.key.clone();
            match gathered.pinned.log.contains(key.as_str()) {
                true => report.entries_pinned += 1,
                false => doomed.push(Doomed::Entry {
                    key,
                    size_bytes: object.size_bytes,
                }),
            }
        }
        for object in &gathered.state.ledger.retired {
            let is_past = object.retired_us.saturating_add(history_us) <= gathered.now_us;
            if !is_past || !old.retired.contains(&object.key) {
                continue;
            }
            if !gathered.others.let_ledger_go(&object.key, &gathered.state) {
                continue;
            }
            let key = object.key.clone();
            match gathered.pinned.ledger.contains(key.as_str()) {
                true => report.ledger_pinned += 1,
                false => doomed.push(Doomed::Ledger {
                    key,
                    size_bytes: object.size_bytes,
                }),
            }
        }
    }
}

/// The version of a log entry or checkpoint.
fn version_of(object: &ObjectInfo) -> Option<u64> {
    keys::log_entry_version(&object.key).or_else(|| keys::checkpoint_version(&object.key))
}

fn diverged(others: &Others) -> Option<DeletionRefused> {
    others.each.iter().find_map(|other| match other.common {
        Common::Diverged(version) => Some(DeletionRefused::Diverged {
            tier: other.witness.tier.clone(),
            version,
        }),
        Common::At(_) | Common::NoTable | Common::Unproven => None,
    })
}
