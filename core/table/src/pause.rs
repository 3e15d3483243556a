//! The switch that pauses seals: a chain of create-only objects under `control/rollups/`.

use stele_store::TenantStore;

use crate::error::{Damage, Error, Result};

/// Rollups are paused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Paused {
    /// Since when, µs.
    pub since_us: i64,
}

/// Whether rollups are paused, and since when.
///
/// # Errors
/// The store's, and [`Error::Corrupt`] for a damaged switch.
pub async fn rollups_paused(_store: &TenantStore) -> Result<Option<Paused>> {
    Err(Error::corrupt("", Damage::Missing))
}

/// Pauses or resumes rollups; does nothing when they already are.
///
/// # Errors
/// The store's, and [`Error::Corrupt`] for a damaged switch.
pub async fn set_rollups_paused(_store: &TenantStore, _paused: bool, _now_us: i64) -> Result<()> {
    Err(Error::corrupt("", Damage::Missing))
}
