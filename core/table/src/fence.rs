//! Whose table it is: the fence in the log, and the owner that a log is written for.
//!
//! A promotion commits a fence to the log of the old primary. It takes the next slot, so a commit
//! that was planned before it fails, is planned again on the fenced version, and is refused. The
//! fence is copied with the log, and lets the compactors of the new primary write there.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use stele_model::TierId;
use stele_store::{Put, TierSet, keys};

use crate::apply::{Attached, create};
use crate::codec;
use crate::commit::OperationId;
use crate::entry::{self, LogEntry};
use crate::error::{Error, Result};
use crate::log::TableLog;
use crate::state::{TableMeta, TableState};
use crate::write::{Slot, next_state, uuid_like};

/// How often a fence loses the race for the next version before it is given up.
const RACES_MAX: u32 = 200;

/// From here on only compactors of this tier commit, while it is the primary since this epoch.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Fence {
    /// The epoch at which the tier became the primary; at least 1.
    pub epoch: u64,
    /// The tier.
    pub tier: TierId,
}

impl fmt::Display for Fence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "tier {}, primary since epoch {}", self.tier, self.epoch)
    }
}

/// Who a log is written for: a tier, and since when it is the primary.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Owner {
    /// The tier.
    pub tier: TierId,
    /// The epoch at which it became the primary; 0 for the first primary of all.
    pub since_epoch: u64,
}

impl Owner {
    /// The primary of `set`; `None` when it has none.
    #[must_use]
    pub fn of(set: &TierSet) -> Option<Self> {
        let primary = set.primary().ok()?;
        Some(Self {
            tier: primary.id.clone(),
            since_epoch: set.primary_since,
        })
    }

    /// Of no epoch that will ever be: a log for it refuses every commit.
    #[must_use]
    pub fn nobody(tier: TierId) -> Self {
        Self {
            tier,
            since_epoch: u64::MAX,
        }
    }

    /// The fence that this owner needs; `None` for the first primary of all.
    fn fence(&self) -> Option<Fence> {
        let tier = self.tier.clone();
        let epoch = self.since_epoch;
        (epoch > 0).then_some(Fence { epoch, tier })
    }
}

/// Why a writer may not commit.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Fenced {
    /// The table is fenced for another tier, or for another epoch of this one.
    #[error("the table is fenced for {fence}; this writer is of tier {}, primary since epoch {}", owner.tier, owner.since_epoch)]
    Other {
        /// The table's.
        fence: Fence,
        /// The writer.
        owner: Owner,
    },
    /// The table is fenced and the writer knows of no tiers.
    #[error("the table is fenced for {fence}; this writer knows of no tiers")]
    NoTiers {
        /// The table's.
        fence: Fence,
    },
    /// The fence of the promotion has not arrived in this log.
    #[error("the promotion to {} at epoch {} is not finished for this tenant: {}", owner.tier, owner.since_epoch, found(fence.as_ref()))]
    Unfinished {
        /// The table's.
        fence: Option<Fence>,
        /// The writer.
        owner: Owner,
    },
}

fn found(fence: Option<&Fence>) -> String {
    match fence {
        Some(fence) => format!("its table is fenced for {fence}"),
        None => "its table has no fence".to_owned(),
    }
}

/// Whether a writer for `owner` may commit after a version with `fence`.
fn check(fence: Option<&Fence>, owner: Option<&Owner>) -> Result<(), Fenced> {
    match (fence.cloned(), owner.cloned()) {
        (None, None) => Ok(()),
        (fence, Some(owner)) if fence == owner.fence() => Ok(()),
        (Some(fence), None) => Err(Fenced::NoTiers { fence }),
        (fence, Some(owner)) => match fence {
            Some(fence) if fence.epoch >= owner.since_epoch => Err(Fenced::Other { fence, owner }),
            fence => Err(Fenced::Unfinished { fence, owner }),
        },
    }
}

impl TableLog {
    /// The same log, written for `owner`. A log without an owner is one of a store without tiers:
    /// it cannot commit once the table is fenced.
    #[must_use]
    pub fn with_owner(mut self, owner: Owner) -> Self {
        self.owner = Some(owner);
        self
    }

    /// Whether this log may commit after `state`.
    ///
    /// # Errors
    /// [`Error::Fenced`].
    pub fn check_owner(&self, state: &TableState) -> Result<()> {
        check(state.fence.as_ref(), self.owner.as_ref()).map_err(Error::Fenced)
    }

