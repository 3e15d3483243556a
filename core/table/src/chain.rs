//! Settings kept in the store: chains of create-only objects `control/<name>/<n>.json`, the last
//! of which counts. Each carries a digest of its own text.

use serde::Serialize;
use serde::de::DeserializeOwned;
use stele_store::{Put, TenantStore, keys, sealed};

use crate::error::{Damage, Error, Result};

/// How often a lost race over the next link is repeated.
const RACES_MAX: u32 = 16;

/// One chain.
pub(crate) struct Chain(pub &'static str);

/// The last link of a chain.
pub(crate) struct Link<T> {
    pub number: u64,
    /// When the store says it was written, µs.
    pub modified_us: i64,
    pub value: T,
}

impl Chain {
    fn prefix(&self) -> String {
        format!("{}/{}", keys::CONTROL, self.0)
    }

    fn key(&self, n: u64) -> String {
        format!("{}/{n:020}.json", self.prefix())
    }

    /// The last link.
    pub async fn last<T: DeserializeOwned>(&self, store: &TenantStore) -> Result<Option<Link<T>>> {
        let prefix = self.prefix();
        let listed = store.list(&prefix).await?;
        let number = |key: &str| {
            let name = key.strip_prefix(&prefix)?.strip_prefix('/')?;
            name.strip_suffix(".json")?.parse::<u64>().ok()
        };
        let links = listed.iter().filter_map(|object| {
            let number = number(&object.key)?;
            Some((number, object.modified_us))
        });
        let Some((number, modified_us)) = links.max() else {
            return Ok(None);
        };
        let key = self.key(number);
        let bytes = store.get_opt(&key).await?;
        let bytes = bytes.ok_or_else(|| Error::corrupt(&key, Damage::Missing))?;
        let json = sealed::unseal(&bytes);
        let json = json.ok_or_else(|| Error::corrupt(&key, Damage::value("check", "")))?;
        let value = serde_json::from_slice(&json);
        let value = value.map_err(|error| Error::corrupt(&key, Damage::Json(error)))?;
        Ok(Some(Link {
            number,
            modified_us,
            value,
        }))
    }

    /// Appends what `next` makes of the last link; `None` leaves the chain as it is.
    pub async fn append<T: Serialize + DeserializeOwned>(
        &self,
        store: &TenantStore,
        next: impl Fn(Option<&Link<T>>) -> Option<T>,
    ) -> Result<()> {
        for _ in 0..RACES_MAX {
            let last = self.last(store).await?;
            let Some(value) = next(last.as_ref()) else {
                return Ok(());
            };
            let key = self.key(last.map_or(0, |link| link.number.saturating_add(1)));
            let bytes = serde_json::to_vec(&value);
            let bytes = bytes.map_err(|error| Error::corrupt(&key, Damage::Json(error)))?;
            match store.put_new(&key, sealed::seal(&bytes)).await? {
                Put::Created | Put::Same => return Ok(()),
                Put::Other(_) => {}
            }
        }
        Err(Error::Contended { key: self.prefix() })
    }
}
