//! Adding, following, promoting and retiring tiers.
//!
//! Every step publishes the next tier set, or does work that may be done twice. A step that must
//! not be done before nobody acts on an older set answers [`Step::Wait`]; whoever called asks again
//! then. So each command can be interrupted anywhere and given again.

mod equal;
mod error;
mod heal;
mod promote;
mod retire;
mod sync;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};

use stele_model::time::SECOND_US;
use stele_model::{Clock, Ids, TenantId, TierId};
use stele_store::{
    Current, OpenTier, PublishedSet, Role, TenantStore, Tier, TierSet, TierState, Tiers, Trouble,
    newest_epoch, publish_epoch,
};
use stele_table::TableLog;

use crate::replicate::ReplicateOptions;

pub use error::{MigrateError, Missing};
pub use promote::Promoted;
pub use retire::RetirePlan;
pub use sync::{Lag, SyncReport, TierSynced};

type Result<T, E = MigrateError> = std::result::Result<T, E>;

/// What became of a step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step<T> {
    /// It is done.
    Done(T),
    /// Somebody may still act on the tier set before this one: ask again after so long.
    Wait {
        /// µs.
        us: i64,
    },
}

/// How tiers are worked on.
#[derive(Debug, Clone)]
pub struct MigrateOptions {
    /// Of the tables.
    pub table: stele_table::Options,
    /// How long markers of idempotency keys are kept, µs.
    pub marker_keep_us: i64,
    /// The most bytes of history copied per second; `None` without a limit.
    pub bytes_per_second: Option<u64>,
    /// Objects copied at once.
    pub copies: usize,
}

/// Works on the tiers of one Stele. Keep one per process: it remembers what was read and copied.
pub struct Migration {
    tiers: Tiers,
    options: MigrateOptions,
    clock: Arc<dyn Clock>,
    ids: Arc<dyn Ids>,
    logs: Mutex<BTreeMap<(String, TenantId), Arc<TableLog>>>,
    copying: Mutex<BTreeMap<(TierId, TierId), Arc<ReplicateOptions>>>,
    /// The epoch of the last promotion that is known to be finished; 0 for none.
    ready: Mutex<u64>,
}

impl std::fmt::Debug for Migration {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Migration").field(&self.tiers).finish()
    }
}

/// The values guarded here are replaced whole.
fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A set that was read just now, with its members.
struct Now {
    set: TierSet,
    current: Arc<Current>,
}

impl Now {
    fn member(&self, id: &TierId) -> Result<&OpenTier> {
        self.set.member(id)?;
        let mut members = self.current.members.iter();
        let open = members.find(|open| open.member.id == *id);
        open.ok_or_else(|| MigrateError::Over { id: id.clone() })
    }

    fn primary(&self) -> Result<&OpenTier> {
        let id = self.set.primary()?.id.clone();
        self.member(&id)
    }
}

/// Publishes the first set on `tier`, whose URL every process of it knows it by. `is_quiet` says
/// that no process writes to the store now; then nobody need be waited for.
///
/// # Errors
/// [`MigrateError::HasSet`] when there is another set already; else the store's.
pub async fn init(tier: &Tier, first: &TierSet) -> Result<()> {
    match newest_epoch(tier).await? {
        Some(known) if known.set != *first => Err(MigrateError::HasSet {
            url: tier.url().to_owned(),
            epoch: known.set.epoch,
        }),
        _ => Ok(publish_epoch(tier, first).await?),
    }
}

impl Migration {
    /// Works on `tiers`. Nothing is read yet.
    #[must_use]
    pub fn new(
        tiers: Tiers,
        options: MigrateOptions,
        clock: Arc<dyn Clock>,
        ids: Arc<dyn Ids>,
    ) -> Self {
        Self {
            tiers,
            options,
            clock,
            ids,
            logs: Mutex::default(),
            copying: Mutex::default(),
            ready: Mutex::default(),
        }
    }

    /// The tiers it works on.
    #[must_use]
    pub fn tiers(&self) -> &Tiers {
        &self.tiers
    }

    /// The set of now, which every member that can be reached then holds.
    async fn now(&self) -> Result<Now> {
        let current = self.tiers.fetch().await?;
        let set = current.set.clone().ok_or(MigrateError::NoSet)?;
        let now = Now { set, current };
        // Whoever published it may not have come to its end.
        for member in &now.current.members {
            if member.trouble.is_none() {
                publish_epoch(&member.tier, &now.set).await?;
            }
        }
        Ok(now)
    }

    /// What is left until nobody acts on the set before this one, µs, by the clock of a tier that
    /// holds it.
    async fn left_us(&self, now: &Now) -> Result<Option<i64>> {
        let mut failed = None;
        let primary = now.primary()?;
        let others = now.current.members.iter();
        let others = others.filter(|other| other.member.id != primary.member.id);
        for member in std::iter::once(primary).chain(others) {
            match age_us(&member.tier, &now.set).await {
                Ok(Some(age_us)) => {
                    let left_us = now.set.wait_us().saturating_sub(age_us);
                    return Ok((left_us > 0).then_some(left_us));
                }
                Ok(None) => {}
                Err(error) => failed = Some(error),
            }
        }
        match failed {
            Some(error) => Err(error.into()),
            // Every member got the set before; what they hold now is a later one.
            None => Err(MigrateError::Replaced {
                epoch: now.set.epoch,
            }),
        }
    }

