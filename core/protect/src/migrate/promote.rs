//! Another primary: planned, with a fence in the old one's log; or forced, when that is lost.

use stele_model::{TenantId, TierId};
use stele_store::{OpenTier, RepairIntent, TierSet, TierState};
use stele_table::{Fence, OperationId};

use super::{MigrateError, Migration, Now, Result, Step, lock, tenants_of, usable};
use crate::equal::Side;
use crate::replicate::{ReplicateError, replicate};
use crate::restore::CopyProgress;

/// A promotion that is finished.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Promoted {
    /// The set in which the tier is the primary.
    pub set: TierSet,
    /// Tenants whose log got its fence by this run.
    pub fenced: u64,
}

impl Migration {
    /// Makes a mirror the primary. It is brought up to date and compared with the old one first;
    /// then the set is published; and when nobody acts on the one before any more, the old
    /// primary's logs are fenced and copied to their ends.
    ///
    /// # Errors
    /// [`MigrateError::Intents`] and [`MigrateError::Unequal`] when it does not hold all that the
    /// primary holds; else the stores' and the tables'.
    pub async fn promote(
        &self,
        id: &TierId,
        progress: &(dyn Fn(CopyProgress) + Sync),
    ) -> Result<Step<Promoted>> {
        let now = self.now().await?;
        if now.set.primary()?.id != *id {
            let next = now.set.promoting(id, false)?;
            self.finish(&now).await?;
            if let Some(us) = self.left_us(&now).await? {
                return Ok(Step::Wait { us });
            }
            self.check_ready(&now, id, progress).await?;
            self.publish(&now, &next, None).await?;
        }
        self.finished().await
    }

    /// Makes a mirror the primary because the old one is lost. What that alone held is lost with it:
    /// under write policy `all` nothing that was acknowledged.
    ///
    /// # Errors
    /// [`MigrateError::PrimaryThere`] while the primary can be read; [`MigrateError::Ahead`] when
    /// another mirror holds more; else the stores'.
    pub async fn promote_forced(&self, id: &TierId) -> Result<Step<Promoted>> {
        let now = self.now().await?;
        if now.set.primary()?.id != *id {
            let next = now.set.promoting(id, true)?;
            let primary = now.primary()?;
            if primary.trouble.is_none() && primary.tier.tenants().await.is_ok() {
                return Err(MigrateError::PrimaryThere {
                    primary: primary.member.id.clone(),
                });
            }
            let chosen = now.member(id)?;
            self.check_foremost(&now, chosen).await?;
            if let Some(us) = self.left_us(&now).await? {
                return Ok(Step::Wait { us });
            }
            let tier = usable(chosen)?.clone();
            self.publish(&now, &next, Some(&tier)).await?;
        }
        self.finished().await
    }

    /// Finishes the last promotion, if that is left to do. Before it is, nobody may compact on the
    /// new primary: a table that it made there would be another one than the one that comes over.
    ///
    /// # Errors
    /// As [`Migration::promote`].
    pub async fn ready(&self) -> Result<Step<()>> {
        let current = self.tiers.current().await?;
        let epoch = current.set.as_ref().map_or(0, |set| set.primary_since);
        if *lock(&self.ready) == epoch {
            return Ok(Step::Done(()));
        }
        match self.finished().await? {
            Step::Wait { us } => Ok(Step::Wait { us }),
            Step::Done(promoted) => {
                *lock(&self.ready) = promoted.set.primary_since;
                Ok(Step::Done(()))
            }
        }
    }

    async fn finished(&self) -> Result<Step<Promoted>> {
        let now = self.now().await?;
        if let Some(us) = self.left_us(&now).await? {
            return Ok(Step::Wait { us });
        }
        let fenced = self.finish(&now).await?;
        Ok(Step::Done(Promoted {
            set: now.set,
            fenced,
        }))
    }

