//! Verify over stores that are whole, and over stores with one thing wrong each.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::sync::{Arc, Mutex};

use bytes::Bytes;
use object_store::path::Path;
use stele_compact::{Budget, Compactor, Options};
use stele_format::{RollupReader, RollupSource, RollupWriter, batch, l0};
use stele_model::time::{DAY_US, HOUR_US};
use stele_model::{Clock, Resolution, TenantId};
use stele_protect::{Check, VerifyReport, verify};
use stele_store::{TenantStore, Tier, keys};
use stele_table::{Commit, CommitKind, FileEntry, FileKind, OperationId, Outcome, TableLog};
use stele_testkit::gen_rows::RowGen;
use stele_testkit::{ManualClock, MemoryStore, Rng, SeededIds};

struct World {
    memory: MemoryStore,
    store: TenantStore,
    log: Arc<TableLog>,
    clock: ManualClock,
}

impl World {
    /// A tenant with sealed, open and unabsorbed samples, some late, some sent twice, and enough
    /// commits for a checkpoint.
    async fn busy() -> Self {
        let clock = ManualClock::new(20_779 * DAY_US + 12 * HOUR_US);
        let memory = MemoryStore::new(clock.clone());
        let tier = Tier::from_store(Arc::new(memory.clone()), "", "memory://");
        let store = tier.tenant(&TenantId::default());
        let log = Arc::new(TableLog::new(
            store.clone(),
            stele_table::Options::default(),
            Arc::new(clock.clone()),
        ));
        let world = Self {
            memory,
            store,
            log: Arc::clone(&log),
            clock,
        };
        let compactor = world.compactor();
        let mut random = RowGen::new(Rng::new(11), 9);
        for n in 0..14 {
            for _ in 0..3 {
                world.accept(&mut random).await;
            }
            compactor.absorb(&Budget::unlimited()).await.unwrap();
            world.clock.advance(HOUR_US / 2);
            if n % 3 == 0 {
                compactor.seal(&Budget::unlimited(), true).await.unwrap();
            }
        }
        compactor
            .settle(&Budget::unlimited(), &|_| ())
            .await
            .unwrap();
        world.clock.advance(HOUR_US);
        world.accept(&mut random).await;
        compactor.absorb(&Budget::unlimited()).await.unwrap();
        world.accept(&mut random).await;
        world
    }

    fn compactor(&self) -> Compactor {
        Compactor::new(
            self.store.clone(),
            Arc::clone(&self.log),
            Options::default(),
            Arc::new(self.clock.clone()),
            Arc::new(SeededIds::new(4)),
        )
    }

    async fn accept(&self, random: &mut RowGen) {
        let rows = random.rows(self.clock.now_us(), 30, 60);
        let encoded = l0::encode(&[batch(rows)]).unwrap();
        self.store
            .l0_put(&encoded.name, encoded.bytes)
            .await
            .unwrap();
    }

    async fn verify(&self) -> VerifyReport {
        // Another process: nothing remembered.
        let clock = Arc::new(self.clock.clone());
        let log = TableLog::new(self.store.clone(), stele_table::Options::default(), clock);
        verify(&self.store, &log, &|_| ()).await
    }

    fn keys(&self, part: &str) -> Vec<Path> {
        self.memory.keys(self.store.path(part).as_ref())
    }

    /// Turns one bit over in the middle of an object.
    fn flip(&self, key: &Path) {
        let mut bytes = self.memory.bytes(key).unwrap().to_vec();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        self.memory.damage(key, Bytes::from(bytes));
    }

    fn relative(&self, key: &Path) -> String {
        let root = self.store.path("l0");
        let root = root.as_ref().strip_suffix("l0").unwrap();
        key.as_ref().strip_prefix(root).unwrap().to_owned()
    }

    async fn live(&self, kind: FileKind) -> Vec<Arc<FileEntry>> {
        let state = self.log.load().await.unwrap().unwrap();
        state.files_of(kind).cloned().collect()
    }

