//! The choice of windows to seal, over states made by hand.

use stele_model::time::{HOUR_US, MINUTE_US};

use super::super::fixtures::{file, name, state};
use super::*;

const OPEN: FileKind = FileKind::Open;
const RAW: FileKind = FileKind::Sealed(Resolution::Raw);
const S60: FileKind = FileKind::Sealed(Resolution::S60);
const M60: FileKind = FileKind::Sealed(Resolution::M60);
const K: u64 = 1 << 10;

/// Rules at a time given in hours since the epoch.
fn rules(hours: f64) -> SealRules {
    #[expect(clippy::cast_possible_truncation, reason = "small numbers of a test")]
    let now_us = (hours * 60.0) as i64 * MINUTE_US;
    SealRules {
        now_us,
        seal_delay_us: 10 * MINUTE_US,
        reopen_ratio: 0.10,
        reopen_age_us: HOUR_US,
        force_reopened: false,
    }
}

fn hours(windows: &WindowSet) -> Vec<i32> {
    windows.iter().map(|window| window.0).collect()
}

fn names(files: &[Arc<FileEntry>]) -> Vec<String> {
    files.iter().map(|file| name(file)).collect()
}

#[test]
fn a_window_is_sealed_ten_minutes_after_its_end() {
    let table = state(&[file(OPEN, "a", &[1, 2], K)]);
    assert!(seals(&table, &rules(2.1), &BTreeMap::new()).is_empty());
    let plans = seals(&table, &rules(2.2), &BTreeMap::new());
    assert_eq!(hours(&plans[0].windows), [1]);
    let plans = seals(&table, &rules(9.0), &BTreeMap::new());
    assert_eq!(hours(&plans[0].windows), [1, 2]);
    assert!(plans[0].resealed.is_empty());
}

#[test]
fn days_are_sealed_apart_earliest_first() {
    let table = state(&[file(OPEN, "b", &[30], K), file(OPEN, "a", &[3], K)]);
    let plans = seals(&table, &rules(40.0), &BTreeMap::new());
    let days: Vec<i32> = plans.iter().map(|plan| plan.day.0).collect();
    assert_eq!(days, [0, 1]);
}

#[test]
fn reopened_windows_wait_for_debt_age_or_force() {
    let little = state(&[
        file(RAW, "r", &[1], 100 * K),
        file(OPEN, "late", &[1], 9 * K),
    ]);
    let none = BTreeMap::new();
    assert!(seals(&little, &rules(9.0), &none).is_empty());

    let young = BTreeMap::from([(Day(0), 9 * HOUR_US - 59 * MINUTE_US)]);
    assert!(seals(&little, &rules(9.0), &young).is_empty());
    let aged = BTreeMap::from([(Day(0), 8 * HOUR_US)]);
    assert_eq!(seals(&little, &rules(9.0), &aged).len(), 1);

    let forced = SealRules {
        force_reopened: true,
        ..rules(9.0)
    };
    let plans = seals(&little, &forced, &none);
    assert_eq!(hours(&plans[0].resealed), [1]);

    let much = state(&[
        file(RAW, "r", &[1], 100 * K),
        file(OPEN, "late", &[1], 11 * K),
    ]);
    assert_eq!(seals(&much, &rules(9.0), &none).len(), 1);
}

#[test]
fn a_fresh_window_does_not_drag_reopened_ones_along() {
    let table = state(&[
        file(RAW, "r", &[1], 100 * K),
        file(OPEN, "both", &[1, 5], K),
    ]);
    let plans = seals(&table, &rules(9.0), &BTreeMap::new());
    assert_eq!(hours(&plans[0].windows), [5]);
    assert!(plans[0].raw.is_empty());
    assert_eq!(names(&plans[0].open), ["both"]);
}

#[test]
fn a_touched_raw_file_brings_its_windows_and_every_file_over_them() {
    let table = state(&[
        file(RAW, "wide", &[1, 2], K),
        file(RAW, "chained", &[2, 3], K),
        file(RAW, "apart", &[9], K),
        file(OPEN, "late1", &[1], K),
        file(OPEN, "late3", &[3, 4], K),
        file(S60, "s", &[2, 9], K),
        file(M60, "m", &[1, 200], K),
    ]);
    let plan = close(&table, Day(0), &[Window(1)].into_iter().collect());
    assert_eq!(hours(&plan.windows), [1, 2, 3]);
    assert_eq!(hours(&plan.resealed), [1, 2, 3]);
    assert_eq!(names(&plan.raw), ["chained", "wide"]);
    assert_eq!(names(&plan.open), ["late1", "late3"]);
    assert_eq!(names(&plan.rollups), ["s", "m"]);
}

#[test]
fn a_plan_stands_only_while_sealed_coverage_is_as_planned() {
    let late = file(OPEN, "late", &[1], K);
    let before = state(std::slice::from_ref(&late));
    let plan = close(&before, Day(0), &[Window(1)].into_iter().collect());
    assert!(plan.still_covers(&before));
    let more_open = state(&[late.clone(), file(OPEN, "later", &[1], K)]);
    assert!(plan.still_covers(&more_open));
    let sealed_by_another = state(&[late, file(RAW, "r", &[1], K)]);
    assert!(!plan.still_covers(&sealed_by_another));
}

#[test]
fn a_large_day_is_sealed_some_windows_at_a_time() {
    let table = state(&[
        file(OPEN, "a", &[1], 40 * K),
        file(OPEN, "b", &[2], 40 * K),
        file(OPEN, "c", &[3], 40 * K),
    ]);
    let plan = seals(&table, &rules(9.0), &BTreeMap::new()).remove(0);
    let sealed = |bytes| match step(&table, &plan, bytes) {
        Step::Seal(part) => hours(&part.windows),
        Step::Split(files) => panic!("split {files:?}"),
    };
    assert_eq!(sealed(120 * K), [1, 2, 3]);
    assert_eq!(sealed(100 * K), [1, 2]);
    assert_eq!(sealed(K), [1]);
}

#[test]
fn a_file_over_many_windows_is_split_when_it_does_not_fit() {
    let table = state(&[
        file(OPEN, "day", &[1, 2, 3], 90 * K),
        file(OPEN, "one", &[1], 90 * K),
    ]);
    let plan = seals(&table, &rules(9.0), &BTreeMap::new()).remove(0);
    let Step::Split(files) = step(&table, &plan, 100 * K) else {
        panic!("sealed");
    };
    assert_eq!(names(&files), ["day"]);
}
