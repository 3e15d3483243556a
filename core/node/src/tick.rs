//! One run of the jobs over many tenants, in the time of one invocation.

use std::collections::BTreeMap;

use serde::Serialize;
use stele_compact::Budget;
use stele_model::{Clock, TenantId};
use stele_protect::{Step, VerifyReport, record_losses};
use stele_runtime::SystemClock;
use stele_table::{View, set_deletion_frozen};

use crate::error::{Error, Result};
use crate::fan_out::{Piece, Waiting, share};
use crate::lag::{Backlog, Windows};
use crate::work::{Job, Work, Worked};

/// Failures that a report names; all are counted and logged.
const NAMED_MAX: usize = 10;

/// Of the time that is left, the share after which a job makes room for the next one: without it a
/// backlog that grows for hours would keep seals from ever running.
const SHARES: [(Job, i64); 3] = [(Job::Absorb, 60), (Job::Seal, 80), (Job::Consolidate, 100)];

/// What a run did.
#[derive(Debug, Default, Serialize)]
pub struct Tick {
    /// Tenants that were worked on.
    pub tenants: u64,
    /// Times that all of them had their turn.
    pub rounds: u64,
    /// Commits, of all jobs.
    pub commits: u64,
    /// Invocations that were asked for help.
    pub asked: u64,
    /// Whether the time was over before the work was.
    pub stopped: bool,
    /// µs until jobs may run, while a promotion is not finished: then nothing was done.
    pub waits_us: Option<i64>,
    /// Runs of a job that failed.
    pub failures: u64,
    /// The first of them.
    pub failed: Vec<String>,
    /// What waited for each tenant when the run began.
    pub lags: BTreeMap<TenantId, Lag>,
}

/// Some of what a run had to do failed.
#[derive(Debug, thiserror::Error)]
#[error("{failures} jobs failed; the first: {first}")]
pub struct JobsFailed {
    /// Runs of a job that failed.
    pub failures: u64,
    /// The first of them, and why.
    pub first: String,
}

impl Tick {
    /// The run, when nothing in it failed.
    ///
    /// # Errors
    /// [`JobsFailed`].
    pub fn whole(self) -> Result<Self, JobsFailed> {
        let failures = self.failures;
        match self.failed.first().cloned() {
            None => Ok(self),
            Some(first) => Err(JobsFailed { failures, first }),
        }
    }
}

/// What waits for one tenant.
#[derive(Debug, Serialize)]
pub struct Lag {
    /// Not yet absorbed.
    pub backlog: Backlog,
    /// Not yet sealed.
    pub windows: Windows,
}

impl Lag {
    /// The worse of both, seconds.
    #[must_use]
    pub fn secs(&self) -> i64 {
        let absorb_secs = self.backlog.oldest_unabsorbed_age_secs;
        absorb_secs.max(self.windows.not_sealed_secs)
    }
}

/// Asks another invocation to do its share.
pub trait Others {
    /// How many may be asked.
    fn max(&self) -> usize;

    /// Asks one. A share whose asking failed is done by whoever asked, and perhaps twice: that is
    /// a waste of time only.
    fn ask(&self, share: &[Piece]) -> impl Future<Output = Result<(), OthersError>> + Send;
}

/// Why another invocation could not be asked.
pub type OthersError = Box<dyn std::error::Error + Send + Sync>;

