//! The other tiers by the tier set of the moment.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use futures::future::BoxFuture;
use stele_model::TierId;
use stele_store::{Tier, TierState, Tiers, Trouble};
use stele_table::TableLog;

use crate::witness::{Standing, Witness, WitnessError, Witnesses};

type OpenTable = Box<dyn Fn(&Tier) -> TableLog + Send + Sync>;

/// Asks for the tier set whenever it is asked itself; for deletion on one tier.
pub struct TierWitnesses {
    tiers: Tiers,
    /// The tier that deletes; `None` for a store without tiers.
    own: Option<TierId>,
    /// Whether it was the primary when this was made: one that becomes it later may not commit
    /// before its logs are fenced, and then others do.
    was_primary: bool,
    open: OpenTable,
    logs: Mutex<BTreeMap<TierId, Arc<TableLog>>>,
}

impl fmt::Debug for TierWitnesses {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TierWitnesses({:?})", self.own)
    }
}

impl TierWitnesses {
    /// For a compactor on the primary, which is `own`, or `None` in a store without tiers. `open`
    /// gives the tenant's log on another tier, to read.
    #[must_use]
    pub fn of_primary(
        tiers: Tiers,
        own: Option<TierId>,
        open: impl Fn(&Tier) -> TableLog + Send + Sync + 'static,
    ) -> Self {
        Self {
            tiers,
            own,
            was_primary: true,
            open: Box::new(open),
            logs: Mutex::default(),
        }
    }

    /// For a sweeper of `own`, which is not the primary.
    #[must_use]
    pub fn of_mirror(
        tiers: Tiers,
        own: TierId,
        open: impl Fn(&Tier) -> TableLog + Send + Sync + 'static,
    ) -> Self {
        Self {
            was_primary: false,
            ..Self::of_primary(tiers, Some(own), open)
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
                .or_insert_with(|| Arc::new((self.open)(&other.tier)));
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

impl Witnesses for TierWitnesses {
    fn standing(&self) -> BoxFuture<'_, Result<Standing, WitnessError>> {
        Box::pin(self.ask())
    }
}
