//! What the tier sets of a run promise, and what was acknowledged on them.

use std::collections::{BTreeMap, BTreeSet};

use stele_model::Digest;
use stele_store::{Member, Role, TierSet, TierState, WritePolicy};

use super::Violation;
use crate::oracle::Samples;

/// Every set that was published, and every batch that was acknowledged.
#[derive(Default)]
pub(super) struct Epochs {
    /// By epoch, with the time when the first tier got it, µs.
    sets: BTreeMap<u64, (TierSet, i64)>,
    /// The tiers that hold each of them, by URL.
    holders: BTreeMap<u64, BTreeSet<String>>,
    acked: BTreeSet<Digest>,
    samples: Samples,
}

/// Whether a set names a tier on which every acknowledged batch is at any instant.
fn is_complete(set: &TierSet, member: &Member) -> bool {
    let is_mirror = member.state == TierState::Mirror && member.role == Role::Mirror;
    set.policy == WritePolicy::All && (is_mirror || member.state == TierState::Primary)
}

impl Epochs {
    /// The tier at `url` holds `set`. Answers whether it is a new one.
    ///
    /// A set that the lost primary alone got never was: its publisher had not come to its end.
    pub fn learn(&mut self, set: TierSet, url: &str, now_us: i64) -> Result<bool, Violation> {
        let holders = self.holders.entry(set.epoch).or_default();
        let is_lost = |url: &String| {
            let mut members = set.members.iter();
            members.any(|m| m.url == *url && m.state == TierState::Lost)
        };
        match self.sets.get(&set.epoch) {
            Some((known, _)) if *known == set => {
                holders.insert(url.to_owned());
                return Ok(false);
            }
            Some((known, _)) if !holders.iter().all(is_lost) => {
                let what = format!("epoch {} is {known:?} and {set:?}", set.epoch);
                return Err(Violation::new("I11 one tier set per epoch", what));
            }
            _ => {}
        }
        *holders = [url.to_owned()].into();
        self.sets.insert(set.epoch, (set, now_us));
        Ok(true)
    }

    /// The set of the highest epoch.
    pub fn newest(&self) -> Option<&TierSet> {
        self.sets.last_key_value().map(|(_, (set, _))| set)
    }

    /// The sets that a process may act on: the newest, and those that others replaced less than a
    /// lease ago.
    pub fn acted_on(&self, now_us: i64) -> impl Iterator<Item = &TierSet> {
        let after = |epoch: u64| self.sets.get(&(epoch + 1));
        self.sets.values().map(|(set, _)| set).filter(move |set| {
            let lease_us = i64::try_from(set.lease_ms).unwrap_or(0) * 1_000;
            after(set.epoch).is_none_or(|(_, since_us)| now_us < since_us + lease_us)
        })
    }

    /// The tiers on which every acknowledged batch must be at any instant.
    pub fn complete(&self) -> Vec<String> {
        let Some(set) = self.newest() else {
            return Vec::new();
        };
        let members = set.members.iter().filter(|m| is_complete(set, m));
        members.map(|member| member.url.clone()).collect()
    }

    /// Whether a reader that began in `epoch` and ends now finds every batch on the tier that was
    /// acknowledged before it began.
    pub fn answers(&self, epoch: u64, url: &str) -> bool {
        let mut sets = self.sets.range(epoch..).map(|(_, (set, _))| set);
        sets.all(|set| {
            let mut members = set.members.iter();
            members.any(|member| member.url == url && is_complete(set, member))
        })
    }

    /// Notes a batch that was acknowledged.
    pub fn acknowledged(&mut self, batch: Digest, rows: &stele_model::Rows) {
        if self.acked.insert(batch) {
            self.samples.add(rows);
        }
    }

    /// Every acknowledged batch.
    pub fn acked(&self) -> &BTreeSet<Digest> {
        &self.acked
    }

    /// All acknowledged samples.
    pub fn samples(&self) -> &Samples {
        &self.samples
    }

    /// Batches that were lost with a tier, as the policy allows. They are as if never sent.
    pub fn lost(&mut self, lost: &BTreeSet<Digest>, rows: impl Fn(&Digest) -> stele_model::Rows) {
        self.acked.retain(|batch| !lost.contains(batch));
        self.samples = Samples::default();
        for batch in &self.acked {
            self.samples.add(&rows(batch));
        }
    }
}
