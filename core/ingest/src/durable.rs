//! What makes a batch durable: every tier that the write policy asks for.
//!
//! The tier set is looked at again after the writes: when its lease has ended meanwhile, the newest
//! set is fetched, and what it asks for beside is written too. So nothing is acknowledged on a set
//! that others may have left behind.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use futures::future::{join, join_all};
use stele_model::{L0Name, TenantId, TierId, sabotaged};
use stele_store::{Current, OpenTier, TierState, Tiers, Trouble, WritePolicy};
use tokio::time::{Instant, timeout};

use crate::error::{Error, Result};
use crate::idempotency::Attempt;
use crate::object::Object;

/// How often the set may change under one batch.
const ROUNDS_MAX: u32 = 8;
/// How long a request waits for a tier that it need not wait for.
const PATIENCE: Duration = Duration::from_secs(2);
/// How long a tier that failed is not tried again, when it need not be.
const PAUSE: Duration = Duration::from_secs(10);

/// Where one tenant's batches go.
pub(crate) struct Durable {
    tiers: Tiers,
    tenant: TenantId,
    /// Tiers that failed, and until when they are left alone.
    failed: Mutex<BTreeMap<TierId, Instant>>,
}

/// A stored object, and where it is.
#[derive(Debug, Clone)]
pub(crate) struct Stored {
    pub name: L0Name,
    /// URLs of the tiers that hold it.
    pub tiers: Vec<String>,
}

impl Durable {
    pub fn new(tiers: Tiers, tenant: TenantId) -> Self {
        Self {
            tiers,
            tenant,
            failed: Mutex::default(),
        }
    }

    pub fn tenant(&self) -> &TenantId {
        &self.tenant
    }

    fn failed(&self) -> MutexGuard<'_, BTreeMap<TierId, Instant>> {
        self.failed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Stores `object` wherever it must be before it is acknowledged.
    pub async fn put(&self, object: &Object) -> Result<Stored> {
        let mut done = BTreeSet::new();
        for _ in 0..ROUNDS_MAX {
            let current = self.current().await?;
            self.put_round(object, &current, &mut done).await?;
            if self.tiers.holds(&current) || sabotaged!(LeaseIgnored) {
                return Ok(Stored {
                    name: object.name,
                    tiers: done.into_iter().collect(),
                });
            }
        }
        Err(Error::Slow { rounds: ROUNDS_MAX })
    }

    /// The receive time of the first attempt with a key, by its marker: the primary decides what
    /// that says, and the mirrors get it.
    pub async fn put_marker(&self, attempt: &Attempt) -> Result<i64> {
        for _ in 0..ROUNDS_MAX {
            let current = self.current().await?;
            let primary = current.primary.tenant(&self.tenant);
            let (received_us, bytes) = attempt.received_us(&primary).await?;
            let mut copies = Vec::new();
            for mirror in current.mirrors() {
                copies.push(self.copy_marker(&current, mirror, attempt, &bytes));
            }
            join_all(copies).await.into_iter().collect::<Result<()>>()?;
            if self.tiers.holds(&current) {
                return Ok(received_us);
            }
        }
        Err(Error::Slow { rounds: ROUNDS_MAX })
    }

    /// The set of now, if its primary is there and is the tier that was added.
    async fn current(&self) -> Result<Arc<Current>> {
        let current = self.tiers.current().await.map_err(Error::Store)?;
        let mut members = current.members.iter();
        let primary = members.find(|member| member.member.state == TierState::Primary);
        match primary.filter(|member| member.trouble == Some(Trouble::Foreign)) {
            Some(foreign) => Err(foreign_tier(foreign)),
            None => self.tiers.confirmed().await.map_err(Error::Store),
        }
    }