    /// Replaces a sealed rollup file by another, in a commit like any other.
    async fn replace(&self, file: &FileEntry, edit: impl Fn(&mut Vec<(i64, f64)>)) {
        let kind = FileKind::Sealed(Resolution::S60);
        let bytes = self.store.get(&keys::data_file(&file.path)).await.unwrap();
        let mut reader = RollupReader::open(bytes).unwrap();
        let mut writer = RollupWriter::new(true);
        let mut first = true;
        while let Some(chunk) = reader.next_chunk().unwrap() {
            let mut kept: Vec<(i64, f64)> = chunk.bins.iter().map(|(ts, a)| (*ts, a.sum)).collect();
            if std::mem::take(&mut first) {
                edit(&mut kept);
            }
            for (ts, sum) in kept {
                let (_, bin) = chunk.bins.iter().find(|(at, _)| *at == ts).unwrap();
                let bin = stele_model::Aggregate { sum, ..bin.clone() };
                writer.push(&chunk.series, ts, &bin).unwrap();
            }
        }
        let made = writer.finish().unwrap().unwrap();
        let path = FileEntry::path_of(kind, &file.period, &made.stats.digest.to_string());
        self.store
            .put_new(&keys::data_file(&path), made.bytes)
            .await
            .unwrap();
        let id = OperationId("f".repeat(32));
        let mut commit = Commit::new(id, CommitKind::Consolidate, self.clock.now_us());
        commit.remove.push(file.path.clone());
        commit.add.push(FileEntry {
            path,
            stats: made.stats,
            ..file.clone()
        });
        let state = self.log.load().await.unwrap().unwrap();
        let outcome = self.log.commit(&state, commit).await.unwrap();
        assert!(matches!(outcome, Outcome::Committed(_)));
    }
}

fn about(report: &VerifyReport, check: Check, object: &str) -> bool {
    report
        .findings
        .iter()
        .any(|f| f.check == check && f.object == object)
}

#[tokio::test]
async fn a_store_whose_raw_samples_expired_is_whole_and_says_so() {
    let world = World::busy().await;
    let clock = Arc::new(world.clock.clone());
    let (log, ids) = (Arc::clone(&world.log), Arc::new(SeededIds::new(40)));
    let compactor = Compactor::new(world.store.clone(), log, Options::default(), clock, ids);
    let keep = stele_table::Retention {
        raw_days: Some(1),
        ..stele_table::Retention::default()
    };
    stele_table::set_retention(&world.store, keep)
        .await
        .unwrap();
    world.clock.advance(10 * DAY_US);
    let all = Budget::unlimited();
    compactor.settle(&all, &|_| ()).await.unwrap();
    let expired = compactor.expire(&all).await.unwrap();
    assert!(expired.days >= 2, "{expired:?}");
    // A row that comes too late, and one that does not.
    let mut late = RowGen::new(Rng::new(5), 2).rows(20_779 * DAY_US + HOUR_US, 0, 3);
    late.rows[0].ts_us = world.clock.now_us();
    let encoded = l0::encode(&[batch(late)]).unwrap();
    let put = world.store.l0_put(&encoded.name, encoded.bytes).await;
    put.unwrap();
    compactor.absorb(&all).await.unwrap();
    let report = world.verify().await;
    assert!(report.is_clean(), "{:?}", report.findings);
    assert_eq!(report.frozen_days, expired.days);
    // A frozen rollup that is gone is missed.
    let log = &world.log;
    let state = log.load().await.unwrap().unwrap();
    let lost = state.files_of(FileKind::Sealed(Resolution::M15)).next();
    let id = OperationId("3".repeat(32));
    let mut commit = Commit::new(id, CommitKind::Consolidate, world.clock.now_us());
    commit.remove = vec![lost.unwrap().path.clone()];
    let done = log.commit(&state, commit).await.unwrap();
    assert!(matches!(done, Outcome::Committed(_)));
    assert!(!world.verify().await.is_clean());
}

