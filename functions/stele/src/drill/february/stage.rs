//! The whole of the drill, in the order in which it happens.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use anyhow::{bail, ensure};
use stele_compact::{Budget, Options};
use stele_model::time::{DAY_US, SECOND_US};
use stele_model::{Clock, TierId};
use stele_node::Node;
use stele_protect::{MigrateError, Migration, Step};
use stele_runtime::SystemClock;
use stele_store::{Cut, Opener, Role, Tier, TierSet, Tiers};

use super::{Passed, Stores};
use crate::drill::check;
use crate::drill::load::Load;
use crate::drill::machines::{Compactors, Process};
use crate::drill::reader::Reader;
use crate::drill::report::Timeline;

/// Days of history before the incident, and of samples that come while rollups are paused.
const DAYS_BEFORE: i64 = 1;
const DAYS_PAUSED: i64 = 3;
/// How long the load goes on between two steps.
pub(super) const BREATH: Duration = Duration::from_millis(700);
/// How long a process acts on a tier set.
const LEASE_MS: u64 = 1_000;
/// A step of the tiers waits at most so often.
pub(super) const WAITS_MAX: u32 = 50;

/// Short times, so that the drill is short; the rules are the same.
pub(super) fn options() -> Options {
    Options {
        sweep_grace_us: 3 * SECOND_US,
        history_us: 60 * SECOND_US,
        ..Options::default()
    }
}

fn tiers(stores: &Stores, old: &Tier, new: &Tier) -> Tiers {
    let known = [
        (stores.old.clone(), old.clone()),
        (stores.new.clone(), new.clone()),
    ];
    let opener: Opener = Arc::new(move |url| {
        let found = known.iter().find(|(known, _)| known == url);
        found
            .map(|(_, tier)| tier.clone())
            .ok_or(stele_store::Error::NoTierSet { stores: 2 })
    });
    Tiers::new(
        vec![old.clone(), new.clone()],
        opener,
        Arc::new(SystemClock),
    )
}

pub(super) async fn step<T>(
    take: impl AsyncFn() -> Result<Step<T>, MigrateError>,
) -> anyhow::Result<T> {
    for _ in 0..WAITS_MAX {
        match take()
            .await
            .map_err(|error| anyhow::anyhow!(stele_model::chain(&error).to_string()))?
        {
            Step::Done(done) => return Ok(done),
            Step::Wait { us } => tokio::time::sleep(Duration::from_micros(us.unsigned_abs())).await,
        }
    }
    bail!("a step of the tiers still waits after {WAITS_MAX} times")
}

/// The whole drill.
pub(super) async fn play(
    stores: &Stores,
    seed: u64,
    timeline: &mut Timeline,
) -> anyhow::Result<Passed> {
    let stage = Stage::set(stores, seed).await?;
    timeline.done(
        "a store",
        format!("{} is the first tier, \"old\"", stores.old),
    )?;
    let running = stage.begin(timeline).await?;
    match stage.acts(timeline, &running).await {
        Ok(acts) => stage.finale(timeline, running, acts).await,
        Err(error) => {
            running.stop().await?;
            Err(error)
        }
    }
}

/// What the drill works with.
pub(super) struct Stage<'a> {
    pub(super) stores: &'a Stores,
    pub(super) old: Tier,
    pub(super) new: Tier,
    pub(super) cut_new: Cut,
    pub(super) process: Process,
    pub(super) work: Migration,
    seed: u64,
    names: [TierId; 2],
}

/// What runs all the time.
pub(super) struct Running {
    pub(super) load: Arc<Load>,
    reader: Arc<Reader>,
    compactors: Arc<Compactors>,
    tasks: Vec<tokio::task::JoinHandle<()>>,
}

impl Running {
    async fn stop(self) -> anyhow::Result<()> {
        self.load.stop();
        self.reader.stop();
        self.compactors.stop();
        for task in self.tasks {
            task.await?;
        }
        Ok(())
    }
}

/// What happened on the way.
#[derive(Default)]
struct Acts {
    refused: Vec<String>,
    lost: u64,
    first_us: i64,
}

