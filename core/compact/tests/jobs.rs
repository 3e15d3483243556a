//! Absorb, seal, consolidate and settle over a store in memory: the answers stay exact at every
//! step, and each job does what it says.
#![allow(clippy::unwrap_used, clippy::panic)]

mod common;

use std::sync::Arc;

use common::{ALL, DAY0, MINUTE, World, files, hour, rows, sample};
use stele_compact::{Budget, Options, reader};
use stele_format::{RollupSource, batch};
use stele_model::time::{DAY_US, HOUR_US, SECOND_US};
use stele_model::{Clock, Resolution};
use stele_table::{FileKind, set_rollups_paused};
use stele_testkit::Rng;
use stele_testkit::gen_rows::RowGen;
use stele_testkit::oracle::Rollups;

#[tokio::test]
async fn absorb_and_seal_give_exact_samples_and_rollups() {
    let mut world = World::new();
    let compactor = world.compactor(1);
    world.accept(hour("cpu", 9)).await;
    world.accept(hour("mem", 10)).await;
    world
        .accept(rows("cpu", DAY0 - 5 * MINUTE, 7 * SECOND_US, 500))
        .await;
    world.check("over L0 alone").await;

    let absorbed = compactor.absorb(&ALL).await.unwrap();
    assert_eq!(
        (absorbed.objects, absorbed.batches, absorbed.commits),
        (3, 3, 1)
    );
    assert_eq!((absorbed.rows_in, absorbed.rows_out), (1220, 1220));
    assert_eq!(files(&world.state().await.clone()), [2, 0, 0, 0, 0]);
    world.check("after absorb").await;

    let sealed = compactor.seal(&ALL, false).await.unwrap();
    assert_eq!((sealed.commits, sealed.windows_sealed), (2, 4));
    assert_eq!(files(&world.state().await.clone()), [0, 2, 2, 2, 2]);
    world.check("after seal").await;
    assert_eq!(compactor.seal(&ALL, true).await.unwrap().commits, 0);
    assert_eq!(compactor.absorb(&ALL).await.unwrap().commits, 0);
}

#[tokio::test]
async fn an_open_window_is_left_and_its_rows_stay_open() {
    let mut world = World::new();
    let compactor = world.compactor(1);
    // 11:30 to 12:00: closed at 12:10. 12:00 is still open.
    world
        .accept(rows(
            "cpu",
            DAY0 + 11 * HOUR_US + 30 * MINUTE,
            10 * SECOND_US,
            180,
        ))
        .await;
    world
        .accept(rows(
            "cpu",
            DAY0 + 12 * HOUR_US - SECOND_US,
            2 * SECOND_US,
            2,
        ))
        .await;
    compactor.absorb(&ALL).await.unwrap();
    assert_eq!(compactor.seal(&ALL, true).await.unwrap().commits, 0);
    world.clock.advance(10 * MINUTE);
    assert_eq!(compactor.seal(&ALL, true).await.unwrap().windows_sealed, 1);
    let state = world.state().await;
    assert_eq!(files(&state), [1, 1, 1, 1, 1]);
    let open = state.files_of(FileKind::Open).next().unwrap().clone();
    let hours: Vec<i32> = open.windows.iter().map(|w| w.0.rem_euclid(24)).collect();
    assert_eq!((hours, open.stats.rows), (vec![12], 1));
    world.check("with one window open").await;
}

#[tokio::test]
async fn late_sample_reopens_its_window() {
    let mut world = World::new();
    let compactor = world.compactor(1);
    world.accept(hour("cpu", 9)).await;
    world.accept(hour("cpu", 8)).await;
    compactor.settle(&ALL, &|_| ()).await.unwrap();
    assert!(world.view().await.open_windows().is_empty());

    let late = sample("cpu", DAY0 + 9 * HOUR_US + 5, 41.0);
    world.accept(late).await;
    assert_eq!(world.view().await.open_windows().len(), 1);
    world.check("over late L0").await;
    compactor.absorb(&ALL).await.unwrap();
    assert_eq!(world.view().await.open_windows().len(), 1);
    world.check("over a late open file").await;

    // A file of one row is more than a tenth of so small a raw file only in bytes; by age it is
    // due after an hour.
    world.clock.advance(HOUR_US);
    let sealed = compactor.seal(&ALL, false).await.unwrap();
    assert_eq!((sealed.windows_sealed, sealed.windows_resealed), (2, 2));
    assert!(world.view().await.open_windows().is_empty());
    world.check("sealed again").await;
}

