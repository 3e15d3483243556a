//! Bringing every other tier to where the primary is.

use std::collections::BTreeSet;
use std::sync::Mutex;

use stele_model::{Digest, L0Name, TenantId, TierId};
use stele_store::{OpenTier, RepairIntent, Role, TierState};
use stele_table::TableLog;

use super::heal::heal;
use super::{MigrateError, Migration, Now, Result, lock, tenants_of, usable};
use crate::losses::copy_lost_batches;
use crate::replicate::{
    L0Report, ReplicateError, ReplicateReport, SettingsReport, copy_control, copy_l0,
    copy_settings, replicate, return_l0,
};
use crate::restore::CopyProgress;

/// What one run did for one tier.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TierSynced {
    /// The tier.
    pub id: TierId,
    /// Its state afterwards.
    pub state: TierState,
    /// Objects copied to it, of all kinds.
    pub copied: u64,
    /// Their bytes.
    pub copied_bytes: u64,
    /// L0 objects that it had and the primary lacked, copied to the primary.
    pub returned: u64,
    /// Data files that one of the two had lost, brought back from the other.
    pub healed: u64,
    /// Repair intents that were fulfilled.
    pub repaired: u64,
    /// Why it could not be brought up to date.
    pub failed: Option<String>,
}

impl TierSynced {
    pub(super) fn of(open: &OpenTier) -> Self {
        Self {
            id: open.member.id.clone(),
            state: open.member.state,
            copied: 0,
            copied_bytes: 0,
            returned: 0,
            healed: 0,
            repaired: 0,
            failed: None,
        }
    }
}

/// What one run did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SyncReport {
    /// The epoch afterwards.
    pub epoch: u64,
    /// Tenants whose promotion was finished.
    pub fenced: u64,
    /// Every tier but the primary.
    pub tiers: Vec<TierSynced>,
}

impl SyncReport {
    /// Whether every tier was brought up to date.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        self.tiers.iter().all(|tier| tier.failed.is_none())
    }
}

/// How far a tier is behind the primary, for one tenant.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Lag {
    /// Versions of the primary's log that it does not hold.
    pub versions: u64,
    /// Unabsorbed L0 objects that it does not hold.
    pub objects: u64,
    /// Open repair intents for it.
    pub intents: u64,
}

impl Migration {
    /// Brings every other tier to where the primary is, and lets those join that are complete.
    /// One that cannot be reached does not hold up the others.
    ///
    /// # Errors
    /// When the tier set or the primary cannot be read, or a promotion not be finished.
    pub async fn sync(
        &self,
        progress: &(dyn Fn(&TierId, CopyProgress) + Sync),
    ) -> Result<SyncReport> {
        self.sync_those(|_| true, progress).await
    }

    /// The same for the tiers that have joined already, as a server does it all the time.
    ///
    /// # Errors
    /// As there.
    pub async fn follow(&self) -> Result<SyncReport> {
        let has_joined = |open: &OpenTier| open.member.state != TierState::Joining;
        self.sync_those(has_joined, &|_, _| {}).await
    }

    async fn sync_those(
        &self,
        is_asked: impl Fn(&OpenTier) -> bool,
        progress: &(dyn Fn(&TierId, CopyProgress) + Sync),
    ) -> Result<SyncReport> {
        let now = self.now().await?;
        // Before anything is listed: who joins must have got every batch since then.
        let is_settled = self.left_us(&now).await?.is_none();
        let fenced = match is_settled {
            true => self.finish(&now).await?,
            false => 0,
        };
        let mut tiers = Vec::new();
        let primary = now.primary()?.member.id.clone();
        for open in &now.current.members {
            let is_active = open.member.is_active() && open.member.id != primary;
            if is_active && is_asked(open) {
                let tell = |progressed: CopyProgress| progress(&open.member.id, progressed);
                tiers.push(self.sync_tier(&now, open, &tell).await);
            }
        }
        let mut epoch = now.set.epoch;
        for tier in &mut tiers {
            let joins = tier.state == TierState::Joining && tier.failed.is_none();
            if joins && is_settled && self.join(&tier.id).await? {
                tier.state = TierState::Mirror;
                epoch = self.now().await?.set.epoch;
            }
        }
        Ok(SyncReport {
            epoch,
            fenced,
            tiers,
        })
    }

    /// Publishes that a joining tier is complete; false while the set of now is too young.
    async fn join(&self, id: &TierId) -> Result<bool> {
        let now = self.now().await?;
        if self.left_us(&now).await?.is_some() {
            return Ok(false);
        }
        let next = now.set.joined(id)?;
        self.publish(&now, &next, None).await?;
        Ok(true)
    }

    async fn sync_tier(
        &self,
        now: &Now,
        open: &OpenTier,
        progress: &(dyn Fn(CopyProgress) + Sync),
    ) -> TierSynced {
        let mut synced = TierSynced::of(open);
        if let Err(error) = self.bring(now, open, &mut synced, progress).await {
            let why = stele_model::chain(&error).to_string();
            tracing::warn!(tier = %synced.id, why, "the tier could not be brought up to date");
            synced.failed = Some(why);
        }
        synced
    }

