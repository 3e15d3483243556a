//! Snapshots: the pin first, so that the target's sweep knows of it, and then what it keeps.

use std::collections::BTreeSet;

use bytes::Bytes;
use stele_format::content_digest;
use stele_model::{Digest, chain};
use stele_store::{Put, TenantStore, keys};
use stele_table::{
    LogIndex, Mark, Pin, PinState, Pins, Reach, StoredPin, TableLog, TableState, Verdict,
};

use super::fetch::{Copier, Wanted, wanted_file, wanted_ledger};
use super::{ReplicateError, ReplicateReport, Result};
use crate::snapshot::undelete;

/// A pin that the target holds now, and whose version it must be able to load.
pub(super) struct Kept {
    pub pin: Pin,
    digest: Digest,
}

/// Copies pins and marks. Live pins come over, and dropped ones that the target has already get
/// their mark; a pin that nobody can have acknowledged does not.
pub(super) async fn copy(
    source: &TableLog,
    target: &TableLog,
    report: &mut ReplicateReport,
) -> Result<Vec<Kept>> {
    // In this order: a pin is judged by a LIST that is younger than itself.
    let pins = Pins::read(source.store()).await?;
    if pins.pins.is_empty() {
        return Ok(Vec::new());
    }
    let index = source.index().await?;
    let mut there = Pins::read(target.store()).await?;
    let history_us = source.options().history_us;
    let mut kept = Vec::new();
    for stored in pins.pins.into_values() {
        let at_target = there.pins.remove(&stored.name);
        if let Some(theirs) = &at_target
            && theirs.digest != stored.digest
            && stored.pin.is_ok()
        {
            return Err(other(stored.name.key(), stored.digest, theirs.digest));
        }
        let pin = match (&stored.pin, stored.state(history_us)) {
            (Err(_), _) | (_, PinState::Damaged) => {
                tracing::error!(pin = %stored.name, "a damaged snapshot is not copied");
                report.pins_missing.push(stored.name);
                continue;
            }
            (Ok(_), PinState::Withdrawn) => {
                copy_mark(source, target, &stored, at_target.as_ref(), report).await?;
                continue;
            }
            (Ok(pin), PinState::Dropped { .. }) => {
                copy_mark(source, target, &stored, at_target.as_ref(), report).await?;
                match at_target {
                    Some(_) => pin.clone(),
                    None => continue,
                }
            }
            (Ok(pin), PinState::Live) => {
                if index.judge(pin.version, stored.stored_us) == Verdict::Never {
                    continue;
                }
                let is_marked = there.left.iter().any(|mark| mark.name == stored.name);
                if is_marked || !keep(source, target, &stored, at_target, report).await? {
                    report.pins_missing.push(stored.name);
                    continue;
                }
                pin.clone()
            }
        };
        kept.push(Kept {
            pin,
            digest: stored.digest,
        });
    }
    Ok(kept)
}

fn other(key: String, source_digest: Digest, target_digest: Digest) -> ReplicateError {
    ReplicateError::Other {
        key,
        source_digest,
        target_digest,
    }
}

/// A live pin is live at the target, too; false when it cannot be.
async fn keep(
    source: &TableLog,
    target: &TableLog,
    stored: &StoredPin,
    at_target: Option<StoredPin>,
    report: &mut ReplicateReport,
) -> Result<bool> {
    let key = stored.name.key();
    let Some(theirs) = at_target else {
        let Some(bytes) = whole(source.store(), &key, stored.digest).await? else {
            return Ok(false);
        };
        if is_too_late(target, stored).await? {
            tracing::error!(pin = %stored.name, "too late for the target to keep it");
            return Ok(false);
        }
        return match target.store().put_new(&key, bytes).await? {
            Put::Created | Put::Same => {
                report.pins_copied += 1;
                Ok(true)
            }
            Put::Other(found) => Err(other(key, stored.digest, content_digest(&found))),
        };
    };
    if theirs.mark.is_none() {
        return Ok(true);
    }
    match undelete(target, &stored.name).await {
        Ok(()) => {
            report.pins_undeleted += 1;
            Ok(true)
        }
        Err(error @ crate::snapshot::SnapshotError::OverSince { .. }) => {
            tracing::error!(pin = %stored.name, error = chain(&error), "dropped at the target");
            Ok(false)
        }
        Err(error) => Err(error.into()),
    }
}

/// Whether the target's sweep would take a pin that is put now for one that nobody acknowledged,
/// because its version was superseded there long ago.
async fn is_too_late(target: &TableLog, stored: &StoredPin) -> Result<bool> {
    let Ok(pin) = &stored.pin else {
        return Ok(true);
    };
    let index = target.index().await?;
    if index.newest().is_none_or(|newest| newest <= pin.version) {
        return Ok(false);
    }
    let now_us = target.store().tier().now_us().await?;
    Ok(index.judge(pin.version, now_us) == Verdict::Never)
}

