use stele_model::time::{HOUR_US, MINUTE_US};

use super::*;
use crate::gen_rows::RowGen;
use crate::rng::Rng;

const NOW_US: i64 = 400_000 * HOUR_US;

fn batches(seed: u64, count: usize) -> Vec<Rows> {
    let mut gen_rows = RowGen::new(Rng::new(seed), 3);
    (0..count).map(|_| gen_rows.rows(NOW_US, 5, 20)).collect()
}

fn of(batches: &[Rows]) -> Samples {
    let mut all = Samples::default();
    batches.iter().for_each(|rows| all.add(rows));
    all
}

#[test]
fn the_order_and_repetition_of_batches_do_not_matter() {
    let mut sent = batches(1, 12);
    let want = of(&sent);
    sent.reverse();
    sent.extend(sent.clone());
    assert_eq!(want.first_difference(&of(&sent)), None);
    assert!(want.len() > 50);
}

#[test]
fn a_lost_a_changed_and_an_invented_sample_are_each_named() {
    let want = of(&batches(2, 3));
    let (series, ts) = {
        let (series, ts, _) = want.iter().next().unwrap();
        (series.clone(), ts)
    };
    let mut lost = want.clone();
    lost.0.get_mut(&series).unwrap().remove(&ts);
    let text = want.first_difference(&lost).unwrap().to_string();
    assert!(
        text.contains("is lost") && text.contains(&rfc3339(ts)),
        "{text}"
    );
    let text = lost.first_difference(&want).unwrap().to_string();
    assert!(text.contains("is invented"), "{text}");

    let mut changed = want.clone();
    let sample = changed.0.get_mut(&series).unwrap().get_mut(&ts).unwrap();
    sample.extra.rank = Some(9);
    let text = want.first_difference(&changed).unwrap().to_string();
    assert!(text.contains("beyond"), "{text}");
    let text = changed.first_difference(&want).unwrap().to_string();
    assert!(text.contains("instead of"), "{text}");
}

#[test]
fn what_may_be_there_is_bounded_on_both_sides() {
    let sent = batches(3, 6);
    let (least, most) = (of(&sent[..4]), of(&sent));
    for got in [of(&sent[..4]), of(&sent[..5]), of(&sent)] {
        assert_eq!(least.first_violation(&most, &got), None);
    }
    assert!(least.first_violation(&most, &of(&sent[..3])).is_some());
    assert!(least.first_violation(&least, &most).is_some());
}

/// Worked by hand from the definitions in DESIGN.
#[test]
fn the_naive_fold_gives_what_a_person_computes() {
    let series = Series {
        metric: "m".to_owned(),
        ..Series::default()
    };
    let at = [
        (0, 5.0),
        (10, 8.0),
        (59, f64::NAN),
        (60, 2.0),
        (15 * 60, 3.0),
        (16 * 60, 1.0),
    ];
    let rows = at.map(|(second, value)| {
        let extra = Extra::default();
        (NOW_US + second * 1_000_000, Sample { value, extra })
    });
    let samples = Samples(BTreeMap::from([(series.clone(), BTreeMap::from(rows))]));
    let bins = |resolution| samples.rollups(resolution, true).0.remove(&series).unwrap();

    let fine = bins(Resolution::S60);
    let starts: Vec<i64> = fine
        .keys()
        .map(|start| (start - NOW_US) / MINUTE_US)
        .collect();
    assert_eq!(starts, [0, 1, 15, 16]);
    let first = &fine[&NOW_US];
    assert_eq!((first.count, first.sum, first.increase), (2, 13.0, 3.0));
    assert_eq!(first.last_ts_us, NOW_US + 59_000_000, "NaN moves the time");

    let quarter = &bins(Resolution::M15)[&NOW_US];
    assert_eq!((quarter.count, quarter.sum), (3, 15.0));
    assert_eq!((quarter.min, quarter.max), (2.0, 8.0));
    // 5 → 8 grows by 3; 8 → 2 is a reset and grows by 2.
    assert_eq!(quarter.increase, 5.0);

    let hour = &bins(Resolution::M60)[&NOW_US];
    assert_eq!((hour.first, hour.last, hour.count), (5.0, 1.0, 5));
    // 5 in the first quarter; 2 → 3 grows by 1; 3 → 1 is a reset and grows by 1.
    assert_eq!(hour.increase, 7.0);
    assert_eq!(hour.sum_squares, 25.0 + 64.0 + 4.0 + 9.0 + 1.0);
    assert_eq!(hour.sketch.as_ref().unwrap().count(), 5);
}

#[test]
fn a_bin_that_differs_in_one_field_is_named() {
    let samples = of(&batches(4, 8));
    for resolution in Resolution::ROLLUPS {
        let want = samples.rollups(resolution, true);
        assert_eq!(want.first_difference(&want), None);
        let mut other = want.clone();
        let bins = other.0.values_mut().next().unwrap();
        bins.values_mut().find(|b| b.count > 0).unwrap().increase += 0.5;
        let text = want.first_difference(&other).unwrap().to_string();
        assert!(text.contains("increase"), "{text}");
        other.0.values_mut().next().unwrap().clear();
        let text = want.first_difference(&other).unwrap().to_string();
        assert!(text.contains("missing"), "{text}");
    }
}
