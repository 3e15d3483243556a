//! Files of every kind: what is taken, what is refused and where, and that parts do not depend on
//! where reading began.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use stele_import::{Columns, Format, Mark, Settings, open, rank};
use stele_model::time::{parse_rfc3339, rfc3339};
use stele_model::{ErrorKind, Extra, Kind, Limits, NO_EXTRA, Row, Rows, Series, Summary};
use stele_wire::Precision;

const NOW_US: i64 = 1_795_305_600_000_000;

fn settings(format: Format) -> Settings {
    Settings {
        format,
        precision: Precision::default(),
        columns: Columns::default(),
        limits: Limits::default(),
        now_us: NOW_US,
    }
}

fn file(dir: &tempfile::TempDir, name: &str, bytes: impl AsRef<[u8]>) -> PathBuf {
    let path = dir.path().join(name);
    std::fs::write(&path, bytes).unwrap();
    path
}

/// All samples as text, all rejections, and the digest-relevant form of every part.
struct Read {
    samples: Vec<String>,
    refused: Vec<String>,
    parts: Vec<(Mark, usize)>,
    rows: Vec<Rows>,
}

fn read(path: &Path, settings: &Settings, from: Mark) -> Read {
    let mut source = open(path, settings, from).unwrap();
    let mut all = Read {
        samples: Vec::new(),
        refused: Vec::new(),
        parts: Vec::new(),
        rows: Vec::new(),
    };
    while let Some(part) = source.next_part().unwrap() {
        let rows = part.decoded.rows;
        for row in &rows.rows {
            let series = &rows.series[row.series as usize];
            let (metric, tags) = (&series.metric, &series.tags);
            let at = rfc3339(row.ts_us);
            all.samples
                .push(format!("{metric} {tags} {at} {:?}", row.value));
        }
        for refused in part.decoded.rejections.named {
            let text = format!("{}: {}", refused.position, refused.reason);
            all.refused.push(text);
        }
        all.parts.push((part.end, rows.len()));
        all.rows.push(rows);
    }
    let last = all.parts.last().map_or(0, |(end, _)| end.offset);
    assert!(last == source.total() || all.parts.is_empty());
    all
}

#[test]
fn lines_keep_their_positions_over_parts_and_points_without_time_get_the_files() {
    let dir = tempfile::tempdir().unwrap();
    let line = "cpu,host=a user=1.5 1700000000000000000\n";
    let many = line.repeat(110_000) + "bad line\ncpu,host=b value=2\n";
    let path = file(&dir, "x.lp", &many);
    let all = read(&path, &settings(Format::Lines), Mark::default());
    assert_eq!(all.samples.len(), 110_001);
    assert!(all.parts.len() > 1);
    assert_eq!(all.refused.len(), 1);
    assert!(all.refused[0].starts_with("110001: "), "{:?}", all.refused);
    // Twice the same, though the clock has moved on.
    let later = Settings {
        now_us: NOW_US + 60_000_000,
        ..settings(Format::Lines)
    };
    let again = read(&path, &later, Mark::default());
    assert_eq!(again.samples.last(), all.samples.last());
    // From the first mark on, the rest is the same.
    let rest = read(&path, &settings(Format::Lines), all.parts[0].0);
    assert_eq!(rest.parts, all.parts[1..]);
    assert_eq!(rest.refused, all.refused);
}

#[test]
fn a_line_longer_than_a_part_is_an_error_that_names_it() {
    let dir = tempfile::tempdir().unwrap();
    let text = format!(
        "cpu value=1 1700000000000000000\ncpu,t={} value=1\n",
        "x".repeat(9 << 20)
    );
    let path = file(&dir, "x.lp", text);
    let mut source = open(&path, &settings(Format::Lines), Mark::default()).unwrap();
    source.next_part().unwrap();
    let error = source.next_part().map(|_| ()).unwrap_err();
    assert_eq!(error.to_string(), "line 2 is longer than 4194304 bytes");
}

