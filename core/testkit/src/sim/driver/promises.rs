//! What tier sets promise: of a batch when it is acknowledged, and of all of them when another set
//! is published.

use std::collections::BTreeSet;

use futures::FutureExt;
use stele_model::{Clock, Digest, TierId};
use stele_store::{TierSet, TierState, WritePolicy, newest_epoch};
use stele_table::Pin;

use super::Driver;
use crate::fault::relative;
use crate::memory::Mutation;
use crate::sim::Violation;

impl Driver {
    /// I1 with tiers: a batch is on every tier that a set asks for which a process may act on; and
    /// on every tier that the newest set calls complete.
    pub(super) fn i1_durable_on_tiers(&mut self, batches: &[Digest]) -> Result<(), Violation> {
        const NAME: &str = "I1 durable ack";
        let now_us = self.clock.now_us();
        for batch in batches {
            let lacks = |set: &TierSet| self.lacks(set, batch);
            let lacking: Vec<String> = self.epochs.acted_on(now_us).filter_map(lacks).collect();
            if lacking.len() == self.epochs.acted_on(now_us).count() {
                let what = format!("batch {batch} is acknowledged; {}", lacking.join("; "));
                return Err(Violation::new(NAME, what));
            }
            let rows = self.home().registry.rows(batch).cloned();
            self.epochs.acknowledged(*batch, &rows.unwrap_or_default());
        }
        self.i1_complete_tiers_hold(batches.iter())
    }

    /// What of a batch is not where `set` asks for it.
    fn lacks(&self, set: &TierSet, batch: &Digest) -> Option<String> {
        let primary = set.primary().ok()?;
        let writes = set.members.iter().filter(|member| member.takes_writes());
        for member in writes {
            if self.holds(&member.url, batch) {
                continue;
            }
            let is_noted = set.policy == WritePolicy::Primary
                && member.id != primary.id
                && self.intends(&primary.url, &member.id, batch);
            if !is_noted {
                return Some(format!("epoch {}: not on tier {}", set.epoch, member.id));
            }
        }
        None
    }

    pub(super) fn holds(&self, name: &str, batch: &Digest) -> bool {
        let place = self.places.iter().find(|place| place.name == name);
        place.is_some_and(|place| place.registry.has_landed(batch))
    }

    /// Whether `primary` has noted that `tier` lacks the batch.
    fn intends(&self, primary: &str, tier: &TierId, batch: &Digest) -> bool {
        let place = self.places.iter().find(|place| place.name == primary);
        let Some(place) = place else {
            return false;
        };
        let keys = place.keys(&self.store, &stele_store::keys::repairs(tier));
        keys.iter().any(|key| {
            let name = key.filename().and_then(|name| name.parse().ok());
            name.is_some_and(|name: stele_model::L0Name| {
                place.registry.batches_of(&name.digest).contains(batch)
            })
        })
    }

