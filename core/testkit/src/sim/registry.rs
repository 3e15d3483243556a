//! What was sent, and what of it has landed.

use std::collections::BTreeMap;

use object_store::path::Path;
use stele_model::{Digest, L0Name, Rows};

use crate::fault::relative;
use crate::memory::Mutation;
use crate::oracle::Samples;

/// Batches by digest, objects by name, and the samples that must be there.
#[derive(Default)]
pub(super) struct Registry {
    batches: BTreeMap<Digest, Rows>,
    /// The batches of every object anyone tried to store.
    objects: BTreeMap<Digest, Vec<Digest>>,
    /// Objects that have been in the store, in the order they landed.
    landed: Vec<Digest>,
    expected: Samples,
}

/// The L0 object a path names.
pub(super) fn l0_name(path: &Path) -> Option<L0Name> {
    relative(path.as_ref()).strip_prefix("l0/")?.parse().ok()
}

impl Registry {
    /// Notes a batch before it is sent; answers its digest.
    pub fn sent(&mut self, rows: Rows) -> Digest {
        let batch = stele_format::batch(rows);
        self.objects.insert(batch.digest, vec![batch.digest]);
        self.batches.insert(batch.digest, batch.rows);
        batch.digest
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
        for batch in self.objects.get(&name.digest).into_iter().flatten() {
            if let Some(rows) = self.batches.get(batch) {
                self.expected.add(rows);
            }
        }
        self.landed.push(name.digest);
    }

    /// Whether an object that holds the batch has been in the store.
    pub fn has_landed(&self, batch: &Digest) -> bool {
        let holds = |object: &Digest| self.batches_of(object).contains(batch);
        self.landed.iter().any(holds)
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
        for object in &self.landed[..moment] {
            for batch in self.batches_of(object) {
                if let Some(rows) = self.batches.get(batch) {
                    all.add(rows);
                }
            }
        }
        all
    }
}
