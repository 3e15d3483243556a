//! Restore in place: one commit makes the files of a pinned version live again, and revokes what
//! the ledger took in since.
//!
//! Ledger rows are never deleted. A revoked batch is not effective: LIST − effective ledger has
//! its object again, and absorbs it. What was revoked is a range of versions, so that it is the
//! same wherever a row is filed by now.

use std::collections::HashSet;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use stele_model::{Digest, RowsHash};

use crate::commit::{Commit, CommitKind, Conservation};
use crate::entry::LogEntry;
use crate::error::{Damage, Refusal};
use crate::expired::Expired;
use crate::file::FileEntry;
use crate::state::{TableState, Totals};

/// What a restore in place says of the version that it brings back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Restored {
    /// The version.
    pub version: u64,
    /// The digest of its entry.
    pub entry: Digest,
    /// The hash of the plan that was confirmed.
    pub plan: Digest,
    /// Its sums: those of the table from here on.
    pub totals: Totals,
    /// What had expired then, and no more from here on.
    #[serde(default, skip_serializing_if = "Expired::is_nothing")]
    pub expired: Expired,
    /// What was revoked then, and so is again: it can lie in what was revoked later.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub revoked: Vec<Revoked>,
}

impl Restored {
    /// What brings `state` back.
    #[must_use]
    pub fn of(state: &TableState, plan: Digest) -> Self {
        Self {
            version: state.version,
            entry: state.entry_digest,
            plan,
            totals: state.totals,
            expired: state.expired,
            revoked: state.revoked.clone(),
        }
    }
}

/// Versions whose ledger rows are not effective: a restore took them back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Revoked {
    /// The version that was brought back; it is not revoked.
    pub after: u64,
    /// The version of the restore.
    pub before: u64,
    /// The hash of the plan that was confirmed.
    pub plan: Digest,
}

/// Whether the rows that `version` filed are revoked.
pub(crate) fn is_revoked(revoked: &[Revoked], version: u64) -> bool {
    let holds = |range: &Revoked| range.after < version && version < range.before;
    revoked.iter().any(holds)
}

impl TableState {
    /// Whether the ledger rows of `version` are revoked.
    #[must_use]
    pub fn is_revoked(&self, version: u64) -> bool {
        is_revoked(&self.revoked, version)
    }
}

/// Rows and hash of the samples of some files.
fn samples<'a>(files: impl Iterator<Item = &'a FileEntry>) -> (u128, RowsHash) {
    let files = files.filter(|file| file.kind.holds_samples());
    files.fold((0, RowsHash::default()), |(rows, hash), file| {
        let more = u128::from(file.stats.rows);
        (rows + more, hash.union(file.stats.rows_hash))
    })
}

/// Whether the files of a restored version are what its sums say (I4): what had been consumed
/// without what had been dropped.
fn check_sums(restored: &Restored, live: (u128, RowsHash)) -> Result<(), Refusal> {
    let totals = &restored.totals;
    let (rows, hash) = live;
    let dropped = [totals.duplicates, totals.overridden, totals.expired];
    let dropped: u128 = dropped.into_iter().map(u128::from).sum();
    let different = |what, left: String, right: String| Refusal::Conservation { what, left, right };
    let expected = u128::from(totals.rows);
    if rows + dropped != expected {
        let (left, right) = ((rows + dropped).to_string(), expected.to_string());
        return Err(different(
            "rows restored + dropped and consumed",
            left,
            right,
        ));
    }
    if hash.union(totals.hash_dropped) != totals.hash {
        let left = hash.union(totals.hash_dropped).to_string();
        let right = totals.hash.to_string();
        return Err(different(
            "hash restored + dropped and consumed",
            left,
            right,
        ));
    }
    Ok(())
}

impl Commit {
    /// Checks what a restore must be, and that nothing else is one.
    pub(crate) fn check_restored(&self, on: &TableState) -> Result<(), Refusal> {
        let is_restore = self.kind == CommitKind::Restore;
        let restored = match (&self.restored, is_restore) {
            (None, false) => return Ok(()),
            (Some(restored), true) => restored,
            _ => return Err(Refusal::Kind),
        };
        let is_alone = self.consumed.is_empty()
            && self.gone.is_empty()
            && self.forget_removed.is_empty()
            && self.expired.is_none()
            && self.conservation == Conservation::default();
        if !is_alone || restored.version >= on.version {
            return Err(Refusal::Kind);
        }
        let removed: HashSet<&String> = self.remove.iter().collect();
        let stays = on.files.iter().filter(|(path, _)| !removed.contains(path));
        let stays = stays.map(|(_, file)| file.as_ref());
        check_sums(restored, samples(stays.chain(&self.add)))
    }
}

/// The version after a restore, whose files were moved already.
pub(crate) fn apply_restored(next: &mut TableState, entry: &LogEntry) -> Result<(), Damage> {
    let Some(restored) = entry.restored() else {
        return Ok(());
    };
    let refused = |refusal| Damage::Conservation(Box::new(refusal));
    let live = next.files.values().map(Arc::as_ref);
    check_sums(restored, samples(live)).map_err(refused)?;
    let facts = &entry.facts;
    let is_alone = facts.ledger.is_none()
        && facts.gone.is_empty()
        && facts.forget_removed.is_empty()
        && facts.conservation == Conservation::default();
    if !is_alone || restored.version + 1 >= entry.version {
        return Err(Damage::value("restored", &restored.version.to_string()));
    }
    next.totals = restored.totals;
    next.expired = restored.expired;
    // What was consumed since is to be absorbed again, where it still exists.
    next.unswept
        .retain(|_, object| object.version <= restored.version);
    next.revoked.clone_from(&restored.revoked);
    next.revoked.push(Revoked {
        after: restored.version,
        before: entry.version,
        plan: restored.plan,
    });
    Ok(())
}