    /// I1: every tier that the newest set calls complete holds what was acknowledged.
    fn i1_complete_tiers_hold<'a>(
        &self,
        mut batches: impl Iterator<Item = &'a Digest> + Clone,
    ) -> Result<(), Violation> {
        for tier in self.epochs.complete() {
            let mut lacking = batches.by_ref().clone();
            if let Some(batch) = lacking.find(|batch| !self.holds(&tier, batch)) {
                let what = format!("tier {tier} counts as complete, and lacks batch {batch}");
                return Err(Violation::new("I1 complete at any instant", what));
            }
        }
        Ok(())
    }

    /// Learns of a tier set that was published.
    pub(super) fn learn_epoch(&mut self, change: &Mutation, at: usize) -> Result<(), Violation> {
        let Mutation::Put(path) = change else {
            return Ok(());
        };
        if self.settings.tiers.is_none() || !relative(path.as_ref()).starts_with("control/epoch/") {
            return Ok(());
        }
        let tier = self.places[at].as_tier(&self.store);
        let read = newest_epoch(&tier).now_or_never();
        let broken = |what: String| Violation::new("no defect of ours", what);
        let published = read.ok_or_else(|| broken("the tier set waits".to_owned()))?;
        let published = published.map_err(|error| broken(error.to_string()))?;
        let Some(published) = published else {
            return Ok(());
        };
        let text = format!("{:?}", published.set);
        let name = &self.places[at].name;
        if self
            .epochs
            .learn(published.set, name, self.clock.now_us())?
        {
            self.note(format!("tier set: {text}"));
            self.names.is_new = true;
        }
        Ok(())
    }

    /// What a new set promises must hold when it is published.
    pub(super) async fn follow_epochs(&mut self) -> Result<(), Violation> {
        if !std::mem::take(&mut self.names.is_new) {
            return Ok(());
        }
        let Some(set) = self.epochs.newest().cloned() else {
            return Ok(());
        };
        let now_us = self.clock.now_us();
        let primary = set.primary().map_or("", |primary| primary.url.as_str());
        let moved = self.places.iter().position(|place| place.name == primary);
        let moved = moved.unwrap_or(self.primary);
        if moved != self.primary {
            let was = std::mem::replace(&mut self.primary, moved);
            self.tally.promoted += 1;
            if set.promoted_from.is_none() {
                let bytes = |at: usize, key: &str| {
                    let root = &self.places[at].root;
                    self.store
                        .bytes(&format!("{root}tenants/default/{key}").into())
                };
                let is_there = |key: &str| {
                    let here = bytes(moved, key);
                    here.is_some() && here == bytes(was, key)
                };
                let node = self.places[moved].observer.node();
                let newest = node.log.load().await.ok().flatten();
                let newest = newest.map_or(0, |state| state.version);
                self.pinned.keep(is_there, newest);
                self.tidy_after_a_loss(newest);
            }
            let marks = self.home().keys(&self.store, "pins").into_iter();
            let marks = marks.filter_map(|key| {
                let name = key.filename()?.strip_suffix(".dropped.json")?;
                Some(name.to_owned())
            });
            let marks: Vec<String> = marks.collect();
            self.pinned.moves(marks.into_iter(), now_us);
        }
        self.tally.tier_sets = set.epoch;
        let retired = set.members.iter().filter(|m| m.state == TierState::Retired);
        self.tally.retired = retired.count() as u64;
        let root = self.home().root.clone();
        let frozen = self.home().observer.all_frozen();
        for place in &mut self.places {
            let mut members = set.members.iter();
            let member = members.find(|member| member.url == place.name);
            let state = member.map(|member| member.state);
            let holds_table = matches!(state, Some(TierState::Mirror | TierState::Primary));
            let is_over = member.is_none_or(|member| member.is_over());
            let is_new = holds_table && !place.is_watched;
            place.is_watched = (place.is_watched || holds_table) && !is_over;
            let copies = (place.root != root).then_some(root.as_str());
            let frozen = if is_new {
                frozen.clone()
            } else {
                Default::default()
            };
            place.observer.follows(copies, frozen);
            if place.is_watched {
                place
                    .observer
                    .check_all(&mut place.registry, now_us)
                    .await?;
            }
        }
        if set.promoted_from.is_none() && set.primary_since == set.epoch {
            self.lose_with_the_primary(&set);
        }
        self.i11_nothing_goes_with_a_tier()?;
        self.i1_complete_tiers_hold(self.epochs.acked().iter())
    }

    /// What an operator must do by hand when a primary was lost: what it alone had decided may have
    /// reached other tiers, and contradicts what the new one decides. Snapshots that came before
    /// the log they need go, and markers of keys that the new primary does not hold.
    fn tidy_after_a_loss(&mut self, newest: u64) {
        let marker = |key: &object_store::path::Path| {
            let name = key.filename().unwrap_or_default();
            let path = format!("{}tenants/default/idem/{name}", self.home().root);
            self.store.bytes(&path.into())
        };
        for place in &self.places {
            for key in place.keys(&self.store, "idem") {
                if marker(&key) != self.store.bytes(&key) {
                    self.store.lose(&key);
                }
            }
            for key in place.keys(&self.store, "pins") {
                let bytes = self.store.bytes(&key).unwrap_or_default();
                let name = key.filename().and_then(|name| name.strip_suffix(".json"));
                let name = name.and_then(|name| name.parse().ok());
                let pin = name.and_then(|name| Pin::decode(&name, &bytes).ok());
                if pin.is_some_and(|pin| pin.version > newest) {
                    self.store.lose(&key);
                }
            }
        }
    }

    /// Under the policy `primary`, a batch that the lost primary alone held is lost with it.
    fn lose_with_the_primary(&mut self, set: &TierSet) {
        if set.policy == WritePolicy::All {
            return;
        }
        let acked = self.epochs.acked().iter().copied();
        let lost: BTreeSet<Digest> = acked.filter(|batch| !self.is_somewhere(batch)).collect();
        if !lost.is_empty() {
            self.note(format!("{} batches are lost with the primary", lost.len()));
            let registry = &self.places[self.primary].registry;
            let rows = |batch: &Digest| registry.rows(batch).cloned().unwrap_or_default();
            self.epochs.lost(&lost, rows);
        }
    }

    /// Whether a tier of the newest set whose table loads holds the batch.
    fn is_somewhere(&self, batch: &Digest) -> bool {
        let places = self.places.iter().enumerate();
        let mut of_set = places.filter(|(at, place)| place.is_watched && self.is_active(*at));
        of_set.any(|(_, place)| place.registry.has_landed(batch))
    }

    /// I11: whoever leaves the set, what was acknowledged is on a tier that stays.
    fn i11_nothing_goes_with_a_tier(&self) -> Result<(), Violation> {
        let mut acked = self.epochs.acked().iter();
        match acked.find(|batch| !self.is_somewhere(batch)) {
            None => Ok(()),
            Some(batch) => {
                let what = format!("batch {batch} was acknowledged, and no tier that stays has it");
                Err(Violation::new("I11 tier equality", what))
            }
        }
    }
}
