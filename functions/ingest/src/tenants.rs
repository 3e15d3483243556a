//! The tenants that this process has met.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use stele_http::IngestState;
use stele_ingest::{Ingestor, Options, QuotaOptions, Quotas};
use stele_lambda::Start;
use stele_model::{Limits, TenantId};
use stele_table::RetentionCache;

#[derive(Clone)]
struct Tenant {
    ingestor: Arc<Ingestor>,
    retention: RetentionCache,
}

/// Ingest for the tenant of each request's token.
pub fn state(start: &Start) -> IngestState {
    let (tiers, clock) = (start.tiers.clone(), start.clock.clone());
    let met: Mutex<BTreeMap<TenantId, Tenant>> = Mutex::default();
    let of = Arc::new(move |tenant: &TenantId| -> Tenant {
        let mut met = met.lock().unwrap_or_else(PoisonError::into_inner);
        let open = || {
            let options = Options::default();
            let ingestor = Ingestor::over(tiers.clone(), tenant.clone(), options);
            let retention = RetentionCache::new(clock.clone());
            let ingestor = Arc::new(ingestor);
            Tenant {
                ingestor,
                retention,
            }
        };
        met.entry(tenant.clone()).or_insert_with(open).clone()
    });
    let (of_ingest, tiers) = (Arc::clone(&of), start.tiers.clone());
    IngestState::for_tenants(
        Box::new(move |tenant: &TenantId| of_ingest(tenant).ingestor),
        Some(Box::new(move |tenant: &TenantId| {
            let (known, tiers, tenant) = (of(tenant).retention, tiers.clone(), tenant.clone());
            Box::pin(async move {
                let store = tiers.current().await?.primary.tenant(&tenant);
                Ok(known.raw(&store).await?)
            })
        })),
        Some(Arc::new(Quotas::new(QuotaOptions {
            samples_per_sec: start.config.quota_samples_per_sec,
            series_active_max: start.config.quota_series,
            ..QuotaOptions::default()
        }))),
        start.clock.clone(),
        Limits::default(),
    )
}
