use std::sync::Barrier;

use stele_model::time::{HOUR_US, SECOND_US};
use stele_model::{NO_EXTRA, Row, Series};

use super::*;

const NOW_US: i64 = 1_795_348_800_000_000;

fn tenant(name: &str) -> TenantId {
    name.parse().unwrap()
}

/// One sample per series `m{host=<host>}`, in order.
fn rows<T: AsRef<str>>(hosts: &[T]) -> Rows {
    let mut rows = Rows::default();
    for (i, host) in hosts.iter().enumerate() {
        rows.series.push(Series {
            metric: "m".to_owned(),
            tags: stele_model::tags::canonical(&[("host", host.as_ref()), ("zone", "eu")]),
        });
        rows.rows.push(Row {
            ts_us: NOW_US,
            value: 1.0,
            series: i as u32,
            extra: NO_EXTRA,
        });
    }
    rows
}

fn quotas(samples_per_sec: Option<u64>, series_active_max: Option<u64>) -> Quotas {
    Quotas::new(QuotaOptions {
        samples_per_sec,
        series_active_max,
        series_active_hours: 2,
    })
}

/// The number of samples kept and the rejections.
fn admit(
    quotas: &Quotas,
    who: &str,
    mut rows: Rows,
    now_us: i64,
) -> Result<(usize, Rejections), QuotaError> {
    let (mut positions, mut rejections) = (Positions::default(), Rejections::default());
    positions.note(0, 1, 1);
    quotas.admit(&tenant(who), &mut rows, &positions, &mut rejections, now_us)?;
    Ok((rows.len(), rejections))
}

#[test]
fn no_quota_refuses_nothing() {
    let quotas = quotas(None, None);
    let hosts: Vec<String> = (0..1000).map(|i| i.to_string()).collect();
    assert_eq!(admit(&quotas, "a", rows(&hosts), NOW_US).unwrap().0, 1000);
    assert_eq!(quotas.series_active(&tenant("a")), 0);
}

#[test]
fn samples_over_the_rate_are_throttled_per_tenant() {
    let quotas = quotas(Some(3), None);
    assert_eq!(admit(&quotas, "a", rows(&["x"; 3]), NOW_US).unwrap().0, 3);
    let over = admit(&quotas, "a", rows(&["x"; 2]), NOW_US).unwrap_err();
    assert_eq!(
        (over.kind(), over.retry_after_secs()),
        (ErrorKind::Throttled, 1)
    );
    assert_eq!(
        over.to_string(),
        "2 samples are over the quota of 3 samples per second (samples_per_sec); nothing is \
         stored, send them again in 1 s"
    );
    assert_eq!(admit(&quotas, "b", rows(&["x"; 3]), NOW_US).unwrap().0, 3);
    let later = NOW_US + SECOND_US;
    assert_eq!(admit(&quotas, "a", rows(&["x"; 2]), later).unwrap().0, 2);
}

#[test]
fn only_samples_of_new_series_over_the_limit_are_refused_and_named() {
    let quotas = quotas(None, Some(2));
    assert_eq!(admit(&quotas, "a", rows(&["a", "b"]), NOW_US).unwrap().0, 2);
    let (kept, refused) = admit(&quotas, "a", rows(&["c", "a", "d", "b"]), NOW_US).unwrap();
    assert_eq!((kept, refused.total), (2, 2));
    let positions: Vec<u64> = refused.named.iter().map(|r| r.position).collect();
    assert_eq!(positions, [1, 3]);
    assert_eq!(
        refused.named[1].reason,
        "series \"m {\\\"host\\\":\\\"d\\\",\\\"zone\\\":\\\"eu\\\"}\" is new, over the quota of \
         2 active series (series_active_max): tag \"host\" has the most distinct values among \
         new series, about 4"
    );
    let error = admit(&quotas, "a", rows(&["e"; 5]), NOW_US).unwrap_err();
    assert_eq!(
        (error.kind(), error.retry_after_secs()),
        (ErrorKind::Throttled, 60)
    );
    assert!(error.to_string().starts_with("all 5 samples"), "{error}");
    assert_eq!(quotas.series_active(&tenant("a")), 2);
    assert_eq!(admit(&quotas, "b", rows(&["e", "f"]), NOW_US).unwrap().0, 2);
}

