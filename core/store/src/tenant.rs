//! One tenant's objects: conditional create with read-back, reads, complete listings.

use std::fmt;
use std::ops::Range;

use bytes::Bytes;
use futures::{StreamExt, TryStreamExt};
use object_store::path::Path;
use object_store::{ObjectMeta, ObjectStoreExt, PutMode, PutOptions};
use stele_model::{L0Name, TenantId};

use crate::error::{Error, Result};
use crate::keys;
use crate::tier::Tier;

/// How often one PUT is sent before its outcome is given up as unknown. `object_store` retries
/// transient failures itself; these attempts are for outcomes that had to be read back.
const PUT_ATTEMPTS: u32 = 4;

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
        let (put, _) = self.create(key, bytes).await?;
        Ok(put)
    }

    /// Creates `key` as [`Self::put_new`] does. When it holds other bytes, answers them and the
    /// store's time of the object, without another request.
    ///
    /// # Errors
    /// As [`Self::put_new`].
    pub async fn put_or_get(&self, key: &str, bytes: Bytes) -> Result<Option<Stored>> {
        let (put, modified_us) = self.create(key, bytes).await?;
        Ok(match put {
            Put::Created | Put::Same => None,
            Put::Other(bytes) => Some(Stored { bytes, modified_us }),
        })
    }

    /// The outcome, and the store's time of an object that was read back (else 0).
    async fn create(&self, key: &str, bytes: Bytes) -> Result<(Put, i64)> {
        let path = self.path(key);
        let mut attempt = 0;
        loop {
            attempt += 1;
            let options = PutOptions::from(PutMode::Create);
            let put = self.tier.store();
            let put = put.put_opts(&path, bytes.clone().into(), options).await;
            let Err(failure) = put else {
                return Ok((Put::Created, 0));
            };
            let failure = match self.get_stored(key).await {
                Ok(Stored {
                    bytes: found,
                    modified_us,
                }) => {
                    let put = match found == bytes {
                        true => Put::Same,
                        false => Put::Other(found),
                    };
                    return Ok((put, modified_us));
                }
                Err(Error::NotFound { .. }) if refused_for_good(&failure) => {
                    return Err(Error::request("put", key, failure));
                }
                Err(Error::NotFound { .. }) => failure,
                Err(Error::Request { source, .. }) => *source,
                Err(other) => return Err(other),
            };
            tracing::debug!(key, attempt, %failure, "a PUT could not be resolved");
            if attempt == PUT_ATTEMPTS {
                return Err(Error::Unknown {
                    key: key.to_owned(),
                    attempts: attempt,
                    source: Box::new(failure),
                });
            }
        }
    }

    /// The whole object.
    ///
    /// # Errors
    /// [`Error::NotFound`] when there is none; [`Error::Request`] when the read failed.
    pub async fn get(&self, key: &str) -> Result<Bytes> {
        let stored = self.get_stored(key).await?;
        Ok(stored.bytes)
    }

    async fn get_stored(&self, key: &str) -> Result<Stored> {
        let answer = self.tier.store().get(&self.path(key)).await;
        let answer = answer.map_err(|e| Error::request("get", key, e))?;
        let modified_us = answer.meta.last_modified.timestamp_micros();
        let bytes = answer.bytes().await;
        let bytes = bytes.map_err(|e| Error::request("get", key, e))?;
        Ok(Stored { bytes, modified_us })
    }

    /// The whole object, or `None` when there is none.
    ///
    /// # Errors
    /// [`Error::Request`] when the read failed.
    pub async fn get_opt(&self, key: &str) -> Result<Option<Bytes>> {
        match self.get(key).await {
            Ok(bytes) => Ok(Some(bytes)),
            Err(Error::NotFound { .. }) => Ok(None),
            Err(other) => Err(other),
        }
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
        let base = self.path("");
        let stream = self.tier.store().list(Some(&self.path(prefix)));
        let mut objects: Vec<ObjectInfo> = stream
            .map_ok(|meta| info(&base, meta))
            .try_collect()
            .await
            .map_err(|e| Error::request("list", prefix, e))?;
        objects.sort_unstable_by(|a, b| a.key.cmp(&b.key));
        Ok(objects)
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
            Some(Ok(meta)) => Ok(Some(info(&base, meta).key)),
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

fn info(base: &Path, meta: ObjectMeta) -> ObjectInfo {
    let full = meta.location.as_ref();
    let key = full.strip_prefix(base.as_ref()).unwrap_or(full);
    ObjectInfo {
        key: key.trim_start_matches('/').to_owned(),
        size_bytes: meta.size,
        modified_us: meta.last_modified.timestamp_micros(),
    }
}

/// Whether the store said no to the request itself, so that sending it again cannot help.
fn refused_for_good(failure: &object_store::Error) -> bool {
    use object_store::Error as E;
    matches!(
        failure,
        E::PermissionDenied { .. }
            | E::Unauthenticated { .. }
            | E::NotImplemented { .. }
            | E::NotSupported { .. }
            | E::InvalidPath { .. }
            | E::NotFound { .. }
    )
}
