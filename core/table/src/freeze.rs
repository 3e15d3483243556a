//! The switch that stops every deletion of a tenant: a chain of create-only objects under
//! `control/deletion/`, the last of which counts.
//!
//! While it is on, sweep, expiry and the deletion of markers and dropped snapshots refuse;
//! ingest, absorb, seal and queries go on. It is set by an operator, by a failed invariant, and
//! as the hold of a restore in place.

use serde::{Deserialize, Serialize};
use stele_store::TenantStore;

use crate::chain::{Chain, Link};
use crate::error::Result;

const CHAIN: Chain = Chain("deletion");
/// A longer reason is cut.
const REASON_CHARS_MAX: usize = 500;

/// Nothing of the tenant may be deleted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Frozen {
    /// Why.
    pub reason: String,
    /// Since when, µs by the clock of who froze it.
    pub since_us: i64,
    /// Since when, µs by the store's clock.
    pub stored_us: i64,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Switch {
    frozen: bool,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    reason: String,
    since_us: i64,
}

/// Whether deletion is frozen, why and since when.
///
/// # Errors
/// The store's, and [`crate::Error::Corrupt`] for a damaged switch: then nothing may be deleted
/// either.
pub async fn deletion_frozen(store: &TenantStore) -> Result<Option<Frozen>> {
    let last: Option<Link<Switch>> = CHAIN.last(store).await?;
    Ok(last.filter(|link| link.value.frozen).map(|link| Frozen {
        reason: link.value.reason,
        since_us: link.value.since_us,
        stored_us: link.modified_us,
    }))
}

/// Freezes deletion for `reason`, or lets it go on (`None`). Frozen for the same reason already,
/// it stays as it is; for another, the new reason counts.
///
/// # Errors
/// The store's, [`crate::Error::Corrupt`] for a damaged switch, [`crate::Error::Contended`] when
/// others kept taking the next link.
pub async fn set_deletion_frozen(
    store: &TenantStore,
    reason: Option<&str>,
    now_us: i64,
) -> Result<()> {
    let switch = Switch {
        frozen: reason.is_some(),
        reason: shortened(reason.unwrap_or_default()),
        since_us: now_us,
    };
    CHAIN
        .append(store, |last: Option<&Link<Switch>>| {
            let is_same = match last {
                None => !switch.frozen,
                Some(last) => {
                    last.value.frozen == switch.frozen && last.value.reason == switch.reason
                }
            };
            (!is_same).then(|| switch.clone())
        })
        .await
}

/// Lets deletion go on if it is frozen for `reason` and for nothing that came after it.
///
/// # Errors
/// As [`set_deletion_frozen`].
pub async fn lift_deletion_freeze(store: &TenantStore, reason: &str, now_us: i64) -> Result<()> {
    let switch = Switch {
        frozen: false,
        reason: String::new(),
        since_us: now_us,
    };
    change_if(store, reason, switch).await
}

/// Freezes deletion for the reason `with` if it is frozen for `reason` and for nothing that came after.
///
/// # Errors
/// As [`set_deletion_frozen`].
pub async fn replace_deletion_freeze(
    store: &TenantStore,
    reason: &str,
    with: &str,
    now_us: i64,
) -> Result<()> {
    let switch = Switch {
        frozen: true,
        reason: shortened(with),
        since_us: now_us,
    };
    change_if(store, reason, switch).await
}

async fn change_if(store: &TenantStore, reason: &str, switch: Switch) -> Result<()> {
    let reason = shortened(reason);
    CHAIN
        .append(store, |last: Option<&Link<Switch>>| {
            let is_ours = |last: &&Link<Switch>| last.value.frozen && last.value.reason == reason;
            last.filter(is_ours).map(|_| switch.clone())
        })
        .await
}

fn shortened(reason: &str) -> String {
    reason.chars().take(REASON_CHARS_MAX).collect()
}
