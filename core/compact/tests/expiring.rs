//! What expires, what keeps it from doing so, and that nothing else changes.
#![allow(clippy::unwrap_used, clippy::panic)]

mod common;

use std::collections::BTreeSet;
use std::pin::pin;
use std::sync::Arc;

use common::{ALL, DAY0, World, files, hour, rows, sample};
use futures::poll;
use stele_compact::{Compactor, Error, ExpireWaits, Options};
use stele_format::{RollupReader, RollupSource, RollupWriter, batch};
use stele_model::time::{DAY_US, HOUR_US, SECOND_US};
use stele_model::{Clock, Day, Resolution};
use stele_store::keys;
use stele_table::{
    Commit, CommitKind, FileEntry, FileKind, Kept, OperationId, Outcome, Retention, TableLog,
    retention, set_retention, set_rollups_paused,
};
use stele_testkit::{Fault, FaultWorld, KeyClass, ManualClock, Operation, Plan, Rng, SeededIds};

const S60: FileKind = FileKind::Sealed(Resolution::S60);

async fn keep_raw(world: &World, days: u32) {
    let keep = Retention {
        raw_days: Some(days),
        ..Retention::default()
    };
    set_retention(&world.store, keep).await.unwrap();
}

/// Three sealed days, raw kept for a day, and the first of them just past it.
async fn three_days() -> World {
    let mut world = World::new();
    for day in 0..3 {
        let at = DAY0 + day * DAY_US + 7 * HOUR_US;
        world.accept(rows("cpu", at, 600 * SECOND_US, 20)).await;
        world.accept(rows("mem", at + 5, 60 * SECOND_US, 90)).await;
    }
    world.clock.set(DAY0 + 3 * DAY_US);
    keep_raw(&world, 1).await;
    world.compactor(1).settle(&ALL, &|_| ()).await.unwrap();
    world.clock.set(DAY0 + 4 * DAY_US);
    world
}

fn before(day: i64) -> Option<Day> {
    Some(Day::of(DAY0 + day * DAY_US))
}

#[tokio::test]
async fn raw_expires_two_days_after_its_retention_and_rollups_answer_as_before() {
    let world = three_days().await;
    let compactor = world.compactor(2);
    world.clock.set(DAY0 + 4 * DAY_US - 1);
    let report = compactor.expire(&ALL).await.unwrap();
    assert_eq!((report.commits, report.waits), (0, None));
    world.clock.set(DAY0 + 4 * DAY_US);
    let report = compactor.expire(&ALL).await.unwrap();
    assert_eq!((report.commits, report.days, report.rows), (1, 1, 110));
    assert!(report.rollup_rows_verified > 100, "{report:?}");
    let state = world.state().await;
    assert_eq!(state.expired.raw_before, before(1));
    assert_eq!((state.totals.expired, files(&state)[1]), (110, 2));
    world.check("one day expired").await;
    world.clock.advance(DAY_US * 9);
    let report = compactor.expire(&ALL).await.unwrap();
    assert_eq!((report.commits, report.days), (2, 2));
    assert_eq!(files(world.state().await.as_ref())[..2], [0, 0]);
    world.check("all raw expired").await;
    assert_eq!(compactor.expire(&ALL).await.unwrap().commits, 0);
    // What is left goes on: rollups are merged, new rows come and are sealed.
    let mut world = world;
    world.accept(sample("cpu", world.clock.now_us(), 1.0)).await;
    world.clock.advance(DAY_US);
    compactor.settle(&ALL, &|_| ()).await.unwrap();
    world.check("and it went on").await;
}

#[tokio::test]
async fn nothing_expires_for_ever_or_by_a_setting_younger_than_an_hour() {
    let world = three_days().await;
    set_retention(&world.store, Retention::default())
        .await
        .unwrap();
    world.clock.advance(30 * DAY_US);
    let compactor = world.compactor(2);
    let report = compactor.expire(&ALL).await.unwrap();
    assert_eq!(report, stele_compact::ExpireReport::default());
    keep_raw(&world, 1).await;
    world.clock.advance(HOUR_US - SECOND_US);
    let report = compactor.expire(&ALL).await.unwrap();
    assert!(matches!(report.waits, Some(ExpireWaits::Setting { .. })));
    assert_eq!(report.commits, 0);
    world.clock.advance(SECOND_US);
    assert_eq!(compactor.expire(&ALL).await.unwrap().commits, 3);
}