#[test]
fn csv_is_read_by_its_header_and_bad_records_are_named() {
    let dir = tempfile::tempdir().unwrap();
    let text = "ts,metric,host,value,note\n\
                2026-11-01T00:00:00Z,cpu,a,1.5,\n\
                1793491200,cpu,b,-2,\"x, y\"\n\
                yesterday,cpu,a,1,\n\
                1793491200,cpu,a,much,\n\
                1793491200,cpu,a,,\n\
                1793491200,,a,1,\n";
    let path = file(&dir, "x.csv", text);
    let all = read(&path, &settings(Format::Csv), Mark::default());
    assert_eq!(
        all.samples,
        [
            "cpu {\"host\":\"a\"} 2026-11-01T00:00:00.000000Z 1.5",
            "cpu {\"host\":\"b\",\"note\":\"x, y\"} 2026-11-01T00:00:00.000000Z -2.0",
        ]
    );
    assert_eq!(
        all.refused,
        [
            "4: time \"yesterday\" is not understood",
            "5: value \"much\" is no number",
            "7: the metric has no name",
        ]
    );
}

#[test]
fn csv_goes_on_behind_a_mark_with_the_same_parts() {
    let dir = tempfile::tempdir().unwrap();
    let mut text = "time,read,write\n".to_owned();
    for n in 0..120_000 {
        text += &format!("{},{n},{}\n", 1_700_000_000 + n, n * 2);
    }
    let path = file(&dir, "x.csv", text);
    let settings = Settings {
        columns: Columns {
            metric: Some("disk".to_owned()),
            value_columns: vec!["read".to_owned(), "write".to_owned()],
            ..Columns::default()
        },
        ..settings(Format::Csv)
    };
    let all = read(&path, &settings, Mark::default());
    assert_eq!(all.samples.len(), 240_000);
    assert_eq!(
        all.samples[1],
        "disk.write {} 2023-11-14T22:13:20.000000Z 0.0"
    );
    assert_eq!(all.parts.len(), 3);
    let rest = read(&path, &settings, all.parts[0].0);
    assert_eq!(rest.parts, all.parts[1..]);
    assert_eq!(rest.samples, all.samples[100_000..]);
}

/// A sample as [`own_rows`] makes it: (series, ts) to value bits, kind and count.
type Known = BTreeMap<(String, i64), (u64, Kind, Option<i64>)>;

fn known(rows: &Rows) -> Known {
    let each = rows.rows.iter().map(|row| {
        let series = &rows.series[row.series as usize];
        let extra = rows.extra(row);
        let key = (format!("{} {}", series.metric, series.tags), row.ts_us);
        let count = extra.summary.map(|summary| summary.count);
        (key, (row.value.to_bits(), extra.kind, count))
    });
    each.collect()
}

fn own_rows() -> Rows {
    let start = parse_rfc3339("2026-11-01T00:00:00Z").unwrap();
    let series = ["{\"host\":\"a\"}", "{\"host\":\"b\"}"];
    let mut rows = Rows {
        series: series
            .map(|tags| Series {
                metric: "cpu".to_owned(),
                tags: tags.to_owned(),
            })
            .to_vec(),
        rows: Vec::new(),
        extras: vec![Extra {
            kind: Kind::Gauge,
            rank: Some(3),
            summary: Some(Summary {
                count: 4,
                sum: 10.0,
                min: Some(1.0),
                max: Some(4.0),
                sum_squares: None,
            }),
        }],
    };
    for n in 0..1_000 {
        // Whole numbers, decimals, and what only a double says.
        let value = match n % 3 {
            0 => n as f64,
            1 => n as f64 / 10.0,
            _ => (n as f64).sqrt(),
        };
        rows.rows.push(Row {
            ts_us: start + i64::from(n) * 1_000_000,
            value,
            series: u32::from(n % 2 == 0),
            extra: if n == 500 { 0 } else { NO_EXTRA },
        });
    }
    rows
}