impl Tick {
    fn failed(&mut self, tenant: &TenantId, job: &str, error: &(dyn std::error::Error + 'static)) {
        tracing::error!(job, %tenant, error, "the job failed; it runs again");
        self.failures += 1;
        if self.failed.len() < NAMED_MAX {
            self.failed.push(format!("{job} of {tenant}: {error}"));
        }
    }
}

impl Work {
    /// Absorbs, seals and consolidates: the `pieces` that are given, or all tenants of the store
    /// with the help of `others`. Ends when there is nothing to do, or when the budget's time is
    /// over: between two commits, and whoever comes next goes on there.
    ///
    /// # Errors
    /// When the tier set or the tenants cannot be read. What fails for one tenant is in the report.
    pub async fn compact(
        &self,
        pieces: Option<Vec<Piece>>,
        budget: &Budget,
        others: &impl Others,
    ) -> Result<Tick> {
        let mut tick = Tick::default();
        if let Step::Wait { us } = self.ready().await? {
            tick.waits_us = Some(us);
            return Ok(tick);
        }
        let pieces = match pieces {
            Some(pieces) => pieces,
            None => self.divide(others, &mut tick).await?,
        };
        tick.tenants = pieces.len() as u64;
        loop {
            let before = tick.commits;
            for piece in &pieces {
                self.compact_piece(piece, budget, &mut tick).await;
            }
            tick.rounds += 1;
            if tick.stopped || tick.commits == before {
                return Ok(tick);
            }
        }
    }

    /// What this invocation is to do itself, after others were asked to do the rest.
    async fn divide(&self, others: &impl Others, tick: &mut Tick) -> Result<Vec<Piece>> {
        self.tenants.find().await?;
        let mut waiting = Vec::new();
        for node in self.tenants.met() {
            let tenant = node.store.tenant();
            let view = match View::read_cached(&node.log).await {
                Ok(view) => view,
                Err(error) => {
                    tick.failed(tenant, "reading", &error);
                    continue;
                }
            };
            let now_us = node.clock.now_us();
            let seal_delay_us = node.compactor.options().seal_delay_us;
            let lag = Lag {
                backlog: Backlog::of(&view, now_us),
                windows: Windows::of(&view, now_us, seal_delay_us),
            };
            waiting.push(lag.backlog.waiting(tenant));
            tick.lags.insert(tenant.clone(), lag);
        }
        Ok(hand_out(&waiting, others, tick).await)
    }

    async fn compact_piece(&self, piece: &Piece, budget: &Budget, tick: &mut Tick) {
        let node = self.tenants.get(&piece.tenant);
        let is_first = piece.part.index == 0;
        let begun_us = SystemClock.now_us();
        for (job, percent) in SHARES {
            // Consolidation is not divided.
            if job == Job::Consolidate && !is_first {
                continue;
            }
            let left_us = budget.deadline_us.saturating_sub(begun_us).max(0);
            let budget = Budget {
                deadline_us: begun_us.saturating_add(left_us / 100 * percent),
                part: piece.part,
                ..*budget
            };
            match self.run(job, &node, &budget).await {
                Ok(Worked::Absorbed(report) | Worked::Sealed(report))
                | Ok(Worked::Consolidated(report)) => {
                    tick.commits += report.commits;
                    tick.stopped |= report.stopped;
                }
                Ok(_) => {}
                Err(error) => tick.failed(&piece.tenant, job.as_str(), &error),
            }
        }
    }

    /// Runs one job for every tenant of the store.
    ///
    /// # Errors
    /// When the tier set or the tenants cannot be read. What fails for one tenant is in the report.
    pub async fn each(&self, job: Job, budget: &Budget) -> Result<Tick> {
        let mut tick = Tick::default();
        if let Step::Wait { us } = self.ready().await? {
            tick.waits_us = Some(us);
            return Ok(tick);
        }
        self.tenants.find().await?;
        for node in self.tenants.met() {
            let tenant = node.store.tenant();
            if SystemClock.now_us() >= budget.deadline_us {
                tick.stopped = true;
                break;
            }
            tick.tenants += 1;
            match self.run(job, &node, budget).await {
                Ok(Worked::Swept { report, failed }) => {
                    tick.commits += report.commits;
                    tick.stopped |= report.stopped;
                    if let Some(error) = failed {
                        tick.failed(tenant, "sweep of another tier", &error);
                    }
                }
                Ok(Worked::Expired(report)) => {
                    tick.commits += report.commits;
                    tick.stopped |= report.stopped;
                }
                Ok(_) => {}
                Err(error) => tick.failed(tenant, job.as_str(), &error),
            }
        }
        tick.rounds = 1;
        Ok(tick)
    }