#[tokio::test]
async fn a_little_late_data_waits_an_hour_and_force_takes_it() {
    let mut world = World::new();
    let compactor = world.compactor(1);
    // Values without a pattern, so that the sealed file is far larger than one late row.
    let mut dice = Rng::new(3);
    for metric in 0..20 {
        let mut rows = hour(&format!("m{metric:03}"), 9);
        rows.rows
            .iter_mut()
            .for_each(|row| row.value = f64::from_bits(dice.next_u64() >> 2));
        world.accept(rows).await;
    }
    compactor.settle(&ALL, &|_| ()).await.unwrap();
    world
        .accept(sample("m000", DAY0 + 9 * HOUR_US + 5, 41.0))
        .await;
    compactor.absorb(&ALL).await.unwrap();
    assert_eq!(compactor.seal(&ALL, false).await.unwrap().commits, 0);
    world.clock.advance(59 * MINUTE);
    assert_eq!(compactor.seal(&ALL, false).await.unwrap().commits, 0);
    // Another process learns the age from the store.
    world.clock.advance(MINUTE);
    assert_eq!(
        world
            .compactor(2)
            .seal(&ALL, false)
            .await
            .unwrap()
            .windows_resealed,
        1
    );
    world
        .accept(sample("m000", DAY0 + 9 * HOUR_US + 6, 42.0))
        .await;
    compactor.absorb(&ALL).await.unwrap();
    assert_eq!(
        compactor.seal(&ALL, true).await.unwrap().windows_resealed,
        1
    );
    world.check("sealed twice again").await;
}

#[tokio::test]
async fn replayed_batch_is_duplicate_of_and_counts_once() {
    let mut world = World::new();
    let compactor = world.compactor(1);
    let first = batch(hour("cpu", 9));
    world.expected.add(&first.rows);
    world.put(std::slice::from_ref(&first)).await;
    compactor.absorb(&ALL).await.unwrap();

    let second = batch(hour("mem", 9));
    world.expected.add(&second.rows);
    world.put(&[first.clone(), second.clone()]).await;
    let report = compactor.absorb(&ALL).await.unwrap();
    assert_eq!((report.batches, report.batches_duplicate), (1, 1));
    let log = world.log(DAY_US);
    let rows = log.ledger_rows(&world.state().await.clone()).await.unwrap();
    let effective = rows
        .iter()
        .find(|r| r.batch == first.digest && r.duplicate_of.is_none());
    let again = rows
        .iter()
        .find(|r| r.batch == first.digest && r.duplicate_of.is_some());
    assert_eq!(
        again.unwrap().duplicate_of.as_ref(),
        Some(&effective.unwrap().operation)
    );
    assert_eq!(world.state().await.totals.duplicate_batches, 1);
    world.check("with a duplicate").await;
}

#[tokio::test]
async fn one_round_that_holds_a_batch_twice_takes_it_once() {
    let mut world = World::new();
    let compactor = world.compactor(1);
    let (a, b) = (batch(hour("cpu", 9)), batch(hour("mem", 9)));
    world.expected.add(&a.rows);
    world.expected.add(&b.rows);
    world.put(std::slice::from_ref(&a)).await;
    world.put(&[a.clone(), b.clone()]).await;
    world.put(std::slice::from_ref(&b)).await;
    compactor.absorb(&ALL).await.unwrap();
    compactor.absorb(&ALL).await.unwrap();
    assert_eq!(world.state().await.totals.batches, 2);
    world.check("after absorb").await;
}