#[test]
fn a_file_of_our_own_comes_back_bit_for_bit_without_its_rank() {
    let dir = tempfile::tempdir().unwrap();
    let rows = own_rows();
    let batch = stele_format::batch(rows.clone());
    let object = stele_format::l0::encode(&[batch]).unwrap();
    let path = file(&dir, "x.parquet", &object.bytes);
    let all = read(&path, &settings(Format::Parquet), Mark::default());
    assert_eq!(all.refused, Vec::<String>::new());
    assert_eq!(known(&all.rows[0]), known(&rows));
    let got = &all.rows[0];
    assert!(got.rows.iter().all(|row| got.extra(row).rank.is_none()));
}

#[test]
fn a_foreign_parquet_file_is_mapped_like_csv() {
    use arrow::array::{ArrayRef, Float32Array, Int64Array, StringArray};
    let dir = tempfile::tempdir().unwrap();
    let columns: [(&str, ArrayRef); 4] = [
        (
            "time",
            std::sync::Arc::new(Int64Array::from(vec![Some(1_793_491_200_000), None])),
        ),
        (
            "name",
            std::sync::Arc::new(StringArray::from(vec!["temp", "temp"])),
        ),
        (
            "room",
            std::sync::Arc::new(StringArray::from(vec![Some("k"), None])),
        ),
        (
            "celsius",
            std::sync::Arc::new(Float32Array::from(vec![21.5, 22.0])),
        ),
    ];
    let batch = arrow::array::RecordBatch::try_from_iter(columns).unwrap();
    let mut bytes = Vec::new();
    let mut writer =
        parquet::arrow::ArrowWriter::try_new(&mut bytes, batch.schema(), None).unwrap();
    writer.write(&batch).unwrap();
    writer.close().unwrap();
    let path = file(&dir, "x.parquet", bytes);
    let settings = Settings {
        columns: Columns {
            metric_column: Some("name".to_owned()),
            value_columns: vec!["celsius".to_owned()],
            ..Columns::default()
        },
        ..settings(Format::Parquet)
    };
    let all = read(&path, &settings, Mark::default());
    assert_eq!(
        all.samples,
        ["temp {\"room\":\"k\"} 2026-11-01T00:00:00.000000Z 21.5"]
    );
    assert_eq!(all.refused, ["1: its time is missing or not understood"]);
}

#[test]
fn what_is_no_parquet_is_an_error_and_no_panic() {
    let dir = tempfile::tempdir().unwrap();
    let batch = stele_format::batch(own_rows());
    let good = stele_format::l0::encode(&[batch]).unwrap().bytes;
    for cut in [0, 3, 100, good.len() / 2, good.len() - 9] {
        let path = file(&dir, "x.parquet", &good[..cut]);
        let settings = settings(Format::Parquet);
        let opened = open(&path, &settings, Mark::default());
        let read = opened.and_then(|mut source| source.next_part().map(|_| ()));
        assert!(read.is_err(), "{cut} bytes");
    }
}

#[test]
fn a_correction_ranks_every_row_and_keeps_what_they_carry() {
    let mut rows = own_rows();
    let before = known(&rows);
    rank(&mut rows, 1);
    assert!(rows.rows.iter().all(|row| rows.extra(row).rank == Some(1)));
    assert_eq!(known(&rows), before);
}

/// Found by fuzzing: the Parquet library panics on a column chunk at a negative offset.
#[test]
fn a_forged_footer_is_an_error_and_no_panic() {
    let dir = tempfile::tempdir().unwrap();
    let path = file(
        &dir,
        "x.parquet",
        include_bytes!("forged/negative_offset.parquet"),
    );
    let opened = open(&path, &settings(Format::Parquet), Mark::default());
    let error = opened.map(|_| ()).unwrap_err().to_string();
    assert!(error.contains("negative place or size"), "{error}");
}

/// Found by fuzzing: the Parquet library panics on definition levels that end too soon.
#[test]
fn forged_levels_are_an_error_and_no_panic() {
    let dir = tempfile::tempdir().unwrap();
    let forged = include_bytes!("forged/levels.parquet");
    let path = file(&dir, "x.parquet", forged);
    let mut source = open(&path, &settings(Format::Parquet), Mark::default()).unwrap();
    let error = source.next_part().map(|_| ()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Malformed);
    assert!(error.to_string().contains("damaged or forged"), "{error}");
}
