//! February 2012 again, with every mistake that was made then: a store is moved while samples keep
//! coming, rollups are paused for days, the old store is to be removed too early, it loses what is
//! most recent, and the new one is cut off meanwhile. At the end every acknowledged sample must be
//! readable exactly once at every resolution, and the history must have been readable throughout.

use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use serde_json::json;
use stele_compact::{Budget, Options};
use stele_model::time::{DAY_US, MINUTE_US, SECOND_US};
use stele_model::{Clock, Ids, Resolution, TenantId, TierId};
use stele_protect::{MigrateError, MigrateOptions, Migration, NewSnapshot, Step};
use stele_runtime::{Config, RandomIds, SystemClock};
use stele_store::{Cut, Opener, Role, Tier, TierSet, Tiers, WritePolicy};
use stele_table::{FileKind, PinName, TableLog, Why, set_rollups_paused};

use super::check;
use super::load::Load;
use super::machines::{Compactors, Process};
use super::reader::Reader;
use super::report::{Entry, Timeline};
use crate::cli::FebruaryArgs;
use crate::node::Node;
use crate::output;

/// Steps of the drill, for its bar.
const STEPS: u64 = 19;
/// Days of history before the incident, and of samples that come while rollups are paused.
const DAYS_BEFORE: i64 = 1;
const DAYS_PAUSED: i64 = 3;
/// L0 objects that the old store loses.
const LOST_OBJECTS: usize = 6;
/// How long the load goes on between two steps.
const BREATH: Duration = Duration::from_millis(700);
/// A step of the tiers waits at most so often.
const WAITS_MAX: u32 = 50;

/// Runs the drill.
///
/// # Errors
/// When a store cannot be used.
pub async fn run(args: FebruaryArgs, is_json: bool, config: Config) -> anyhow::Result<ExitCode> {
    let stores = Stores::new(args.at.as_deref(), &config)?;
    let mut timeline = Timeline::new(STEPS, is_json);
    let outcome = play(&stores, &args, &mut timeline).await;
    let secs = timeline.secs();
    let steps = timeline.finish();
    let is_passed = outcome.is_ok();
    match outcome {
        Ok(passed) if is_json => output::json(&passed.json(&steps, secs))?,
        Ok(passed) => output::line(&passed.text(secs))?,
        Err(error) if is_json => {
            let error = format!("{error:#}");
            let last = steps.last().map(|entry| entry.step);
            output::json(&json!({
                "passed": false, "error": error, "after": last, "secs": secs, "timeline": steps,
            }))?;
        }
        Err(error) => output::line(&format!(
            "FAILED: {}",
            output::escape(&format!("{error:#}"))
        ))?,
    }
    Ok(match is_passed {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    })
}

/// The stores of the drill: what it makes it leaves nothing of, in a directory.
struct Stores {
    old: String,
    new: String,
    scratch: tempfile::TempDir,
    aws: Vec<(String, String)>,
}

impl Stores {
    fn new(at: Option<&str>, config: &Config) -> anyhow::Result<Self> {
        let scratch = tempfile::tempdir().context("a directory for the drill")?;
        let dir = |name: &str| -> anyhow::Result<String> {
            let path = scratch.path().join(name);
            std::fs::create_dir_all(&path)?;
            crate::stores::absolute(&path.to_string_lossy())
        };
        let (old, new) = match at {
            None => (dir("old")?, dir("new")?),
            Some(at) => {
                let at = at.trim_end_matches('/');
                let run = &RandomIds.operation_id()[..8];
                (
                    format!("{at}/drill-{run}/old"),
                    format!("{at}/drill-{run}/new"),
                )
            }
        };
        Ok(Self {
            old,
            new,
            aws: config.aws.clone(),
            scratch,
        })
    }

    fn open(&self, url: &str) -> anyhow::Result<Tier> {
        Ok(Tier::open(url, &self.aws)?)
    }

    fn restored(&self) -> std::path::PathBuf {
        self.scratch.path().join("restored")
    }
}

