//! What an operator confirmed: expiry that asked first, a durable create-only object
//! `control/confirmed/<hash>.json` each, so that any server finds it.

use serde::{Deserialize, Serialize};
use stele_model::{Day, Digest, Resolution};
use stele_store::{Put, TenantStore, keys, sealed};
use stele_table::{Damage, Expired};

use crate::error::{Error, Result};
use crate::plan::{ExpireAsks, ExpirePlan};

/// What is stored.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Confirmed {
    /// What may have expired.
    before: Expired,
    /// The last restore in place before that.
    restore: u64,
    /// When, µs by the clock of who confirmed it.
    confirmed_us: i64,
}

fn prefix() -> String {
    format!("{}/confirmed", keys::CONTROL)
}

fn key(hash: &Digest) -> String {
    format!("{}/{hash}.json", prefix())
}

fn corrupt(key: String, damage: Damage) -> Error {
    Error::Table(stele_table::Error::Corrupt { key, damage })
}

/// Stores that `asks` was confirmed; the first time counts.
pub(crate) async fn confirm(store: &TenantStore, asks: &ExpireAsks, now_us: i64) -> Result<()> {
    let key = key(&asks.hash);
    let confirmed = Confirmed {
        before: asks.before,
        restore: asks.restore,
        confirmed_us: now_us,
    };
    let json = serde_json::to_vec(&confirmed);
    let json = json.map_err(|error| corrupt(key.clone(), Damage::Json(error)))?;
    match store.put_new(&key, sealed::seal(&json)).await? {
        Put::Created | Put::Same => Ok(()),
        Put::Other(found) => decode(&key, &found).map(drop),
    }
}

/// Whether what a plan expires was confirmed since the last restore in place, by whichever
/// question it was part of.
pub(crate) async fn is_confirmed(
    store: &TenantStore,
    plan: &ExpirePlan,
    restore: u64,
) -> Result<bool> {
    let before =
        |expired: &Expired, resolution: Resolution| -> Option<Day> { expired.before(resolution) };
    for object in store.list(&prefix()).await? {
        let Some(bytes) = store.get_opt(&object.key).await? else {
            continue;
        };
        let confirmed = decode(&object.key, &bytes)?;
        if confirmed.restore != restore {
            continue;
        }
        let up_to = before(&confirmed.before, plan.resolution);
        if up_to.is_some() && up_to >= before(&plan.to, plan.resolution) {
            return Ok(true);
        }
    }
    Ok(false)
}

fn decode(key: &str, bytes: &[u8]) -> Result<Confirmed> {
    let damaged = |damage| corrupt(key.to_owned(), damage);
    let json = sealed::unseal(bytes);
    let json = json.ok_or_else(|| damaged(Damage::Disagrees { what: "its check" }))?;
    serde_json::from_slice(&json).map_err(|error| damaged(Damage::Json(error)))
}
