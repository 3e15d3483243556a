//! The schedule of the all-in-one: absorb, seal, consolidate, sweep, expire, snapshots and sync, on
//! a thread of their own.
//!
//! Jobs decode, sort and encode for seconds at a time; on their own thread they do not hold up an
//! acknowledgement. One thread also orders this process's own jobs, so they never race each other
//! for a version. Stopping drops the running job at its next await: every job is safe to abandon
//! there, because only its commit makes its work visible.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::Mutex;
use std::time::Duration;

use anyhow::Context;
use serde::Serialize;
use stele_compact::{Budget, ExpireReport, Options, Report, SettleReport, SweepReport};
use stele_node::{Job, Node, Tenants, Work, Worked};
use stele_protect::{Ladder, Step};
use stele_runtime::Config;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, MissedTickBehavior};

use stele_model::TenantId;

/// How often the store is asked which tenants it holds.
const FIND_EVERY: Duration = Duration::from_secs(60);
/// How often it is looked for snapshots that are due. Every snapshot is read for it.
const SNAPSHOTS_EVERY: Duration = Duration::from_secs(600);

/// How often each job runs.
#[derive(Debug, Clone, Copy)]
pub struct Periods {
    absorb: Duration,
    seal: Duration,
    consolidate: Duration,
    sweep: Duration,
    expire: Duration,
    sync: Duration,
}

impl Periods {
    /// The configured periods, or the documented ones.
    pub fn new(config: &Config) -> Self {
        let period = |us: Option<i64>, secs| {
            us.map_or(Duration::from_secs(secs), |us| {
                Duration::from_micros(us.unsigned_abs())
            })
            .max(Duration::from_millis(10))
        };
        Self {
            absorb: period(config.absorb_every_us, 10),
            seal: period(config.seal_every_us, 60),
            consolidate: period(config.seal_every_us, 60) * 10,
            sweep: period(config.sweep_every_us, 300),
            expire: period(config.sweep_every_us, 300) * 12,
            sync: period(config.sync_every_us, 60),
        }
    }
}

/// What the jobs did since the start, for `/status` and `/metrics`.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Done {
    /// Sums over all absorbs.
    pub absorb: Report,
    /// Sums over all seals.
    pub seal: Report,
    /// Sums over all consolidations.
    pub consolidate: Report,
    /// The last sweep.
    pub sweep: SweepReport,
    /// The last expiry.
    pub expire: ExpireReport,
    /// Scheduled snapshots taken.
    pub snapshots: u64,
    /// Objects copied to other tiers.
    pub synced: u64,
    /// Runs that failed, by any cause.
    pub failures: u64,
    /// The last failure.
    pub last_error: Option<String>,
}

type Settled = Result<SettleReport, stele_compact::Error>;

/// A tenant to settle, and where the report goes.
type Settle = (TenantId, oneshot::Sender<Settled>);

/// Opens the tenants on the jobs' own runtime, which keeps the connections made then.
type Opening = Pin<Box<dyn Future<Output = Result<Tenants, stele_store::Error>> + Send>>;

/// A handle to the thread that runs the jobs.
#[derive(Clone)]
pub struct Jobs {
    settles: mpsc::Sender<Settle>,
    done: Arc<Mutex<Done>>,
}

impl Jobs {
    /// Starts the thread. It ends when `stop` becomes true.
    ///
    /// # Errors
    /// When the machine has no thread to give.
    pub fn start(
        tenants: Opening,
        config: Config,
        options: Options,
        ladder: Option<Ladder>,
        stop: watch::Receiver<bool>,
    ) -> anyhow::Result<(Self, std::thread::JoinHandle<()>)> {
        let (settles, requests) = mpsc::channel(8);
        let (budget, periods) = (stele_node::budget(&config), Periods::new(&config));
        let done = Arc::new(Mutex::new(Done::default()));
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .context("a runtime for the jobs")?;
        let of_jobs = Arc::clone(&done);
        let work = async move {
            let tenants = match tenants.await {
                Ok(tenants) => tenants,
                Err(error) => {
                    tracing::error!(error = &error as &dyn std::error::Error, "no job can run");
                    return;
                }
            };
            let schedule = Schedule {
                work: Work {
                    migration: stele_node::migration(tenants.tiers().clone(), &options, None),
                    tenants,
                    ladder,
                },
                budget,
                done: of_jobs,
            };
            schedule.run(periods, requests, stop).await;
        };
        let thread = std::thread::Builder::new()
            .name("stele-jobs".to_owned())
            .spawn(move || runtime.block_on(work))
            .context("a thread for the jobs")?;
        Ok((Self { settles, done }, thread))
    }

    /// What the jobs did so far.
    pub fn done(&self) -> Done {
        self.done
            .lock()
            .map(|done| done.clone())
            .unwrap_or_default()
    }

    /// Runs absorb, seal and consolidate of `tenant` to the end, after the job that is running.
    ///
    /// # Errors
    /// The job's own error; `None` when the server is stopping.
    pub async fn settle(
        &self,
        tenant: TenantId,
    ) -> Result<SettleReport, Option<stele_compact::Error>> {
        let (reply, answer) = oneshot::channel();
        self.settles.send((tenant, reply)).await.map_err(|_| None)?;
        answer.await.map_err(|_| None)?.map_err(Some)
    }
}

struct Schedule {
    work: Work,
    budget: Budget,
    done: Arc<Mutex<Done>>,
}