    /// Copies all that a tier lacks.
    pub(super) async fn bring(
        &self,
        now: &Now,
        open: &OpenTier,
        synced: &mut TierSynced,
        progress: &(dyn Fn(CopyProgress) + Sync),
    ) -> Result<()> {
        let primary = now.primary()?;
        let (from, to) = (usable(primary)?, usable(open)?);
        let id = &open.member.id;
        let copied = copy_control(from, to).await;
        copied.map_err(|source| MigrateError::Control {
            id: id.clone(),
            source: Box::new(source),
        })?;
        let told = Mutex::new(CopyProgress::default());
        for tenant in tenants_of(from, to).await? {
            let before = *lock(&told);
            let tell = |of_tenant: CopyProgress| {
                let sum = CopyProgress {
                    objects: before.objects + of_tenant.objects,
                    objects_total: before.objects_total + of_tenant.objects_total,
                    bytes: before.bytes + of_tenant.bytes,
                    bytes_total: before.bytes_total + of_tenant.bytes_total,
                };
                *lock(&told) = sum;
                progress(sum);
            };
            let one = Pair {
                from: &self.log_of(from, &tenant),
                to: &self.log_of(to, &tenant),
                is_written: open.member.takes_writes() && open.member.role == Role::Mirror,
            };
            let options = self.copying(&primary.member.id, id);
            let copied = one.copy(&options, self.options.marker_keep_us, &tell).await;
            let copied = copied.map_err(|source| MigrateError::Replicate {
                id: id.clone(),
                tenant: tenant.clone(),
                source: Box::new(source),
            })?;
            synced.copied += copied.objects();
            synced.copied_bytes += copied.table.copied_bytes + copied.l0.copied_bytes;
            synced.returned += copied.returned.copied;
            synced.healed += copied.healed;
            synced.repaired += repair(&one, id).await?;
        }
        Ok(())
    }

    /// How far `id` is behind the primary, for `tenant`.
    ///
    /// # Errors
    /// When either cannot be read.
    pub async fn lag(&self, id: &TierId, tenant: &TenantId) -> Result<Lag> {
        let now = self.now().await?;
        let (primary, other) = (now.primary()?, now.member(id)?);
        let from = self.log_of(usable(primary)?, tenant);
        let to = self.log_of(usable(other)?, tenant);
        let held = to.store().l0_list().await?;
        let held: BTreeSet<L0Name> = held.into_iter().map(|object| object.name).collect();
        let theirs = to.load().await?;
        let view = stele_table::View::read_cached(&from).await?;
        let lacks = |name: &L0Name| !held.contains(name);
        let objects = view.l0.iter().filter(|object| lacks(&object.name)).count();
        let version = theirs.map_or(0, |state| state.version + 1);
        let ours = view.state.exists().then_some(view.state.version + 1);
        let intents = RepairIntent::list(from.store(), id).await?;
        Ok(Lag {
            versions: ours.unwrap_or(0).saturating_sub(version),
            objects: objects as u64,
            intents: intents.len() as u64,
        })
    }
}

/// One tenant on two tiers.
struct Pair<'a> {
    from: &'a TableLog,
    to: &'a TableLog,
    /// Whether batches are written to both: then either may hold some that the other lacks.
    is_written: bool,
}

/// What was copied of one tenant.
struct Copied {
    settings: SettingsReport,
    table: ReplicateReport,
    l0: L0Report,
    returned: L0Report,
    healed: u64,
}

impl Copied {
    fn objects(&self) -> u64 {
        let settings = self.settings.settings + self.settings.markers;
        settings + self.table.copied + self.table.entries + self.l0.copied
    }
}

impl Pair<'_> {
    async fn copy(
        &self,
        options: &crate::replicate::ReplicateOptions,
        marker_keep_us: i64,
        progress: &(dyn Fn(CopyProgress) + Sync),
    ) -> Result<Copied, ReplicateError> {
        let stores = (self.from.store(), self.to.store());
        let settings = copy_settings(stores.0, stores.1, marker_keep_us).await?;
        if self.to.load().await.is_err() {
            // A first copy that was interrupted: nothing of it loads before it is finished.
            replicate(self.from, self.to, options, progress).await?;
        }
        let healed = heal(self.from, self.to).await?;
        // L0 first: what is absorbed and swept meanwhile comes with the log.
        let l0 = copy_l0(self.from, self.to).await?;
        let table = replicate(self.from, self.to, options, progress).await?;
        let returned = match self.is_written {
            true => return_l0(self.to, self.from).await?,
            false => L0Report::default(),
        };
        let healed = healed + heal(self.to, self.from).await?;
        // After the log: the mirror knows the restores that these are about.
        if let Err(error) = copy_lost_batches(stores.0, stores.1).await {
            tracing::error!(%error, "the record of lost batches was not copied");
        }
        Ok(Copied {
            settings,
            table,
            l0,
            returned,
            healed,
        })
    }
}

/// Deletes the intents that are fulfilled: the tier holds the object, or its own ledger knows every
/// batch of it.
async fn repair(pair: &Pair<'_>, id: &TierId) -> Result<u64> {
    let store = pair.from.store();
    let intents = RepairIntent::list(store, id).await?;
    if intents.is_empty() {
        return Ok(0);
    }
    let held = pair.to.store().l0_list().await?;
    let held: BTreeSet<L0Name> = held.into_iter().map(|object| object.name).collect();
    let state = pair.to.load().await?;
    let mut repaired = 0;
    for intent in intents {
        let is_there = match &state {
            _ if held.contains(&intent.name) => true,
            None => false,
            Some(state) => {
                let known = pair.to.ledger_lookup(state, &intent.batches).await?;
                let is_known = |digest: &Digest| known.contains_key(digest);
                intent.batches.iter().all(|(digest, _)| is_known(digest))
            }
        };
        if is_there {
            store.delete(&intent.key(id)).await?;
            repaired += 1;
        }
    }
    Ok(repaired)
}
