//! What is written is read back, to the bit.

use proptest::prelude::*;
use stele_format::{
    MemorySource, SampleOrRollup, SampleReader, SampleRow, SampleWriter, batch, check_file, l0,
    rows_hash,
};
use stele_model::{Extra, Kind, Series, Window, WindowSet};

use crate::gen_rows::*;

proptest! {
    #![proptest_config(ProptestConfig::with_cases(192))]

    #[test]
    fn an_l0_object_is_read_back_to_the_bit(samples in stored_samples(60)) {
        let batch = batch(rows_of(&samples));
        let object = l0::encode(std::slice::from_ref(&batch)).unwrap();
        prop_assert_eq!(object.name.digest, batch.digest);
        let (lo, hi) = batch.rows.ts_range_us().unwrap();
        prop_assert_eq!((object.name.first, object.name.last), (Window::of(lo), Window::of(hi)));
        let back = l0::decode(object.bytes).unwrap();
        prop_assert_eq!(back.len(), 1);
        prop_assert_eq!(back[0].digest, batch.digest);
        prop_assert_eq!(&back[0].rows.series, &batch.rows.series);
        prop_assert_eq!(flat_rows(&back[0].rows), flat_rows(&batch.rows));
        prop_assert_eq!(rows_hash(&back[0].rows), rows_hash(&batch.rows));
    }

    #[test]
    fn the_order_of_samples_and_batches_does_not_change_an_object(
        a in stored_samples(30), b in stored_samples(30), seed in any::<u64>(),
    ) {
        let mut shuffled = a.clone();
        let mut noise = Noise(seed | 1);
        for i in (1..shuffled.len()).rev() {
            shuffled.swap(i, noise.next() as usize % (i + 1));
        }
        let (one, other, b) = (batch(rows_of(&a)), batch(rows_of(&shuffled)), batch(rows_of(&b)));
        prop_assert_eq!(one.digest, other.digest);
        let first = l0::encode(&[one.clone(), b.clone()]).unwrap();
        let second = l0::encode(&[b.clone(), other, one.clone()]).unwrap();
        prop_assert_eq!(first.name, second.name);
        prop_assert_eq!(&first.bytes, &second.bytes);
        let back = l0::decode(first.bytes).unwrap();
        let mut want = vec![&one, &b];
        want.sort_by_key(|batch| batch.digest);
        want.dedup_by_key(|batch| batch.digest);
        prop_assert_eq!(back.len(), want.len());
        for (got, want) in back.iter().zip(want) {
            prop_assert_eq!(got.digest, want.digest);
            prop_assert_eq!(flat_rows(&got.rows), flat_rows(&want.rows));
        }
    }

    #[test]
    fn a_sample_file_is_read_back_to_the_bit(samples in any_samples(80)) {
        let (file, want) = file_of(&canonical(&samples));
        check_file(&file.bytes, &file.stats, SampleOrRollup::Sample).unwrap();
        prop_assert_eq!(file.stats.rows, want.len() as u64);
        prop_assert_eq!(file.stats.ts_min_us, want.iter().map(|row| row.2).min().unwrap());
        prop_assert_eq!(file.stats.ts_max_us, want.iter().map(|row| row.2).max().unwrap());
        prop_assert_eq!(&file.stats.metric_min, &want[0].0);
        prop_assert_eq!(&file.stats.metric_max, &want.last().unwrap().0);
        let mut reader = SampleReader::open(file.bytes).unwrap();
        prop_assert_eq!(drain(&mut reader), want);
    }

    #[test]
    fn filters_keep_exactly_what_they_say(
        samples in any_samples(60), lo in any_ts(), hi in any_ts(), hours in prop::collection::vec(any_ts(), 0..4),
        by in 0u8..8,
    ) {
        let rows = canonical(&samples);
        let (file, all) = file_of(&rows);
        // A set of windows holds hours of the calendar.
        let hours = hours.iter().filter(|ts| ts.abs() < 1 << 60);
        let windows: WindowSet = hours.map(|ts| Window::of(*ts)).collect();
        let keep = |series: &Series| series.metric.len().is_multiple_of(2) || series.tags.contains("h1");
        let wanted = |row: &&Flat| {
            let series = Series { metric: row.0.clone(), tags: row.1.clone() };
            (by & 1 == 0 || row.2.abs() < 1 << 60 && windows.contains(Window::of(row.2)))
                && (by & 2 == 0 || (lo..hi).contains(&row.2))
                && (by & 4 == 0 || keep(&series))
        };
        let want: Vec<Flat> = all.iter().filter(wanted).cloned().collect();
        let mut reader = SampleReader::open(file.bytes).unwrap();
        let mut memory = MemorySource::new(rows);
        if by & 1 != 0 {
            reader = reader.with_windows(windows.clone());
            memory = memory.with_windows(windows.clone());
        }
        if by & 2 != 0 {
            reader = reader.with_ts_range(lo, hi);
            memory = memory.with_ts_range(lo, hi);
        }
        if by & 4 != 0 {
            reader = reader.with_series(predicate(keep));
            memory = memory.with_series(predicate(keep));
        }
        prop_assert_eq!(drain(&mut reader), want.clone());
        let mut merge = stele_format::Merge::new(vec![Box::new(memory)]);
        prop_assert_eq!(drain(&mut merge), want);
    }
}

