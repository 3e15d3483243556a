use stele_model::time::HOUR_US;
use stele_model::{Digest, L0Name, Window};

use super::super::fixtures::{file, state};
use super::*;

const RAW: FileKind = FileKind::Sealed(Resolution::Raw);
const S60: FileKind = FileKind::Sealed(Resolution::S60);
const M60: FileKind = FileKind::Sealed(Resolution::M60);

fn rules(raw: u32, s60: Option<u32>, m60: Option<u32>, now_hours: i64) -> ExpireRules {
    ExpireRules {
        now_us: now_hours * HOUR_US,
        retention: Retention {
            raw_days: Some(raw),
            s60_days: s60,
            m15_days: s60,
            m60_days: m60,
        },
    }
}

fn object(first: i32, last: i32) -> L0Object {
    let name = L0Name {
        digest: Digest([7; 16]),
        first: Window(first),
        last: Window(last),
    };
    L0Object {
        name,
        size_bytes: 1,
        stored_us: 0,
    }
}

fn planned(step: ExpireStep) -> ExpirePlan {
    match step {
        ExpireStep::Expire(plan) => plan,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_day_expires_when_its_last_instant_is_retention_and_two_days_old() {
    let table = state(&[file(RAW, "a", &[23], 1), file(RAW, "b", &[24], 1)]);
    let at = |hours| expire(&table, &[], &rules(3, None, None, hours));
    assert_eq!(at(24 * 6 - 1), ExpireStep::Nothing);
    let plan = planned(at(24 * 6));
    assert_eq!(plan.to.raw_before, Some(Day(1)));
    assert_eq!(plan.remove.len(), 1);
    // The earliest day first, one at a time.
    assert_eq!(planned(at(24 * 60)).to.raw_before, Some(Day(1)));
}

#[test]
fn what_is_not_sealed_holds_back_its_day_and_later_ones() {
    let day_2 = file(RAW, "b", &[50], 1);
    let table = state(&[day_2.clone(), file(FileKind::Open, "late", &[3], 1)]);
    let rules = rules(1, None, None, 24 * 60);
    let waits = |table: &TableState, l0: &[L0Object]| {
        matches!(expire(table, l0, &rules), ExpireStep::Waits(_))
    };
    assert!(waits(&table, &[]));
    let table = state(&[day_2]);
    for object in [object(3, 3), object(60, 90), object(0, 900)] {
        assert!(waits(&table, &[object]));
    }
    assert!(!waits(&table, &[object(72, 90)]));
    let mut table = table;
    table.expired.raw_before = Some(Day(1));
    // All of its rows are refused anyway.
    assert!(!waits(&table, &[object(3, 20)]));
    assert!(waits(&table, &[object(3, 24)]));
}

#[test]
fn rollups_expire_after_finer_ones_and_60_min_by_whole_months() {
    let mut table = state(&[
        file(S60, "a", &[1], 1),
        file(M60, "january", &[1], 1),
        file(M60, "february", &[31 * 24], 1),
    ]);
    let now = 24 * 400;
    let rules = rules(1, Some(1), Some(1), now);
    assert_eq!(expire(&table, &[], &rules), ExpireStep::Nothing);
    table.expired.raw_before = Some(Day(40));
    let plan = planned(expire(&table, &[], &rules));
    assert_eq!((plan.resolution, plan.remove.len()), (Resolution::S60, 1));
    table.expired = plan.to;
    table.files.retain(|_, file| file.kind != S60);
    // 15 min rollups have not expired, so 60 min ones may not.
    assert_eq!(expire(&table, &[], &rules), ExpireStep::Nothing);
    table.expired.s60_before = Some(Day(40));
    table.expired.m15_before = Some(Day(40));
    let plan = planned(expire(&table, &[], &rules));
    assert_eq!(plan.to.m60_before, Some(Day(31)));
    assert_eq!(plan.remove.len(), 1);
    table.expired.m15_before = Some(Day(30));
    assert_eq!(expire(&table, &[], &rules), ExpireStep::Nothing);
}

#[test]
fn a_plan_holds_only_while_its_period_stays_the_same() {
    let raw = file(RAW, "a", &[1], 1);
    let table = state(&[raw.clone(), file(S60, "r", &[1], 1)]);
    let plan = planned(expire(&table, &[], &rules(1, None, None, 24 * 60)));
    assert!(plan.still_holds(&table));
    let with = |more: &[Arc<FileEntry>]| {
        let mut files: Vec<_> = table.files.values().cloned().collect();
        files.extend(more.iter().cloned());
        state(&files)
    };
    assert!(plan.still_holds(&with(&[file(RAW, "other", &[30], 1)])));
    assert!(!plan.still_holds(&with(&[file(FileKind::Open, "late", &[1], 1)])));
    assert!(!plan.still_holds(&with(&[file(S60, "other", &[1], 1)])));
    assert!(!plan.still_holds(&with(&[file(RAW, "other", &[2], 1)])));
    let mut moved = table.clone();
    moved.expired.raw_before = Some(Day(1));
    assert!(!plan.still_holds(&moved));
}