impl<'a> Stage<'a> {
    pub(super) async fn set(stores: &'a Stores, seed: u64) -> anyhow::Result<Self> {
        let (old, _) = Cut::over(&stores.open(&stores.old)?);
        let (new, cut_new) = Cut::over(&stores.open(&stores.new)?);
        let names: [TierId; 2] = ["old".parse()?, "new".parse()?];
        let mut first = TierSet::first(names[0].clone(), &stores.old);
        (first.lease_ms, first.request_ms, first.is_quiet) = (LEASE_MS, 500, true);
        stele_protect::init(&old, &first).await?;
        let process = Process::start(tiers(stores, &old, &new), options()).await?;
        let work = stele_node::migration(tiers(stores, &old, &new), &options(), None);
        Ok(Self {
            stores,
            old,
            new,
            cut_new,
            process,
            work,
            seed,
            names,
        })
    }

    pub(super) fn node(&self) -> Node {
        self.process.tenants.get(&self.process.tenant)
    }

    /// A day of history, sealed; then load, readers and compactors that never stop.
    async fn begin(&self, timeline: &mut Timeline) -> anyhow::Result<Running> {
        let now_us = SystemClock.now_us();
        let days = DAYS_BEFORE + DAYS_PAUSED + 4;
        let first_us = now_us - now_us.rem_euclid(DAY_US) - days * DAY_US;
        let incident_us = first_us + DAYS_BEFORE * DAY_US;
        let load = Load::new(self.process.ingest(), first_us);
        let mut tasks = vec![tokio::spawn(Arc::clone(&load).run())];
        load.catch_up(incident_us).await;
        let settled = self
            .node()
            .compactor
            .settle(&Budget::default(), &|_| {})
            .await?;
        let samples = load.acked_samples();
        timeline.done(
            "history",
            format!(
                "{samples} samples of {DAYS_BEFORE} day, sealed at version {}",
                settled.version
            ),
        )?;
        let reader = Reader::new(self.process.sql()?, Arc::clone(&load), incident_us);
        let compactors = Compactors::new(self.process.clone(), self.seed);
        tasks.push(tokio::spawn(Arc::clone(&reader).run()));
        tasks.push(tokio::spawn(Arc::clone(&compactors).run()));
        tokio::time::sleep(BREATH).await;
        Ok(Running {
            load,
            reader,
            compactors,
            tasks,
        })
    }

    async fn acts(&self, timeline: &mut Timeline, running: &Running) -> anyhow::Result<Acts> {
        let mut acts = Acts {
            first_us: running.load.next_us(),
            ..Acts::default()
        };
        let [old, new] = &self.names;
        let version = self.snapshot().await?;
        timeline.done("snapshot", format!("\"before\" pins version {version}"))?;
        self.pause(true).await?;
        timeline.done("pause rollups", "nothing is sealed from here on".to_owned())?;
        let set = step(async || {
            self.work
                .add(new.clone(), &self.stores.new, Role::Mirror)
                .await
        });
        let set = set.await?;
        timeline.done(
            "add a tier",
            format!("\"new\" joins in epoch {}", set.epoch),
        )?;
        running.compactors.is_killing.store(true, Ordering::SeqCst);
        tokio::time::sleep(BREATH).await;
        let killed = running.compactors.killed.load(Ordering::Relaxed);
        timeline.done(
            "kill compactors",
            format!("{killed} killed until now; it goes on"),
        )?;
        let refused = self.retire_too_early(old).await?;
        timeline.done(
            "retire the old tier half-synced",
            format!("refused: {refused}"),
        )?;
        acts.refused.push(refused);
        let copied = self.sync_until_joined(new).await?;
        timeline.done(
            "sync",
            format!("{copied} objects copied; \"new\" is a mirror"),
        )?;
        running.compactors.is_resting.store(true, Ordering::SeqCst);
        // Until then a reader may not know that there is a mirror to read from.
        tokio::time::sleep(Duration::from_millis(LEASE_MS) + BREATH).await;
        self.sync().await?;
        // An object of which nothing knows yet is lost without a trace on the one store.
        running.reader.may_be_short(true);
        acts.lost = self.lose_the_most_recent().await?;
        let lost = acts.lost;
        timeline.done(
            "lose the most recent",
            format!("{lost} objects of the old store are gone"),
        )?;
        tokio::time::sleep(BREATH).await;
        let returned = self.sync().await?;
        running.reader.may_be_short(false);
        running.compactors.is_resting.store(false, Ordering::SeqCst);
        timeline.done(
            "sync",
            format!("{returned} of them came back from the mirror"),
        )?;
        let refused = self.cut_off(new, running).await?;
        timeline.done(
            "cut the mirror off",
            format!("acknowledged by the primary with repair intents; promote refused: {refused}"),
        )?;
        acts.refused.push(refused);
        self.bring_back(new).await?;
        timeline.done("bring it back", "no repair intent is open".to_owned())?;
        let promoted = step(async || self.work.promote(new, &|_| {}).await).await?;
        timeline.done(
            "promote",
            format!("\"new\" is the primary in epoch {}", promoted.set.epoch),
        )?;
        let until_us = acts.first_us + DAYS_PAUSED * DAY_US;
        running
            .load
            .catch_up(until_us.max(running.load.next_us() + DAY_US))
            .await;
        let samples = running.load.acked_samples();
        timeline.done(
            "days with rollups paused",
            format!("{samples} samples acknowledged"),
        )?;
        running.compactors.is_killing.store(false, Ordering::SeqCst);
        Ok(acts)
    }

