//! What a sweep would delete: for a dry run, and the check before a real one.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};
use stele_format::content_digest;
use stele_model::Digest;
use stele_store::{ObjectInfo, keys};

use super::gather::{Gather, Gathered};
use super::{Doomed, Swept};
use crate::compactor::Compactor;
use crate::error::{Error, Result};
use crate::report::{DeletionRefused, SweepReport};

/// Objects of one kind that would be deleted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Planned {
    /// How many.
    pub objects: u64,
    /// Their bytes.
    pub bytes: u64,
}

impl Planned {
    fn add(&mut self, size_bytes: u64) {
        self.objects += 1;
        self.bytes = self.bytes.saturating_add(size_bytes);
    }
}

/// What a sweep would delete now. Nothing is.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct SweepPlan {
    /// Absorbed L0 objects.
    pub l0: Planned,
    /// Superseded table files.
    pub files: Planned,
    /// Ledger objects that others replaced.
    pub ledger: Planned,
    /// Log entries and checkpoints.
    pub log: Planned,
    /// Old heads.
    pub heads: Planned,
    /// Markers of idempotency keys.
    pub markers: Planned,
    /// Pins; their sizes are not known.
    pub pins: Planned,
    /// The digest of all their keys; the plan of nothing has one, too.
    pub hash: Digest,
    /// What is kept, and why; its counts of deletions are 0.
    pub kept: SweepReport,
    /// Why a sweep would delete nothing at all.
    pub refused: Option<DeletionRefused>,
}

impl Compactor {
    /// What [`Compactor::sweep`] would delete now. Nothing is written but the probe of the
    /// store's clock.
    ///
    /// # Errors
    /// As there.
    pub async fn sweep_plan(&self) -> Result<SweepPlan> {
        let _turn = self.sweeping.lock().await;
        let mut plan = SweepPlan::default();
        let gathered = match self.gather(false).await? {
            Gather::Ready(gathered) => gathered,
            Gather::NoTable => return Ok(plan),
            Gather::Refused(refused) => {
                plan.refused = Some(refused);
                return Ok(plan);
            }
        };
        let doomed = self.doomed(&gathered, &mut plan.kept);
        check_live(&doomed, &gathered)?;
        let mut all = BTreeSet::new();
        for one in &doomed {
            all.insert(one.key());
            plan.of(one.kind()).add(one.size_bytes());
        }
        for marker in self.old_markers(&gathered) {
            all.insert(marker.key.clone());
            plan.markers.add(marker.size_bytes);
        }
        for key in gathered.pinned.over_keys() {
            all.insert(key);
            plan.pins.add(0);
        }
        let lines: String = all.into_iter().map(|key| key + "\n").collect();
        plan.hash = content_digest(lines.as_bytes());
        Ok(plan)
    }

    /// Markers of keys that no ingestor accepts any more.
    pub(super) fn old_markers<'a>(&self, gathered: &'a Gathered) -> Vec<&'a ObjectInfo> {
        let keep_us = self.options.marker_keep_us;
        let is_old = |marker: &&ObjectInfo| {
            let name = marker.key.strip_prefix(keys::IDEM);
            let name = name.and_then(|name| name.strip_prefix('/'));
            let is_marker = name.is_some_and(|name| name.parse::<Digest>().is_ok());
            is_marker && marker.modified_us.saturating_add(keep_us) <= gathered.now_us
        };
        gathered.markers.iter().filter(is_old).collect()
    }
}

impl SweepPlan {
    fn of(&mut self, kind: Swept) -> &mut Planned {
        match kind {
            Swept::L0 => &mut self.l0,
            Swept::File => &mut self.files,
            Swept::Ledger => &mut self.ledger,
            Swept::Log => &mut self.log,
            Swept::Head => &mut self.heads,
        }
    }
}

