//! The tenants of the tiers, opened as they are met.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use stele_compact::{Compactor, Options};
use stele_model::{TenantId, TierId};
use stele_store::{Current, Tier, Tiers};
use stele_table::{Readable, TableLog, Tables};

use crate::node::{self, Node};

/// How long a tier that did not answer is asked last.
const ASKED_LAST: Duration = Duration::from_secs(30);

/// Tenants that a request named; shared with the jobs, so that a new tenant's first batch does not
/// wait until it is found.
pub type Met = Arc<Mutex<BTreeSet<TenantId>>>;

/// One node per tenant. Clones share them.
#[derive(Clone)]
pub struct Tenants {
    tiers: Tiers,
    options: Options,
    open: Arc<Mutex<Open>>,
    met: Met,
    /// Stores that did not answer, and when.
    failed: Arc<Mutex<BTreeMap<String, Instant>>>,
}

/// What is open of the set of the moment.
struct Open {
    current: Arc<Current>,
    nodes: BTreeMap<TenantId, Node>,
    mirrors: BTreeMap<(TierId, TenantId), Arc<TableLog>>,
    sweepers: BTreeMap<(TierId, TenantId), Arc<Compactor>>,
}

impl Open {
    fn new(current: Arc<Current>) -> Self {
        Self {
            current,
            nodes: BTreeMap::new(),
            mirrors: BTreeMap::new(),
            sweepers: BTreeMap::new(),
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Tenants {
    /// Looks up the tier set. No tenant is open yet.
    ///
    /// # Errors
    /// When no tier can be read, or they contradict each other.
    pub async fn open(
        tiers: Tiers,
        options: Options,
        met: Met,
    ) -> Result<Self, stele_store::Error> {
        let open = Open::new(tiers.current().await?);
        Ok(Self {
            tiers,
            options,
            open: Arc::new(Mutex::new(open)),
            met,
            failed: Arc::default(),
        })
    }

    /// The tiers.
    #[must_use]
    pub fn tiers(&self) -> &Tiers {
        &self.tiers
    }

    /// Makes sure that the tier set may be acted on, and moves to another primary when there is one.
    ///
    /// # Errors
    /// When no tier can be read, or they contradict each other.
    pub async fn refresh(&self) -> Result<Arc<Current>, stele_store::Error> {
        let current = self.tiers.current().await?;
        let mut open = lock(&self.open);
        if current.epoch() != open.current.epoch() {
            tracing::info!(
                epoch = current.epoch(),
                primary = current.primary.url(),
                "new tier set"
            );
            *open = Open::new(Arc::clone(&current));
        }
        // The same set may have been read anew: which of its tiers answer changes.
        open.current = Arc::clone(&current);
        Ok(current)
    }

    /// The set that the nodes are of.
    #[must_use]
    pub fn current(&self) -> Arc<Current> {
        Arc::clone(&lock(&self.open).current)
    }

    /// The tenant's node; no request is made.
    #[must_use]
    pub fn get(&self, tenant: &TenantId) -> Node {
        lock(&self.met).insert(tenant.clone());
        let mut open = lock(&self.open);
        if let Some(node) = open.nodes.get(tenant) {
            return node.clone();
        }
        let node = Node::new(&self.tiers, &open.current, tenant, self.options.clone());
        open.nodes.insert(tenant.clone(), node.clone());
        node
    }

    /// The tables of the mirrors that are complete at any instant.
    fn mirrors(&self, tenant: &TenantId) -> Vec<(TierId, Arc<TableLog>)> {
        let mut open = lock(&self.open);
        let current = Arc::clone(&open.current);
        let tables = current.complete_mirrors().map(|tier| {
            let key = (tier.member.id.clone(), tenant.clone());
            let table = open.mirrors.entry(key).or_insert_with(|| {
                let table = node::table(&tier.tier, tenant, &self.options);
                Arc::new(table)
            });
            (tier.member.id.clone(), Arc::clone(table))
        });
        tables.collect()
    }

    /// What sweeps the tenant's copies on the other tiers.
    #[must_use]
    pub fn sweepers(&self, tenant: &TenantId) -> Vec<Arc<Compactor>> {
        let mut open = lock(&self.open);
        let current = Arc::clone(&open.current);
        let sweepers = current.sweepable().map(|other| {
            let key = (other.member.id.clone(), tenant.clone());
            let sweeper = open.sweepers.entry(key).or_insert_with(|| {
                let options = self.options.clone();
                Arc::new(node::sweeper(&self.tiers, other, tenant, options))
            });
            Arc::clone(sweeper)
        });
        sweepers.collect()
    }

    /// Every tenant that was met.
    #[must_use]
    pub fn met(&self) -> Vec<Node> {
        let met = lock(&self.met).clone();
        met.iter().map(|tenant| self.get(tenant)).collect()
    }

    /// Looks for tenants that the primary holds; they count as met.
    ///
    /// # Errors
    /// The store's.
    pub async fn find(&self) -> Result<(), stele_store::Error> {
        let primary: Tier = self.current().primary.clone();
        let found = primary.tenants().await?;
        lock(&self.met).extend(found);
        Ok(())
    }
}

impl Tables for Tenants {
    fn tables_of(&self, tenant: &TenantId) -> Vec<Readable> {
        let mut tables = vec![Readable {
            log: self.get(tenant).log,
            mirror: None,
        }];
        let mirrors = self.mirrors(tenant).into_iter();
        tables.extend(mirrors.map(|(tier, log)| Readable {
            log,
            mirror: Some(tier),
        }));
        let failed = lock(&self.failed);
        let is_late = |table: &Readable| {
            let failed = failed.get(table.log.store().tier().url());
            failed.is_some_and(|since| since.elapsed() < ASKED_LAST)
        };
        tables.sort_by_key(is_late);
        tables
    }

    fn failed(&self, store: &str) {
        lock(&self.failed).insert(store.to_owned(), Instant::now());
    }
}
