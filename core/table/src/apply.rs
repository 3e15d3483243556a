//! One version from the version before it and the next entry. Pure; used by every reader and by
//! the committer itself, so that all of them hold the same state.

use std::collections::HashSet;
use std::sync::Arc;

use stele_model::Digest;

use crate::commit::{CommitKind, ConsumedBatch, check_rows};
use crate::entry::{Consumed, LogEntry};
use crate::error::Damage;
use crate::expired::Change;
use crate::head::{Manifest, files_digest};
use crate::ledger::LedgerFile;
use crate::restored::apply_restored;
use crate::state::{LedgerObject, LedgerOperation, RemovedFile, TableState, Totals, Unswept};

/// The object an entry names beside itself.
#[derive(Debug, Clone)]
pub(crate) enum Attached {
    /// Nothing was consumed.
    Nothing,
    /// What the commit consumed.
    Ledger(Arc<LedgerFile>),
    /// The manifest of a ledger commit.
    Manifest(Arc<Manifest>),
}

/// Version 0.
pub(crate) fn create(entry: &LogEntry, digest: Digest) -> Result<TableState, Damage> {
    let meta = entry.meta.clone();
    let meta = meta.ok_or_else(|| Damage::value("kind", entry.kind().as_str()))?;
    if !(entry.add.is_empty() && entry.remove.is_empty() && entry.facts.consumed.objects == 0) {
        return Err(Damage::value("action", "files in version 0"));
    }
    Ok(TableState {
        timestamp_us: entry.timestamp_us(),
        entry_digest: digest,
        operation: entry.operation().to_owned(),
        meta,
        fence: entry.fence().cloned(),
        ..TableState::default()
    })
}

/// The version after `state`: `entry`, whose bytes have `digest`.
pub(crate) fn apply(
    state: &TableState,
    entry: &LogEntry,
    digest: Digest,
    attached: &Attached,
) -> Result<TableState, Damage> {
    if entry.version != state.version + 1 {
        return Err(Damage::Version {
            got: entry.version,
            expected: state.version + 1,
        });
    }
    if entry.facts.previous != state.entry_digest {
        return Err(Damage::Chain {
            got: entry.facts.previous,
            expected: state.entry_digest,
        });
    }
    let mut next = state.clone();
    next.version = entry.version;
    next.timestamp_us = entry.timestamp_us();
    next.entry_digest = digest;
    next.operation = entry.operation().to_owned();
    if entry.restored().is_none() {
        check_conserved(state, entry, attached)?;
    }
    check_expiry(state, entry)?;
    check_fence(state, entry)?;
    move_files(&mut next, entry)?;
    forget(&mut next, entry)?;
    match attached {
        Attached::Nothing => {}
        Attached::Ledger(file) => consume(&mut next, entry, file)?,
        Attached::Manifest(manifest) => merge_ledger(&mut next, entry, manifest)?,
    }
    add_totals(&mut next.totals, entry);
    next.expired = entry.facts.expired.unwrap_or(next.expired);
    apply_restored(&mut next, entry)?;
    if let Some(fence) = entry.fence() {
        next.fence = Some(fence.clone());
    }
    Ok(next)
}

fn check_conserved(
    state: &TableState,
    entry: &LogEntry,
    attached: &Attached,
) -> Result<(), Damage> {
    let consumed: Vec<&ConsumedBatch> = match attached {
        Attached::Ledger(file) => file.effective().collect(),
        Attached::Nothing | Attached::Manifest(_) => Vec::new(),
    };
    let removed = entry.remove.iter().filter_map(|path| state.files.get(path));
    let removed: Vec<_> = removed.map(AsRef::as_ref).collect();
    let claim = entry.conservation();
    claim
        .check()
        .and_then(|()| check_rows(claim, &removed, &consumed, &entry.add))
        .map_err(|refusal| Damage::Conservation(Box::new(refusal)))
}

fn check_expiry(state: &TableState, entry: &LogEntry) -> Result<(), Damage> {
    let change = Change {
        kind: entry.kind(),
        add: &entry.add,
        remove: &entry.remove,
        to: entry.facts.expired,
        rows_expired: entry.conservation().expired,
        objects: entry.facts.consumed.objects,
    };
    let refused = |refusal| Damage::Expiry(Box::new(refusal));
    change.check(state).map_err(refused)
}

/// A fence changes whose table it is and nothing else, and never back.
fn check_fence(state: &TableState, entry: &LogEntry) -> Result<(), Damage> {
    let Some(fence) = entry.fence() else {
        return Ok(());
    };
    let facts = &entry.facts;
    let is_empty = entry.add.is_empty()
        && entry.remove.is_empty()
        && facts.ledger.is_none()
        && facts.gone.is_empty()
        && facts.forget_removed.is_empty();
    let known = state.fence.as_ref().map_or(0, |known| known.epoch);
    if !is_empty || fence.epoch <= known {
        return Err(Damage::value("fence", &fence.to_string()));
    }
    Ok(())
}

