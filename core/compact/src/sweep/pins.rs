//! Pins: what they keep, and when they go themselves.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use futures::{StreamExt, TryStreamExt, stream};
use stele_model::Digest;
use stele_model::time::MINUTE_US;
use stele_store::Put;
use stele_table::{LogIndex, Mark, Pin, PinName, PinState, Pins, StoredMark, StoredPin, Verdict};

use super::gather::Gathered;
use crate::compactor::{Compactor, lock};
use crate::error::Result;
use crate::report::SweepReport;

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

/// What one pin keeps. It is a function of objects that never change.
struct Kept {
    files: Vec<Arc<str>>,
    ledger: Vec<Arc<str>>,
    log: Vec<Arc<str>>,
}

/// What pins keep, by the digest of the pin, so that a version is loaded once per process.
#[derive(Default)]
pub(crate) struct PinCache {
    kept: HashMap<Digest, Arc<Kept>>,
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
        self.kept.retain(|digest, _| digests.contains(digest));
        if self.kept.len() < before {
            self.texts.retain(|text| Arc::strong_count(text) > 1);
        }
    }
}

impl Compactor {
    /// Loads what the pins keep. One that is damaged, or whose version does not load, is an
    /// error: what cannot be known may not be deleted.
    pub(super) async fn pinned(&self, pins: Pins, index: &LogIndex, now_us: i64) -> Result<Pinned> {
        if let Some(key) = pins.foreign.into_iter().next() {
            let damage = stele_table::Damage::Value {
                field: "name of a pin",
                value: key.chars().take(80).collect(),
            };
            return Err(stele_table::Error::Corrupt { key, damage }.into());
        }
        let mut pinned = Pinned {
            left: pins.left,
            ..Pinned::default()
        };
        let mut keeping: Vec<(Digest, Pin)> = Vec::new();
        for stored in pins.pins.into_values() {
            match self.is_over(&stored, index, now_us).await? {
                true => pinned.over.push(stored),
                false => keeping.push((stored.digest, stored.whole()?)),
            }
        }
        let digests: HashSet<Digest> = keeping.iter().map(|(digest, _)| *digest).collect();
        lock(&self.pins).retain(&digests);
        let loads = keeping.iter();
        let loads = loads.map(|(digest, pin)| self.kept_now(*digest, pin, index));
        let loads: Vec<_> = loads.collect();
        let all: Vec<Option<Arc<Kept>>> = stream::iter(loads).buffered(LOADS).try_collect().await?;
        for kept in all.into_iter().flatten() {
            pinned.count += 1;
            pinned.files.extend(kept.files.iter().cloned());
            pinned.ledger.extend(kept.ledger.iter().cloned());
            pinned.log.extend(kept.log.iter().cloned());
        }
        Ok(pinned)
    }

    /// Whether a pin keeps nothing any more: it was dropped, and the grace is over with a quarter
    /// of the history to spare for whoever undeletes it in the last moment; or nobody can have
    /// acknowledged it, which only what is still listed now proves, so that it is noted first.
    async fn is_over(&self, stored: &StoredPin, index: &LogIndex, now_us: i64) -> Result<bool> {
        let history_us = self.history_us();
        let never = |pin: &Pin| index.judge(pin.version, stored.stored_us) == Verdict::Never;
        let is_never = stored.pin.as_ref().is_ok_and(never);
        match stored.state(history_us) {
            PinState::Withdrawn => Ok(true),
            PinState::Dropped { until_us } => {
                Ok(is_never || until_us.saturating_add(history_us / 4) <= now_us)
            }
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

    /// What one pin keeps; `None` when another sweep has deleted it since it was read.
    async fn kept_now(
        &self,
        digest: Digest,
        pin: &Pin,
        index: &LogIndex,
    ) -> Result<Option<Arc<Kept>>> {
        match self.kept(digest, pin, index).await {
            Ok(kept) => Ok(Some(kept)),
            Err(error) => match Pins::read_one(&self.store, &pin.name).await? {
                Some(now) if now.digest == digest => Err(error),
                _ => Ok(None),
            },
        }
    }

    /// What one pin keeps.
    async fn kept(&self, digest: Digest, pin: &Pin, index: &LogIndex) -> Result<Arc<Kept>> {
        if let Some(kept) = lock(&self.pins).kept.get(&digest) {
            return Ok(Arc::clone(kept));
        }
        let reach = self.log.reach(index, pin.version).await?;
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
        cache.kept.insert(digest, Arc::clone(&kept));
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