#[tokio::test]
async fn a_ghost_is_consumed_as_a_duplicate_and_changes_no_answer() {
    let mut world = World::new();
    let compactor = world.compactor(1);
    let (a, b) = (batch(hour("cpu", 9)), batch(hour("mem", 9)));
    world.expected.add(&a.rows);
    world.expected.add(&b.rows);
    world.put(&[a.clone(), b.clone()]).await;
    compactor.settle(&ALL, &|_| ()).await.unwrap();
    let sealed = world.state().await;
    // The same batches land again, each in an object of its own.
    world.put(&[a]).await;
    world.put(&[b]).await;
    world.check("with ghosts").await;
    let report = compactor.absorb(&ALL).await.unwrap();
    assert_eq!((report.ghosts, report.objects, report.commits), (2, 2, 1));
    assert_eq!((report.batches, report.rows_in), (0, 0));
    let state = world.state().await;
    assert_eq!(state.files, sealed.files);
    assert_eq!(state.totals.duplicate_batches, 2);
    let view = world.view().await;
    assert!(view.open_windows().is_empty());
    let settled = compactor.settle(&ALL, &|_| ()).await.unwrap();
    assert_eq!((settled.version, settled.left.objects), (state.version, 0));
    assert!(settled.complete);
    world.check("after the ghosts were consumed").await;
}

#[tokio::test]
async fn paused_rollups_change_no_answer() {
    let mut world = World::new();
    let compactor = world.compactor(1);
    world.accept(hour("cpu", 9)).await;
    compactor.settle(&ALL, &|_| ()).await.unwrap();
    set_rollups_paused(&world.store, true, world.clock.now_us())
        .await
        .unwrap();
    for hours in 6..11 {
        world.accept(hour("cpu", hours)).await;
        world
            .accept(sample("cpu", DAY0 + 9 * HOUR_US + 3, hours as f64))
            .await;
        let report = compactor.settle(&ALL, &|_| ()).await.unwrap();
        assert!(report.left.paused && !report.complete);
        assert_eq!((report.seal.commits, report.left.objects), (0, 0));
        world.check("paused").await;
    }
    set_rollups_paused(&world.store, false, world.clock.now_us())
        .await
        .unwrap();
    let report = compactor.settle(&ALL, &|_| ()).await.unwrap();
    assert!(report.complete && report.left.windows_not_sealed == 0);
    assert_eq!(files(&world.state().await.clone()), [0, 1, 1, 1, 1]);
    world.check("resumed").await;
}

#[tokio::test]
async fn rollups_are_bit_identical_before_and_after_seal() {
    let mut world = World::new();
    let compactor = world.compactor(1);
    let mut rows = hour("cpu", 9);
    for row in &mut rows.rows {
        row.value = 0.1 * row.value + 1e-9 / (row.value + 0.3);
    }
    world.accept(rows).await;
    compactor.absorb(&ALL).await.unwrap();
    let view = world.view().await;
    let windows = reader::all_windows(&view);
    let filter = reader::Filter::default();
    let mut before = Vec::new();
    for r in Resolution::ROLLUPS {
        let store = &world.store;
        let fly = reader::MergeReader::rollups(store, &view, r, &windows, filter.clone(), true);
        before.push(Rollups::read(fly.await.unwrap().as_mut()).unwrap());
    }
    compactor.seal(&ALL, false).await.unwrap();
    let view = world.view().await;
    assert!(view.open_windows().is_empty());
    for (r, before) in Resolution::ROLLUPS.into_iter().zip(before) {
        let mut sealed = reader::all_rollups(&world.store, &view, r).await.unwrap();
        let after = Rollups::read(sealed.as_mut()).unwrap();
        assert_eq!(before.first_difference(&after), None);
        assert_eq!(after.first_difference(&before), None);
    }
}

#[tokio::test]
async fn a_filter_returns_whole_bins_of_the_wanted_series() {
    let mut world = World::new();
    world.accept(hour("cpu", 9)).await;
    world.accept(hour("mem", 9)).await;
    let view = world.view().await;
    let windows = reader::all_windows(&view);
    let start = DAY0 + 9 * HOUR_US;
    let filter = reader::Filter {
        ts_lo_us: start + 1,
        ts_hi_us: start + 15 * MINUTE + 1,
        metrics: Some(Arc::new(["mem".to_owned()].into_iter().collect())),
        series: None,
    };
    let r = Resolution::M15;
    let read = reader::MergeReader::rollups(&world.store, &view, r, &windows, filter, false);
    let mut read = read.await.unwrap();
    let chunk = read.next_chunk().unwrap().unwrap();
    assert_eq!(chunk.series.metric, "mem");
    let bins: Vec<(i64, i64)> = chunk.bins.iter().map(|(ts, a)| (*ts, a.count)).collect();
    assert_eq!(bins, [(start + 15 * MINUTE, 90)]);
    assert!(read.next_chunk().unwrap().is_none());
}

