//! What a tenant, and a tier, keep beside the tables: settings, markers of idempotency keys,
//! tokens. All of it is created once and never changed, so a copy is there or it is an error.

use std::collections::BTreeMap;

use bytes::Bytes;
use futures::{StreamExt, TryStreamExt, stream};
use stele_format::content_digest;
use stele_model::Digest;
use stele_store::{ControlStore, Put, TenantStore, Tier, keys};

use super::{ReplicateError, Result};

/// The chains of settings of a tenant.
const CHAINS: [&str; 2] = ["rollups", "retention"];
/// What a tier keeps below `control/` that is for every tier alike.
const TOKENS: &str = "tokens";
/// Objects copied at once.
const COPIES: usize = 8;

/// What copying settings did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct SettingsReport {
    /// Settings, or tokens and their revocations, copied.
    pub settings: u64,
    /// Markers of idempotency keys copied.
    pub markers: u64,
    /// Objects that were there already.
    pub there: u64,
}

/// Copies the settings of a tenant and the markers that are younger than `marker_keep_us`, by the
/// store's clock. Settings that are there are compared; a marker that is there is compared by its
/// size.
///
/// # Errors
/// [`ReplicateError::Other`] for a key that holds something else at `to`; else the stores'.
pub async fn copy_settings(
    from: &TenantStore,
    to: &TenantStore,
    marker_keep_us: i64,
) -> Result<SettingsReport> {
    let mut report = SettingsReport::default();
    for chain in CHAINS {
        let prefix = format!("{}/{chain}", keys::CONTROL);
        // In order: the last link counts, and none may be missing before it.
        for link in from.list(&prefix).await? {
            let bytes = from.get(&link.key).await?;
            let put = to.put_new(&link.key, bytes.clone()).await?;
            match created(put, link.key, &bytes)? {
                true => report.settings += 1,
                false => report.there += 1,
            }
        }
    }
    let markers = from.list(keys::IDEM).await?;
    if markers.is_empty() {
        return Ok(report);
    }
    let now_us = from.tier().now_us().await?;
    let there = to.list(keys::IDEM).await?;
    let there: BTreeMap<String, u64> = there.into_iter().map(|o| (o.key, o.size_bytes)).collect();
    let (mut missing, known): (Vec<_>, Vec<_>) = markers
        .into_iter()
        .partition(|marker| there.get(&marker.key) != Some(&marker.size_bytes));
    report.there += known.len() as u64;
    missing.retain(|marker| marker.modified_us.saturating_add(marker_keep_us) > now_us);
    let copies = missing.into_iter().map(|marker| async move {
        // Swept since the LIST.
        let Some(bytes) = from.get_opt(&marker.key).await? else {
            return Ok(false);
        };
        let put = to.put_new(&marker.key, bytes.clone()).await?;
        created(put, marker.key, &bytes)
    });
    let mut copies = stream::iter(copies).buffer_unordered(COPIES);
    while let Some(is_new) = copies.try_next().await? {
        report.markers += u64::from(is_new);
    }
    Ok(report)
}

/// Copies what the tenants of a tier share: its tokens and their revocations. Never the epochs, the
/// clock or what a probe leaves.
///
/// # Errors
/// As [`copy_settings`].
pub async fn copy_control(from: &Tier, to: &Tier) -> Result<SettingsReport> {
    let (from, to): (ControlStore, ControlStore) = (from.control(), to.control());
    let mut report = SettingsReport::default();
    for object in from.list(TOKENS).await? {
        let missing = || stele_store::Error::NotFound {
            key: object.key.clone(),
        };
        let bytes = from.get_opt(&object.key).await?.ok_or_else(missing)?;
        let put = to.put_new(&object.key, bytes.clone()).await?;
        match created(put, object.key, &bytes)? {
            true => report.settings += 1,
            false => report.there += 1,
        }
    }
    Ok(report)
}

/// Whether it was new; an error when the key holds something else.
fn created(put: Put, key: String, bytes: &Bytes) -> Result<bool> {
    match put {
        Put::Created => Ok(true),
        Put::Same => Ok(false),
        Put::Other(found) => {
            let [source_digest, target_digest]: [Digest; 2] =
                [bytes, &found].map(|bytes| content_digest(bytes));
            Err(ReplicateError::Other {
                key,
                source_digest,
                target_digest,
            })
        }
    }
}
