//! Accepting a batch.

use bytes::Bytes;
use stele_format::l0;
use stele_model::{Digest, L0Name, Rows};
use stele_store::{Put, TenantStore};

use crate::error::{Error, Result};

/// Accepts batches for one tenant.
#[derive(Clone)]
pub struct Ingestor {
    store: TenantStore,
}

/// A batch ready to be stored: the work that needs no store is done.
#[derive(Debug, Clone)]
pub struct Prepared {
    digest: Digest,
    rows: u64,
    name: L0Name,
    bytes: Bytes,
}

/// Proof that a batch is durable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Receipt {
    /// The digest of the batch, by which the ledger knows it.
    pub digest: Digest,
    /// The object that holds it until it is absorbed.
    pub name: L0Name,
    /// Its samples, duplicates included.
    pub rows: u64,
    /// The URLs of the tiers that hold it.
    pub tiers: Vec<String>,
}

impl Prepared {
    /// Brings `rows` into canonical form and encodes them; `None` when there is no row. Pure and
    /// CPU-bound.
    ///
    /// # Errors
    /// [`Error::Encode`].
    pub fn new(rows: Rows) -> Result<Option<Self>> {
        if rows.is_empty() {
            return Ok(None);
        }
        let batch = stele_format::batch(rows);
        let (digest, rows) = (batch.digest, batch.rows.len() as u64);
        let encoded = l0::encode(&[batch]).map_err(Error::Encode)?;
        Ok(Some(Self {
            digest,
            rows,
            name: encoded.name,
            bytes: encoded.bytes,
        }))
    }

    /// The size of the object in bytes.
    #[must_use]
    pub fn size_bytes(&self) -> u64 {
        self.bytes.len() as u64
    }
}

impl Ingestor {
    /// An ingestor of `store`'s tenant.
    #[must_use]
    pub fn new(store: TenantStore) -> Self {
        Self { store }
    }

    /// The store it writes to.
    #[must_use]
    pub fn store(&self) -> &TenantStore {
        &self.store
    }

    /// Stores `rows` as one batch with exactly one PUT, and no other request while the store is
    /// well. No row: nothing is stored, and there is no receipt.
    ///
    /// # Errors
    /// As [`Self::put`], and [`Error::Encode`].
    pub async fn accept(&self, rows: Rows) -> Result<Option<Receipt>> {
        match Prepared::new(rows)? {
            Some(prepared) => self.put(prepared).await.map(Some),
            None => Ok(None),
        }
    }

    /// Stores a prepared batch. When it returns, the object is durable.
    ///
    /// # Errors
    /// [`Error::Store`] when that is not known to be so: the batch is not acknowledged and may be
    /// sent again. [`Error::NameTaken`] when the store holds damaged bytes under its name.
    pub async fn put(&self, prepared: Prepared) -> Result<Receipt> {
        match self.store.l0_put(&prepared.name, prepared.bytes).await {
            Ok(Put::Created | Put::Same) => {}
            Ok(Put::Other(found)) => same_batch(prepared.digest, prepared.name, found)?,
            // Another version of the encoder may have stored the same samples.
            Err(stele_store::Error::KeyHoldsOther { .. }) => {
                let found = self
                    .store
                    .l0_get(&prepared.name)
                    .await
                    .map_err(Error::Store)?;
                same_batch(prepared.digest, prepared.name, found)?;
            }
            Err(error) => return Err(Error::Store(error)),
        }
        Ok(Receipt {
            digest: prepared.digest,
            name: prepared.name,
            rows: prepared.rows,
            tiers: vec![self.store.tier().url().to_owned()],
        })
    }
}

/// Checks that the object found under a batch's name holds exactly that batch.
fn same_batch(digest: Digest, name: L0Name, found: Bytes) -> Result<()> {
    let taken = |source| Error::NameTaken { name, source };
    let batches = l0::decode(found).map_err(|error| taken(Some(error)))?;
    match batches.as_slice() {
        [batch] if batch.digest == digest => Ok(()),
        _ => Err(taken(None)),
    }
}
