//! What was sent, and what of it has landed.

use std::collections::{BTreeMap, BTreeSet};

use object_store::path::Path;
use stele_model::{Batch, Digest, L0Name, Rows};

use crate::fault::relative;
use crate::memory::Mutation;
use crate::oracle::Samples;

/// Batches by digest, objects by name, and the samples that must be there.
#[derive(Default)]
pub(super) struct Registry {
    batches: BTreeMap<Digest, Rows>,
    /// The batches of every object anyone tried to store.
    objects: BTreeMap<Digest, Vec<Digest>>,
    /// The batches of the objects that have been in the store, in the order they landed.
    landed: Vec<Vec<Digest>>,
    /// Batches that are here: they landed, or came with the log of another tier.
    held: BTreeSet<Digest>,
    expected: Samples,
    /// Batches that a restore in place took back for good, and all that was ever there.
    lost: BTreeSet<Digest>,
    ever: Samples,
}

/// The L0 object a path names.
pub(super) fn l0_name(path: &Path) -> Option<L0Name> {
    relative(path.as_ref()).strip_prefix("l0/")?.parse().ok()
}

impl Registry {
    /// Notes a batch before it is sent.
    pub fn sent(&mut self, batch: Batch) {
        self.objects.insert(batch.digest, vec![batch.digest]);
        self.batches.insert(batch.digest, batch.rows);
    }

    /// What may come to a store beside this one.
    pub fn beside(&self) -> Self {
        Self {
            batches: self.batches.clone(),
            objects: self.objects.clone(),
            ..Self::default()
        }
    }

    /// Notes an object of several batches before it is sent.
    pub fn sent_together(&mut self, object: Digest, batches: Vec<Digest>) {
        self.objects.insert(object, batches);
    }

    /// Whether anyone said what is in the object.
    pub fn knows(&self, object: &Digest) -> bool {
        self.objects.contains_key(object)
    }

    pub fn rows(&self, batch: &Digest) -> Option<&Rows> {
        self.batches.get(batch)
    }

    pub fn batches_of(&self, object: &Digest) -> &[Digest] {
        self.objects.get(object).map_or(&[], Vec::as_slice)
    }

    /// Every batch that was ever sent, by digest.
    pub fn digests(&self) -> Vec<Digest> {
        self.batches.keys().copied().collect()
    }

    /// Follows one change of the store.
    pub fn follow(&mut self, mutation: &Mutation) {
        let Mutation::Put(path) = mutation else {
            return;
        };
        let Some(name) = l0_name(path) else {
            return;
        };
        let batches = self.objects.get(&name.digest).cloned().unwrap_or_default();
        for batch in &batches {
            self.hold(*batch);
        }
        self.landed.push(batches);
    }

    fn hold(&mut self, batch: Digest) {
        if let Some(rows) = self.batches.get(&batch)
            && self.held.insert(batch)
        {
            self.expected.add(rows);
            self.ever.add(rows);
        }
    }

    /// A restore in place came about, after which the log has consumed `effective` and L0 holds
    /// `objects`. Answers which batches that took back.
    pub fn taken_back(
        &mut self,
        effective: &BTreeSet<Digest>,
        objects: &[L0Name],
    ) -> BTreeSet<Digest> {
        let in_l0 = objects
            .iter()
            .flat_map(|name| self.batches_of(&name.digest));
        let kept: BTreeSet<Digest> = in_l0.chain(effective).copied().collect();
        let lost: BTreeSet<Digest> = self.held.difference(&kept).copied().collect();
        self.held.retain(|batch| !lost.contains(batch));
        for landed in &mut self.landed {
            landed.retain(|batch| !lost.contains(batch));
        }
        let held = self.held.iter().filter_map(|batch| self.batches.get(batch));
        let mut expected = Samples::default();
        held.for_each(|rows| expected.add(rows));
        self.expected = expected;
        self.lost.extend(&lost);
        lost
    }

    /// Notes what the log here has consumed: on a tier that can be more than has landed.
    pub fn consumed(&mut self, batches: &BTreeSet<Digest>) {
        batches.iter().for_each(|batch| self.hold(*batch));
    }

    /// Whether an object that holds the batch has been in the store, or the log has consumed it.
    pub fn has_landed(&self, batch: &Digest) -> bool {
        self.held.contains(batch)
    }

    /// Whether a restore in place took the batch back; it may have come again.
    pub fn was_lost(&self, batch: &Digest) -> bool {
        self.lost.contains(batch)
    }

    /// Whatever was there at any time.
    pub fn ever(&self) -> &Samples {
        &self.ever
    }

    /// How many objects have landed; a moment for [`Registry::expected_at`].
    pub fn moment(&self) -> usize {
        self.landed.len()
    }

    /// What must be there now.
    pub fn expected(&self) -> &Samples {
        &self.expected
    }

    /// What had to be there when `moment` objects had landed.
    pub fn expected_at(&self, moment: usize) -> Samples {
        let mut all = Samples::default();
        for batch in self.landed[..moment].iter().flatten() {
            if let Some(rows) = self.batches.get(batch) {
                all.add(rows);
            }
        }
        all
    }
}