#[tokio::test]
async fn pausing_rollups_pauses_expiry() {
    let world = three_days().await;
    set_rollups_paused(&world.store, true, world.clock.now_us())
        .await
        .unwrap();
    let compactor = world.compactor(2);
    let report = compactor.expire(&ALL).await.unwrap();
    assert_eq!((report.commits, report.paused), (0, true));
    set_rollups_paused(&world.store, false, world.clock.now_us())
        .await
        .unwrap();
    assert_eq!(compactor.expire(&ALL).await.unwrap().commits, 1);
}

#[tokio::test]
async fn a_clock_that_disagrees_with_the_store_expires_nothing() {
    let world = three_days().await;
    let ahead = ManualClock::new(world.clock.now_us() + 61 * SECOND_US);
    let compactor = Compactor::new(
        world.store.clone(),
        Arc::new(world.log(DAY_US)),
        Options::default(),
        Arc::new(ahead),
        Arc::new(SeededIds::new(5)),
    );
    let refused = compactor.expire(&ALL).await;
    assert!(matches!(refused, Err(Error::Skew { .. })));
    assert_eq!(world.state().await.expired.raw_before, None);
}

#[tokio::test]
async fn an_object_or_an_open_file_over_the_day_keeps_it() {
    let mut world = three_days().await;
    let compactor = world.compactor(2);
    world.accept(sample("cpu", DAY0 + 30, 9.0)).await;
    let report = compactor.expire(&ALL).await.unwrap();
    assert!(matches!(report.waits, Some(ExpireWaits::L0 { .. })));
    compactor.absorb(&ALL).await.unwrap();
    let report = compactor.expire(&ALL).await.unwrap();
    assert!(matches!(report.waits, Some(ExpireWaits::Open { .. })));
    assert_eq!(report.commits, 0);
    world.check("nothing expired").await;
    compactor.seal(&ALL, true).await.unwrap();
    assert_eq!(compactor.expire(&ALL).await.unwrap().commits, 1);
    world.check("with the late row in its rollups").await;
}

/// Replaces the first day's 60 s files by what `change` makes of one value of them.
async fn tamper(world: &World, change: Option<f64>) {
    let log = world.log(DAY_US);
    let state = log.load().await.unwrap().unwrap();
    let period = Day::of(DAY0).period();
    let old: Vec<_> = state
        .files_of(S60)
        .filter(|f| f.period == period)
        .cloned()
        .collect();
    let id = OperationId(batch(hour("tamper", 1)).digest.to_string());
    let mut commit = Commit::new(id, CommitKind::Consolidate, world.clock.now_us());
    commit.remove = old.iter().map(|file| file.path.clone()).collect();
    if let Some(change) = change {
        let mut writer = RollupWriter::new(true);
        let bytes = world.store.get(&keys::data_file(&old[0].path)).await;
        let mut reader = RollupReader::open(bytes.unwrap()).unwrap();
        while let Some(mut chunk) = reader.next_chunk().unwrap() {
            chunk.bins[0].1.max += change;
            for (start_us, aggregate) in &chunk.bins {
                writer.push(&chunk.series, *start_us, aggregate).unwrap();
            }
        }
        let file = writer.finish().unwrap().unwrap();
        let path = FileEntry::path_of(S60, &period, "tampered");
        world
            .store
            .put_new(&keys::data_file(&path), file.bytes)
            .await
            .unwrap();
        commit.add = vec![FileEntry {
            path,
            stats: file.stats,
            ..old[0].as_ref().clone()
        }];
    }
    let done = log.commit(&state, commit).await.unwrap();
    assert!(matches!(done, Outcome::Committed(_)));
}

#[tokio::test]
async fn a_rollup_that_is_not_what_raw_folds_to_keeps_its_raw() {
    let world = three_days().await;
    tamper(&world, Some(0.5)).await;
    let compactor = world.compactor(2);
    let refused = compactor.expire(&ALL).await.unwrap_err();
    assert!(refused.to_string().contains("max"), "{refused}");
    assert!(matches!(
        refused,
        Error::Unproven {
            resolution: "60s",
            ..
        }
    ));
    assert_eq!(world.state().await.expired.raw_before, None);
}

