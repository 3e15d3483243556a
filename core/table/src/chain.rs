//! Settings kept in the store: chains of create-only objects `control/<name>/<n>.json`, the last
//! of which counts. Each carries a digest of its own text.

use serde::Serialize;
use serde::de::DeserializeOwned;
use stele_store::{Put, TenantStore, keys, sealed};

use crate::error::{Damage, Error, Result};

/// How often a lost race over the next link is repeated.
const RACES_MAX: u32 = 16;
/// No link is longer.
const LINK_BYTES_MAX: usize = 8 << 20;

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

    pub fn key(&self, n: u64) -> String {
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
        if bytes.len() > LINK_BYTES_MAX {
            let limit_bytes = LINK_BYTES_MAX as u64;
            return Err(Error::corrupt(&key, Damage::TooLarge { limit_bytes }));
        }
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
        self.decide(store, |last| Ok((next(last), ()))).await
    }

    /// Like [`Chain::append`], of what may fail, and answers what `next` says beside the link.
    pub async fn decide<T: Serialize + DeserializeOwned, R>(
        &self,
        store: &TenantStore,
        next: impl Fn(Option<&Link<T>>) -> Result<(Option<T>, R)>,
    ) -> Result<R> {
        for _ in 0..RACES_MAX {
            let last = self.last(store).await?;
            let (value, said) = next(last.as_ref())?;
            let Some(value) = value else {
                return Ok(said);
            };
            let key = self.key(last.map_or(0, |link| link.number.saturating_add(1)));
            let bytes = serde_json::to_vec(&value);
            let bytes = bytes.map_err(|error| Error::corrupt(&key, Damage::Json(error)))?;
            match store.put_new(&key, sealed::seal(&bytes)).await? {
                Put::Created | Put::Same => return Ok(said),
                Put::Other(_) => {}
            }
        }
        Err(Error::Contended { key: self.prefix() })
    }
}
