//! Where a tenant can be read: its table on the primary, and on every mirror that answers alike.

use std::sync::Arc;

use stele_model::{TenantId, TierId};

use crate::log::TableLog;

/// Finds the tables of a tenant. Closures that answer one table are this.
pub trait Tables: Send + Sync {
    /// The tables of `tenant` that answer alike, the one to ask first first: the same logs for every
    /// call, since they remember what they have read.
    fn tables_of(&self, tenant: &TenantId) -> Vec<Readable>;

    /// Notes that a tier did not answer, so that the next query may ask another first.
    fn failed(&self, _store: &str) {}
}

/// A table to read from.
#[derive(Debug, Clone)]
pub struct Readable {
    /// The table.
    pub log: Arc<TableLog>,
    /// The tier it is on, when that is a mirror: an answer from it says so.
    pub mirror: Option<TierId>,
}

impl<F: Fn(&TenantId) -> Arc<TableLog> + Send + Sync> Tables for F {
    fn tables_of(&self, tenant: &TenantId) -> Vec<Readable> {
        let (log, mirror) = (self(tenant), None);
        vec![Readable { log, mirror }]
    }
}