#[tokio::test]
async fn a_missing_rollup_keeps_its_raw() {
    let world = three_days().await;
    tamper(&world, None).await;
    let refused = world.compactor(2).expire(&ALL).await.unwrap_err();
    assert!(matches!(refused, Error::Unproven { .. }), "{refused}");
    // The table itself refuses, too.
    let log = world.log(DAY_US);
    let state = log.load().await.unwrap().unwrap();
    let raw = FileKind::Sealed(Resolution::Raw);
    let period = Day::of(DAY0).period();
    let mut commit = Commit::new(OperationId("1".repeat(32)), CommitKind::Expire, 1);
    for file in state.files_of(raw).filter(|f| f.period == period) {
        commit.remove.push(file.path.clone());
        commit.conservation.rows_in += file.stats.rows;
        commit.conservation.hash_in = commit.conservation.hash_in.union(file.stats.rows_hash);
    }
    commit.conservation.expired = commit.conservation.rows_in;
    commit.conservation.hash_dropped = commit.conservation.hash_in;
    let day = Day::of(DAY0 + DAY_US);
    commit.expired = Some(state.expired.with(Resolution::Raw, day));
    let refused = log.commit(&state, commit).await.unwrap_err();
    assert!(refused.to_string().contains("rollups"), "{refused}");
}

#[tokio::test]
async fn rows_of_an_expired_day_are_counted_once_and_change_no_answer() {
    let mut world = three_days().await;
    let compactor = world.compactor(2);
    compactor.expire(&ALL).await.unwrap();
    assert_eq!(compactor.sweep(&ALL).await.unwrap().objects_deleted, 6);
    let version = world.state().await.version;
    // Wholly late, partly late, and what was consumed before the day expired.
    let late = batch(rows("cpu", DAY0 + 7 * HOUR_US + 1, SECOND_US, 30));
    world.put(std::slice::from_ref(&late)).await;
    let split = rows("new", DAY0 + DAY_US - 10 * SECOND_US, SECOND_US, 20);
    let mut kept = split.clone();
    kept.rows.retain(|row| row.ts_us >= DAY0 + DAY_US);
    world.expected.add(&kept);
    world.put(&[batch(split)]).await;
    let known = batch(rows("cpu", DAY0 + 7 * HOUR_US, 600 * SECOND_US, 20));
    world.put(std::slice::from_ref(&known)).await;
    world.check("before the absorb").await;
    let report = compactor.absorb(&ALL).await.unwrap();
    assert_eq!((report.batches, report.expired, report.ghosts), (2, 40, 1));
    world.check("after the absorb").await;
    let state = world.state().await;
    assert!(state.version > version);
    assert_eq!(state.totals.expired, 110 + 40);
    compactor.seal(&ALL, true).await.unwrap();
    world.check("after the seal").await;
    // Swept, and sent again: the ledger still knows.
    world.clock.advance(HOUR_US);
    assert_eq!(compactor.sweep(&ALL).await.unwrap().objects_deleted, 3);
    world.put(&[late.clone(), known]).await;
    let report = world.compactor(3).absorb(&ALL).await.unwrap();
    assert_eq!((report.batches, report.expired, report.ghosts), (0, 0, 1));
    assert_eq!(world.state().await.totals.expired, 150);
    // With a batch that is new, it is a duplicate.
    let fresh = sample("cpu", world.clock.now_us(), 3.0);
    world.expected.add(&fresh);
    world.put(&[late, batch(fresh)]).await;
    let report = world.compactor(4).absorb(&ALL).await.unwrap();
    assert_eq!((report.batches, report.batches_duplicate), (1, 1));
    assert_eq!(world.state().await.totals.expired, 150);
    world.check("at the end").await;
}

#[tokio::test]
async fn sweep_deletes_the_expired_files_after_the_history_and_nothing_else() {
    let world = three_days().await;
    let compactor = world.compactor(2);
    world.clock.advance(2 * DAY_US);
    compactor.sweep(&ALL).await.unwrap();
    compactor.expire(&ALL).await.unwrap();
    let removed: BTreeSet<String> = world
        .state()
        .await
        .removed
        .iter()
        .map(|f| f.path.clone())
        .collect();
    assert_eq!(removed.len(), 3);
    let data = |world: &World| -> BTreeSet<String> {
        let root = world.store.path("table").to_string();
        let keys = world.memory.keys(&format!("{root}/"));
        let keys = keys
            .iter()
            .map(|key| key.as_ref()[root.len() + 1..].to_owned());
        keys.filter(|key| key.starts_with("resolution=")).collect()
    };
    let before = data(&world);
    world.clock.advance(DAY_US - SECOND_US);
    assert_eq!(compactor.sweep(&ALL).await.unwrap().files_deleted, 0);
    world.clock.advance(2 * SECOND_US);
    assert_eq!(compactor.sweep(&ALL).await.unwrap().files_deleted, 3);
    let gone: BTreeSet<String> = before.difference(&data(&world)).cloned().collect();
    assert_eq!(gone, removed);
    world.check("swept").await;
}