/// The interlock: whatever the rules said, nothing that a newest version of any tier or a pin
/// holds is deleted. One such object in a plan is a defect, and stops all of it.
pub(super) fn check_live(doomed: &[Doomed], gathered: &Gathered) -> Result<()> {
    let state = &gathered.state;
    let ledger = &state.ledger;
    let recent = ledger.recent.iter().map(|recent| &recent.object);
    let segments = ledger.days.values().flatten().map(|s| &s.object);
    let named = recent.chain(segments).chain(&ledger.manifest);
    let named: BTreeSet<&str> = named.map(|object| object.key.as_str()).collect();
    let newest = keys::log_entry(state.version);
    let pinned = &gathered.pinned;
    let is_live = |one: &&Doomed| match one {
        Doomed::L0 { name, .. } => !state.unswept.contains_key(&name.digest),
        Doomed::File { path, .. } => {
            state.files.contains_key(path)
                || pinned.files.contains(path.as_str())
                || gathered.others.any_live(path)
        }
        Doomed::Ledger { key, .. } => {
            named.contains(key.as_str()) || pinned.ledger.contains(key.as_str())
        }
        Doomed::Entry { key, .. } => *key == newest || pinned.log.contains(key.as_str()),
        Doomed::Head { .. } => false,
    };
    match doomed.iter().find(is_live) {
        None => Ok(()),
        Some(one) => Err(Error::Live { key: one.key() }),
    }
}

#[cfg(test)]
mod tests {
    use stele_model::{L0Name, Window};
    use stele_table::{LedgerObject, LedgerOperation, TableState, Unswept};

    use super::*;

    fn name(byte: u8) -> L0Name {
        L0Name {
            digest: Digest([byte; 16]),
            first: Window(1),
            last: Window(1),
        }
    }

    fn file(path: &str) -> Doomed {
        Doomed::File {
            path: path.to_owned(),
            size_bytes: 1,
            removed_us: 0,
        }
    }

    /// A table at version 7 with a live file, an unswept object and a ledger object.
    fn gathered() -> Gathered {
        let kind = stele_table::FileKind::Open;
        let live = crate::plan::fixtures::file(kind, "live", &[1], 1);
        let mut state: TableState = crate::plan::fixtures::state(&[live]);
        state.version = 7;
        let unswept = Unswept {
            name: name(1),
            committed_us: 0,
            version: 3,
        };
        state.unswept.insert(name(1).digest, unswept);
        state.ledger.recent.push(LedgerOperation {
            operation: String::new(),
            version: 3,
            object: LedgerObject {
                key: "ledger/named".to_owned(),
                digest: Digest::default(),
                size_bytes: 1,
            },
            batches: 1,
        });
        let mut gathered = Gathered::of(state);
        gathered.pinned.files.insert("pinned".into());
        gathered.pinned.ledger.insert("ledger/pinned".into());
        gathered.pinned.log.insert(keys::log_entry(2).into());
        gathered
    }

    #[test]
    fn the_interlock_stops_a_plan_that_names_anything_live_or_pinned() {
        let gathered = gathered();
        let size_bytes = 1;
        let live = gathered.state.files.keys().next().unwrap();
        let ledger = |key: &str| Doomed::Ledger {
            key: key.to_owned(),
            size_bytes,
        };
        let entry = |version| Doomed::Entry {
            key: keys::log_entry(version),
            size_bytes,
        };
        let object = |byte| Doomed::L0 {
            name: name(byte),
            version: 3,
            size_bytes,
        };
        let harmless = || vec![object(1), file("gone"), ledger("ledger/old"), entry(1)];
        assert!(check_live(&harmless(), &gathered).is_ok());
        let harmful = [
            file(live),
            file("pinned"),
            ledger("ledger/named"),
            ledger("ledger/pinned"),
            entry(7),
            entry(2),
            object(2),
        ];
        for one in harmful {
            let key = one.key();
            let mut plan = harmless();
            plan.push(one);
            let error = check_live(&plan, &gathered).unwrap_err();
            assert!(matches!(&error, Error::Live { key: live } if *live == key));
            assert!(crate::freeze::freezes(&error), "{error}");
        }
    }
}
