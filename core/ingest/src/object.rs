//! Batches to one durable object.

use std::collections::BTreeMap;

use bytes::Bytes;
use stele_format::l0::{self, Encoded};
use stele_model::{Batch, Digest, L0Name};
use stele_store::{Put, TenantStore};

use crate::error::{Error, Result};

/// At most this many rows are encoded where they are; more would keep a worker from other
/// requests for milliseconds.
const INLINE_ROWS_MAX: usize = 16_384;

/// Batches by digest, so that each is there once, in the order in which an object holds them.
pub(crate) type Batches = BTreeMap<Digest, Batch>;

/// An object ready to be stored.
pub(crate) struct Object {
    pub name: L0Name,
    bytes: Bytes,
    digests: Vec<Digest>,
}

impl Object {
    /// Encodes `batches`.
    pub async fn of(batches: Batches) -> Result<Self> {
        let digests = batches.keys().copied().collect();
        let Encoded { name, bytes } = encode(batches).await?;
        Ok(Self {
            name,
            bytes,
            digests,
        })
    }

    /// Stores it. When it returns, the object is durable there.
    pub async fn put(&self, store: &TenantStore) -> Result<()> {
        let name = self.name;
        match store.l0_put(&name, self.bytes.clone()).await {
            Ok(Put::Created | Put::Same) => Ok(()),
            Ok(Put::Other(found)) => same_batches(&self.digests, name, found),
            // Another version of the encoder may have stored the same samples.
            Err(stele_store::Error::KeyHoldsOther { .. }) => {
                let found = store.l0_get(&name).await.map_err(Error::Store)?;
                same_batches(&self.digests, name, found)
            }
            Err(error) => Err(Error::Store(error)),
        }
    }
}

async fn encode(batches: Batches) -> Result<Encoded> {
    let rows: usize = batches.values().map(|batch| batch.rows.len()).sum();
    let batches: Vec<Batch> = batches.into_values().collect();
    let work = move || l0::encode(&batches).map_err(Error::Encode);
    if rows <= INLINE_ROWS_MAX {
        return work();
    }
    let worker = tokio::task::spawn_blocking(work);
    worker.await.map_err(Error::Worker)?
}

/// Checks that the object found under a name holds exactly the batches it stands for.
fn same_batches(digests: &[Digest], name: L0Name, found: Bytes) -> Result<()> {
    let taken = |source| Error::NameTaken { name, source };
    let batches = l0::decode(found).map_err(|error| taken(Some(error)))?;
    if batches.iter().map(|batch| &batch.digest).eq(digests) {
        return Ok(());
    }
    Err(taken(None))
}
