//! Accepting a batch.

use std::fmt;
use std::sync::Arc;

use stele_model::time::DAY_US;
use stele_model::{Batch, Day, Digest, L0Name, ReceiptId, Rows, TenantId};
use stele_store::{TenantStore, Tiers};

use crate::durable::Durable;
use crate::error::Result;
use crate::group::{GroupLimits, Groups};
use crate::idempotency::{Attempt, IdempotencyKey};
use crate::object::Object;

/// How an ingestor works.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// Whether batches share an object while a PUT is in flight; `None`: one batch is one PUT.
    pub group: Option<GroupLimits>,
    /// How long an idempotency key may be sent again, µs. Sweep keeps markers for longer.
    pub key_age_us_max: i64,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            group: None,
            key_age_us_max: DAY_US,
        }
    }
}

/// Accepts batches for one tenant. Clones share its groups; share one per tenant and process.
#[derive(Clone)]
pub struct Ingestor {
    durable: Arc<Durable>,
    groups: Option<Arc<Groups>>,
    options: Options,
}

impl fmt::Debug for Ingestor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Ingestor of {}", self.durable.tenant())
    }
}

/// A batch ready to be stored: canonical rows and their digest.
#[derive(Debug, Clone)]
pub struct Prepared {
    batch: Batch,
    id: ReceiptId,
}

/// Proof that a batch is durable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Receipt {
    /// What the sender gets, and may ask for.
    pub id: ReceiptId,
    /// The object that holds the batch until it is absorbed, perhaps with others.
    pub name: L0Name,
    /// Its samples, duplicates included.
    pub rows: u64,
    /// The URLs of the tiers that hold it.
    pub tiers: Vec<String>,
}

impl Prepared {
    /// Brings `rows` into canonical form; `None` when there is no row. Pure and CPU-bound.
    #[must_use]
    pub fn new(rows: Rows) -> Option<Self> {
        let (_, last_us) = rows.ts_range_us()?;
        let batch = stele_format::batch(rows);
        let id = ReceiptId {
            digest: batch.digest,
            day: Day::of(last_us),
        };
        Some(Self { batch, id })
    }

    /// What its receipt will be.
    #[must_use]
    pub fn id(&self) -> ReceiptId {
        self.id
    }
}

impl Ingestor {
    /// An ingestor that writes to `store` alone: one request is one PUT.
    #[must_use]
    pub fn new(store: TenantStore) -> Self {
        Self::with_options(store, Options::default())
    }

    /// An ingestor that writes to `store` alone.
    #[must_use]
    pub fn with_options(store: TenantStore, options: Options) -> Self {
        let tiers = Tiers::fixed(store.tier().clone());
        Self::over(tiers, store.tenant().clone(), options)
    }

    /// An ingestor of `tenant` that writes to every tier that the set of the moment asks for.
    #[must_use]
    pub fn over(tiers: Tiers, tenant: TenantId, options: Options) -> Self {
        let durable = Arc::new(Durable::new(tiers, tenant));
        let group = |limits| Groups::new(Arc::clone(&durable), limits);
        Self {
            groups: options.group.map(group),
            durable,
            options,
        }
    }

    /// The receive time of a request that came with `key` at `now_us`: that of the first attempt.
    /// It is to stamp the samples without timestamp. One PUT for a new key.
    ///
    /// `body` is the [`body_digest`](crate::body_digest) of the request.
    ///
    /// # Errors
    /// [`Error::KeyReused`](crate::Error::KeyReused) and
    /// [`Error::KeyOld`](crate::Error::KeyOld), and when the marker cannot be stored or read.
    pub async fn received_us(
        &self,
        key: &IdempotencyKey,
        body: Digest,
        now_us: i64,
    ) -> Result<i64> {
        let attempt = Attempt {
            key: *key,
            body,
            now_us,
            age_us_max: self.options.key_age_us_max,
        };
        self.durable.put_marker(&attempt).await
    }

    /// Stores `rows` as one batch. No row: nothing is stored, and there is no receipt.
    ///
    /// # Errors
    /// As [`Self::put`].
    pub async fn accept(&self, rows: Rows) -> Result<Option<Receipt>> {
        match Prepared::new(rows) {
            Some(prepared) => self.put(prepared).await.map(Some),
            None => Ok(None),
        }
    }

    /// Stores a prepared batch with exactly one PUT to each tier, or in a group with others, and no
    /// other request while the stores are well. When it returns, the object is durable.
    ///
    /// # Errors
    /// [`Error::Store`](crate::Error::Store) when that is not known to be so: the batch is not
    /// acknowledged and may be sent again. [`Error::NameTaken`](crate::Error::NameTaken) when the
    /// store holds damaged bytes under its name. [`Error::Encode`](crate::Error::Encode).
    pub async fn put(&self, prepared: Prepared) -> Result<Receipt> {
        let Prepared { batch, id } = prepared;
        let rows = batch.rows.len() as u64;
        let stored = match &self.groups {
            Some(groups) => groups.put(batch).await?,
            None => {
                let object = Object::of([(batch.digest, batch)].into()).await?;
                self.durable.put(&object).await?
            }
        };
        Ok(Receipt {
            id,
            name: stored.name,
            rows,
            tiers: stored.tiers,
        })
    }
}