#[tokio::test]
async fn what_has_expired_is_known_from_a_head_from_the_log_and_from_a_checkpoint() {
    let mut world = three_days().await;
    world.compactor(2).expire(&ALL).await.unwrap();
    let expired = world.state().await.expired;
    let same = async |world: &World| {
        let log = world.log(DAY_US);
        let by_head = log.load().await.unwrap().unwrap();
        let by_log = log.load_from_log().await.unwrap().unwrap();
        assert_eq!(by_head, by_log);
        assert_eq!(by_log.expired, expired);
        by_log
    };
    let early = same(&world).await;
    assert_eq!(early.ledger.manifest_version, 0);
    let every_two = stele_table::Options {
        checkpoint_every: 2,
        ..stele_table::Options::default()
    };
    let clock = Arc::new(world.clock.clone());
    let log = Arc::new(TableLog::new(world.store.clone(), every_two, clock.clone()));
    let ids = Arc::new(SeededIds::new(77));
    let compactor = Compactor::new(world.store.clone(), log, Options::default(), clock, ids);
    for n in 0..3 {
        world
            .accept(sample("cpu", DAY0 + 3 * DAY_US + n, 1.0))
            .await;
        compactor.absorb(&ALL).await.unwrap();
    }
    let late = same(&world).await;
    assert!(late.ledger.manifest_version > early.version);
    let checkpoint = world.log(DAY_US).checkpoint_version().await.unwrap();
    assert!(checkpoint.is_some_and(|version| version > early.version));
    // The checkpoint alone: nothing before it is read any more.
    for version in 0..=early.version {
        world.store.delete(&keys::log_entry(version)).await.unwrap();
        world.store.delete(&keys::head(version)).await.unwrap();
    }
    same(&world).await;
}

#[tokio::test]
async fn rollups_expire_by_their_own_retention_and_60_min_by_the_month() {
    let world = three_days().await;
    let keep = Retention {
        raw_days: Some(1),
        s60_days: Some(10),
        m15_days: Some(20),
        m60_days: Some(20),
    };
    set_retention(&world.store, keep).await.unwrap();
    let compactor = world.compactor(2);
    world.clock.set(DAY0 + 13 * DAY_US);
    let report = compactor.expire(&ALL).await.unwrap();
    assert_eq!((report.days, report.commits), (3, 4));
    let state = world.state().await;
    assert_eq!(state.expired.s60_before, before(1));
    assert_eq!(files(&state)[..2], [0, 0]);
    world.check("a day of 60 s rollups expired").await;
    // 2026-11-22 to 24; the month ends six days later, and goes 22 days after that.
    world.clock.set(DAY0 + (9 + 22) * DAY_US - 1);
    compactor.expire(&ALL).await.unwrap();
    let state = world.state().await;
    assert_eq!(files(&state)[..4], [0, 0, 0, 0]);
    assert!(files(&state)[4] > 0);
    world.check("only 60 min rollups are left").await;
    world.clock.advance(1);
    compactor.expire(&ALL).await.unwrap();
    let state = world.state().await;
    // 15 min rollups of the rest of the month hold none back: there are none.
    assert!(files(&state)[4] > 0 || state.expired.m60_before.is_some());
}

/// Runs a future whose requests wait at the world's gates, letting one go on at a time.
async fn drive<F: Future>(faults: &FaultWorld, dice: &mut Rng, future: F) -> Option<F::Output> {
    let mut future = pin!(future);
    loop {
        if let std::task::Poll::Ready(output) = poll!(&mut future) {
            return Some(output);
        }
        if faults.has_crashed("one") {
            return None;
        }
        let waiting = faults.waiting();
        if waiting.is_empty() {
            tokio::task::yield_now().await;
        } else {
            faults.grant(waiting[dice.below(waiting.len())].id);
        }
    }
}

#[tokio::test]
async fn a_crash_between_any_two_requests_loses_nothing() {
    let requests = [
        (KeyClass::Control, Operation::List, 3),
        (KeyClass::Control, Operation::Put, 1),
        (KeyClass::L0, Operation::List, 2),
        (KeyClass::Data, Operation::Get, 8),
        (KeyClass::Log, Operation::Get, 6),
        (KeyClass::Log, Operation::Put, 1),
        (KeyClass::Head, Operation::Put, 1),
    ];
    let kinds = [
        Fault::CrashBefore,
        Fault::CrashAfter,
        Fault::ErrorBefore,
        Fault::ErrorAfter,
    ];
    let (mut crashes, mut struck) = (0, 0);
    for (class, operation, most) in requests {
        for nth in 0..most {
            for fault in kinds {
                let world = three_days().await;
                let plan = Plan::none().with("one", operation, class, nth, fault);
                let faults = FaultWorld::scheduled(Arc::new(world.memory.clone()), plan, 3);
                let one = world.compactor_over(faults.actor("one"), 9);
                let mut dice = Rng::new(u64::from(nth));
                let ended = drive(&faults, &mut dice, one.expire(&ALL)).await;
                crashes += usize::from(ended.is_none());
                struck += faults.fired().len();
                world.check("after the fault").await;
                faults.end_faults();
                world.compactor(10).expire(&ALL).await.unwrap();
                assert_eq!(world.state().await.totals.expired, 110);
                world.check("after another try").await;
                assert_eq!(world.memory.reused_keys(), []);
            }
        }
    }
    assert!(
        crashes > 10 && struck > 60,
        "{crashes} crashes, {struck} faults"
    );
}