/// The mark of a pin that the target has, unless it has one.
async fn copy_mark(
    source: &TableLog,
    target: &TableLog,
    stored: &StoredPin,
    at_target: Option<&StoredPin>,
    report: &mut ReplicateReport,
) -> Result<()> {
    if at_target.is_none_or(|theirs| theirs.mark.is_some()) {
        return Ok(());
    }
    let key = stored.name.mark_key();
    // Undeleted since it was read.
    let Some(bytes) = source.store().get_opt(&key).await? else {
        return Ok(());
    };
    let mark = Mark::decode(&bytes);
    let mark = mark.map_err(|damage| stele_table::Error::Corrupt {
        key: key.clone(),
        damage,
    })?;
    if mark.pin == stored.digest {
        target.store().put_new(&key, bytes).await?;
        report.pins_marked += 1;
    }
    Ok(())
}

/// The bytes of an object, when they are still the ones that were read.
async fn whole(store: &TenantStore, key: &str, digest: Digest) -> Result<Option<Bytes>> {
    let bytes = store.get_opt(key).await?;
    Ok(bytes.filter(|bytes| content_digest(bytes) == digest))
}

/// Brings over what a pin keeps and the target lacks. `state` is the target's newest version.
pub(super) async fn complete(
    copier: &Copier<'_>,
    kept: &[Kept],
    state: &TableState,
    report: &mut ReplicateReport,
) -> Result<()> {
    let tenant = copier.to().tenant();
    let known = |digest: Digest| {
        let whole = copier.options.whole_pins();
        whole.contains(&(tenant.clone(), digest))
    };
    let open: Vec<&Kept> = kept
        .iter()
        .filter(|kept| kept.pin.version <= state.version && !known(kept.digest))
        .collect();
    if open.is_empty() {
        return Ok(());
    }
    let index = copier.source.index().await?;
    let there = copier.there("").await?;
    for kept in open {
        let reach = copier.source.reach(&index, kept.pin.version).await?;
        match complete_one(copier, &kept.pin, &reach, &there).await? {
            true => {
                let mut whole = copier.options.whole_pins();
                whole.insert((tenant.clone(), kept.digest));
            }
            false => {
                tracing::error!(pin = %kept.pin.name, "the target has swept what it needs");
                report.pins_missing.push(kept.pin.name.clone());
            }
        }
    }
    Ok(())
}

/// Whether the version of a pin loads at the target now, and all its objects are there.
async fn complete_one(
    copier: &Copier<'_>,
    pin: &Pin,
    reach: &Reach,
    there: &BTreeSet<String>,
) -> Result<bool> {
    let files = reach.state.files.values();
    let files = files.map(|file| wanted_file(file, false));
    let ledger = reach.ledger.values();
    let ledger = ledger.map(|object| wanted_ledger(object, false));
    // What is there was compared when it was put.
    let is_missing = |wanted: &Wanted| !there.contains(&wanted.key);
    let missing: Vec<Wanted> = files.chain(ledger).filter(is_missing).collect();
    copier.plan(&missing);
    copier.all(&missing, there).await?;
    let entries = reach.entries.iter().rev();
    let entries = entries.map(|(version, digest)| (keys::log_entry(*version), *digest));
    let missing: Vec<Wanted> = entries
        .filter(|(key, _)| !there.contains(key))
        .map(|(key, digest)| Wanted {
            key,
            size_bytes: 0,
            digest,
            optional: false,
        })
        .collect();
    if !missing.is_empty() && !is_young(copier.target, pin.version).await? {
        return Ok(false);
    }
    copier.plan(&missing);
    copier.all(&missing, there).await?;
    let checkpoint = keys::checkpoint(reach.base.version);
    if reach.has_checkpoint && !there.contains(&checkpoint) {
        let bytes = copier.source.checkpoint_bytes(reach.base.version).await?;
        copier.to().put_new(&checkpoint, bytes).await?;
    }
    let index = copier.target.index().await?;
    let loaded = copier.target.reach(&index, pin.version).await;
    Ok(loaded.is_ok_and(|loaded| pin.check(&loaded.state).is_ok()))
}

/// Whether an entry that is put now would not seem to be a stray one, much younger than those that
/// follow it.
async fn is_young(target: &TableLog, version: u64) -> Result<bool> {
    let listed = target.store().list(keys::LOG).await?;
    let history_us = target.options().history_us;
    let index = LogIndex::new(&listed, history_us);
    let later = index.entries().filter(|(later, _)| *later > version);
    let oldest_us = later.map(|(_, stored_us)| stored_us).min();
    let now_us = target.store().tier().now_us().await?;
    Ok(oldest_us.is_none_or(|us| now_us.saturating_sub(us) < history_us / 4))
}
