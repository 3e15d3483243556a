//! One tenant's objects: conditional create with read-back, reads, complete listings.

use std::fmt;
use std::ops::Range;

use bytes::Bytes;
use futures::StreamExt;
use object_store::ObjectStoreExt;
use object_store::path::Path;
use stele_model::{L0Name, TenantId};

use crate::error::{Error, Result};
use crate::keys;
use crate::objects;
use crate::tier::Tier;

/// The objects of one tenant in one tier. Cheap to clone.
#[derive(Clone)]
pub struct TenantStore {
    tier: Tier,
    tenant: TenantId,
}

impl fmt::Debug for TenantStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TenantStore({} in {})", self.tenant, self.tier.url())
    }
}

/// What a conditional create found out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Put {
    /// The key was free and now holds the bytes.
    Created,
    /// The key holds exactly these bytes, perhaps by an earlier attempt of ours.
    Same,
    /// The key holds other bytes: these.
    Other(Bytes),
}

/// What a key holds, and since when.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stored {
    /// The object's bytes.
    pub bytes: Bytes,
    /// When the store says it was written, µs since the epoch.
    pub modified_us: i64,
}

/// One object of a listing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ObjectInfo {
    /// The key, relative to the tenant.
    pub key: String,
    /// The object's size.
    pub size_bytes: u64,
    /// When the store says it was written, µs since the epoch.
    pub modified_us: i64,
}

/// One accepted object that ingest wrote.
#[derive(Clone, Debug, PartialEq)]
pub struct L0Object {
    /// Its name, which says what windows it may hold rows of.
    pub name: L0Name,
    /// The object's size.
    pub size_bytes: u64,
    /// When the store says it was written, µs since the epoch.
    pub stored_us: i64,
}

impl TenantStore {
    pub(crate) fn new(tier: Tier, tenant: TenantId) -> Self {
        Self { tier, tenant }
    }

    /// The tenant.
    #[must_use]
    pub fn tenant(&self) -> &TenantId {
        &self.tenant
    }

    /// The tier the objects are in.
    #[must_use]
    pub fn tier(&self) -> &Tier {
        &self.tier
    }

    /// The full path of a relative key in [`Tier::object_store`].
    #[must_use]
    pub fn path(&self, key: &str) -> Path {
        self.tier.path(&format!("tenants/{}/{key}", self.tenant))
    }

    /// Creates `key` unless it exists.
    ///
    /// An error of the store is not an outcome: a PUT that landed may come back as "already
    /// exists" or as a timeout, and a 409 as "already exists" though nothing landed. After
    /// anything but a clean success the key is read back and compared; while it is absent the
    /// same bytes are put again.
    ///
    /// # Errors
    /// [`Error::Unknown`] when no attempt could be resolved: the object may still appear.
    /// [`Error::Request`] when the store refused for good and the key is absent.
    pub async fn put_new(&self, key: &str, bytes: Bytes) -> Result<Put> {
        let (put, _) = objects::create(&self.tier, &self.path(key), key, bytes).await?;
        Ok(put)
    }

    /// Creates `key` as [`Self::put_new`] does. When it holds other bytes, answers them and the
    /// store's time of the object, without another request.
    ///
    /// # Errors
    /// As [`Self::put_new`].
    pub async fn put_or_get(&self, key: &str, bytes: Bytes) -> Result<Option<Stored>> {
        let created = objects::create(&self.tier, &self.path(key), key, bytes).await?;
        Ok(match created {
            (Put::Created | Put::Same, _) => None,
            (Put::Other(bytes), modified_us) => Some(Stored { bytes, modified_us }),
        })
    }

    /// The whole object.
    ///
    /// # Errors
    /// [`Error::NotFound`] when there is none; [`Error::Request`] when the read failed.
    pub async fn get(&self, key: &str) -> Result<Bytes> {
        let stored = objects::get(&self.tier, &self.path(key), key).await?;
        Ok(stored.bytes)
    }

    /// The whole object, or `None` when there is none.
    ///
    /// # Errors
    /// [`Error::Request`] when the read failed.
    pub async fn get_opt(&self, key: &str) -> Result<Option<Bytes>> {
        objects::found(self.get(key).await)
    }

    /// The whole object and the store's time of it, or `None` when there is none.
    ///
    /// # Errors
    /// [`Error::Request`] when the read failed.
    pub async fn stored_opt(&self, key: &str) -> Result<Option<Stored>> {
        objects::found(objects::get(&self.tier, &self.path(key), key).await)
    }

