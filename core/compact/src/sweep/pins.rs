//! Pins: what they keep, and when they go themselves.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use futures::{StreamExt, TryStreamExt, stream};
use stele_model::time::MINUTE_US;
use stele_model::{Digest, ErrorKind, chain};
use stele_store::Put;
use stele_table::{
    LogIndex, Mark, Pin, PinName, PinState, Pins, StoredMark, StoredPin, TableLog, TableState,
    Verdict,
};

use super::gather::Gathered;
use super::others::{Other, Others};
use crate::compactor::{Compactor, lock};
use crate::error::{Error, Result};
use crate::report::{DeletionRefused, SweepReport};

/// Pinned versions loaded at once.
const LOADS: usize = 4;

/// What the pins of a tenant keep.
#[derive(Default)]
pub(super) struct Pinned {
    /// Pins that keep something.
    pub count: u64,
    /// Paths of data files, relative to the table.
    pub files: HashSet<Arc<str>>,
    /// Keys of ledger objects.
    pub ledger: HashSet<Arc<str>>,
    /// Keys of entries and checkpoints.
    pub log: HashSet<Arc<str>>,
    /// Pins that keep nothing any more.
    over: Vec<StoredPin>,
    /// Marks whose pin is gone.
    left: Vec<StoredMark>,
}

impl Pinned {
    /// The keys of the pins that go.
    pub fn over_keys(&self) -> impl Iterator<Item = String> {
        self.over.iter().map(|stored| stored.name.key())
    }
}

/// What one pin keeps. It is a function of objects that never change.
struct Kept {
    files: Vec<Arc<str>>,
    ledger: Vec<Arc<str>>,
    log: Vec<Arc<str>>,
}

/// A pin of another tier that keeps something.
struct OtherPin<'a> {
    other: &'a Other,
    digest: Digest,
    stored_us: i64,
    pin: &'a Pin,
}

impl OtherPin<'_> {
    /// Whether nobody can have acknowledged it there.
    fn is_never(&self) -> bool {
        self.other.index.judge(self.pin.version, self.stored_us) == Verdict::Never
    }

    fn unreadable(&self, error: &Error) -> DeletionRefused {
        DeletionRefused::Unreadable {
            tier: Some(self.other.witness.tier.clone()),
            error: format!("snapshot {}: {}", self.pin.name, chain(error)),
        }
    }

    /// Whether it is the pin with this digest, and its version is in the log there.
    fn loads(&self, digest: Digest) -> bool {
        let newest = self.other.state.as_ref().map(|state| state.version);
        self.digest == digest && newest.is_some_and(|newest| newest >= self.pin.version)
    }
}

/// What pins keep, by the digest of the pin and the tier whose log says so, so that a version is
/// loaded once per process.
#[derive(Default)]
pub(crate) struct PinCache {
    kept: HashMap<(Digest, String), Arc<Kept>>,
    /// Every text once: pinned versions share most of their files.
    texts: HashSet<Arc<str>>,
}

impl PinCache {
    fn text(&mut self, text: &str) -> Arc<str> {
        if let Some(known) = self.texts.get(text) {
            return Arc::clone(known);
        }
        let text: Arc<str> = text.into();
        self.texts.insert(Arc::clone(&text));
        text
    }

    /// Forgets pins that are gone.
    fn retain(&mut self, digests: &HashSet<Digest>) {
        let before = self.kept.len();
        self.kept.retain(|(digest, _), _| digests.contains(digest));
        if self.kept.len() < before {
            self.texts.retain(|text| Arc::strong_count(text) > 1);
        }
    }
}

/// What the pins are asked with.
pub(super) struct Asking<'a> {
    pub index: &'a LogIndex,
    /// The newest version here.
    pub own: &'a TableState,
    pub others: &'a Others,
    /// The store's time before the pins were read, µs.
    pub now_us: i64,
    /// Whether pins that nobody can have acknowledged may be marked so.
    pub marks: bool,
}