/// What the drill showed.
struct Passed {
    checked: Vec<check::Checked>,
    reads: super::reader::Reads,
    requests: (u64, u64, Duration),
    killed: u64,
    refused: Vec<String>,
    lost: u64,
    merged: u64,
}

impl Passed {
    fn json(&self, steps: &[Entry], secs: f64) -> serde_json::Value {
        json!({
            "passed": true,
            "secs": secs,
            "samples_acknowledged": self.checked.first().map(|raw| raw.samples),
            "checked": self.checked,
            "requests": self.requests.0,
            "requests_repeated": self.requests.1,
            "longest_wait_for_an_acknowledgement_secs": self.requests.2.as_secs_f64(),
            "queries": self.reads.answered,
            "queries_answered_by_a_mirror": self.reads.by_mirror,
            "queries_failed": self.reads.failed,
            "longest_read_gap_secs": self.reads.longest_gap.as_secs_f64(),
            "compactors_killed": self.killed,
            "objects_lost_on_the_old_tier": self.lost,
            "samples_merged_back": self.merged,
            "refusals": self.refused,
            "timeline": steps,
        })
    }

    fn text(&self, secs: f64) -> String {
        let rows = self.checked.iter().map(|one| {
            format!(
                "  {:<4} {} rows, {} samples",
                one.resolution, one.rows, one.samples
            )
        });
        let rows: Vec<String> = rows.collect();
        format!(
            "PASSED in {secs:.1} s: every acknowledged sample is readable exactly once\n{}\n  \
             {} requests acknowledged, {} attempts repeated; longest wait {:.2} s\n  \
             {} queries answered, {} of them by a mirror, {} failed; longest read gap {:.2} s\n  \
             {} compactors killed, {} objects lost on the old store",
            rows.join("\n"),
            self.requests.0,
            self.requests.1,
            self.requests.2.as_secs_f64(),
            self.reads.answered,
            self.reads.by_mirror,
            self.reads.failed,
            self.reads.longest_gap.as_secs_f64(),
            self.killed,
            self.lost,
        )
    }
}