#[test]
fn a_metric_name_that_explodes_is_named_when_no_tag_does() {
    let quotas = quotas(None, Some(1));
    let mut many = rows(&["x"; 9]);
    for (i, series) in many.series.iter_mut().enumerate() {
        series.metric = format!("m{i}");
    }
    let (kept, refused) = admit(&quotas, "a", many, NOW_US).unwrap();
    assert_eq!((kept, refused.total), (1, 8));
    assert!(
        refused.named[0]
            .reason
            .contains("the metric name has the most distinct values"),
        "{}",
        refused.named[0].reason
    );
}

#[test]
fn an_active_series_is_never_forgotten_and_a_stopped_one_makes_room() {
    let quotas = quotas(None, Some(2));
    admit(&quotas, "a", rows(&["a", "b"]), NOW_US).unwrap();
    // `a` goes on; at the end of its two hours `b` is still counted, and then no more.
    let end = NOW_US + 2 * HOUR_US;
    for at in [NOW_US + HOUR_US, end] {
        assert_eq!(admit(&quotas, "a", rows(&["a"]), at).unwrap().0, 1);
        assert!(admit(&quotas, "a", rows(&["c"]), at).is_err());
    }
    let later = end + 2 * 60 * SECOND_US;
    assert_eq!(admit(&quotas, "a", rows(&["c"]), later).unwrap().0, 1);
    assert_eq!(admit(&quotas, "a", rows(&["a"]), later).unwrap().0, 1);
    assert!(admit(&quotas, "a", rows(&["b"]), later).is_err());
}

#[test]
fn a_throttled_request_takes_no_room_for_its_series() {
    let quotas = quotas(Some(2), Some(2));
    assert_eq!(admit(&quotas, "a", rows(&["a", "a"]), NOW_US).unwrap().0, 2);
    assert!(admit(&quotas, "a", rows(&["b", "b"]), NOW_US).is_err());
    assert_eq!(quotas.series_active(&tenant("a")), 1);
    // Refused samples take nothing of the rate.
    let later = NOW_US + SECOND_US;
    let (kept, refused) = admit(&quotas, "a", rows(&["c", "d", "e"]), later).unwrap();
    assert_eq!((kept, refused.total), (1, 2));
    assert_eq!(admit(&quotas, "a", rows(&["c"]), later).unwrap().0, 1);
}

#[test]
fn requests_side_by_side_never_exceed_a_quota() {
    let quotas = quotas(Some(50), Some(40));
    let start = Barrier::new(8);
    let kept: usize = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..8)
            .map(|worker| {
                let (quotas, start) = (&quotas, &start);
                scope.spawn(move || {
                    start.wait();
                    let mut kept = 0;
                    for i in 0..100 {
                        let host = format!("{worker}-{i}");
                        let one = admit(quotas, "a", rows(&[host]), NOW_US);
                        kept += one.map_or(0, |(kept, _)| kept);
                    }
                    kept
                })
            })
            .collect();
        workers.into_iter().map(|w| w.join().unwrap()).sum()
    });
    assert_eq!((kept, quotas.series_active(&tenant("a"))), (40, 40));
}

#[test]
fn refusals_of_one_tenant_never_name_another() {
    let quotas = quotas(Some(1), Some(1));
    admit(&quotas, "tenant-b", rows(&["secret-host-of-b"]), NOW_US).unwrap();
    admit(&quotas, "tenant-a", rows(&["x"]), NOW_US).unwrap();
    for hosts in [["x"; 2], ["y"; 2]] {
        let error = admit(&quotas, "tenant-a", rows(&hosts), NOW_US).unwrap_err();
        let text = format!("{error} {error:?}");
        assert!(!text.contains("-b") && !text.contains("of-b"), "{text}");
    }
}
