//! One tenant of one store, opened.

use std::sync::Arc;

use stele_compact::{Budget, Compactor, Options, TierWitnesses};
use stele_ingest::{GroupLimits, Ingestor};
use stele_model::{Clock, Ids, TenantId};
use stele_runtime::{RandomIds, SystemClock};
use stele_store::{Current, OpenTier, TenantStore, Tier, Tiers};
use stele_table::{Owner, RetentionCache, TableLog};

use crate::error::{Error, Result};

/// The parts that work on one tenant.
#[derive(Clone)]
pub struct Node {
    /// The objects of the tenant, on the primary.
    pub store: TenantStore,
    /// Its table, with the newest state this process has seen.
    pub log: Arc<TableLog>,
    /// Accepts its batches; those of requests side by side share objects.
    pub ingestor: Arc<Ingestor>,
    /// How long its raw samples are kept.
    pub retention: RetentionCache,
    /// Its compactor.
    pub compactor: Arc<Compactor>,
    /// The wall clock.
    pub clock: Arc<dyn Clock>,
}

/// The table of a tenant on `tier`, for whoever only reads it.
pub(crate) fn table(tier: &Tier, tenant: &TenantId, options: &Options) -> TableLog {
    let log = stele_table::Options {
        history_us: options.history_us,
        ..Default::default()
    };
    TableLog::new(tier.tenant(tenant), log, Arc::new(SystemClock))
}

/// What opens the tenant's table on other tiers.
fn opener(
    tenant: &TenantId,
    options: &Options,
) -> impl Fn(&Tier) -> TableLog + Send + Sync + 'static {
    let (tenant, options) = (tenant.clone(), options.clone());
    move |tier| table(tier, &tenant, &options)
}

impl Node {
    /// Opens a tenant of one tier as it is.
    #[must_use]
    pub fn as_is(tier: &Tier, tenant: &TenantId, options: Options) -> Self {
        let current = Current::fixed(tier.clone());
        Self::new(&Tiers::fixed(tier.clone()), &current, tenant, options)
    }

    /// Opens a tenant of the tiers, which were fetched as `current`; no request is made yet.
    #[must_use]
    pub fn new(tiers: &Tiers, current: &Current, tenant: &TenantId, options: Options) -> Self {
        let owner = current.set.as_ref().and_then(Owner::of);
        let own = owner.as_ref().map(|owner| owner.tier.clone());
        let log = table(&current.primary, tenant, &options);
        let log = Arc::new(match owner {
            Some(owner) => log.with_owner(owner),
            None => log,
        });
        let store = log.store().clone();
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        let ids: Arc<dyn Ids> = Arc::new(RandomIds);
        let group = stele_ingest::Options {
            group: Some(GroupLimits::default()),
            ..Default::default()
        };
        let ingestor = Arc::new(Ingestor::over(tiers.clone(), tenant.clone(), group));
        let others = TierWitnesses::of_primary(tiers.clone(), own, opener(tenant, &options));
        let compactor = Compactor::new(
            store.clone(),
            Arc::clone(&log),
            options,
            Arc::clone(&clock),
            ids,
        );
        let compactor = Arc::new(compactor.with_witnesses(Arc::new(others)));
        Self {
            store,
            log,
            ingestor,
            retention: RetentionCache::new(Arc::clone(&clock)),
            compactor,
            clock,
        }
    }

    /// Absorbs what is there: a snapshot holds every batch acknowledged before it was asked for.
    ///
    /// # Errors
    /// [`Error::NotWhole`], [`Error::OutOfTime`]; else the compactor's.
    pub async fn absorb_all(&self, budget: &Budget) -> Result<()> {
        let absorbed = self.compactor.absorb(budget).await?;
        match absorbed.damaged {
            0 if absorbed.stopped => Err(Error::OutOfTime),
            0 => Ok(()),
            damaged => Err(Error::NotWhole { damaged }),
        }
    }
}

/// What sweeps a tenant's copy on a mirror; it never commits.
pub(crate) fn sweeper(
    tiers: &Tiers,
    mirror: &OpenTier,
    tenant: &TenantId,
    options: Options,
) -> Compactor {
    let own = mirror.member.id.clone();
    let log = table(&mirror.tier, tenant, &options).with_owner(Owner::nobody(own.clone()));
    let log = Arc::new(log);
    let others = TierWitnesses::of_mirror(tiers.clone(), own, opener(tenant, &options));
    let (clock, ids) = (Arc::new(SystemClock), Arc::new(RandomIds));
    Compactor::new(log.store().clone(), log, options, clock, ids).with_witnesses(Arc::new(others))
}
