//! The switch that pauses seals and expiry: a chain of create-only objects under
//! `control/rollups/`, the last of which counts.

use serde::{Deserialize, Serialize};
use stele_store::TenantStore;

use crate::chain;
use crate::chain::Chain;
use crate::error::Result;

const CHAIN: Chain = Chain("rollups");

/// Rollups are paused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Paused {
    /// Since when, µs.
    pub since_us: i64,
}

#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Link {
    paused: bool,
    since_us: i64,
}

/// Whether rollups are paused, and since when.
///
/// # Errors
/// The store's, and [`crate::Error::Corrupt`] for a damaged switch.
pub async fn rollups_paused(store: &TenantStore) -> Result<Option<Paused>> {
    let last = CHAIN.last::<Link>(store).await?;
    let last = last.map(|link| link.value).filter(|link| link.paused);
    Ok(last.map(|Link { since_us, .. }| Paused { since_us }))
}

/// Pauses or resumes rollups; does nothing when they already are.
///
/// # Errors
/// The store's, [`crate::Error::Corrupt`] for a damaged switch, [`crate::Error::Contended`] when
/// others kept taking the next link.
pub async fn set_rollups_paused(store: &TenantStore, paused: bool, now_us: i64) -> Result<()> {
    let link = Link {
        paused,
        since_us: now_us,
    };
    CHAIN
        .append(store, |last: Option<&chain::Link<Link>>| {
            let was_paused = last.is_some_and(|last| last.value.paused);
            (was_paused != paused).then_some(link)
        })
        .await
}
