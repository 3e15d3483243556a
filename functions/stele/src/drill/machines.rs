//! The parts of a Stele that run during a drill: routes, compactors that are killed at random, and
//! one that copies to the other tiers.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use axum::Router;
use stele_compact::{Budget, Options};
use stele_http::{IngestState, ingest_router};
use stele_model::{Limits, TenantId};
use stele_query::{QueryConfig, QueryEngine, QueryState};
use stele_runtime::SystemClock;
use stele_store::Tiers;

use stele_node::Tenants;

/// Between two runs of the compactors.
const PAUSE: Duration = Duration::from_millis(30);
/// How long a compactor lives before it is killed: so many steps of so many ms.
const LIVES: u64 = 40;
const LIFE_MS: u64 = 10;

/// One process.
#[derive(Clone)]
pub struct Process {
    /// Its tenants.
    pub tenants: Tenants,
    /// The only tenant.
    pub tenant: TenantId,
}

impl Process {
    /// A process that knows of the tiers what the tiers say.
    ///
    /// # Errors
    /// When no tier can be read.
    pub async fn start(tiers: Tiers, options: Options) -> anyhow::Result<Self> {
        Ok(Self {
            tenants: Tenants::open(tiers, options, stele_node::Met::default()).await?,
            tenant: TenantId::default(),
        })
    }

    /// Its ingest routes.
    pub fn ingest(&self) -> Router {
        let (tenants, tenant) = (self.tenants.clone(), self.tenant.clone());
        let ingestors = move |_: &TenantId| tenants.get(&tenant).ingestor;
        let (clock, limits) = (Arc::new(SystemClock), Limits::default());
        let state = IngestState::for_tenants(Box::new(ingestors), None, None, clock, limits);
        stele_node::with_lease(ingest_router(state), self.tenants.clone())
    }

    /// Its query route.
    ///
    /// # Errors
    /// When the engine cannot be started.
    pub fn sql(&self) -> anyhow::Result<Router> {
        let config = QueryConfig {
            rows_max: 5_000_000,
            ..QueryConfig::default()
        };
        let engine = QueryEngine::new(config, Arc::new(SystemClock))?;
        let router = stele_query::router(QueryState {
            engine: Arc::new(engine),
            tables: Arc::new(self.tenants.clone()),
            tenant: self.tenant.clone(),
        });
        Ok(stele_node::with_lease(router, self.tenants.clone()))
    }
}

/// Compactors of one process, started again and again.
pub struct Compactors {
    process: Process,
    /// Whether they are killed at random.
    pub is_killing: AtomicBool,
    /// Whether they rest, so that what is accepted stays unabsorbed.
    pub is_resting: AtomicBool,
    is_over: AtomicBool,
    /// Jobs that were killed.
    pub killed: AtomicU64,
    /// Jobs that came to their end.
    pub finished: AtomicU64,
    /// Jobs that failed.
    pub failed: AtomicU64,
    seed: AtomicU64,
}

impl Compactors {
    /// Not running yet.
    pub fn new(process: Process, seed: u64) -> Arc<Self> {
        Arc::new(Self {
            process,
            is_killing: AtomicBool::new(false),
            is_resting: AtomicBool::new(false),
            is_over: AtomicBool::new(false),
            killed: AtomicU64::new(0),
            finished: AtomicU64::new(0),
            failed: AtomicU64::new(0),
            seed: AtomicU64::new(seed),
        })
    }

    /// Runs until [`Compactors::stop`].
    pub async fn run(self: Arc<Self>) {
        let mut round: u64 = 0;
        while !self.is_over.load(Ordering::SeqCst) {
            if self.is_resting.load(Ordering::SeqCst) {
                tokio::time::sleep(PAUSE).await;
                continue;
            }
            round += 1;
            // A job that is dropped at an await is a process that died there.
            let life = match self.is_killing.load(Ordering::SeqCst) {
                true => Duration::from_millis(self.draw(LIVES) * LIFE_MS),
                false => Duration::from_secs(3600),
            };
            match tokio::time::timeout(life, self.job(round)).await {
                Ok(true) => self.finished.fetch_add(1, Ordering::Relaxed),
                Ok(false) => self.failed.fetch_add(1, Ordering::Relaxed),
                Err(_) => self.killed.fetch_add(1, Ordering::Relaxed),
            };
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// Lets [`Compactors::run`] end after the job that is under way.
    pub fn stop(&self) {
        self.is_over.store(true, Ordering::SeqCst);
    }

    async fn job(&self, round: u64) -> bool {
        if self.process.tenants.refresh().await.is_err() {
            return false;
        }
        let node = self.process.tenants.get(&self.process.tenant);
        let budget = Budget::default();
        let (compactor, sweepers) = (&node.compactor, &self.process.tenants);
        match round % 8 {
            0 => {
                let mut is_done = compactor.sweep(&budget).await.is_ok();
                for sweeper in sweepers.sweepers(&self.process.tenant) {
                    is_done &= sweeper.sweep(&budget).await.is_ok();
                }
                is_done
            }
            4 => compactor.seal(&budget, false).await.is_ok(),
            6 => compactor.consolidate(&budget).await.is_ok(),
            _ => compactor.absorb(&budget).await.is_ok(),
        }
    }

    /// 1 to `most`, by a generator whose seed makes a drill repeatable as far as threads allow.
    fn draw(&self, most: u64) -> u64 {
        let next = |x: u64| {
            let x = x.wrapping_mul(6_364_136_223_846_793_005);
            Some(x.wrapping_add(1_442_695_040_888_963_407))
        };
        let drawn = self
            .seed
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, next);
        (drawn.unwrap_or_default() >> 33) % most + 1
    }
}