fn move_files(next: &mut TableState, entry: &LogEntry) -> Result<(), Damage> {
    let damage = |path: &str, what| Damage::File {
        path: path.to_owned(),
        what,
    };
    for path in &entry.remove {
        let file = next.files.remove(path);
        let file = file.ok_or_else(|| damage(path, "removed, but not live"))?;
        next.removed.push(RemovedFile {
            path: path.clone(),
            size_bytes: file.stats.size_bytes,
            removed_us: entry.timestamp_us(),
        });
    }
    if entry.restored().is_some() {
        // They are the same files: a removed one stayed because a pin kept it.
        let back: HashSet<&String> = entry.add.iter().map(|file| &file.path).collect();
        next.removed.retain(|file| !back.contains(&file.path));
    }
    let tombs: HashSet<&String> = next.removed.iter().map(|file| &file.path).collect();
    for file in &entry.add {
        if tombs.contains(&file.path) {
            return Err(damage(&file.path, "added, but the name is already used"));
        }
        let entry = Arc::new(file.clone());
        if next.files.insert(file.path.clone(), entry).is_some() {
            return Err(damage(&file.path, "added, but live"));
        }
    }
    Ok(())
}

fn forget(next: &mut TableState, entry: &LogEntry) -> Result<(), Damage> {
    for digest in &entry.facts.gone {
        if next.unswept.remove(digest).is_none() {
            return Err(Damage::value("gone", &digest.to_string()));
        }
    }
    let forgotten: HashSet<&String> = entry.facts.forget_removed.iter().collect();
    if !forgotten.is_empty() {
        let before = next.removed.len() + next.ledger.retired.len();
        next.removed.retain(|file| !forgotten.contains(&file.path));
        next.ledger.retired.retain(|o| !forgotten.contains(&o.key));
        let after = next.removed.len() + next.ledger.retired.len();
        if before - after != forgotten.len() {
            return Err(Damage::Disagrees {
                what: "forget_removed",
            });
        }
    }
    Ok(())
}

fn consume(next: &mut TableState, entry: &LogEntry, file: &LedgerFile) -> Result<(), Damage> {
    let facts = &entry.facts;
    let (Some(object), [rows]) = (&facts.ledger, file.operations.as_slice()) else {
        return Err(Damage::Disagrees {
            what: "the ledger file",
        });
    };
    let sums = Consumed::of(&rows.objects);
    if rows.operation != facts.operation_id
        || rows.version != entry.version
        || sums != facts.consumed
        || rows.overridden != facts.conservation.overridden
    {
        return Err(Damage::Disagrees {
            what: "the ledger file",
        });
    }
    for consumed in &rows.objects {
        let unswept = Unswept {
            name: consumed.name,
            committed_us: facts.timestamp_us,
            version: entry.version,
        };
        let before = next.unswept.insert(consumed.name.digest, unswept);
        if before.is_some() {
            return Err(Damage::value("consumed twice", &consumed.name.to_string()));
        }
    }
    next.ledger.recent.push(LedgerOperation {
        operation: facts.operation_id.clone(),
        version: entry.version,
        object: object.clone(),
        batches: file.batches as u64,
    });
    Ok(())
}

/// A ledger commit changes where the ledger is and nothing else; the manifest must agree.
fn merge_ledger(
    next: &mut TableState,
    entry: &LogEntry,
    manifest: &Manifest,
) -> Result<(), Damage> {
    let disagrees = |what| Err(Damage::Disagrees { what });
    let Some(object) = &entry.facts.manifest else {
        return disagrees("the manifest");
    };
    if entry.kind() != CommitKind::Ledger || !entry.add.is_empty() || !entry.remove.is_empty() {
        return disagrees("a ledger commit with files");
    }
    if manifest.version != next.version || manifest.meta != next.meta {
        return disagrees("the manifest's version");
    }
    if manifest.unswept_by_digest() != next.unswept {
        return disagrees("the manifest's unswept objects");
    }
    if manifest.totals != next.totals || manifest.removed != next.removed {
        return disagrees("the manifest's totals");
    }
    if manifest.revoked != next.revoked {
        return disagrees("the manifest's revoked versions");
    }
    if manifest.expired != next.expired {
        return disagrees("the manifest's expired periods");
    }
    if manifest.fence != next.fence {
        return disagrees("the manifest's fence");
    }
    if manifest.files_digest != files_digest(&next.files)? {
        return disagrees("the manifest's file list");
    }
    next.ledger = manifest.ledger_at(object);
    Ok(())
}

fn add_totals(totals: &mut Totals, entry: &LogEntry) {
    let (consumed, moved) = (&entry.facts.consumed, &entry.facts.conservation);
    totals.objects = totals.objects.saturating_add(consumed.objects);
    totals.batches = totals.batches.saturating_add(consumed.batches);
    totals.duplicate_batches = totals
        .duplicate_batches
        .saturating_add(consumed.duplicate_batches);
    totals.rows = totals.rows.saturating_add(consumed.rows);
    totals.hash = totals.hash.union(consumed.hash);
    totals.duplicates = totals.duplicates.saturating_add(moved.duplicates);
    totals.overridden = totals.overridden.saturating_add(moved.overridden);
    totals.expired = totals.expired.saturating_add(moved.expired);
    totals.hash_dropped = totals.hash_dropped.union(moved.hash_dropped);
}

/// The object of an entry, when it names one: what the loader must fetch.
pub(crate) fn names(entry: &LogEntry) -> Option<(&LedgerObject, bool)> {
    let facts = &entry.facts;
    let ledger = facts.ledger.as_ref().map(|object| (object, false));
    ledger.or_else(|| facts.manifest.as_ref().map(|object| (object, true)))
}
