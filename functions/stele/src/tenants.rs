//! The tenants of one store, opened as they are met.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use stele_compact::Options;
use stele_model::TenantId;
use stele_store::Tier;

use crate::node::Node;

/// Tenants that a request named; shared with the jobs, so that a new tenant's first batch does not
/// wait until it is found.
pub type Met = Arc<Mutex<BTreeSet<TenantId>>>;

/// One node per tenant. Clones share them.
#[derive(Clone)]
pub struct Tenants {
    tier: Tier,
    options: Options,
    nodes: Arc<Mutex<BTreeMap<TenantId, Node>>>,
    met: Met,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Tenants {
    /// No tenant is open yet.
    pub fn new(tier: Tier, options: Options, met: Met) -> Self {
        Self {
            tier,
            options,
            nodes: Arc::default(),
            met,
        }
    }

    /// The tenant's node; no request is made.
    pub fn get(&self, tenant: &TenantId) -> Node {
        if let Some(node) = lock(&self.nodes).get(tenant) {
            return node.clone();
        }
        lock(&self.met).insert(tenant.clone());
        let node = Node::new(&self.tier, tenant, self.options.clone());
        let mut nodes = lock(&self.nodes);
        nodes.entry(tenant.clone()).or_insert(node).clone()
    }

    /// Every tenant that was met.
    pub fn met(&self) -> Vec<Node> {
        let met = lock(&self.met).clone();
        met.iter().map(|tenant| self.get(tenant)).collect()
    }

    /// Looks for tenants that the store holds; they count as met.
    ///
    /// # Errors
    /// The store's.
    pub async fn find(&self) -> Result<(), stele_store::Error> {
        let found = self.tier.tenants().await?;
        lock(&self.met).extend(found);
        Ok(())
    }
}