#[tokio::test]
async fn a_year_of_backfill_is_few_files_and_settles_to_one_per_period() {
    let mut world = World::new();
    let compactor = world.compactor(1);
    for day in 1..40 {
        let start = DAY0 - day * DAY_US;
        world.accept(rows("cpu", start, 20 * MINUTE, 72)).await;
    }
    let report = compactor.absorb(&ALL).await.unwrap();
    assert_eq!((report.commits, report.files_added), (1, 39));
    let report = compactor.settle(&ALL, &|_| ()).await.unwrap();
    assert!(report.complete);
    // 39 days up to 21 November reach back to 14 October.
    assert_eq!(files(&world.state().await.clone()), [0, 39, 39, 39, 2]);
    world.check("settled").await;
}

#[tokio::test]
async fn small_memory_still_settles_everything_exactly() {
    let mut world = World::new();
    let compactor = world.compactor_with(
        1,
        Options {
            target_file_bytes: 64 << 10,
            ..Options::default()
        },
    );
    let mut random = RowGen::new(Rng::new(7), 12);
    for _ in 0..40 {
        let rows = random.rows(world.clock.now_us(), 30, 4000);
        world.accept(rows).await;
    }
    let small = Budget {
        memory_bytes: 4 << 20,
        ..ALL
    };
    let report = compactor.settle(&small, &|_| ()).await.unwrap();
    assert!(report.absorb.commits > 1, "{report:?}");
    world.check("settled in 4 MiB").await;
}

#[tokio::test]
async fn a_day_larger_than_memory_is_split_by_window_and_sealed_exactly() {
    let mut world = World::new();
    let compactor = world.compactor(1);
    // 2 MiB of values without a pattern, over four hours in one open file.
    let mut dice = Rng::new(5);
    let mut rows = rows("cpu", DAY0 + 4 * HOUR_US, 50_000, 288_000);
    rows.rows
        .iter_mut()
        .for_each(|row| row.value = f64::from_bits(dice.next_u64() >> 2));
    world.accept(rows).await;
    compactor.absorb(&ALL).await.unwrap();
    assert_eq!(files(&world.state().await.clone())[0], 1);
    let small = Budget {
        memory_bytes: 1 << 20,
        ..ALL
    };
    let report = compactor.seal(&small, false).await.unwrap();
    assert_eq!(report.windows_sealed, 4);
    assert!(report.commits >= 4, "{report:?}");
    assert_eq!(files(&world.state().await.clone())[0], 0);
    world.check("sealed in parts").await;
}

#[tokio::test]
async fn open_files_stay_few_while_small_absorbs_go_on() {
    let mut world = World::new();
    let compactor = world.compactor(1);
    for n in 0..60 {
        let start = DAY0 + 11 * HOUR_US + n * 30 * SECOND_US;
        world.accept(rows("cpu", start, SECOND_US, 30)).await;
        compactor.absorb(&ALL).await.unwrap();
    }
    let open = files(&world.state().await.clone())[0];
    assert!(open <= 6, "{open} open files after 60 absorbs");
    world.check("after 60 absorbs").await;
}

#[tokio::test]
async fn a_damaged_object_is_counted_and_the_others_are_absorbed() {
    let mut world = World::new();
    let compactor = world.compactor(1);
    let bad = world.accept(hour("cpu", 9)).await;
    world.accept(hour("mem", 9)).await;
    let key = world.store.path(&format!("l0/{bad}"));
    world.memory.damage(&key, bytes_of("not Parquet"));
    let report = compactor.absorb(&ALL).await.unwrap();
    assert_eq!((report.objects, report.damaged), (1, 1));
    // Fail closed: its window cannot be answered.
    let view = world.view().await;
    assert!(reader::all_samples(&world.store, &view).await.is_err());
}