    /// The load ends, rollups are sealed, the snapshot is restored and merged back, the old tier
    /// retires; and then everything is compared.
    async fn finale(
        &self,
        timeline: &mut Timeline,
        running: Running,
        mut acts: Acts,
    ) -> anyhow::Result<Passed> {
        let [old, new] = &self.names;
        running.load.stop();
        running.compactors.stop();
        self.process.tenants.refresh().await?;
        self.pause(false).await?;
        let settled = self
            .node()
            .compactor
            .settle(&Budget::default(), &|_| {})
            .await?;
        ensure!(
            settled.complete,
            "settle left something: {:?}",
            settled.left
        );
        timeline.done(
            "resume rollups",
            format!("all sealed at version {}", settled.version),
        )?;
        let merged = self.restore_and_merge().await?;
        timeline.done(
            "restore \"before\" and merge it",
            format!("{merged} samples, all known"),
        )?;
        step(async || self.work.drain(old).await).await?;
        let plan = step(async || self.work.retire_plan(old).await).await?;
        let text = format!("{} objects of \"old\" are on \"new\", equal", plan.objects);
        step(async || self.work.retire(old, plan.hash).await).await?;
        timeline.done("retire the old tier", text)?;
        tokio::time::sleep(BREATH).await;
        let (load, reader) = (Arc::clone(&running.load), Arc::clone(&running.reader));
        let killed = running.compactors.killed.load(Ordering::Relaxed);
        running.stop().await?;
        self.process.tenants.refresh().await?;
        self.node()
            .compactor
            .settle(&Budget::default(), &|_| {})
            .await?;
        let checked = check::everything(&self.process.sql()?, &load).await?;
        let samples = checked.first().map_or(0, |raw| raw.samples);
        timeline.done(
            "compare",
            format!("{samples} samples, each once, at four resolutions"),
        )?;
        let node = self.node();
        ensure!(
            node.store.tier().url() == self.new.url(),
            "{new} is not the primary"
        );
        let report = stele_protect::verify(&node.store, &node.log, &|_| {}).await;
        ensure!(report.is_clean(), "verify: {:?}", report.findings);
        timeline.done("verify", format!("nothing wrong in {} files", report.files))?;
        let reads = reader.result();
        if let Some(wrong) = &reads.wrong {
            bail!("an answer was wrong: {wrong}");
        }
        ensure!(
            reads.failed == 0,
            "{} queries failed, for up to {:.2} s: {}",
            reads.failed,
            reads.longest_gap.as_secs_f64(),
            reads.last_failure.clone().unwrap_or_default()
        );
        Ok(Passed {
            checked,
            reads,
            requests: load.requests(),
            killed,
            refused: std::mem::take(&mut acts.refused),
            lost: acts.lost,
            merged,
        })
    }
}
