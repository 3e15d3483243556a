//! A complete store: one bucket and prefix, or one directory.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};
use stele_model::TenantId;

use crate::control::ControlStore;
use crate::error::{Error, Result};
use crate::tenant::TenantStore;

/// Where the tier keeps what belongs to no tenant.
pub(crate) const CONTROL: &str = "control";
const CLOCK: &str = "control/clock";
const TENANTS: &str = "tenants";

/// One tier. Cheap to clone.
#[derive(Clone)]
pub struct Tier {
    inner: Arc<Inner>,
}

struct Inner {
    store: Arc<dyn ObjectStore>,
    prefix: String,
    url: String,
    /// LIST answers in key order, so its first page holds the least key.
    sorted: bool,
}

impl fmt::Debug for Tier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Tier").field(&self.inner.url).finish()
    }
}

impl Tier {
    /// A tier over a store that is already open; keys go below `prefix` (may be empty).
    ///
    /// `url` is only shown to people.
    #[must_use]
    pub fn from_store(store: Arc<dyn ObjectStore>, prefix: &str, url: &str) -> Self {
        Self::build(store, prefix, url, false)
    }

    pub(crate) fn build(
        store: Arc<dyn ObjectStore>,
        prefix: &str,
        url: &str,
        sorted: bool,
    ) -> Self {
        let inner = Inner {
            store,
            prefix: prefix.trim_matches('/').to_owned(),
            url: url.to_owned(),
            sorted,
        };
        Self {
            inner: Arc::new(inner),
        }
    }

    /// The URL the tier was opened by; it never holds credentials.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.inner.url
    }

    /// The store below, with keys that still carry the tier's prefix.
    #[must_use]
    pub fn object_store(&self) -> Arc<dyn ObjectStore> {
        Arc::clone(&self.inner.store)
    }

    /// The part of the tier that belongs to one tenant.
    #[must_use]
    pub fn tenant(&self, tenant: &TenantId) -> TenantStore {
        TenantStore::new(self.clone(), tenant.clone())
    }

    /// The part of the tier that belongs to no tenant.
    #[must_use]
    pub fn control(&self) -> ControlStore {
        ControlStore::new(self.clone())
    }

    /// The same tier through another store, such as one that counts or refuses requests.
    #[must_use]
    pub fn over(&self, store: Arc<dyn ObjectStore>) -> Self {
        let inner = &self.inner;
        Self::build(store, &inner.prefix, &inner.url, inner.sorted)
    }

    pub(crate) fn store(&self) -> &dyn ObjectStore {
        self.inner.store.as_ref()
    }

    pub(crate) fn lists_in_order(&self) -> bool {
        self.inner.sorted
    }

    pub(crate) fn path(&self, key: &str) -> Path {
        if self.inner.prefix.is_empty() {
            Path::from(key)
        } else {
            Path::from(format!("{}/{key}", self.inner.prefix))
        }
    }

    /// The tenants that have at least one object, in order. A name that is no tenant is skipped.
    ///
    /// # Errors
    /// When the store cannot be listed.
    pub async fn tenants(&self) -> Result<Vec<TenantId>> {
        let root = self.path(TENANTS);
        let listing = self.store().list_with_delimiter(Some(&root)).await;
        let listing = listing.map_err(|e| Error::request("list", TENANTS, e))?;
        let names = listing.common_prefixes.iter().filter_map(|prefix| {
            let name = prefix.filename()?;
            let tenant = name.parse().ok();
            if tenant.is_none() {
                tracing::warn!(name, "a prefix under tenants/ is no tenant name; skipped");
            }
            tenant
        });
        let mut names: Vec<TenantId> = names.collect();
        names.sort();
        Ok(names)
    }

    /// The store's own clock: µs since the epoch, from the LastModified of an object just written
    /// (one PUT and one HEAD). S3 answers whole seconds.
    ///
    /// # Errors
    /// When either request fails.
    pub async fn now_us(&self) -> Result<i64> {
        let path = self.path(CLOCK);
        let payload = Bytes::from_static(b"clock\n").into();
        let put = self.store().put(&path, payload).await;
        put.map_err(|e| Error::request("put", CLOCK, e))?;
        let meta = self.store().head(&path).await;
        let meta = meta.map_err(|e| Error::request("head", CLOCK, e))?;
        Ok(meta.last_modified.timestamp_micros())
    }
}