#[tokio::test]
async fn a_damaged_object_is_recorded_as_lost_until_it_is_absorbed_after_all() {
    let mut world = World::new();
    let compactor = world.compactor(1);
    let bad = world.accept(hour("cpu", 9)).await;
    let key = world.store.path(&format!("l0/{bad}"));
    let whole = world.memory.bytes(&key).unwrap();
    world.memory.damage(&key, bytes_of("not Parquet"));
    let losses = async || stele_table::losses(&world.store).await.unwrap();
    compactor.absorb(&ALL).await.unwrap();
    let noticed_us = world.clock.now_us();
    assert_eq!(losses().await, [stele_table::Loss::of_l0(bad, noticed_us)]);
    // Met again and again, by this process and by others, it is one loss.
    world.clock.advance(HOUR_US);
    for compactor in [&compactor, &world.compactor(2)] {
        compactor.absorb(&ALL).await.unwrap();
    }
    assert_eq!(losses().await, [stele_table::Loss::of_l0(bad, noticed_us)]);
    world.memory.damage(&key, whole);
    assert_eq!(compactor.absorb(&ALL).await.unwrap().objects, 1);
    assert_eq!(losses().await, []);
}

#[tokio::test]
async fn a_record_that_is_damaged_keeps_no_batch_from_being_absorbed() {
    let mut world = World::new();
    let compactor = world.compactor(1);
    let bad = world.accept(hour("cpu", 9)).await;
    let key = world.store.path(&format!("l0/{bad}"));
    world.memory.damage(&key, bytes_of("not Parquet"));
    let record = "control/losses/00000000000000000000.json";
    world.store.put_new(record, bytes_of("{}")).await.unwrap();
    world.accept(hour("mem", 9)).await;
    let report = compactor.absorb(&ALL).await.unwrap();
    assert_eq!((report.objects, report.damaged), (1, 1));
}

fn bytes_of(text: &str) -> bytes::Bytes {
    bytes::Bytes::copy_from_slice(text.as_bytes())
}

#[tokio::test]
async fn a_passed_deadline_stops_between_commits() {
    let mut world = World::new();
    let compactor = world.compactor(1);
    world.accept(hour("cpu", 9)).await;
    let late = Budget {
        deadline_us: world.clock.now_us(),
        ..ALL
    };
    let report = compactor.settle(&late, &|_| ()).await.unwrap();
    assert!(report.absorb.stopped && !report.complete);
    assert_eq!((report.absorb.commits, report.left.objects), (0, 1));
    world.check("stopped").await;
}

#[tokio::test]
async fn a_swept_object_tells_the_reader_to_start_again() {
    let mut world = World::new();
    let name = world.accept(hour("cpu", 9)).await;
    let view = world.view().await;
    world.store.delete(&format!("l0/{name}")).await.unwrap();
    let Err(error) = reader::all_samples(&world.store, &view).await else {
        panic!("read");
    };
    assert!(error.is_gone());
    assert_eq!(error.kind(), stele_model::ErrorKind::NotFound);
}

#[tokio::test]
async fn reports_are_json() {
    let mut world = World::new();
    world.accept(hour("cpu", 9)).await;
    let report = world.compactor(1).settle(&ALL, &|_| ()).await.unwrap();
    let json = serde_json::to_value(&report).unwrap();
    assert_eq!(json["absorb"]["objects"], 1);
    assert_eq!(json["left"]["windows_not_closed"], 0);
    assert_eq!(json["complete"], true);
}

#[test]
fn job_futures_can_move_between_threads() {
    fn is_send<T: Send>(_: T) {}
    let world = World::new();
    let compactor = world.compactor(1);
    is_send(compactor.absorb(&ALL));
    is_send(compactor.seal(&ALL, false));
    is_send(compactor.consolidate(&ALL));
    is_send(compactor.sweep(&ALL));
    is_send(compactor.settle(&ALL, &|_| ()));
}
