//! The other tiers of a tenant, as deletion asks them.
//!
//! A tier deletes only what its own log gave up, and only when every other active tier can do
//! without it, too. Which tiers there are changes while a server runs, so they are asked for by
//! every run; one that cannot be read means that nothing is deleted.

use std::fmt;
use std::sync::Arc;

use futures::future::BoxFuture;
use stele_table::TableLog;

/// Why it is not known which tiers there are.
pub type WitnessError = Box<dyn std::error::Error + Send + Sync>;

/// Another tier of the same tenant.
#[derive(Clone)]
pub struct Witness {
    /// Its name, for reports.
    pub tier: String,
    /// The tenant's log there. Keep one per tier and process: it remembers ledger files.
    pub log: Arc<TableLog>,
}

impl fmt::Debug for Witness {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Witness({})", self.tier)
    }
}

/// Where the compactor's tier stands among the tiers.
#[derive(Debug, Clone)]
pub struct Standing {
    /// Whether its log may be written: true on the primary alone. A mirror's log is a copy, and
    /// a commit of its own would make it another log.
    pub may_commit: bool,
    /// Every other tier that must stay complete: joining, mirror, primary and draining ones.
    pub others: Vec<Witness>,
}

impl Standing {
    /// The only tier there is.
    #[must_use]
    pub fn alone() -> Self {
        Self {
            may_commit: true,
            others: Vec::new(),
        }
    }
}

/// Who knows the tiers.
pub trait Witnesses: Send + Sync {
    /// The tiers now, by a configuration that is fresh enough to act on.
    ///
    /// # Errors
    /// When that is not known: nothing is deleted then.
    fn standing(&self) -> BoxFuture<'_, Result<Standing, WitnessError>>;
}
