//! The other tiers of a run: what they hold, and whether they can do without an object, too.

use std::collections::BTreeSet;
use std::sync::Arc;

use futures::future::{join_all, try_join_all};
use object_store::ObjectStoreExt;
use stele_model::{Digest, L0Name, chain, sabotaged};
use stele_store::{TenantStore, keys};
use stele_table::{Frozen, LogIndex, Pins, TableState, deletion_frozen};

use crate::compactor::Compactor;
use crate::error::{Error, Result};
use crate::report::DeletionRefused;
use crate::witness::{Standing, Witness};

/// Objects asked for at once.
const HEADS: usize = 16;

/// How far two logs are the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Common {
    /// Up to this version, byte for byte: both have the entry, and entries name the digest of
    /// the one before.
    At(u64),
    /// The other tier has no table yet.
    NoTable,
    /// One of them has swept the entry that the other ends with: nothing is proved.
    Unproven,
    /// They hold other entries of this version.
    Diverged(u64),
}

/// Another tier, as this run found it.
pub(super) struct Other {
    pub witness: Witness,
    /// Its pins, read before any table.
    pub pins: Pins,
    /// The newest version there.
    pub state: Option<Arc<TableState>>,
    pub index: LogIndex,
    /// Its L0 objects, listed after this tier's newest version was loaded.
    l0: BTreeSet<Digest>,
    pub common: Common,
}

/// All other tiers.
pub(super) struct Others {
    /// Whether this tier's log may be written.
    pub may_commit: bool,
    pub each: Vec<Other>,
}

impl Others {
    pub fn is_alone(&self) -> bool {
        self.may_commit && self.each.is_empty()
    }

    /// Whether every other tier has what `version` of this log consumed from the object in its
    /// own ledger, because the entry is in its log too and not revoked there, or the object itself
    /// in its own L0.
    pub fn have(&self, name: &L0Name, version: u64) -> bool {
        self.each.iter().all(|other| {
            let logged = matches!(other.common, Common::At(common) if common >= version);
            let revoked = other.state.as_ref().is_some_and(|s| s.is_revoked(version));
            (logged && !revoked) || other.l0.contains(&name.digest)
        })
    }

    /// Whether any other tier has the object in its L0.
    fn lists(&self, digest: &Digest) -> bool {
        self.each.iter().any(|other| other.l0.contains(digest))
    }

    /// The version up to which all logs are the same; `None` while that is not known.
    pub fn common(&self) -> Option<u64> {
        let mut common = u64::MAX;
        for other in &self.each {
            match other.common {
                Common::At(version) => common = common.min(version),
                Common::NoTable | Common::Unproven | Common::Diverged(_) => return None,
            }
        }
        Some(common)
    }

    /// The tiers that keep this one from deleting all that it could: their logs do not reach
    /// `version`.
    pub fn behind(&self, version: u64) -> Vec<String> {
        let reaches =
            |other: &&Other| !matches!(other.common, Common::At(common) if common >= version);
        let behind = self.each.iter().filter(reaches);
        behind.map(|other| other.witness.tier.clone()).collect()
    }

    /// Whether a file that this log removed can go as far as the other tiers' newest versions
    /// say: it is live in none of them; and one that is ahead has not forgotten it. Once a name
    /// is forgotten it may be used again, and the object here be the copy of a new file.
    pub fn let_file_go(&self, path: &str, removed_us: i64, own: &TableState) -> bool {
        self.each.iter().all(|other| match &other.state {
            None => false,
            Some(state) => {
                let is_it = |file: &stele_table::RemovedFile| {
                    file.path == path && file.removed_us == removed_us
                };
                let is_known = || state.removed.iter().any(is_it);
                !state.files.contains_key(path) && (state.version <= own.version || is_known())
            }
        })
    }

    /// The same for a ledger object.
    pub fn let_ledger_go(&self, key: &str, own: &TableState) -> bool {
        self.each.iter().all(|other| match &other.state {
            None => false,
            Some(state) => {
                let is_known = || state.ledger.retired.iter().any(|object| object.key == key);
                state.version <= own.version || is_known()
            }
        })
    }

    /// Whether a path is live in the newest version of another tier.
    pub fn any_live(&self, path: &str) -> bool {
        let live = |state: &Arc<TableState>| state.files.contains_key(path);
        let mut states = self.each.iter().filter_map(|other| other.state.as_ref());
        states.any(live)
    }

    /// Looks at the newest versions again.
    pub async fn refresh(&mut self) -> Result<()> {
        let reads = self.each.iter().map(|other| async {
            match &other.state {
                None => Ok::<_, Error>(None),
                Some(known) => Ok(Some(other.witness.log.refresh(known).await?)),
            }
        });
        let states = try_join_all(reads).await?;
        for (other, state) in self.each.iter_mut().zip(states) {
            other.state = state;
        }
        Ok(())
    }

    /// Why nothing may be deleted on any tier, if that is so.
    pub async fn frozen(&self) -> Result<Option<DeletionRefused>> {
        let reads = self.each.iter();
        let reads = reads.map(|other| deletion_frozen(other.witness.log.store()));
        let frozen = try_join_all(reads).await?;
        let mut pairs = self.each.iter().zip(frozen);
        Ok(pairs.find_map(|(other, frozen)| Some(refusal(Some(&other.witness), frozen?))))
    }

    /// Of L0 objects that are gone here, those that are gone everywhere.
    pub fn gone_everywhere(&self, digests: &mut Vec<Digest>) {
        digests.retain(|digest| !self.lists(digest));
    }

