//! The other tiers of a tenant, as deletion asks for them.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use futures::future::BoxFuture;
use stele_compact::{Options, Standing, Witness, WitnessError, Witnesses};
use stele_model::{TenantId, TierId};
use stele_store::{TierState, Tiers, Trouble};
use stele_table::TableLog;

use crate::node;

/// Asks the tier set of the moment.
pub(crate) struct OtherTiers {
    tiers: Tiers,
    tenant: TenantId,
    options: Options,
    /// The tier that deletes; `None` for a store without tiers.
    own: Option<TierId>,
    /// Whether it was the primary when this was made: one that becomes it later may not commit
    /// before its logs are fenced, and then others do.
    was_primary: bool,
    logs: Mutex<BTreeMap<TierId, Arc<TableLog>>>,
}

impl OtherTiers {
    /// For a compactor of `tenant` on `own`, the primary.
    pub(crate) fn of_primary(
        tiers: Tiers,
        tenant: TenantId,
        options: Options,
        own: Option<TierId>,
    ) -> Self {
        Self {
            tiers,
            tenant,
            options,
            own,
            was_primary: true,
            logs: Mutex::default(),
        }
    }

    /// For a sweeper of `tenant` on `own`, another tier.
    pub(crate) fn of_mirror(tiers: Tiers, tenant: TenantId, options: Options, own: TierId) -> Self {
        Self {
            was_primary: false,
            ..Self::of_primary(tiers, tenant, options, Some(own))
        }
    }

    async fn ask(&self) -> Result<Standing, WitnessError> {
        let current = self.tiers.confirmed().await?;
        let Some(set) = &current.set else {
            return Ok(Standing::alone());
        };
        let Some(own) = &self.own else {
            return Err("this process has not seen the tier set yet".into());
        };
        let member = set.member(own)?;
        if !member.is_active() {
            return Err(format!("tier {own} is {}", member.state.as_str()).into());
        }
        let mut others = Vec::new();
        let mut logs = self.logs.lock().unwrap_or_else(PoisonError::into_inner);
        for other in current.witnesses(own) {
            if let Some(Trouble::Foreign) = &other.trouble {
                return Err(format!("tier {}: {}", other.member.id, Trouble::Foreign).into());
            }
            let log = logs
                .entry(other.member.id.clone())
                .or_insert_with(|| Arc::new(node::table(&other.tier, &self.tenant, &self.options)));
            others.push(Witness {
                tier: other.member.id.to_string(),
                log: Arc::clone(log),
            });
        }
        Ok(Standing {
            may_commit: self.was_primary && member.state == TierState::Primary,
            others,
        })
    }
}

impl Witnesses for OtherTiers {
    fn standing(&self) -> BoxFuture<'_, Result<Standing, WitnessError>> {
        Box::pin(self.ask())
    }
}