impl Schedule {
    async fn run(
        self,
        periods: Periods,
        mut settles: mpsc::Receiver<Settle>,
        mut stop: watch::Receiver<bool>,
    ) {
        let work = async {
            let timer = |period| {
                let mut timer = tokio::time::interval_at(Instant::now() + period, period);
                timer.set_missed_tick_behavior(MissedTickBehavior::Delay);
                timer
            };
            let (mut absorb, mut seal) = (timer(periods.absorb), timer(periods.seal));
            let (mut consolidate, mut sweep) = (timer(periods.consolidate), timer(periods.sweep));
            let (mut expire, mut sync) = (timer(periods.expire), timer(periods.sync));
            let mut snapshots = timer(SNAPSHOTS_EVERY);
            // Soon, for a server that is started often; after its first absorb.
            snapshots.reset_after(periods.absorb * 2);
            let mut find = tokio::time::interval(FIND_EVERY);
            find.set_missed_tick_behavior(MissedTickBehavior::Delay);
            loop {
                tokio::select! {
                    biased;
                    Some((tenant, reply)) = settles.recv() => self.settle(&tenant, reply).await,
                    _ = find.tick() => self.find().await,
                    _ = expire.tick() => self.each(Job::Expire).await,
                    _ = snapshots.tick(), if self.work.ladder.is_some() => {
                        self.each(Job::Snapshots).await;
                    }
                    _ = sync.tick() => self.sync().await,
                    _ = sweep.tick() => self.each(Job::Sweep).await,
                    _ = consolidate.tick() => self.each(Job::Consolidate).await,
                    _ = seal.tick() => self.each(Job::Seal).await,
                    _ = absorb.tick() => self.each(Job::Absorb).await,
                }
            }
        };
        tokio::select! {
            () = work => {}
            _ = stop.wait_for(|stop| *stop) => {}
        }
    }

    fn note(&self, change: impl FnOnce(&mut Done)) {
        if let Ok(mut done) = self.done.lock() {
            change(&mut done);
        }
    }

    fn failed(&self, node: &Node, job: &str, error: &(dyn std::error::Error + 'static)) {
        let tenant = node.store.tenant();
        tracing::error!(job, %tenant, error, "the job failed; it runs again");
        self.note(|done| {
            done.failures += 1;
            done.last_error = Some(format!("{job}: {error}"));
        });
    }

    /// Tenants of the store that no request named: those of other processes.
    async fn find(&self) {
        if let Err(error) = self.work.tenants.find().await {
            tracing::warn!(
                error = &error as &dyn std::error::Error,
                "cannot look for tenants; it is tried again"
            );
        }
    }

    /// Runs a job for every tenant, one after the other.
    async fn each(&self, job: Job) {
        match self.work.ready().await {
            Ok(Step::Done(())) => {}
            Ok(Step::Wait { us }) => {
                tracing::info!(us, "no job runs until the promotion is finished");
                return;
            }
            Err(error) => return self.failed_tiers(&error),
        }
        for node in self.work.tenants.met() {
            match self.work.run(job, &node, &self.budget).await {
                Ok(worked) => self.note_worked(&node, worked),
                Err(error) => self.failed(&node, job.as_str(), &error),
            }
        }
    }

    fn note_worked(&self, node: &Node, worked: Worked) {
        match worked {
            Worked::Absorbed(report) => self.note(|done| done.absorb.add(&report)),
            Worked::Sealed(report) => self.note(|done| done.seal.add(&report)),
            Worked::Consolidated(report) => self.note(|done| done.consolidate.add(&report)),
            Worked::Swept { report, failed } => {
                self.note(|done| done.sweep = report);
                if let Some(error) = failed {
                    self.failed(node, "sweep of another tier", &error);
                }
            }
            Worked::Expired(report) => self.note(|done| done.expire = report),
            Worked::Snapshots(taken) => self.note(|done| done.snapshots += taken),
        }
    }

    /// Brings the other tiers to where the primary is.
    async fn sync(&self) {
        let report = match self.work.follow().await {
            Ok(Some(report)) => report,
            Ok(None) => return,
            Err(error) => return self.failed_tiers(&error),
        };
        let failed = report.tiers.iter().find_map(|tier| tier.failed.as_ref());
        self.note(|done| {
            done.synced += report.tiers.iter().map(|tier| tier.copied).sum::<u64>();
            done.failures += u64::from(failed.is_some());
            if let Some(why) = failed {
                done.last_error = Some(format!("sync: {why}"));
            }
        });
    }

    fn failed_tiers(&self, error: &(dyn std::error::Error + 'static)) {
        tracing::error!(error, "the tiers cannot be worked on; it is tried again");
        self.note(|done| {
            done.failures += 1;
            done.last_error = Some(format!("tiers: {error}"));
        });
    }

    async fn settle(&self, tenant: &TenantId, reply: oneshot::Sender<Settled>) {
        let node = self.work.tenants.get(tenant);
        let settled = node.compactor.settle(&self.budget, &|_| {}).await;
        match &settled {
            Ok(report) => self.note(|done| {
                done.absorb.add(&report.absorb);
                done.seal.add(&report.seal);
                done.consolidate.add(&report.consolidate);
            }),
            Err(error) => self.failed(&node, "settle", error),
        }
        // The client may have gone; the work is done all the same.
        let _ = reply.send(settled);
    }
}
