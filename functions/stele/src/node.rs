//! One tenant of one store, opened: what the server and the commands with `--store` share.

use std::sync::Arc;

use stele_compact::{Compactor, Options};
use stele_ingest::{GroupLimits, Ingestor};
use stele_model::{Clock, Ids, TenantId};
use stele_runtime::{RandomIds, SystemClock};
use stele_store::{TenantStore, Tier};
use stele_table::TableLog;

use crate::retention::RetentionCache;

/// The parts that work on one tenant.
#[derive(Clone)]
pub struct Node {
    /// The objects of the tenant.
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

impl Node {
    /// Opens a tenant of `tier`; no request is made yet.
    pub fn new(tier: &Tier, tenant: &TenantId, options: Options) -> Self {
        let store = tier.tenant(tenant);
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        let ids: Arc<dyn Ids> = Arc::new(RandomIds);
        let log_options = stele_table::Options {
            history_us: options.history_us,
            ..Default::default()
        };
        let log = Arc::new(TableLog::new(
            store.clone(),
            log_options,
            Arc::clone(&clock),
        ));
        let group = stele_ingest::Options {
            group: Some(GroupLimits::default()),
            ..Default::default()
        };
        let ingestor = Arc::new(Ingestor::with_options(store.clone(), group));
        let compactor = Arc::new(Compactor::new(
            store.clone(),
            Arc::clone(&log),
            options,
            Arc::clone(&clock),
            ids,
        ));
        Self {
            store,
            log,
            ingestor,
            retention: RetentionCache::default(),
            compactor,
            clock,
        }
    }
}