#[tokio::test]
async fn a_whole_store_has_no_findings_and_everything_was_read() {
    let world = World::busy().await;
    let report = world.verify().await;
    assert_eq!(report.findings, []);
    let state = world.log.load().await.unwrap().unwrap();
    assert_eq!(report.version, Some(state.version));
    assert_eq!(report.entries, state.version + 1);
    assert_eq!(report.files, state.files.len() as u64);
    assert_eq!((report.objects, report.batches), (1, 43));
    assert!(report.heads > 20 && report.rollup_rows > 100, "{report:?}");
    for kind in FileKind::ALL {
        assert!(
            state.files_of(kind).next().is_some(),
            "{kind:?} is not in the test"
        );
    }
}

#[tokio::test]
async fn an_empty_tenant_is_clean() {
    let tier = Tier::open("memory://", &[]).unwrap();
    let store = tier.tenant(&TenantId::default());
    let clock = Arc::new(ManualClock::new(0));
    let log = TableLog::new(store.clone(), stele_table::Options::default(), clock);
    let report = verify(&store, &log, &|_| ()).await;
    assert!(report.is_clean());
    assert_eq!(report.version, None);
}

#[tokio::test]
async fn a_flipped_bit_of_any_live_file_is_found_and_the_file_is_named() {
    for kind in FileKind::ALL {
        let world = World::busy().await;
        let file = world.live(kind).await.remove(0);
        let key = keys::data_file(&file.path);
        world.flip(&world.store.path(&key));
        let report = world.verify().await;
        assert!(about(&report, Check::Objects, &key), "{kind:?}: {report:?}");
        assert_eq!(report.findings_total, 1, "{kind:?}: {:?}", report.findings);
    }
}

#[tokio::test]
async fn a_missing_live_file_is_found_and_named() {
    for kind in FileKind::ALL {
        let world = World::busy().await;
        let file = world.live(kind).await.remove(0);
        let key = keys::data_file(&file.path);
        world.memory.lose(&world.store.path(&key));
        let report = world.verify().await;
        assert!(about(&report, Check::Objects, &key), "{kind:?}: {report:?}");
    }
}

#[tokio::test]
async fn a_damaged_unabsorbed_object_is_found_and_named() {
    let world = World::busy().await;
    let state = world.log.load().await.unwrap().unwrap();
    let listed = world.store.l0_list().await.unwrap();
    let waits = |o: &&stele_store::L0Object| !state.unswept.contains_key(&o.name.digest);
    let waiting = listed.iter().find(waits).unwrap();
    let key = format!("l0/{}", waiting.name);
    world.flip(&world.store.path(&key));
    let report = world.verify().await;
    assert!(about(&report, Check::Objects, &key), "{report:?}");
}

#[tokio::test]
async fn damage_to_ledger_log_and_heads_is_found() {
    let world = World::busy().await;
    for part in ["ledger", "table/_delta_log", "table/heads"] {
        for key in world.keys(part) {
            let name = world.relative(&key);
            // Ledger objects that later ones replaced are read by no one, nor is any checkpoint
            // but the newest.
            let state = world.log.load().await.unwrap().unwrap();
            let retired = &state.ledger.retired;
            let newest = format!("{:020}", state.ledger.manifest_version);
            let is_checkpoint = name.ends_with(".checkpoint.parquet");
            if retired.iter().any(|retired| retired.key == name)
                || is_checkpoint && !name.contains(&newest)
            {
                continue;
            }
            let whole = world.memory.bytes(&key).unwrap();
            if is_checkpoint {
                // A bit in a column that only foreign readers use is not seen: Parquet has no
                // checksum here, and a checkpoint is a shortcut. One that does not load is seen.
                world.memory.damage(&key, whole.slice(..whole.len() / 2));
            } else {
                world.flip(&key);
            }
            let report = world.verify().await;
            world.memory.damage(&key, whole);
            assert!(
                !report.is_clean(),
                "{name} was flipped and nothing was found"
            );
        }
    }
}