    /// Of names that the log could forget (paths of files, keys of ledger objects), those whose
    /// objects no other tier has: a forgotten name may be used again. A tier that cannot be asked
    /// counts as one that has it.
    pub async fn absent_names(&self, names: Vec<String>) -> Vec<String> {
        let mut absent = Vec::new();
        for some in names.chunks(HEADS) {
            let asked = some.iter().map(|name| self.is_absent(key_of(name)));
            let answers = join_all(asked).await;
            let gone = some.iter().zip(answers).filter(|(_, gone)| *gone);
            absent.extend(gone.map(|(name, _)| name.clone()));
        }
        absent
    }

    async fn is_absent(&self, key: String) -> bool {
        let asked = self.each.iter().map(|other| async {
            let store: &TenantStore = other.witness.log.store();
            let head = store.tier().object_store();
            let head = head.head(&store.path(&key)).await;
            matches!(head, Err(object_store::Error::NotFound { .. }))
        });
        join_all(asked).await.into_iter().all(|gone| gone)
    }
}

/// The key of a name that the log may forget.
fn key_of(name: &str) -> String {
    let ledger = name.strip_prefix(keys::LEDGER);
    match ledger.is_some_and(|rest| rest.starts_with('/')) {
        true => name.to_owned(),
        false => keys::data_file(name),
    }
}

fn refusal(witness: Option<&Witness>, frozen: Frozen) -> DeletionRefused {
    DeletionRefused::Frozen {
        tier: witness.map(|witness| witness.tier.clone()),
        reason: frozen.reason,
        since_us: frozen.since_us,
    }
}

fn unreadable(tier: Option<&str>, error: &dyn std::error::Error) -> DeletionRefused {
    DeletionRefused::Unreadable {
        tier: tier.map(str::to_owned),
        error: chain(error),
    }
}

impl Compactor {
    /// Whether deletion is frozen on this tier.
    pub(crate) async fn own_freeze(&self) -> Result<Option<DeletionRefused>> {
        let frozen = deletion_frozen(&self.store).await?;
        Ok(frozen.map(|frozen| refusal(None, frozen)))
    }

    /// Whether anything keeps this tier from deleting at all: a freeze on any tier, or a tier
    /// that cannot be asked.
    pub(crate) async fn deletion_refused(&self) -> Result<Option<DeletionRefused>> {
        if let Some(refused) = self.own_freeze().await? {
            return Ok(Some(refused));
        }
        let standing = match self.standing().await {
            Ok(standing) => standing,
            Err(refused) => return Ok(Some(refused)),
        };
        for witness in &standing.others {
            match deletion_frozen(witness.log.store()).await {
                Ok(None) => {}
                Ok(Some(frozen)) => return Ok(Some(refusal(Some(witness), frozen))),
                Err(error) => return Ok(Some(unreadable(Some(&witness.tier), &error))),
            }
        }
        Ok(None)
    }

    async fn standing(&self) -> Result<Standing, DeletionRefused> {
        match &self.witnesses {
            None => Ok(Standing::alone()),
            Some(_) if sabotaged!(WitnessesUnasked) => Ok(Standing::alone()),
            Some(witnesses) => {
                let standing = witnesses.standing().await;
                standing.map_err(|error| unreadable(None, error.as_ref()))
            }
        }
    }

    /// What must be known of the other tiers before this tier's table is read: their switches and
    /// their pins.
    pub(super) async fn others(&self) -> Result<Others, DeletionRefused> {
        let standing = self.standing().await?;
        let reads = standing.others.into_iter().map(|witness| async {
            let tier = witness.tier.clone();
            let failed = |error: stele_table::Error| unreadable(Some(&tier), &error);
            let frozen = deletion_frozen(witness.log.store()).await.map_err(failed)?;
            if let Some(frozen) = frozen {
                return Err(refusal(Some(&witness), frozen));
            }
            let pins = Pins::read(witness.log.store()).await.map_err(failed)?;
            Ok(Other {
                witness,
                pins,
                state: None,
                index: LogIndex::default(),
                l0: BTreeSet::new(),
                common: Common::NoTable,
            })
        });
        Ok(Others {
            may_commit: standing.may_commit,
            each: try_join_all(reads).await?,
        })
    }

    /// Loads the other tiers' tables cold and lists their L0, after this tier's newest version
    /// was loaded.
    pub(super) async fn others_now(
        &self,
        others: &mut Others,
        own: &TableState,
        index: &LogIndex,
    ) -> Result<(), DeletionRefused> {
        let reads = others.each.iter_mut().map(|other| async {
            let tier = other.witness.tier.clone();
            let read = self.other_now(other, own, index).await;
            read.map_err(|error| unreadable(Some(&tier), &error))
        });
        try_join_all(reads).await?;
        Ok(())
    }

    async fn other_now(&self, other: &mut Other, own: &TableState, index: &LogIndex) -> Result<()> {
        let log = &other.witness.log;
        other.state = log.load().await?;
        other.index = log.index().await?;
        let listed = log.store().l0_list().await?;
        other.l0 = listed.iter().map(|object| object.name.digest).collect();
        let Some(state) = &other.state else {
            return Ok(());
        };
        // The shorter log's last entry, in the other one. What lies below a gap proves nothing:
        // it may be an entry that was written anew after its sweep.
        let (end, longer, kept) = match state.version <= own.version {
            true => (state.as_ref(), &self.log, index),
            false => (own, log, &other.index),
        };
        let is_kept = kept
            .first_of_tail()
            .is_some_and(|first| first <= end.version);
        let found = match is_kept {
            true => longer.entry_digest(end.version).await?,
            false => None,
        };
        other.common = match found {
            None => Common::Unproven,
            Some(digest) if digest == end.entry_digest => Common::At(end.version),
            Some(_) => Common::Diverged(end.version),
        };
        Ok(())
    }
}

#[cfg(test)]
mod tests;