/// More rows than a row group, with what differs between row groups: forms, extras, dictionaries.
#[test]
fn several_row_groups_and_pages_are_read_back() {
    let mut noise = Noise(7);
    let mut writer = SampleWriter::new();
    let mut want = Vec::new();
    for host in 0..40 {
        let series = Series {
            metric: format!("metric.{}", host / 10),
            tags: format!("{{\"host\":\"{host:03}\"}}"),
        };
        for part in 0..8i64 {
            let row = |i: i64| {
                let random = noise.next();
                SampleRow {
                    ts_us: 1_760_000_000_000_000 + (part * 1000 + i) * 10_000_000,
                    value: match host {
                        0..20 => (random % 100) as f64,
                        20..30 => f64::from_bits(random),
                        _ => (random % 10_000) as f64 / 100.0,
                    },
                    extra: Extra {
                        kind: if host > 35 && i % 3 == 0 {
                            Kind::Counter
                        } else {
                            Kind::Unknown
                        },
                        ..Extra::default()
                    },
                }
            };
            let rows: Vec<SampleRow> = (0..1000).map(row).collect();
            writer.push(&series, &rows).unwrap();
            for row in rows {
                let (ts, bits) = (row.ts_us, row.value.to_bits());
                want.push((
                    series.metric.clone(),
                    series.tags.clone(),
                    ts,
                    bits,
                    key(&row.extra),
                ));
            }
        }
    }
    let so_far = writer.bytes_so_far() as f64;
    let file = writer.finish().unwrap().unwrap();
    let size = file.bytes.len() as f64;
    assert!(
        (so_far / size - 1.0).abs() < 0.5,
        "{so_far} is no estimate of {size}"
    );
    assert_eq!((file.stats.rows, file.stats.series), (320_000, 40));
    check_file(&file.bytes, &file.stats, SampleOrRollup::Sample).unwrap();
    let mut reader = SampleReader::open(file.bytes.clone()).unwrap();
    assert!(drain(&mut reader) == want, "all rows in order");
    let keep = predicate(|series: &Series| series.tags.contains("\"027\""));
    let mut reader = SampleReader::open(file.bytes).unwrap().with_series(keep);
    let some: Vec<_> = want
        .iter()
        .filter(|row| row.1.contains("\"027\""))
        .cloned()
        .collect();
    assert!(drain(&mut reader) == some, "one series");
}

#[test]
fn rows_out_of_order_are_refused() {
    let row = |ts_us| SampleRow {
        ts_us,
        value: 1.0,
        extra: Extra::default(),
    };
    let series = |metric: &str| Series {
        metric: metric.to_owned(),
        tags: "{}".to_owned(),
    };
    let mut writer = SampleWriter::new();
    writer.push(&series("b"), &[row(1), row(2)]).unwrap();
    for (metric, ts) in [("b", 2), ("b", 1), ("a", 9)] {
        let error = writer.push(&series(metric), &[row(ts)]).unwrap_err();
        assert!(error.to_string().contains(metric), "{error}");
    }
    assert!(writer.push(&series("b"), &[row(4), row(4)]).is_err());
    assert!(SampleWriter::new().finish().unwrap().is_none());
    assert!(l0::encode(&[]).is_err());
}

#[test]
fn the_digest_of_a_batch_never_changes() {
    // Digests are the names of stored objects: these must hold in every version.
    let rows = canonical(&[
        (
            Series {
                metric: "cpu".to_owned(),
                tags: "{\"host\":\"a\"}".to_owned(),
            },
            1_760_000_000_000_000,
            1.5,
            None,
        ),
        (
            Series {
                metric: "cpu".to_owned(),
                tags: "{\"host\":\"b\"}".to_owned(),
            },
            1_760_000_000_000_000,
            -0.0,
            Some(Extra {
                kind: Kind::Counter,
                rank: Some(3),
                summary: None,
            }),
        ),
    ]);
    assert_eq!(
        stele_format::batch_digest(&rows).to_string(),
        "2917cc99017594b65532f65585f1b128"
    );
    assert_eq!(
        rows_hash(&rows).to_string(),
        "285a11ab925ef8f35d4a50000620aecf"
    );
}

#[test]
fn rows_of_hours_that_no_name_says_make_no_object() {
    let end_us = Window::LAST.end_us();
    for (ts_us, stored) in [(0, true), (end_us - 1, true), (-1, false), (end_us, false)] {
        let samples = [(1, 1.0), (ts_us, 2.0)].map(|(ts_us, value)| {
            let (metric, tags) = ("a".to_owned(), "{}".to_owned());
            (Series { metric, tags }, ts_us, value, None)
        });
        let object = l0::encode(&[batch(rows_of(&samples))]);
        match &object {
            Ok(object) => assert_eq!(object.name.to_string().parse(), Ok(object.name)),
            Err(error) => assert!(
                matches!(error, stele_format::Error::Hours { .. }),
                "{error}"
            ),
        }
        assert_eq!(object.is_ok(), stored, "{ts_us}");
    }
}
