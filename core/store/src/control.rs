//! What a tier keeps for all its tenants: objects that are created once and never changed.

use bytes::Bytes;
use object_store::path::Path;

use crate::error::Result;
use crate::objects;
use crate::tenant::{ObjectInfo, Put, Stored};
use crate::tier::{CONTROL, Tier};

/// The objects below `<tier>/control/`, which belong to no tenant. Cheap to clone. It can neither
/// overwrite nor delete.
#[derive(Clone, Debug)]
pub struct ControlStore {
    tier: Tier,
}

impl ControlStore {
    pub(crate) fn new(tier: Tier) -> Self {
        Self { tier }
    }

    fn path(&self, key: &str) -> Path {
        self.tier.path(&format!("{CONTROL}/{key}"))
    }

    /// Creates `key` unless it exists, as [`TenantStore::put_new`](crate::TenantStore::put_new).
    ///
    /// # Errors
    /// As there.
    pub async fn put_new(&self, key: &str, bytes: Bytes) -> Result<Put> {
        let (put, _) = objects::create(&self.tier, &self.path(key), key, bytes).await?;
        Ok(put)
    }

    /// The whole object, or `None` when there is none.
    ///
    /// # Errors
    /// [`Error::Request`](crate::Error::Request) when the read failed.
    pub async fn get_opt(&self, key: &str) -> Result<Option<Bytes>> {
        Ok(self.stored_opt(key).await?.map(|stored| stored.bytes))
    }

    /// The whole object and the store's time of it, or `None` when there is none.
    ///
    /// # Errors
    /// As [`Self::get_opt`].
    pub async fn stored_opt(&self, key: &str) -> Result<Option<Stored>> {
        objects::found(objects::get(&self.tier, &self.path(key), key).await)
    }

    /// Every object below `prefix` (a whole path component), to the last page, sorted by key.
    ///
    /// # Errors
    /// [`Error::Request`](crate::Error::Request) when any page fails.
    pub async fn list(&self, prefix: &str) -> Result<Vec<ObjectInfo>> {
        objects::list(&self.tier, &self.path(""), &self.path(prefix), prefix, None).await
    }
}