    /// The bytes of `range`, which must lie within the object.
    ///
    /// # Errors
    /// [`Error::NotFound`] when there is no object; [`Error::Short`] when it ends within the
    /// range; [`Error::Request`] when the read failed or the range begins beyond the end.
    pub async fn get_range(&self, key: &str, range: Range<u64>) -> Result<Bytes> {
        let wanted_bytes = range.end.saturating_sub(range.start);
        let answer = self.tier.store().get_range(&self.path(key), range).await;
        let bytes = answer.map_err(|e| Error::request("get", key, e))?;
        let found_bytes = bytes.len() as u64;
        if found_bytes == wanted_bytes {
            return Ok(bytes);
        }
        Err(Error::Short {
            key: key.to_owned(),
            wanted_bytes,
            found_bytes,
        })
    }

    /// Every object below `prefix` (a whole path component), to the last page, sorted by key.
    ///
    /// # Errors
    /// [`Error::Request`] when any page fails: a listing is complete or an error.
    pub async fn list(&self, prefix: &str) -> Result<Vec<ObjectInfo>> {
        let (base, path) = (self.path(""), self.path(prefix));
        objects::list(&self.tier, &base, &path, prefix, None).await
    }

    /// Like [`TenantStore::list`], of the keys greater than `after` alone.
    ///
    /// # Errors
    /// As there.
    pub async fn list_after(&self, prefix: &str, after: &str) -> Result<Vec<ObjectInfo>> {
        let (base, path) = (self.path(""), self.path(prefix));
        let after = self.path(after);
        objects::list(&self.tier, &base, &path, prefix, Some(&after)).await
    }

    /// The least key below `prefix` from the first page of its LIST; heads are named so that
    /// this is the newest. A shortcut, never the truth.
    ///
    /// # Errors
    /// [`Error::Request`] when the page fails.
    pub async fn list_newest_head(&self, prefix: &str) -> Result<Option<String>> {
        if !self.tier.lists_in_order() {
            let objects = self.list(prefix).await?;
            return Ok(objects.into_iter().next().map(|object| object.key));
        }
        let base = self.path("");
        let mut stream = self.tier.store().list(Some(&self.path(prefix)));
        match stream.next().await {
            None => Ok(None),
            Some(Ok(meta)) => Ok(Some(objects::info(&base, meta).key)),
            Some(Err(e)) => Err(Error::request("list", prefix, e)),
        }
    }

    /// Deletes `key`; an object that is already gone is success.
    ///
    /// # Errors
    /// [`Error::Request`] when the store failed: the object may or may not be gone.
    pub async fn delete(&self, key: &str) -> Result<()> {
        match self.tier.store().delete(&self.path(key)).await {
            Ok(()) | Err(object_store::Error::NotFound { .. }) => Ok(()),
            Err(e) => Err(Error::request("delete", key, e)),
        }
    }

    /// Stores an accepted batch under its name. Both outcomes mean the bytes are there.
    ///
    /// # Errors
    /// [`Error::KeyHoldsOther`] when the name holds other bytes; else as [`Self::put_new`].
    pub async fn l0_put(&self, name: &L0Name, bytes: Bytes) -> Result<Put> {
        let key = l0_key(name);
        let wanted_bytes = bytes.len() as u64;
        match self.put_new(&key, bytes).await? {
            Put::Other(found) => Err(Error::KeyHoldsOther {
                key,
                wanted_bytes,
                found_bytes: found.len() as u64,
            }),
            done => Ok(done),
        }
    }

    /// Every L0 object, sorted by name text; a foreign key is skipped with a warning.
    ///
    /// # Errors
    /// As [`Self::list`].
    pub async fn l0_list(&self) -> Result<Vec<L0Object>> {
        let listed = self.list(keys::L0).await?;
        let objects = listed.into_iter().filter_map(|object| {
            let name = object.key.strip_prefix(keys::L0)?.strip_prefix('/')?;
            match name.parse() {
                Ok(name) => Some(L0Object {
                    name,
                    size_bytes: object.size_bytes,
                    stored_us: object.modified_us,
                }),
                Err(error) => {
                    tracing::warn!(%error, tenant = %self.tenant, "foreign object under l0/");
                    None
                }
            }
        });
        Ok(objects.collect())
    }

    /// The bytes of an L0 object.
    ///
    /// # Errors
    /// As [`Self::get`].
    pub async fn l0_get(&self, name: &L0Name) -> Result<Bytes> {
        self.get(&l0_key(name)).await
    }
}

fn l0_key(name: &L0Name) -> String {
    format!("{}/{name}", keys::L0)
}
