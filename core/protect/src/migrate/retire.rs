//! The end of a tier: only with the proof that another holds all it holds.

use serde::Serialize;
use stele_format::content_digest;
use stele_model::{Digest, TierId};
use stele_store::{Tier, TierSet, TierState};

use super::{MigrateError, Migration, Result, Step, tenants_of, usable};
use crate::replicate::copy_l0;

/// What retiring a tier rests on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct RetirePlan {
    /// The tier that is to go.
    pub id: String,
    /// The tier that holds all of it.
    pub survivor: String,
    /// Tenants compared.
    pub tenants: u64,
    /// Objects that are on both, with equal digests.
    pub objects: u64,
    /// Their bytes.
    pub bytes: u64,
    /// What identifies the plan: the set, the tiers, and everything that was compared.
    pub hash: Digest,
}

impl Migration {
    /// Proves that the primary holds all that a draining tier holds. Nothing is written but the L0
    /// objects that the primary lacked.
    ///
    /// # Errors
    /// [`MigrateError::Needed`] names what the survivor lacks, also for a tier that is not draining;
    /// then [`MigrateError::Set`] when the tier is not draining.
    pub async fn retire_plan(&self, id: &TierId) -> Result<Step<RetirePlan>> {
        let now = self.now().await?;
        let leaving = now.member(id)?;
        let survivor = match leaving.member.state {
            TierState::Primary => {
                let mut others = now.current.members.iter();
                others.find(|other| other.member.is_active() && other.member.id != *id)
            }
            _ => Some(now.primary()?),
        };
        let Some(survivor) = survivor else {
            now.set.retiring(id)?;
            return Err(MigrateError::Over { id: id.clone() });
        };
        let (from, to) = (usable(leaving)?, usable(survivor)?);
        let is_draining = leaving.member.state == TierState::Draining;
        if is_draining {
            if let Some(us) = self.left_us(&now).await? {
                return Ok(Step::Wait { us });
            }
            self.copy_last(from, to, &survivor.member.id).await?;
        }
        let proof = match self.held(from, to).await? {
            Ok(proof) => proof,
            Err(missing) => {
                return Err(MigrateError::Needed {
                    id: id.clone(),
                    state: leaving.member.state,
                    survivor: survivor.member.id.clone(),
                    missing,
                });
            }
        };
        now.set.retiring(id)?;
        let text = format!(
            "retire {id} of epoch {} for {}: {}\n",
            now.set.epoch, survivor.member.id, proof.hash
        );
        Ok(Step::Done(RetirePlan {
            id: id.to_string(),
            survivor: survivor.member.id.to_string(),
            tenants: proof.tenants.len() as u64,
            objects: proof.objects,
            bytes: proof.bytes,
            hash: content_digest(text.as_bytes()),
        }))
    }

    /// Retires a tier, after the proof was made anew and its plan is the one that was confirmed.
    /// Its objects are left where they are: nothing reads or writes them any more.
    ///
    /// # Errors
    /// As [`Migration::retire_plan`], and [`MigrateError::OtherPlan`].
    pub async fn retire(&self, id: &TierId, confirmed: Digest) -> Result<Step<TierSet>> {
        let plan = match self.retire_plan(id).await? {
            Step::Wait { us } => return Ok(Step::Wait { us }),
            Step::Done(plan) => plan.hash,
        };
        if plan != confirmed {
            return Err(MigrateError::OtherPlan { plan, confirmed });
        }
        let now = self.now().await?;
        let next = now.set.retiring(id)?;
        self.publish(&now, &next, None).await?;
        Ok(Step::Done(next))
    }

    /// What a writer that came late put on the tier that is to go.
    async fn copy_last(&self, from: &Tier, to: &Tier, survivor: &TierId) -> Result<()> {
        for tenant in tenants_of(from, to).await? {
            let (source, target) = (self.log_of(from, &tenant), self.log_of(to, &tenant));
            let copied = copy_l0(&source, &target).await;
            copied.map_err(|source| MigrateError::Replicate {
                id: survivor.clone(),
                tenant,
                source: Box::new(source),
            })?;
        }
        Ok(())
    }
}
