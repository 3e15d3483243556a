//! One job for one tenant.

use serde::{Deserialize, Serialize};
use stele_compact::{Budget, ExpireReport, Report, SweepReport};
use stele_protect::{Ladder, Migration, Step, SyncReport};
use stele_runtime::Config;
use stele_store::{TierSet, Tiers};

use crate::error::{Error, Result};
use crate::node::Node;
use crate::options::{check, compact_options, ladder};
use crate::tenants::{Met, Tenants};
use crate::tiers::migration;

/// What is done for every tenant, again and again. Any number of processes may do it at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Job {
    /// Accepted batches → open files.
    Absorb,
    /// Open files of closed windows → raw files and rollups.
    Seal,
    /// Small sealed files → larger ones.
    Consolidate,
    /// Delete what nothing needs, on every tier.
    Sweep,
    /// Drop what is past its retention.
    Expire,
    /// Take and drop scheduled snapshots.
    Snapshots,
}

impl Job {
    /// Its name.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Absorb => "absorb",
            Self::Seal => "seal",
            Self::Consolidate => "consolidate",
            Self::Sweep => "sweep",
            Self::Expire => "expire",
            Self::Snapshots => "snapshots",
        }
    }
}

/// What a job did.
#[derive(Debug, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Worked {
    /// [`Job::Absorb`].
    Absorbed(Report),
    /// [`Job::Seal`].
    Sealed(Report),
    /// [`Job::Consolidate`].
    Consolidated(Report),
    /// [`Job::Sweep`].
    Swept {
        /// On the primary.
        report: SweepReport,
        /// The first failure on another tier.
        #[serde(skip)]
        failed: Option<Error>,
    },
    /// [`Job::Expire`].
    Expired(ExpireReport),
    /// [`Job::Snapshots`]: how many were taken.
    Snapshots(u64),
}

/// Runs jobs.
pub struct Work {
    /// Whose jobs.
    pub tenants: Tenants,
    /// The work on their tiers.
    pub migration: Migration,
    /// `None` takes no snapshots and drops none.
    pub ladder: Option<Ladder>,
}

impl Work {
    /// For the tenants of `tiers`, as the configuration says.
    ///
    /// # Errors
    /// Settings that contradict each other; when no tier can be read.
    pub async fn open(tiers: Tiers, config: &Config) -> Result<Self> {
        let options = compact_options(config);
        check(&options, config)?;
        Ok(Self {
            ladder: ladder(config.snapshots.as_deref())?,
            migration: migration(tiers.clone(), &options, None),
            tenants: Tenants::open(tiers, options, Met::default()).await?,
        })
    }

    /// Looks up the tier set, and whether jobs may run on it: not before a promotion is finished.
    ///
    /// # Errors
    /// When no tier can be read, or they contradict each other; what a promotion meets.
    pub async fn ready(&self) -> Result<Step<()>> {
        self.tenants.refresh().await?;
        Ok(self.migration.ready().await?)
    }

    /// Runs `job` for the tenant of `node`. [`Work::ready`] must have said so just before.
    ///
    /// # Errors
    /// The job's. What it committed before stays.
    pub async fn run(&self, job: Job, node: &Node, budget: &Budget) -> Result<Worked> {
        let compactor = &node.compactor;
        Ok(match job {
            Job::Absorb => Worked::Absorbed(compactor.absorb(budget).await?),
            Job::Seal => Worked::Sealed(compactor.seal(budget, false).await?),
            Job::Consolidate => Worked::Consolidated(compactor.consolidate(budget).await?),
            Job::Expire => Worked::Expired(compactor.expire(budget).await?),
            Job::Sweep => {
                let report = compactor.sweep(budget).await?;
                let failed = self.sweep_others(node, budget).await;
                Worked::Swept { report, failed }
            }
            Job::Snapshots => Worked::Snapshots(self.snapshots(node, budget).await?),
        })
    }

    /// Every other tier deletes what its own log gave up.
    async fn sweep_others(&self, node: &Node, budget: &Budget) -> Option<Error> {
        let mut failed = None;
        for sweeper in self.tenants.sweepers(node.store.tenant()) {
            if let Err(error) = sweeper.sweep(budget).await {
                failed = failed.or(Some(error.into()));
            }
        }
        failed
    }

    /// Takes what is due and drops what is over; how many were taken.
    async fn snapshots(&self, node: &Node, budget: &Budget) -> Result<u64> {
        let Some(ladder) = &self.ladder else {
            return Ok(0);
        };
        let now_us = node.clock.now_us();
        let plan = stele_protect::ladder_plan(&node.log, ladder, now_us).await?;
        if !plan.create.is_empty() {
            node.absorb_all(budget).await?;
            // A tenant that never sent anything has nothing to pin.
            if node.log.newest_seen().is_none() {
                return Ok(0);
            }
        }
        let taken = stele_protect::follow_ladder(&node.log, &plan, node.clock.as_ref()).await?;
        for name in &taken {
            tracing::info!(tenant = %node.store.tenant(), %name, "a scheduled snapshot was taken");
        }
        Ok(taken.len() as u64)
    }

    /// Brings the other tiers to where the primary is; `None` when there is none and never was. Who
    /// joins is left to `stele tier sync`, which may take hours.
    ///
    /// # Errors
    /// When the tier set or the primary cannot be read, or a promotion not be finished.
    pub async fn follow(&self) -> Result<Option<SyncReport>> {
        let current = self.tenants.refresh().await?;
        let is_due = |set: &TierSet| set.primary_since > 0 || current.members.len() > 1;
        if !current.set.as_ref().is_some_and(is_due) {
            return Ok(None);
        }
        Ok(Some(self.migration.follow().await?))
    }
}
