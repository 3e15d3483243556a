//! Making, listing and revoking tokens.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use futures::{StreamExt, TryStreamExt};
use serde::ser::SerializeStruct;
use serde::{Serialize, Serializer};
use stele_model::{Entropy, TenantId};
use stele_store::{ControlStore, Put};

use crate::error::{Damage, Error, Result};
use crate::record::{Key, NOTE_BYTES_MAX, Revocation, Scope, TOKENS, TokenId, TokenRecord};
use crate::secret::TokenText;

/// How many records are read at once.
pub(crate) const READS_MAX: usize = 16;

/// What a new token is to be.
#[derive(Debug, Clone)]
pub struct NewToken {
    /// The tenant it will belong to.
    pub tenant: TenantId,
    /// What it will allow; not empty.
    pub scopes: BTreeSet<Scope>,
    /// What it is for; at most [`NOTE_BYTES_MAX`] bytes.
    pub note: String,
}

/// Makes a token. Its text is returned here and never again: the store keeps only a hash.
///
/// # Errors
/// [`Error::NoScope`], [`Error::Note`], [`Error::Entropy`]; [`Error::Store`] when it is not known
/// whether the record was stored (the token is then of no use to anyone: its text is lost).
pub async fn create(
    store: &ControlStore,
    new: NewToken,
    entropy: &dyn Entropy,
    now_us: i64,
) -> Result<(TokenText, TokenRecord)> {
    let (bytes, limit) = (new.note.len(), NOTE_BYTES_MAX);
    if bytes > limit {
        return Err(Error::Note { bytes, limit });
    }
    if new.scopes.is_empty() {
        return Err(Error::NoScope);
    }
    let (mut id, mut secret) = ([0; 8], [0; 32]);
    let filled = entropy
        .fill(&mut id)
        .and_then(|()| entropy.fill(&mut secret));
    filled.map_err(|source| Error::Entropy(Arc::new(source)))?;
    let id = TokenId::new(id);
    let text = TokenText::new(&id, secret);
    let record = TokenRecord {
        tenant: new.tenant,
        scopes: new.scopes,
        note: new.note,
        created_us: now_us,
        sha256: text.hash(),
        id,
    };
    match store.put_new(&record.id.key(), record.to_bytes()).await? {
        // `Same` is this very record, by an attempt of ours whose reply was lost.
        Put::Created | Put::Same => Ok((text, record)),
        Put::Other(_) => Err(Error::Taken { id: record.id }),
    }
}

/// Revokes a token, also a damaged one, and says since when it is revoked: an earlier revocation
/// stands. Servers stop accepting it within [`AGE_MAX_US`](crate::AGE_MAX_US).
///
/// # Errors
/// [`Error::NotFound`]; [`Error::Store`] when it is not known to be revoked.
pub async fn revoke(store: &ControlStore, id: &TokenId, now_us: i64) -> Result<Revocation> {
    if store.get_opt(&id.key()).await?.is_none() {
        return Err(Error::NotFound { id: id.clone() });
    }
    let new = Revocation::new(id, now_us);
    match store.put_new(&id.revoked_key(), new.to_bytes()).await? {
        Put::Created | Put::Same => Ok(new),
        Put::Other(found) => {
            let damaged = |source| Error::Damaged {
                id: id.clone(),
                source,
            };
            Revocation::from_bytes(&found).map_err(damaged)
        }
    }
}

/// One token of a list. Serialized as `id`, `tenant`, `scopes`, `note`, `created_us`, `revoked`,
/// `revoked_us` and `error`; what is not known is null.
#[derive(Debug, Clone)]
pub struct Listed {
    /// The token.
    pub id: TokenId,
    /// Its record; [`Error::Damaged`] when it cannot be read.
    pub record: Result<TokenRecord>,
    /// Whether it is revoked, and since when.
    pub revoked: Option<Result<Revocation>>,
}

impl Listed {
    /// Whether servers accept the token.
    #[must_use]
    pub fn is_active(&self) -> bool {
        self.record.is_ok() && self.revoked.is_none()
    }
}

impl Serialize for Listed {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        let record = self.record.as_ref().ok();
        let revoked_us = match &self.revoked {
            Some(Ok(revocation)) => Some(revocation.revoked_us),
            _ => None,
        };
        let error = match &self.record {
            Err(Error::Damaged { id, source }) => Some(format!("token {id} is damaged: {source}")),
            Err(other) => Some(other.to_string()),
            Ok(_) => None,
        };
        let mut out = serializer.serialize_struct("Listed", 8)?;
        out.serialize_field("id", &self.id)?;
        out.serialize_field("tenant", &record.map(|r| &r.tenant))?;
        out.serialize_field("scopes", &record.map(|r| &r.scopes))?;
        out.serialize_field("note", &record.map(|r| &r.note))?;
        out.serialize_field("created_us", &record.map(|r| r.created_us))?;
        out.serialize_field("revoked", &self.revoked.is_some())?;
        out.serialize_field("revoked_us", &revoked_us)?;
        out.serialize_field("error", &error)?;
        out.end()
    }
}

/// All tokens, by id. A damaged one is in the list with its error; others are not affected.
///
/// # Errors
/// [`Error::Store`] when the store cannot be listed or an object cannot be read.
pub async fn list(store: &ControlStore) -> Result<Vec<Listed>> {
    let mut keys = BTreeMap::<TokenId, (bool, bool)>::new();
    for object in store.list(TOKENS).await? {
        match Key::of(&object.key) {
            Some(Key::Token(id)) => keys.entry(id).or_default().0 = true,
            Some(Key::Revoked(id)) => keys.entry(id).or_default().1 = true,
            None => tracing::warn!(key = object.key, "a foreign object among the tokens"),
        }
    }
    let reads = keys.into_iter().map(|(id, (token, revoked))| async move {
        let record = if token {
            read(store, &id).await?
        } else {
            Err(Damage::Gone)
        };
        let revoked = if revoked {
            let bytes = store.get_opt(&id.revoked_key()).await?;
            let read = bytes.ok_or(Damage::Gone);
            Some(read.and_then(|bytes| Revocation::from_bytes(&bytes)))
        } else {
            None
        };
        let damaged = |source| Error::Damaged {
            id: id.clone(),
            source,
        };
        Ok(Listed {
            record: record.map_err(damaged),
            revoked: revoked.map(|read| read.map_err(damaged)),
            id,
        })
    });
    let reads = futures::stream::iter(reads).buffered(READS_MAX);
    reads.try_collect().await
}

/// Reads a record: the outer result is the store's, the inner one the record's.
pub(crate) async fn read(
    store: &ControlStore,
    id: &TokenId,
) -> Result<std::result::Result<TokenRecord, Damage>> {
    let bytes = store.get_opt(&id.key()).await?;
    let bytes = bytes.ok_or(Damage::Gone);
    Ok(bytes.and_then(|bytes| TokenRecord::from_bytes(id, &bytes)))
}