#[tokio::test]
async fn a_log_entry_that_is_gone_is_found() {
    let world = World::busy().await;
    let key = keys::log_entry(7);
    world.memory.lose(&world.store.path(&key));
    let report = world.verify().await;
    assert!(about(&report, Check::Conservation, &key), "{report:?}");
}

/// The same gap, but what is below it is younger: a writer that slept through the sweep.
#[tokio::test]
async fn an_entry_re_created_below_a_sweep_is_counted_and_no_finding() {
    let world = World::busy().await;
    let ghost = world.memory.bytes(&world.store.path(&keys::log_entry(3)));
    for version in 0..=5 {
        world
            .memory
            .lose(&world.store.path(&keys::log_entry(version)));
    }
    world.clock.advance(DAY_US);
    let ghost = world
        .store
        .put_new(&keys::log_entry(3), ghost.unwrap())
        .await;
    ghost.unwrap();
    let report = world.verify().await;
    assert_eq!(report.findings, []);
    assert_eq!(report.ghosts, 1);
}

#[tokio::test]
async fn a_dropped_rollup_row_is_found_though_the_file_is_whole() {
    let world = World::busy().await;
    let file = world
        .live(FileKind::Sealed(Resolution::S60))
        .await
        .remove(0);
    world
        .replace(&file, |bins| bins.truncate(bins.len() - 1))
        .await;
    let report = world.verify().await;
    assert_eq!(report.findings_total, 1, "{:?}", report.findings);
    let finding = &report.findings[0];
    assert_eq!(finding.check, Check::Rollups);
    assert!(
        finding
            .object
            .ends_with(&format!("resolution=60s/period={}", file.period))
    );
    assert!(finding.what.ends_with("is missing"), "{finding}");
}

#[tokio::test]
async fn a_sum_off_by_one_bit_is_found() {
    let world = World::busy().await;
    let files = world.live(FileKind::Sealed(Resolution::S60)).await;
    let edit = |bins: &mut Vec<(i64, f64)>| {
        let sum = &mut bins.iter_mut().find(|(_, sum)| sum.is_normal()).unwrap().1;
        *sum = f64::from_bits(sum.to_bits() ^ 1);
    };
    world.replace(&files[0], edit).await;
    let report = world.verify().await;
    assert_eq!(report.findings_total, 1, "{:?}", report.findings);
    assert!(
        report.findings[0].what.contains("sum is not what"),
        "{:?}",
        report.findings
    );
}

#[tokio::test]
async fn one_finding_does_not_hide_the_next() {
    let world = World::busy().await;
    let open = world.live(FileKind::Open).await.remove(0);
    let raw = world
        .live(FileKind::Sealed(Resolution::Raw))
        .await
        .remove(0);
    let (open, raw) = (keys::data_file(&open.path), keys::data_file(&raw.path));
    world.memory.lose(&world.store.path(&open));
    world.flip(&world.store.path(&raw));
    world.memory.lose(&world.store.path(&keys::log_entry(3)));
    let report = world.verify().await;
    assert!(about(&report, Check::Objects, &open), "{report:?}");
    assert!(about(&report, Check::Objects, &raw), "{report:?}");
    assert!(
        about(&report, Check::Conservation, &keys::log_entry(3)),
        "{report:?}"
    );
}

#[tokio::test]
async fn progress_names_every_stage() {
    let world = World::busy().await;
    let seen = Mutex::new(Vec::new());
    verify(&world.store, &world.log, &|p| seen.lock().unwrap().push(p)).await;
    let seen = seen.into_inner().unwrap();
    let stages: std::collections::BTreeSet<String> =
        seen.iter().map(|p| format!("{:?}", p.stage)).collect();
    assert_eq!(stages.len(), 3, "{stages:?}");
    assert!(seen.iter().all(|p| p.done < p.total));
}