/// A key below `pins/` that is no pin and no mark: it may be a pin that somebody counts on.
fn refuse_foreign(foreign: Vec<String>) -> Result<()> {
    match foreign.into_iter().next() {
        None => Ok(()),
        Some(key) => {
            let damage = stele_table::Damage::Value {
                field: "name of a pin",
                value: key.chars().take(80).collect(),
            };
            Err(stele_table::Error::Corrupt { key, damage }.into())
        }
    }
}

impl Compactor {
    /// Loads what the pins of all tiers keep. One of this tier that is damaged, or whose version
    /// does not load, is an error: what cannot be known may not be deleted. One of another tier
    /// is a refusal: that tier's own sweep reports it.
    pub(super) async fn pinned(
        &self,
        pins: Pins,
        asking: &Asking<'_>,
    ) -> Result<Result<Pinned, DeletionRefused>> {
        refuse_foreign(pins.foreign)?;
        let mut pinned = Pinned {
            left: pins.left,
            ..Pinned::default()
        };
        let mut keeping: Vec<(Digest, Pin)> = Vec::new();
        for stored in pins.pins.into_values() {
            match self.is_over(&stored, asking).await? {
                true => pinned.over.push(stored),
                // Somebody has seen it: what it kept is not known, and may be deleted once the
                // drop cannot be taken back.
                false if stored.pin.is_err() && stored.mark.is_some() => {
                    let name = stored.name.to_string();
                    return Ok(Err(DeletionRefused::DamagedPin { name }));
                }
                false => keeping.push((stored.digest, stored.whole()?)),
            }
        }
        let of_others = match self.pins_of_others(asking) {
            Ok(of_others) => of_others,
            Err(refused) => return Ok(Err(refused)),
        };
        let mut digests: HashSet<Digest> = keeping.iter().map(|(digest, _)| *digest).collect();
        digests.extend(of_others.iter().map(|other| other.digest));
        lock(&self.pins).retain(&digests);
        let loads = keeping.iter();
        let loads = loads.map(|(digest, pin)| self.kept_now(*digest, pin, asking, &of_others));
        let loads: Vec<_> = loads.collect();
        let mut all: Vec<Option<Arc<Kept>>> =
            stream::iter(loads).buffered(LOADS).try_collect().await?;
        pinned.count = all.iter().flatten().count() as u64;
        let own: HashSet<Digest> = keeping.iter().map(|(digest, _)| *digest).collect();
        for other in &of_others {
            match self.kept_of(other, asking).await {
                Ok(kept) => {
                    let is_new = !own.contains(&other.digest) && !kept.is_empty();
                    pinned.count += u64::from(is_new);
                    all.extend(kept.into_iter().map(Some));
                }
                Err(refused) => return Ok(Err(refused)),
            }
        }
        for kept in all.into_iter().flatten() {
            pinned.files.extend(kept.files.iter().cloned());
            pinned.ledger.extend(kept.ledger.iter().cloned());
            pinned.log.extend(kept.log.iter().cloned());
        }
        Ok(Ok(pinned))
    }

