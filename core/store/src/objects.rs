//! Requests by full path, shared by a tenant's objects and the tier's control objects.

use bytes::Bytes;
use futures::TryStreamExt;
use object_store::path::Path;
use object_store::{ObjectMeta, ObjectStoreExt, PutMode, PutOptions};
use stele_model::sabotaged;

use crate::error::{Error, Result};
use crate::tenant::{ObjectInfo, Put, Stored};
use crate::tier::Tier;

/// How often one PUT is sent before its outcome is given up as unknown. `object_store` retries
/// transient failures itself; these attempts are for outcomes that had to be read back.
const PUT_ATTEMPTS: u32 = 4;

/// Creates the object at `path` unless it exists; `key` names it in errors. After anything but a
/// clean success it is read back and compared; while it is absent the same bytes are put again.
/// The outcome, and the store's time of an object that was read back (else 0).
pub(crate) async fn create(
    tier: &Tier,
    path: &Path,
    key: &str,
    bytes: Bytes,
) -> Result<(Put, i64)> {
    let mut attempt = 0;
    loop {
        attempt += 1;
        let options = PutOptions::from(PutMode::Create);
        let put = tier.store();
        let put = put.put_opts(path, bytes.clone().into(), options).await;
        let Err(failure) = put else {
            return Ok((Put::Created, 0));
        };
        let exists = matches!(failure, object_store::Error::AlreadyExists { .. });
        if exists && sabotaged!(ExistsIsSuccess) {
            return Ok((Put::Same, 0));
        }
        let failure = match found(get(tier, path, key).await) {
            Ok(Some(found)) => {
                let put = match found.bytes == bytes {
                    true => Put::Same,
                    false => Put::Other(found.bytes),
                };
                return Ok((put, found.modified_us));
            }
            Ok(None) if refused_for_good(&failure) => {
                return Err(Error::request("put", key, failure));
            }
            Ok(None) => failure,
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

/// The whole object and the store's time of it.
pub(crate) async fn get(tier: &Tier, path: &Path, key: &str) -> Result<Stored> {
    let answer = tier.store().get(path).await;
    let answer = answer.map_err(|e| Error::request("get", key, e))?;
    let modified_us = answer.meta.last_modified.timestamp_micros();
    let bytes = answer.bytes().await;
    let bytes = bytes.map_err(|e| Error::request("get", key, e))?;
    Ok(Stored { bytes, modified_us })
}

/// What was read; `None` when there is no such object.
pub(crate) fn found<T>(read: Result<T>) -> Result<Option<T>> {
    match read {
        Ok(stored) => Ok(Some(stored)),
        Err(Error::NotFound { .. }) => Ok(None),
        Err(other) => Err(other),
    }
}

/// Every object below `path`, to the last page, sorted by its key relative to `base`.
pub(crate) async fn list(
    tier: &Tier,
    base: &Path,
    path: &Path,
    prefix: &str,
    after: Option<&Path>,
) -> Result<Vec<ObjectInfo>> {
    let stream = match after {
        None => tier.store().list(Some(path)),
        Some(after) => tier.store().list_with_offset(Some(path), after),
    };
    let mut objects: Vec<ObjectInfo> = stream
        .map_ok(|meta| info(base, meta))
        .try_collect()
        .await
        .map_err(|e| Error::request("list", prefix, e))?;
    objects.sort_unstable_by(|a, b| a.key.cmp(&b.key));
    Ok(objects)
}

pub(crate) fn info(base: &Path, meta: ObjectMeta) -> ObjectInfo {
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
