//! The switch that pauses seals: a chain of create-only objects under `control/rollups/`, the
//! last of which counts.

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use stele_store::{Put, TenantStore, keys};

use crate::error::{Damage, Error, Result};

/// How often a lost race over the next link is repeated.
const RACES_MAX: u32 = 16;

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

fn prefix() -> String {
    format!("{}/rollups", keys::CONTROL)
}

fn key(n: u64) -> String {
    format!("{}/{n:020}.json", prefix())
}

/// The last link and its number.
async fn last(store: &TenantStore) -> Result<Option<(u64, Link)>> {
    let listed = store.list(&prefix()).await?;
    let number = |key: &str| {
        let name = key.strip_prefix(&prefix())?.strip_prefix('/')?;
        name.strip_suffix(".json")?.parse::<u64>().ok()
    };
    let Some(n) = listed.iter().filter_map(|o| number(&o.key)).max() else {
        return Ok(None);
    };
    let bytes = store.get_opt(&key(n)).await?;
    let bytes = bytes.ok_or_else(|| Error::corrupt(key(n), Damage::Missing))?;
    let link = serde_json::from_slice(&bytes);
    let link = link.map_err(|error| Error::corrupt(key(n), Damage::Json(error)))?;
    Ok(Some((n, link)))
}

/// Whether rollups are paused, and since when.
///
/// # Errors
/// The store's, and [`Error::Corrupt`] for a damaged switch.
pub async fn rollups_paused(store: &TenantStore) -> Result<Option<Paused>> {
    let last = last(store).await?.filter(|(_, link)| link.paused);
    Ok(last.map(|(_, Link { since_us, .. })| Paused { since_us }))
}

/// Pauses or resumes rollups; does nothing when they already are.
///
/// # Errors
/// The store's, [`Error::Corrupt`] for a damaged switch, [`Error::Contended`] when others kept
/// taking the next link.
pub async fn set_rollups_paused(store: &TenantStore, paused: bool, now_us: i64) -> Result<()> {
    let link = Link {
        paused,
        since_us: now_us,
    };
    for _ in 0..RACES_MAX {
        let last = last(store).await?;
        if last.is_some_and(|(_, link)| link.paused == paused) || (last.is_none() && !paused) {
            return Ok(());
        }
        let next = key(last.map_or(0, |(n, _)| n.saturating_add(1)));
        let bytes = serde_json::to_vec(&link);
        let bytes = bytes.map_err(|error| Error::corrupt(&next, Damage::Json(error)))?;
        match store.put_new(&next, Bytes::from(bytes)).await? {
            Put::Created | Put::Same => return Ok(()),
            Put::Other(_) => {}
        }
    }
    Err(Error::Contended { key: prefix() })
}