#[tokio::test]
async fn late_rows_absorbed_and_sealed_while_their_day_expires_are_kept_or_counted() {
    let (mut kept, mut expired) = (0, 0);
    for seed in 0..30 {
        let mut world = three_days().await;
        let faults = FaultWorld::scheduled(Arc::new(world.memory.clone()), Plan::none(), 3);
        let one = world.compactor_over(faults.actor("one"), 100 + seed);
        let two = world.compactor_over(faults.actor("two"), 200 + seed);
        let before = world.expected.clone();
        let late = batch(sample("cpu", DAY0 + 9 * HOUR_US + 1, 5.0));
        let mut dice = Rng::new(seed);
        let jobs = async {
            let absorb = async {
                // Some seeds let the expire go ahead.
                for _ in 0..(seed % 10) * 3 {
                    two.consolidate(&ALL).await.unwrap();
                }
                world.put(std::slice::from_ref(&late)).await;
                let absorbed = two.absorb(&ALL).await;
                let sealed = two.seal(&ALL, true).await;
                (absorbed, sealed)
            };
            tokio::join!(one.expire(&ALL), absorb)
        };
        let (report, (absorbed, sealed)) = drive(&faults, &mut dice, jobs).await.unwrap();
        report.unwrap();
        sealed.unwrap();
        if absorbed.unwrap().expired == 1 {
            expired += 1;
            world.expected = before;
        } else {
            kept += 1;
            world.expected.add(&late.rows);
        }
        world.check(&format!("seed {seed}")).await;
        world.compactor(3).expire(&ALL).await.unwrap();
        world.check(&format!("seed {seed}, expired")).await;
        let state = world.state().await;
        assert_eq!(state.expired.raw_before, Some(Day::of(DAY0 + DAY_US)));
        assert_eq!(state.totals.expired, 111);
    }
    assert!(kept > 3 && expired > 3, "{kept} kept, {expired} expired");
}

#[tokio::test]
async fn a_longer_retention_brings_nothing_back_and_says_from_when_on_samples_are_kept() {
    let world = three_days().await;
    let in_force = retention(&world.store).await.unwrap();
    assert_eq!(
        (in_force.retention.raw_days, in_force.expired_before_us),
        (Some(1), None)
    );
    keep_raw(&world, 30).await;
    let now_us = world.clock.now_us();
    let in_force = retention(&world.store).await.unwrap();
    assert_eq!(in_force.expired_before_us, Some(now_us - DAY_US));
    assert_eq!(
        in_force.raw().timestamp_us_min(now_us),
        Some(now_us - DAY_US)
    );
    // A slip that is undone within half an hour has expired nothing.
    world.clock.advance(DAY_US);
    keep_raw(&world, 2).await;
    world.clock.advance(20 * common::MINUTE);
    set_retention(&world.store, Retention::default())
        .await
        .unwrap();
    let in_force = retention(&world.store).await.unwrap();
    let before = world.clock.now_us() - 30 * DAY_US;
    assert_eq!(
        in_force.expired_before_us,
        Some((now_us - DAY_US).max(before))
    );
    let bad = Retention {
        raw_days: Some(30),
        s60_days: Some(7),
        ..Retention::default()
    };
    let refused = set_retention(&world.store, bad)
        .await
        .unwrap_err()
        .to_string();
    assert!(
        refused.contains("7 days") && refused.contains("30 days"),
        "{refused}"
    );
    for days in [0, 40_000] {
        let bad = Retention {
            raw_days: Some(days),
            ..Retention::default()
        };
        let refused = set_retention(&world.store, bad)
            .await
            .unwrap_err()
            .to_string();
        assert!(refused.contains(&format!("{days} days")), "{refused}");
        assert!(refused.contains("36500 days"), "{refused}");
    }
    assert_eq!(Kept(None).to_string(), "for ever");
}
