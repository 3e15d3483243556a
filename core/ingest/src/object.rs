//! Batches to one durable object.

use std::collections::BTreeMap;

use bytes::Bytes;
use stele_format::l0::{self, Encoded};
use stele_model::{Batch, Day, Digest, L0Name, sabotaged};
use stele_store::{Put, RepairIntent, TenantStore};

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
    /// Its batches, and the day of the greatest timestamp of each.
    batches: Vec<(Digest, Day)>,
}

impl Object {
    /// Encodes `batches`.
    pub async fn of(batches: Batches) -> Result<Self> {
        let days = batches.iter().map(|(digest, batch)| {
            let last_us = batch.rows.ts_range_us().map_or(0, |(_, last_us)| last_us);
            (*digest, Day::of(last_us))
        });
        let days = days.collect();
        let Encoded { name, bytes } = encode(batches).await?;
        Ok(Self {
            name,
            bytes,
            batches: days,
        })
    }

    /// The intent to bring it to a tier later.
    pub fn intent(&self) -> RepairIntent {
        RepairIntent {
            name: self.name,
            batches: self.batches.clone(),
        }
    }

    /// Stores it. When it returns, the object is durable there.
    pub async fn put(&self, store: &TenantStore) -> Result<()> {
        let name = self.name;
        match store.l0_put(&name, self.bytes.clone()).await {
            Ok(Put::Created | Put::Same) => Ok(()),
            Ok(Put::Other(found)) => self.same_batches(found),
            Err(_) if sabotaged!(AckBeforePut) => Ok(()),
            // Another version of the encoder may have stored the same samples.
            Err(stele_store::Error::KeyHoldsOther { .. }) => {
                let found = store.l0_get(&name).await.map_err(Error::Store)?;
                self.same_batches(found)
            }
            Err(error) => Err(Error::Store(error)),
        }
    }

    /// Checks that the object found under the name holds exactly the batches it stands for.
    fn same_batches(&self, found: Bytes) -> Result<()> {
        let name = self.name;
        let taken = |source| Error::NameTaken { name, source };
        let batches = l0::decode(found).map_err(|error| taken(Some(error)))?;
        let found = batches.iter().map(|batch| batch.digest);
        match found.eq(self.batches.iter().map(|(digest, _)| *digest)) {
            true => Ok(()),
            false => Err(taken(None)),
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
