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