    /// Publishes the set after the one of `now`: the primary of now decides, or `decider` when that
    /// is lost.
    async fn publish(&self, now: &Now, next: &TierSet, decider: Option<&Tier>) -> Result<()> {
        let decider = match decider {
            Some(decider) => decider,
            None => &now.primary()?.tier,
        };
        publish_epoch(decider, next).await?;
        let others = next.members.iter().filter(|member| !member.is_over());
        for member in others.filter(|member| member.url != decider.url()) {
            let published = match self.tiers.tier(&member.url) {
                Ok(tier) => publish_epoch(&tier, next).await,
                Err(error) => Err(error),
            };
            if let Err(error) = published {
                // It gets the set when it can be reached; until then the others' is higher.
                tracing::warn!(tier = %member.id, %error, "the tier did not get the new tier set");
            }
        }
        self.tiers.fetch().await?;
        Ok(())
    }

    /// Adds an empty store as a tier that joins. New batches go to it from now on.
    ///
    /// # Errors
    /// [`MigrateError::NotEmpty`], [`MigrateError::NoSet`]; else the stores'.
    pub async fn add(&self, id: TierId, url: &str, role: Role) -> Result<Step<TierSet>> {
        let now = self.now().await?;
        if let Ok(member) = now.set.member(&id) {
            let is_it = member.url == url && member.role == role;
            if is_it && member.state == TierState::Joining {
                return Ok(Step::Done(now.set));
            }
        }
        let next = now.set.adding(id, url, role)?;
        let tier = self.tiers.tier(url)?;
        self.check_empty(&tier, &now.set).await?;
        if let Some(us) = self.left_us(&now).await? {
            return Ok(Step::Wait { us });
        }
        self.publish(&now, &next, None).await?;
        Ok(Step::Done(next))
    }

    async fn check_empty(&self, tier: &Tier, set: &TierSet) -> Result<()> {
        let url = || tier.url().to_owned();
        match newest_epoch(tier).await? {
            Some(PublishedSet { set: other, .. }) if other.epoch > set.epoch => {
                return Err(MigrateError::HasSet {
                    url: url(),
                    epoch: other.epoch,
                });
            }
            _ => {}
        }
        match tier.tenants().await?.first() {
            Some(tenant) => Err(MigrateError::NotEmpty {
                url: url(),
                tenant: tenant.clone(),
            }),
            None => Ok(()),
        }
    }

    /// Publishes another write policy.
    ///
    /// # Errors
    /// [`MigrateError::NoSet`]; else the stores'.
    pub async fn set_policy(&self, policy: stele_store::WritePolicy) -> Result<Step<TierSet>> {
        let now = self.now().await?;
        if now.set.policy == policy {
            return Ok(Step::Done(now.set));
        }
        if let Some(us) = self.left_us(&now).await? {
            return Ok(Step::Wait { us });
        }
        let next = now.set.writing(policy);
        self.publish(&now, &next, None).await?;
        Ok(Step::Done(next))
    }

    /// Lets a tier get no new batches any more.
    ///
    /// # Errors
    /// [`MigrateError::NoSet`], [`MigrateError::Set`]; else the stores'.
    pub async fn drain(&self, id: &TierId) -> Result<Step<TierSet>> {
        let now = self.now().await?;
        if now.set.member(id)?.state != TierState::Draining {
            let next = now.set.draining(id)?;
            if let Some(us) = self.left_us(&now).await? {
                return Ok(Step::Wait { us });
            }
            self.publish(&now, &next, None).await?;
        }
        let now = self.now().await?;
        match self.left_us(&now).await? {
            Some(us) => Ok(Step::Wait { us }),
            None => Ok(Step::Done(now.set)),
        }
    }

    /// The log of a tenant on a tier, for whoever does not commit.
    fn log(&self, store: TenantStore) -> Arc<TableLog> {
        let key = (store.tier().url().to_owned(), store.tenant().clone());
        let mut logs = lock(&self.logs);
        let log = logs.entry(key).or_insert_with(|| {
            let options = self.options.table.clone();
            Arc::new(TableLog::new(store, options, Arc::clone(&self.clock)))
        });
        Arc::clone(log)
    }

    fn log_of(&self, tier: &Tier, tenant: &TenantId) -> Arc<TableLog> {
        self.log(tier.tenant(tenant))
    }

    fn copying(&self, from: &TierId, to: &TierId) -> Arc<ReplicateOptions> {
        let mut copying = lock(&self.copying);
        let key = (from.clone(), to.clone());
        let options = copying.entry(key).or_insert_with(|| {
            let (rate, copies) = (self.options.bytes_per_second, self.options.copies);
            Arc::new(ReplicateOptions::new(rate, copies))
        });
        Arc::clone(options)
    }
}

/// How long `tier` has held `set`, µs by its own clock; `None` when it does not hold it.
async fn age_us(tier: &Tier, set: &TierSet) -> Result<Option<i64>, stele_store::Error> {
    let Some(published) = newest_epoch(tier).await? else {
        return Ok(None);
    };
    if published.set != *set {
        return Ok(None);
    }
    let now_us = tier.now_us().await?;
    let age_us = now_us.saturating_sub(published.modified_us);
    // A store that says whole seconds may have written it up to one later than it says.
    let is_whole = published.modified_us % SECOND_US == 0;
    Ok(Some(age_us - if is_whole { SECOND_US } else { 0 }))
}

/// The tenants of either tier, in order.
async fn tenants_of(one: &Tier, other: &Tier) -> Result<BTreeSet<TenantId>> {
    let mut tenants: BTreeSet<TenantId> = one.tenants().await?.into_iter().collect();
    tenants.extend(other.tenants().await?);
    Ok(tenants)
}

/// An error when the store of a tier is not the one that was added.
fn usable(open: &OpenTier) -> Result<&Tier> {
    match &open.trouble {
        None => Ok(&open.tier),
        Some(trouble @ (Trouble::Foreign | Trouble::Unreadable(_))) => {
            Err(MigrateError::Unreadable {
                id: open.member.id.clone(),
                trouble: trouble.clone(),
            })
        }
    }
}
