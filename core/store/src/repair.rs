//! Repair intents: what a tier lacks, noted on the primary before the batch was acknowledged.

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use stele_model::{Day, Digest, L0Name, TierId};

use crate::error::{Error, Result};
use crate::tenant::TenantStore;
use crate::{keys, sealed};

/// An L0 object to bring to a tier.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RepairIntent {
    /// The object.
    pub name: L0Name,
    /// Its batches, and the day under which the ledger files each.
    pub batches: Vec<(Digest, Day)>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Text {
    batches: Vec<(Digest, Day)>,
}

impl RepairIntent {
    /// Where it is kept on the primary, relative to the tenant.
    #[must_use]
    pub fn key(&self, tier: &TierId) -> String {
        format!("{}/{}", keys::repairs(tier), self.name)
    }

    /// Stores it: whoever puts it may acknowledge the batches without that tier.
    ///
    /// # Errors
    /// As [`TenantStore::put_new`].
    pub async fn put(&self, primary: &TenantStore, tier: &TierId) -> Result<()> {
        let key = self.key(tier);
        let text = Text {
            batches: self.batches.clone(),
        };
        let json = serde_json::to_vec(&text).map_err(|error| damaged(&key, &error))?;
        // Another one of the same object says the same.
        primary.put_new(&key, sealed::seal(&json)).await?;
        Ok(())
    }

    /// Every intent for `tier`.
    ///
    /// # Errors
    /// The store's, and [`Error::Damaged`].
    pub async fn list(primary: &TenantStore, tier: &TierId) -> Result<Vec<Self>> {
        let prefix = keys::repairs(tier);
        let mut intents = Vec::new();
        for object in primary.list(&prefix).await? {
            let name = object.key.rsplit('/').next().unwrap_or_default();
            let name = name.parse().map_err(|error| damaged(&object.key, &error))?;
            // Another run may have done it meanwhile.
            let Some(bytes) = primary.get_opt(&object.key).await? else {
                continue;
            };
            let batches = decode(&object.key, &bytes)?;
            intents.push(Self { name, batches });
        }
        Ok(intents)
    }
}

fn decode(key: &str, bytes: &Bytes) -> Result<Vec<(Digest, Day)>> {
    let json = sealed::unseal(bytes);
    let json = json.ok_or_else(|| damaged(key, &"its check is not that of its text"))?;
    let text: Text = serde_json::from_slice(&json).map_err(|error| damaged(key, &error))?;
    Ok(text.batches)
}

fn damaged(key: &str, why: &dyn std::fmt::Display) -> Error {
    Error::Damaged {
        key: key.to_owned(),
        why: why.to_string(),
    }
}
