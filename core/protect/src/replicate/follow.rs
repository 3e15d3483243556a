//! A target that has a table: entry by entry, each onto an equal one.

use std::collections::BTreeSet;
use std::sync::Arc;

use stele_format::content_digest;
use stele_model::{Digest, sabotaged};
use stele_store::keys;
use stele_table::{CopyStep, TableLog, TableState};

use crate::equal::continues;

use super::fetch::{Copier, Wanted, wanted_file, wanted_ledger};
use super::{ReplicateError, ReplicateReport, Result};

/// Entries between two heads.
const HEAD_EVERY: u64 = 20;

/// Brings the target from `on`, its newest version, to `newest` of the source, or finds that it is
/// ahead of it. Answers the target's newest version.
pub(super) async fn follow(
    copier: &Copier<'_>,
    newest: &Arc<TableState>,
    on: Arc<TableState>,
    report: &mut ReplicateReport,
) -> Result<Arc<TableState>> {
    if !sabotaged!(CopyUnchained) {
        check_prefix(copier, newest, &on).await?;
    }
    let mut state = on;
    let first = state.version;
    while state.version < newest.version {
        let Some(step) = copier.source.copy_step(&state).await? else {
            return Err(behind(copier, state.version).await?);
        };
        copy_step(copier, &state, &step).await?;
        report.entries += 1;
        state = step.state;
        if (state.version - first).is_multiple_of(HEAD_EVERY) && state.version < newest.version {
            copier.target.copy_head(&state).await;
        }
    }
    if state.version > first {
        copier.target.copy_head(&state).await;
    }
    Ok(state)
}

/// What an entry adds, then the entry.
async fn copy_step(copier: &Copier<'_>, on: &TableState, step: &CopyStep) -> Result<()> {
    let files = step.entry.add.iter().map(|file| wanted_file(file, false));
    let ledger = step.ledger.values();
    let ledger = ledger.map(|object| wanted_ledger(object, false));
    let objects: Vec<Wanted> = files.chain(ledger).collect();
    let entry = Wanted {
        key: keys::log_entry(step.state.version),
        size_bytes: step.bytes.len() as u64,
        digest: step.state.entry_digest,
        optional: false,
    };
    copier.plan(&objects);
    copier.plan(std::slice::from_ref(&entry));
    if sabotaged!(LogBeforeData) {
        copier.target.copy_entry(on, step).await?;
    }
    let copied = copier.all(&objects, &BTreeSet::new()).await;
    copied.map_err(|error| gone(error, step.state.version))?;
    if !copier.target.copy_entry(on, step).await? {
        let target_entry = entry_digest(copier.target, step.state.version).await?;
        return Err(ReplicateError::Diverged {
            tenant: copier.to().tenant().clone(),
            version: step.state.version,
            source_entry: step.state.entry_digest,
            target_entry: target_entry.unwrap_or_default(),
        });
    }
    copier.tell(&entry, Some(entry.size_bytes));
    Ok(())
}

/// An object that is missing at the source, with the version that needs it.
pub(super) fn gone(error: ReplicateError, version: u64) -> ReplicateError {
    match error {
        ReplicateError::Store(stele_store::Error::NotFound { key }) => {
            ReplicateError::Gone { key, version }
        }
        other => other,
    }
}

/// One of the two must be a prefix of the other, judged at the newest version both have: an entry
/// names the digest of the one before, so equal entries have equal histories.
async fn check_prefix(copier: &Copier<'_>, newest: &TableState, on: &TableState) -> Result<()> {
    let version = newest.version.min(on.version);
    let at = async |log: &TableLog, state: &TableState| -> Result<Option<Digest>> {
        match state.version == version {
            true => Ok(Some(state.entry_digest)),
            false => entry_digest(log, version).await,
        }
    };
    let source_entry = at(copier.source, newest).await?;
    let target_entry = at(copier.target, on).await?;
    match (source_entry, target_entry) {
        (Some(source_entry), Some(target_entry)) if source_entry == target_entry => Ok(()),
        (Some(source_entry), Some(target_entry)) => Err(ReplicateError::Diverged {
            tenant: copier.to().tenant().clone(),
            version,
            source_entry,
            target_entry,
        }),
        (None, _) => Err(behind(copier, version).await?),
        // Promoted so long ago that it has swept what it was promoted with.
        (Some(_), None) if continues(copier.source, newest, copier.target, on).await? => Ok(()),
        (Some(source_entry), None) => Err(ReplicateError::Diverged {
            tenant: copier.to().tenant().clone(),
            version,
            source_entry,
            target_entry: Digest::default(),
        }),
    }
}

async fn entry_digest(log: &TableLog, version: u64) -> Result<Option<Digest>> {
    let bytes = log.store().get_opt(&keys::log_entry(version)).await?;
    Ok(bytes.map(|bytes| content_digest(&bytes)))
}

async fn behind(copier: &Copier<'_>, version: u64) -> Result<ReplicateError> {
    let index = copier.source.index().await?;
    Ok(ReplicateError::Behind {
        tenant: copier.to().tenant().clone(),
        version,
        oldest: index.first_of_tail().unwrap_or_default(),
    })
}