    /// Brings the tier up to date, and compares.
    async fn check_ready(
        &self,
        now: &Now,
        id: &TierId,
        progress: &(dyn Fn(CopyProgress) + Sync),
    ) -> Result<()> {
        let (primary, chosen) = (now.primary()?, now.member(id)?);
        let mut synced = super::TierSynced::of(chosen);
        self.bring(now, chosen, &mut synced, progress).await?;
        let (from, to) = (usable(primary)?, usable(chosen)?);
        let mut open = 0;
        for tenant in tenants_of(from, to).await? {
            open += RepairIntent::list(&from.tenant(&tenant), id).await?.len() as u64;
        }
        if open > 0 {
            return Err(MigrateError::Intents {
                id: id.clone(),
                open,
            });
        }
        // What the primary itself lacks need not keep another from taking its place.
        let again = async || {
            let mut synced = super::TierSynced::of(chosen);
            self.bring(now, chosen, &mut synced, &|_| {}).await
        };
        let missing = self.unequal(from, to, &[Side::Second], again).await?;
        match missing.total {
            0 => Ok(()),
            _ => Err(MigrateError::Unequal {
                id: id.clone(),
                with: primary.member.id.clone(),
                missing,
            }),
        }
    }

    /// A forced promotion cannot ask the old primary: of the mirrors it must be one that no other
    /// is ahead of.
    async fn check_foremost(&self, now: &Now, chosen: &OpenTier) -> Result<()> {
        let to = usable(chosen)?;
        let others = now.current.members.iter().filter(|other| {
            let is_mirror = other.member.state == TierState::Mirror;
            is_mirror && other.member.id != chosen.member.id && other.trouble.is_none()
        });
        for other in others {
            for tenant in other.tier.tenants().await? {
                let theirs = self.log_of(&other.tier, &tenant).load().await?;
                let ours = self.log_of(to, &tenant).load().await?;
                let version = |state: Option<std::sync::Arc<stele_table::TableState>>| {
                    state.map(|state| state.version)
                };
                if version(theirs) > version(ours) {
                    return Err(MigrateError::Ahead {
                        id: chosen.member.id.clone(),
                        other: other.member.id.clone(),
                        tenant,
                    });
                }
            }
        }
        Ok(())
    }

    /// Fences every log of a promotion, as far as that is not done. The old primary's logs get the
    /// fence, and the new one's get it by being copied to their ends: nothing that was committed
    /// before it is left behind.
    pub(super) async fn finish(&self, now: &Now) -> Result<u64> {
        let primary = now.primary()?;
        if now.set.primary_since == 0 {
            return Ok(0);
        }
        let fence = Fence {
            epoch: now.set.primary_since,
            tier: primary.member.id.clone(),
        };
        let to = usable(primary)?;
        let old = match &now.set.promoted_from {
            None => None,
            Some(id) => now.member(id).ok().filter(|old| old.member.is_active()),
        };
        let tenants = match old {
            None => to.tenants().await?.into_iter().collect(),
            Some(old) => tenants_of(usable(old)?, to).await?,
        };
        let mut fenced = 0;
        for tenant in tenants {
            if self.fence(&tenant, &fence, old, primary).await? {
                fenced += 1;
            }
        }
        Ok(fenced)
    }

    async fn fence(
        &self,
        tenant: &TenantId,
        fence: &Fence,
        old: Option<&OpenTier>,
        primary: &OpenTier,
    ) -> Result<bool> {
        let to = self.log_of(&primary.tier, tenant);
        let state = to.load().await?;
        if state.is_some_and(|state| state.fence.as_ref() == Some(fence)) {
            return Ok(false);
        }
        let operation = OperationId(self.ids.operation_id());
        let now_us = self.clock.now_us();
        let mut from = None;
        if let Some(old) = old {
            let log = self.log_of(&old.tier, tenant);
            // It may never have had a table there: then it begins on the new primary.
            if log.load().await?.is_some() {
                from = Some((&old.member.id, log));
            }
        }
        let Some((old, from)) = from else {
            to.fence(fence, &operation, now_us).await?;
            return Ok(true);
        };
        from.fence(fence, &operation, now_us).await?;
        let options = self.copying(old, &primary.member.id);
        let copied = replicate(&from, &to, &options, &|_| {}).await;
        copied.map_err(|source: ReplicateError| MigrateError::Replicate {
            id: primary.member.id.clone(),
            tenant: tenant.clone(),
            source: Box::new(source),
        })?;
        Ok(true)
    }
}
