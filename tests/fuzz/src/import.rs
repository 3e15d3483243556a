//! Files for import.

use std::panic::set_hook;
use std::path::PathBuf;
use std::sync::Once;

use stele_import::{Columns, Format, Mark, Settings, TimeUnit, open};
use stele_model::Limits;
use stele_wire::Precision;

use crate::NOW_US;

/// CSV; the first byte chooses the columns.
pub fn csv(data: &[u8]) {
    import(Format::Csv, data);
}

/// Parquet; the first byte chooses the columns. A panic of the library that the importer withstands
/// is no finding; the fuzzer's own hook would end the process at it.
pub fn parquet(data: &[u8]) {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| set_hook(Box::new(|panic| eprintln!("{panic}"))));
    import(Format::Parquet, data);
}

/// Accepted samples keep the limits, and reading on from any part's end gives the rest.
fn import(format: Format, data: &[u8]) {
    let Some((choice, body)) = data.split_first() else {
        return;
    };
    let text = |name: &str| Some(name.to_owned());
    let columns = match choice & 3 {
        0 => Columns::default(),
        1 => Columns {
            metric: text("m"),
            time_unit: Some(TimeUnit::Ms),
            ..Columns::default()
        },
        2 => Columns {
            metric: text("m"),
            value_columns: vec!["a".to_owned(), "b".to_owned()],
            ..Columns::default()
        },
        _ => Columns {
            metric_column: text("name"),
            time_column: text("at"),
            value_columns: vec!["value".to_owned()],
            tag_columns: Some(vec!["host".to_owned()]),
            ..Columns::default()
        },
    };
    let settings = Settings {
        format,
        precision: Precision::default(),
        columns,
        limits: Limits::default(),
        now_us: NOW_US,
    };
    let path = scratch();
    std::fs::write(&path, body).expect("the scratch folder is writable");
    let Some(whole) = read(&path, &settings, Mark::default()) else {
        return;
    };
    let (end, rows) = whole
        .iter()
        .fold((Mark::default(), 0), |sum, part| (part.0, sum.1 + part.1));
    let Some((first, first_rows)) = whole.first() else {
        return;
    };
    let rest = read(&path, &settings, *first).expect("it was read before");
    assert_eq!(
        rest.iter().map(|part| part.1).sum::<usize>() + first_rows,
        rows
    );
    assert_eq!(rest.last().map_or(*first, |part| part.0), end);
}

/// The end and the number of samples of every part; `None` when the file is refused.
fn read(path: &PathBuf, settings: &Settings, from: Mark) -> Option<Vec<(Mark, usize)>> {
    let mut source = open(path, settings, from).ok()?;
    let mut parts = Vec::new();
    while let Some(part) = source.next_part().ok()? {
        let rows = &part.decoded.rows;
        let times = settings.limits.timestamp_us_min..=NOW_US + settings.limits.future_us_max;
        for row in &rows.rows {
            assert!(times.contains(&row.ts_us));
            assert!((row.series as usize) < rows.series.len());
            assert!(rows.extra(row).rank.is_none());
        }
        parts.push((part.end, rows.len()));
    }
    Some(parts)
}

/// One file of this process: an importer reads files, not bytes.
fn scratch() -> PathBuf {
    std::env::temp_dir().join(format!("stele-fuzz-{}", std::process::id()))
}