    /// [`Work::follow`], as a run: a tier that could not be brought up to date has failed.
    ///
    /// # Errors
    /// As there.
    pub async fn sync(&self) -> Result<Tick> {
        let report = self.follow().await?;
        let tiers = report.into_iter().flat_map(|report| report.tiers);
        let failed = tiers.filter_map(|tier| Some(format!("tier {}: {}", tier.id, tier.failed?)));
        let failed: Vec<String> = failed.take(NAMED_MAX).collect();
        Ok(Tick {
            rounds: 1,
            failures: failed.len() as u64,
            failed,
            ..Tick::default()
        })
    }

    /// Reads every object of every tenant, records what is lost, and freezes the deletion of a tenant
    /// in which anything is wrong.
    ///
    /// # Errors
    /// When the tier set or the tenants cannot be read. What is wrong is in the report.
    pub async fn verify(&self) -> Result<Tick> {
        let mut tick = Tick::default();
        self.tenants.refresh().await?;
        self.tenants.find().await?;
        for node in self.tenants.met() {
            let report = stele_protect::verify(&node.store, &node.log, &|_| {}).await;
            tick.tenants += 1;
            let (tenant, now_us) = (node.store.tenant(), node.clock.now_us());
            if let Err(error) = record_losses(&node.log, &report, now_us).await {
                tick.failed(tenant, "recording losses", &error);
            }
            if report.is_clean() {
                continue;
            }
            let reason = reason(&report);
            tick.failed(
                tenant,
                "verify",
                &Error::Damaged {
                    what: reason.clone(),
                },
            );
            if let Err(error) = set_deletion_frozen(&node.store, Some(&reason), now_us).await {
                tick.failed(tenant, "freezing deletion", &error);
            }
        }
        tick.rounds = 1;
        Ok(tick)
    }
}

fn reason(report: &VerifyReport) -> String {
    let first = report.findings.first().map(ToString::to_string);
    let first = first.unwrap_or_default();
    format!(
        "verify found {} things wrong; the first: {first}",
        report.findings_total
    )
}

/// Divides what waits, and does itself what nobody else can be asked for.
async fn hand_out(waiting: &[Waiting], others: &impl Others, tick: &mut Tick) -> Vec<Piece> {
    let mut shares = share(waiting, others.max()).into_iter();
    let mut own = shares.next().unwrap_or_default();
    for share in shares {
        match others.ask(&share).await {
            Ok(()) => tick.asked += 1,
            Err(error) => {
                tracing::warn!(error = &*error as &dyn std::error::Error, "nobody helps");
                own.extend(share);
            }
        }
    }
    own
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    /// Takes so many shares, and then none.
    struct Helpers {
        left: Mutex<usize>,
        taken: Mutex<Vec<Piece>>,
    }

    impl Others for Helpers {
        fn max(&self) -> usize {
            3
        }

        async fn ask(&self, share: &[Piece]) -> Result<(), OthersError> {
            let mut left = self.left.lock().unwrap();
            if *left == 0 {
                return Err("throttled".into());
            }
            *left -= 1;
            self.taken.lock().unwrap().extend_from_slice(share);
            Ok(())
        }
    }

    #[test]
    fn what_nobody_takes_is_done_by_who_asked() {
        let waiting: Vec<Waiting> = (0..40)
            .map(|n| Waiting {
                tenant: format!("t{n}").parse().unwrap(),
                objects: 4_000,
                bytes: 0,
                windows: 1,
                oldest_secs: 1,
            })
            .collect();
        for (helpers, asked) in [(0, 0), (2, 2), (9, 3)] {
            let others = Helpers {
                left: Mutex::new(helpers),
                taken: Mutex::default(),
            };
            let mut tick = Tick::default();
            let own = futures::executor::block_on(hand_out(&waiting, &others, &mut tick));
            assert_eq!(tick.asked, asked);
            let taken = others.taken.into_inner().unwrap();
            assert_eq!(own.len() + taken.len(), waiting.len(), "{helpers} helpers");
            assert!(own.iter().all(|piece| !taken.contains(piece)));
        }
    }
}