/// Short times, so that the drill is short; the rules are the same.
fn options() -> Options {
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

fn migration(tiers: Tiers) -> Migration {
    let options = MigrateOptions {
        table: stele_table::Options {
            history_us: options().history_us,
            ..Default::default()
        },
        marker_keep_us: options().marker_keep_us,
        bytes_per_second: None,
        copies: 4,
    };
    let (clock, ids): (Arc<dyn Clock>, Arc<dyn Ids>) = (Arc::new(SystemClock), Arc::new(RandomIds));
    Migration::new(tiers, options, clock, ids)
}

async fn step<T>(take: impl AsyncFn() -> Result<Step<T>, MigrateError>) -> anyhow::Result<T> {
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

async fn play(
    stores: &Stores,
    args: &FebruaryArgs,
    timeline: &mut Timeline,
) -> anyhow::Result<Passed> {
    let stage = Stage::set(stores, args.seed).await?;
    timeline.done(
        "a store",
        format!("{} is the first tier, \"old\"", stores.old),
    )?;
    let running = stage.begin(timeline).await?;
    let acts = stage.acts(timeline, &running).await;
    running.compactors.stop();
    let acts = match acts {
        Ok(acts) => acts,
        Err(error) => {
            running.stop().await?;
            return Err(error);
        }
    };
    stage.finale(timeline, running, acts).await
}

/// What the drill works with.
struct Stage<'a> {
    stores: &'a Stores,
    old: Tier,
    new: Tier,
    cut_new: Cut,
    process: Process,
    work: Migration,
    seed: u64,
    names: [TierId; 2],
}

/// What runs all the time.
struct Running {
    load: Arc<Load>,
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
    async fn set(stores: &'a Stores, seed: u64) -> anyhow::Result<Self> {
        let (old, _) = Cut::over(&stores.open(&stores.old)?);
        let (new, cut_new) = Cut::over(&stores.open(&stores.new)?);
        let names: [TierId; 2] = ["old".parse()?, "new".parse()?];
        let mut first = TierSet::first(names[0].clone(), &stores.old);
        (first.lease_ms, first.request_ms, first.is_quiet) = (1_000, 500, true);
        stele_protect::init(&old, &first).await?;
        let process = Process::start(tiers(stores, &old, &new), options()).await?;
        let work = migration(tiers(stores, &old, &new));
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

    fn node(&self) -> Node {
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
        tokio::time::sleep(BREATH).await;
        self.sync().await?;
        acts.lost = self.lose_the_most_recent().await?;
        let lost = acts.lost;
        timeline.done(
            "lose the most recent",
            format!("{lost} objects of the old store are gone"),
        )?;
        tokio::time::sleep(BREATH).await;
        let returned = self.sync().await?;
        timeline.done(
            "sync",
            format!("{returned} L0 objects came back from the mirror"),
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

    async fn snapshot(&self) -> anyhow::Result<u64> {
        let node = self.node();
        node.compactor.absorb(&Budget::default()).await?;
        let new = NewSnapshot {
            name: name()?,
            why: Why::Manual,
            note: "before the incident".to_owned(),
        };
        let pin = stele_protect::create(&node.log, &new, &SystemClock).await?;
        Ok(pin.version)
    }

    async fn pause(&self, is_paused: bool) -> anyhow::Result<()> {
        let node = self.node();
        Ok(set_rollups_paused(&node.store, is_paused, SystemClock.now_us()).await?)
    }

    /// Retiring must be refused, naming what the other tier lacks.
    async fn retire_too_early(&self, old: &TierId) -> anyhow::Result<String> {
        match self.work.retire_plan(old).await {
            Err(MigrateError::Needed { missing, .. }) if missing.total > 0 => {
                let first = missing.examples.first().cloned().unwrap_or_default();
                Ok(format!(
                    "{} objects are missing, first {first}",
                    missing.total
                ))
            }
            Err(error) => bail!("refused for another reason: {}", stele_model::chain(&error)),
            Ok(_) => bail!("the old tier could be retired although the new one holds no history"),
        }
    }

    async fn sync(&self) -> anyhow::Result<u64> {
        let report = self.work.sync(&|_, _| {}).await?;
        let failed = report.tiers.iter().find_map(|tier| tier.failed.as_ref());
        if let Some(why) = failed {
            bail!("sync: {why}");
        }
        Ok(report.tiers.iter().map(|tier| tier.returned).sum())
    }

    async fn sync_until_joined(&self, new: &TierId) -> anyhow::Result<u64> {
        let mut copied = 0;
        for _ in 0..WAITS_MAX {
            let report = self.work.sync(&|_, _| {}).await?;
            for tier in report.tiers.iter().filter(|tier| tier.id == *new) {
                copied += tier.copied;
                if let Some(why) = &tier.failed {
                    bail!("sync: {why}");
                }
                if tier.state == stele_store::TierState::Mirror {
                    return Ok(copied);
                }
            }
            tokio::time::sleep(Duration::from_millis(300)).await;
        }
        bail!("the new tier did not join")
    }

    /// Deletes from the old store what is most recent there: unabsorbed objects, and a data file.
    async fn lose_the_most_recent(&self) -> anyhow::Result<u64> {
        use object_store::ObjectStoreExt;

        let store = self.old.tenant(&TenantId::default());
        let mut objects = store.l0_list().await?;
        objects.sort_by_key(|object| std::cmp::Reverse(object.stored_us));
        let newest = objects.iter().take(LOST_OBJECTS);
        let mut keys: Vec<String> = newest.map(|o| format!("l0/{}", o.name)).collect();
        // One that the mirror had got before: what it has not got is lost with the old store's log,
        // and is absorbed anew on the mirror when that is promoted by force.
        let newest = self.node().log.load().await?.context("a table")?;
        let mirror = TableLog::new(
            self.new.tenant(store.tenant()),
            stele_table::Options::default(),
            Arc::new(SystemClock),
        );
        let copied = mirror.load().await?.context("a table on the mirror")?;
        let open = newest.files_of(FileKind::Open);
        let open = open.filter(|file| copied.files.contains_key(&file.path));
        let last = open.max_by_key(|file| file.stats.rows);
        keys.extend(last.map(|file| stele_store::keys::data_file(&file.path)));
        for key in &keys {
            let path = store.path(key);
            self.old.object_store().delete(&path).await?;
        }
        Ok(keys.len() as u64)
    }

    /// While the mirror is away, batches are acknowledged by the primary alone, with intents; and
    /// the mirror cannot be promoted.
    async fn cut_off(&self, new: &TierId, running: &Running) -> anyhow::Result<String> {
        step(async || self.work.set_policy(WritePolicy::Primary).await).await?;
        self.cut_new.set(true);
        let before = running.load.acked_samples();
        let mut waited = Duration::ZERO;
        while running.load.acked_samples() < before + 64 {
            tokio::time::sleep(BREATH).await;
            waited += BREATH;
            ensure!(
                waited < Duration::from_secs(30),
                "nothing is acknowledged without the mirror"
            );
        }
        let refused = self.work.promote(new, &|_| {}).await;
        let refused = refused
            .err()
            .context("a tier that cannot be read was promoted")?;
        Ok(stele_model::chain(&refused).to_string())
    }

    async fn bring_back(&self, new: &TierId) -> anyhow::Result<()> {
        self.cut_new.set(false);
        // Batches go to the mirror again as soon as it is tried again.
        for _ in 0..WAITS_MAX {
            self.sync().await?;
            let lag = self.work.lag(new, &self.process.tenant).await?;
            if lag.intents == 0 {
                step(async || self.work.set_policy(WritePolicy::All).await).await?;
                self.sync().await?;
                return Ok(());
            }
            tokio::time::sleep(BREATH).await;
        }
        bail!("repair intents stay open")
    }

    /// Restores the snapshot of the survivor into a third store, and sends its samples again: all
    /// of them are there.
    async fn restore_and_merge(&self) -> anyhow::Result<u64> {
        let node = self.node();
        let third = self.stores.restored();
        let tier = Tier::open(&third.to_string_lossy(), &[])?;
        let target = Node::as_is(&tier, &self.process.tenant, options());
        let plan = stele_protect::restore_plan(&node.log, &name()?, &target.store).await?;
        let restored =
            stele_protect::restore(&plan, plan.hash, &node.store, &target.log, &|_| {}).await?;
        ensure!(restored.copied > 0, "nothing was restored");
        let merged = merge(&target, &node, &third).await?;
        let pinned = plan.content.samples.rows;
        ensure!(merged == pinned, "{merged} samples were merged of {pinned}");
        Ok(merged)
    }
}

fn name() -> anyhow::Result<PinName> {
    Ok("before".parse()?)
}

/// Sends every sample of a restored table to the live one; answers how many.
async fn merge(restored: &Node, live: &Node, dir: &Path) -> anyhow::Result<u64> {
    let state = restored.log.load().await?.context("a restored table")?;
    let kinds = [FileKind::Sealed(Resolution::Raw), FileKind::Open];
    let mut merged = 0;
    for file in kinds.iter().flat_map(|kind| state.files_of(*kind)) {
        let key = stele_store::keys::data_file(&file.path);
        let path = dir.join(restored.store.path(&key).as_ref());
        let settings = stele_import::Settings {
            format: stele_import::Format::Parquet,
            precision: stele_wire::Precision::default(),
            columns: stele_import::Columns::default(),
            limits: stele_model::Limits::default(),
            now_us: SystemClock.now_us() + MINUTE_US,
        };
        let mut source = stele_import::open(&path, &settings, stele_import::Mark::default())?;
        while let Some(part) = source.next_part()? {
            ensure!(
                part.decoded.rejections.total == 0,
                "{}: refused samples",
                path.display()
            );
            let receipt = live.ingestor.accept(part.decoded.rows).await?;
            merged += receipt.map_or(0, |receipt| receipt.rows);
        }
    }
    Ok(merged)
}
