//! What happens to the stores, one thing at a time.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use stele_compact::Budget;
use stele_model::time::MINUTE_US;
use stele_model::{Clock, Resolution, TenantId, TierId};
use stele_node::Node;
use stele_protect::{MigrateError, NewSnapshot};
use stele_runtime::SystemClock;
use stele_store::{Tier, WritePolicy};
use stele_table::{FileKind, PinName, TableLog, Why, set_rollups_paused};

use super::stage::{BREATH, Running, Stage, WAITS_MAX, options, step};

/// L0 objects that the old store loses.
const LOST_OBJECTS: usize = 6;

impl Stage<'_> {
    pub(super) async fn snapshot(&self) -> anyhow::Result<u64> {
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

    pub(super) async fn pause(&self, is_paused: bool) -> anyhow::Result<()> {
        let node = self.node();
        Ok(set_rollups_paused(&node.store, is_paused, SystemClock.now_us()).await?)
    }

    /// Retiring must be refused, naming what the other tier lacks.
    pub(super) async fn retire_too_early(&self, old: &TierId) -> anyhow::Result<String> {
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

    pub(super) async fn sync(&self) -> anyhow::Result<u64> {
        let report = self.work.sync(&|_, _| {}).await?;
        let failed = report.tiers.iter().find_map(|tier| tier.failed.as_ref());
        if let Some(why) = failed {
            bail!("sync: {why}");
        }
        let back = report.tiers.iter().map(|tier| tier.returned + tier.healed);
        Ok(back.sum())
    }

    pub(super) async fn sync_until_joined(&self, new: &TierId) -> anyhow::Result<u64> {
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
    pub(super) async fn lose_the_most_recent(&self) -> anyhow::Result<u64> {
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
    pub(super) async fn cut_off(&self, new: &TierId, running: &Running) -> anyhow::Result<String> {
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
        let refused = step(async || self.work.promote(new, &|_| {}).await).await;
        let refused = refused
            .err()
            .context("a tier that cannot be read was promoted")?;
        Ok(format!("{refused:#}"))
    }

    pub(super) async fn bring_back(&self, new: &TierId) -> anyhow::Result<()> {
        self.cut_new.set(false);
        // Batches go to the mirror again as soon as it is tried again.
        for _ in 0..WAITS_MAX {
            self.sync().await?;
            let lag = self.work.lag(new, &self.process.tenant).await?;
            if lag.intents == 0 {
                step(async || self.work.set_policy(WritePolicy::All).await).await?;
                self.sync_until_joined(new).await?;
                return Ok(());
            }
            tokio::time::sleep(BREATH).await;
        }
        bail!("repair intents stay open")
    }

    /// Restores the snapshot of the survivor into a third store, and sends its samples again: all
    /// of them are there.
    pub(super) async fn restore_and_merge(&self) -> anyhow::Result<u64> {
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