    /// The pins of other tiers that keep something. A dropped one keeps a minute longer than
    /// there: the two stores' clocks may differ.
    fn pins_of_others<'a>(
        &self,
        asking: &'a Asking<'_>,
    ) -> Result<Vec<OtherPin<'a>>, DeletionRefused> {
        let history_us = self.history_us();
        let mut keeping = Vec::new();
        for other in &asking.others.each {
            let failed = |error: &dyn std::error::Error| DeletionRefused::Unreadable {
                tier: Some(other.witness.tier.clone()),
                error: chain(error),
            };
            if let Some(key) = other.pins.foreign.first() {
                return Err(DeletionRefused::Unreadable {
                    tier: Some(other.witness.tier.clone()),
                    error: format!("{key} is not the name of a snapshot"),
                });
            }
            for stored in other.pins.pins.values() {
                let is_over = match stored.state(history_us) {
                    PinState::Withdrawn => true,
                    PinState::Dropped { until_us } => {
                        let until_us = until_us.saturating_add(history_us / 4 + MINUTE_US);
                        until_us <= asking.now_us
                    }
                    PinState::Live | PinState::Damaged => false,
                };
                if is_over {
                    continue;
                }
                if let Some(Err(damage)) = stored.mark.as_ref().map(|mark| &mark.mark) {
                    return Err(failed(damage));
                }
                let pin = stored.pin.as_ref().map_err(|damage| failed(damage))?;
                keeping.push(OtherPin {
                    other,
                    digest: stored.digest,
                    stored_us: stored.stored_us,
                    pin,
                });
            }
        }
        Ok(keeping)
    }

    /// What a pin of another tier keeps, by the log of that tier and, as far as it goes, by this
    /// one, which may load the version from another checkpoint.
    ///
    /// One whose version is newer than the newest there (pins are copied before the log), and
    /// that no other tier has, keeps nothing that is not live here, either: see the notes.
    async fn kept_of(
        &self,
        one: &OtherPin<'_>,
        asking: &Asking<'_>,
    ) -> Result<Vec<Arc<Kept>>, DeletionRefused> {
        let mut all = Vec::new();
        if one.pin.version <= asking.own.version {
            let kept = self.kept(&self.log, "", one.digest, one.pin, asking.index);
            match kept.await {
                Ok(kept) => all.push(kept),
                // Copied later than the log, or swept here before it was taken there.
                Err(error) if error.kind() != ErrorKind::Unavailable => {}
                Err(error) => return Err(one.unreadable(&error)),
            }
        }
        let tier = &one.other.witness.tier;
        let there = one.other.state.as_ref().map(|state| state.version);
        if there.is_none_or(|newest| newest < one.pin.version) {
            return Ok(all);
        }
        let log = &one.other.witness.log;
        let kept = self.kept(log, tier, one.digest, one.pin, &one.other.index);
        match kept.await {
            Ok(kept) => all.push(kept),
            // It is copied, and what it needs is not there yet; or nobody acknowledged it.
            Err(_) if !all.is_empty() || one.is_never() => {}
            Err(error) => return Err(one.unreadable(&error)),
        }
        Ok(all)
    }

    /// Whether a pin keeps nothing any more: it was dropped, and the grace is over with a quarter
    /// of the history to spare for whoever undeletes it in the last moment; or nobody can have
    /// acknowledged it, which only what is still listed now proves, so that it is noted first.
    ///
    /// Among several tiers, a pin is judged where it was taken: a copy can be much younger than
    /// what followed its version. So only the tier that may commit judges, and only what no other
    /// tier has.
    async fn is_over(&self, stored: &StoredPin, asking: &Asking<'_>) -> Result<bool> {
        let history_us = self.history_us();
        let others = asking.others;
        let is_elsewhere = || {
            let mut pins = others
                .each
                .iter()
                .flat_map(|other| other.pins.pins.values());
            pins.any(|pin| pin.digest == stored.digest)
        };
        let judges = others.may_commit && !is_elsewhere();
        let never = |pin: &Pin| asking.index.judge(pin.version, stored.stored_us) == Verdict::Never;
        let is_never = judges && stored.pin.as_ref().is_ok_and(never);
        match stored.state(history_us) {
            PinState::Withdrawn => Ok(true),
            PinState::Dropped { until_us } => {
                Ok(is_never || until_us.saturating_add(history_us / 4) <= asking.now_us)
            }
            PinState::Live if is_never && !asking.marks => Ok(true),
            PinState::Live if is_never => {
                tracing::warn!(pin = %stored.name, "a pin that nobody can have acknowledged");
                self.withdraw(&stored.name, stored.digest).await
            }
            PinState::Live => Ok(false),
            PinState::Damaged => match (&stored.pin, &stored.mark) {
                (Ok(_), Some(mark)) => Err(damaged_mark(mark)),
                _ => Ok(false),
            },
        }
    }

    /// Marks a pin as never acknowledged; false when somebody has marked it otherwise meanwhile.
    async fn withdraw(&self, name: &PinName, pin: Digest) -> Result<bool> {
        let mark = Mark {
            pin,
            marked_us: self.clock.now_us(),
            withdrawn: true,
        };
        let key = name.mark_key();
        let bytes = mark.encode();
        let bytes = bytes.map_err(|damage| stele_table::Error::Corrupt {
            key: key.clone(),
            damage,
        })?;
        let put = self.store.put_new(&key, bytes).await?;
        Ok(!matches!(put, Put::Other(_)))
    }

    /// What one pin of this tier keeps; `None` when another sweep has deleted it since it was
    /// read, and when this tier's log does not reach its version yet and another tier's does.
    async fn kept_now(
        &self,
        digest: Digest,
        pin: &Pin,
        asking: &Asking<'_>,
        of_others: &[OtherPin<'_>],
    ) -> Result<Option<Arc<Kept>>> {
        if pin.version > asking.own.version && !asking.others.may_commit {
            return Ok(None);
        }
        match self.kept(&self.log, "", digest, pin, asking.index).await {
            Ok(kept) => Ok(Some(kept)),
            // Its copy is loaded there, and that is an error if it does not load there, either.
            Err(_) if of_others.iter().any(|other| other.loads(digest)) => Ok(None),
            Err(error) => match Pins::read_one(&self.store, &pin.name).await? {
                Some(now) if now.digest == digest => Err(error),
                _ => Ok(None),
            },
        }
    }

    /// What one pin keeps, by the log of a tier; that of this tier has no name.
    async fn kept(
        &self,
        log: &TableLog,
        tier: &str,
        digest: Digest,
        pin: &Pin,
        index: &LogIndex,
    ) -> Result<Arc<Kept>> {
        let known = (digest, tier.to_owned());
        if let Some(kept) = lock(&self.pins).kept.get(&known) {
            return Ok(Arc::clone(kept));
        }
        let reach = log.reach(index, pin.version).await?;
        pin.check(&reach.state)
            .map_err(|damage| stele_table::Error::Corrupt {
                key: pin.name.key(),
                damage,
            })?;
        let mut cache = lock(&self.pins);
        let kept = Arc::new(Kept {
            files: reach.state.files.keys().map(|p| cache.text(p)).collect(),
            ledger: reach.ledger.keys().map(|key| cache.text(key)).collect(),
            log: reach.log_keys().iter().map(|k| cache.text(k)).collect(),
        });
        cache.kept.insert(known, Arc::clone(&kept));
        Ok(kept)
    }

    /// Deletes pins that keep nothing, and marks whose pin is long gone: as long as there is a
    /// mark, the name is not used again, so a delete that lands late hits no later pin. False when
    /// a pin is not as it was when this run began: then the run knows too little to go on.
    pub(super) async fn delete_pins(
        &self,
        gathered: &Gathered,
        report: &mut SweepReport,
    ) -> Result<bool> {
        for over in &gathered.pinned.over {
            let began_us = self.clock.now_us();
            let Some(now) = Pins::read_one(&self.store, &over.name).await? else {
                continue;
            };
            let marked_us = |pin: &StoredPin| pin.mark.as_ref().map(|mark| mark.stored_us);
            let is_same = now.digest == over.digest && now.mark.is_some();
            let is_same = is_same && (over.mark.is_none() || marked_us(&now) == marked_us(over));
            let took_us = self.clock.now_us().saturating_sub(began_us);
            if !is_same || took_us > MINUTE_US {
                return Ok(false);
            }
            self.store.delete(&over.name.key()).await?;
            report.pins_deleted += 1;
        }
        let history_us = self.history_us();
        let keep_us = history_us.saturating_add(history_us / 2);
        for mark in &gathered.pinned.left {
            if mark.stored_us.saturating_add(keep_us) <= gathered.now_us {
                self.store.delete(&mark.name.mark_key()).await?;
            }
        }
        Ok(true)
    }
}

fn damaged_mark(mark: &StoredMark) -> crate::error::Error {
    let key = mark.name.mark_key();
    let damage = stele_table::Damage::Disagrees {
        what: "the mark of a dropped snapshot, which is damaged,",
    };
    stele_table::Error::Corrupt { key, damage }.into()
}