    /// Commits `fence` after the newest version, whatever that is, and creates the table with it
    /// when there is none. The one commit that any log may make, whoever it is written for. Does
    /// nothing when that very fence is there. `operation` seeds the id of every plan.
    ///
    /// # Errors
    /// [`Error::FencedLater`] when the table is fenced for this epoch or a later one already,
    /// [`Error::Contended`] when others took every next version, [`Error::Unresolved`] when the
    /// store never said whether the entry exists; else the store's, [`Error::Corrupt`] and
    /// [`Error::Slow`].
    pub async fn fence(
        &self,
        fence: &Fence,
        operation: &OperationId,
        now_us: i64,
    ) -> Result<Arc<TableState>> {
        for _ in 0..RACES_MAX {
            let state = self.newest_or_created(now_us, Some(fence)).await?;
            match &state.fence {
                Some(known) if known == fence => return Ok(state),
                Some(known) if known.epoch >= fence.epoch => {
                    return Err(Error::FencedLater {
                        known: known.clone(),
                        asked: fence.clone(),
                    });
                }
                _ => {}
            }
            if let Some(state) = self.put_fence(&state, fence, operation, now_us).await? {
                return Ok(state);
            }
        }
        let key = keys::LOG.to_owned();
        Err(Error::Contended { key })
    }

    /// The fence as the version after `on`; `None` when others took it.
    async fn put_fence(
        &self,
        on: &Arc<TableState>,
        fence: &Fence,
        operation: &OperationId,
        now_us: i64,
    ) -> Result<Option<Arc<TableState>>> {
        let began_us = self.now_us();
        // Every plan has an id of its own, and the same plan always the same.
        let seed = format!(
            "{} on {} at {now_us}: {fence}",
            operation.0, on.entry_digest
        );
        let operation = codec::digest(seed.as_bytes()).to_string();
        let key = keys::log_entry(on.version + 1);
        let damaged = |damage| Error::corrupt(&key, damage);
        let bytes = entry::encode_fence(on, &operation, fence, now_us).map_err(damaged)?;
        let next = next_state(on, &bytes, &Attached::Nothing).map_err(damaged)?;
        match self.put_entry(on, &operation, bytes, began_us).await? {
            Slot::Taken | Slot::Unproven => Ok(None),
            Slot::Ours => Ok(Some(self.settled(next, began_us).await)),
        }
    }

    /// The newest version; creates the table, with `fence`, when there is none.
    pub(crate) async fn newest_or_created(
        &self,
        timestamp_us: i64,
        fence: Option<&Fence>,
    ) -> Result<Arc<TableState>> {
        // Created late, version 0 may be one that others made, filled and swept meanwhile.
        self.timely(|_, _| async move {
            match self.load_once().await? {
                Some(state) => Ok(state),
                None => self.created(timestamp_us, fence).await,
            }
        })
        .await
    }

    /// The newest version after version 0 was created, by whomever: the entry that is there defines
    /// the table.
    async fn created(&self, timestamp_us: i64, fence: Option<&Fence>) -> Result<Arc<TableState>> {
        let began_us = self.now_us();
        let created_us = timestamp_us - timestamp_us.rem_euclid(1000);
        let mut seed = format!("{} {created_us}", self.store.tenant());
        if let Some(fence) = fence {
            seed += &format!(" {fence}");
        }
        let operation = codec::digest(seed.as_bytes()).to_string();
        let meta = TableMeta {
            id: uuid_like(codec::digest(operation.as_bytes())),
            created_us,
        };
        let key = keys::log_entry(0);
        let damaged = |damage| Error::corrupt(&key, damage);
        let bytes = entry::encode_create(&operation, &meta, fence).map_err(damaged)?;
        let bytes = match self.store.put_new(&key, bytes.clone()).await? {
            Put::Created | Put::Same => bytes,
            Put::Other(theirs) => theirs,
        };
        let state = LogEntry::decode(&bytes)
            .and_then(|entry| create(&entry, codec::digest(&bytes)))
            .map_err(damaged)?;
        let state = self.advance(Arc::new(state)).await?;
        if state.version == 0 && self.in_time(began_us) {
            self.write_head(&state).await;
        }
        Ok(state)
    }

    /// The fence that a table created by this log carries.
    pub(crate) fn fence_of_owner(&self) -> Option<Fence> {
        self.owner.as_ref().and_then(Owner::fence)
    }
}