    async fn copy_marker(
        &self,
        current: &Current,
        mirror: &OpenTier,
        attempt: &Attempt,
        bytes: &Bytes,
    ) -> Result<()> {
        let store = mirror.tier.tenant(&self.tenant);
        let put = async {
            let key = attempt.key.marker();
            let found = store.put_or_get(&key, bytes.clone()).await;
            let Some(found) = found.map_err(Error::Marker)? else {
                return Ok(());
            };
            // Each tier is swept for itself: an old one may be gone on the primary alone.
            attempt.check_age(&store, &found).await?;
            let tier = mirror.member.id.clone();
            Err(Error::MarkerDiffers { key, tier })
        };
        match self.attempt(current, mirror, put).await {
            // Which tier found out is of no use to the sender.
            Err(Error::Tier { source, .. }) if matches!(*source, Error::KeyOld { .. }) => {
                Err(*source)
            }
            // Replication brings it along.
            Err(error) if is_optional(current) && error.is_of_store() => Ok(()),
            copied => copied,
        }
    }

    async fn put_round(
        &self,
        object: &Object,
        current: &Current,
        done: &mut BTreeSet<String>,
    ) -> Result<()> {
        let url = current.primary.url();
        let store = current.primary.tenant(&self.tenant);
        let is_done = done.contains(url);
        let primary = async {
            match is_done {
                true => Ok(()),
                false => object.put(&store).await,
            }
        };
        let mut mirrors = Vec::new();
        for mirror in current.mirrors() {
            if !done.contains(mirror.tier.url()) {
                mirrors.push(self.put_mirror(object, current, mirror));
            }
        }
        let (primary, mirrors) = join(primary, join_all(mirrors)).await;
        primary?;
        done.insert(url.to_owned());
        for mirror in mirrors {
            done.extend(mirror?);
        }
        Ok(())
    }

    /// Stores `object` on a mirror; answers its URL, or nothing when an intent stands for it.
    async fn put_mirror(
        &self,
        object: &Object,
        current: &Current,
        mirror: &OpenTier,
    ) -> Result<Option<String>> {
        let store = mirror.tier.tenant(&self.tenant);
        match self.attempt(current, mirror, object.put(&store)).await {
            Ok(()) => Ok(Some(mirror.tier.url().to_owned())),
            Err(error) if is_optional(current) && error.is_of_store() => {
                let primary = current.primary.tenant(&self.tenant);
                let intended = object.intent().put(&primary, &mirror.member.id).await;
                intended.map_err(Error::Store)?;
                Ok(None)
            }
            Err(_) if sabotaged!(MirrorIgnored) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// One write to a mirror. A tier that need not hold the batch is not waited for.
    async fn attempt<T>(
        &self,
        current: &Current,
        mirror: &OpenTier,
        write: impl Future<Output = Result<T>>,
    ) -> Result<T> {
        let id = &mirror.member.id;
        let tier = |source| Error::Tier {
            tier: id.clone(),
            source: Box::new(source),
        };
        if mirror.trouble == Some(Trouble::Foreign) {
            return Err(foreign_tier(mirror));
        }
        if !is_optional(current) {
            return write.await.map_err(tier);
        }
        if self
            .failed()
            .get(id)
            .is_some_and(|until| Instant::now() < *until)
        {
            return Err(Error::TierPaused { tier: id.clone() });
        }
        let written = match timeout(PATIENCE, write).await {
            Ok(written) => written.map_err(tier),
            Err(_) => Err(Error::TierPaused { tier: id.clone() }),
        };
        match &written {
            Ok(_) => self.failed().remove(id),
            Err(_) => self.failed().insert(id.clone(), Instant::now() + PAUSE),
        };
        written
    }
}

/// Whether a batch may be acknowledged without the mirrors.
fn is_optional(current: &Current) -> bool {
    let policy = current.set.as_ref().map(|set| set.policy);
    policy == Some(WritePolicy::Primary)
}

fn foreign_tier(tier: &OpenTier) -> Error {
    Error::TierForeign {
        tier: tier.member.id.clone(),
    }
}
