//! The table `coverage`: every window that has data, how far compaction has brought it, and what
//! is known to be lost of it.
//!
//! It is read from the log, the list of L0 objects and the record of losses, never from data files.
//! An L0 object says only its first and last window, so until it is absorbed the windows between
//! count as its own. `rows` is exact or NULL: it is known when each file of the window holds no
//! other one, and nothing else can hold the same samples.
//!
//! A window of which something is lost is `partial`, and `lost` when nothing is left of it; then a
//! row of its own follows for each metric that is known to be concerned alone.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use datafusion::common::Result;
use stele_format::schema;
use stele_model::{Resolution, Window, WindowSet};
use stele_table::{FileEntry, FileKind, Loss, View};

use crate::losses::{Losses, by_window};

/// What holds rows of one window.
#[derive(Debug, Default)]
struct Cover {
    sealed_files: i64,
    open_files: i64,
    objects: i64,
    /// Whether its raw samples have expired.
    is_expired: bool,
    /// Rows of its files; `None` when one of them holds other windows too.
    rows: Option<i64>,
}

impl Cover {
    fn state(&self) -> &'static str {
        if self.is_expired {
            return "expired";
        }
        match (self.sealed_files > 0, self.open_files + self.objects > 0) {
            (true, false) => "sealed",
            (true, true) => "late",
            _ => "open",
        }
    }

    /// Sealed files hold each row once; anything more has to be merged to be counted.
    fn exact_rows(&self) -> Option<i64> {
        let disjoint = match self.state() {
            "sealed" => true,
            "open" => self.open_files == 1 && self.objects == 0,
            _ => false,
        };
        self.rows.filter(|_| disjoint)
    }
}

pub(crate) fn table_schema() -> SchemaRef {
    Arc::new(Schema::new(vec![
        Field::new("ts", schema::timestamp(), false),
        Field::new("state", DataType::Utf8, false),
        Field::new("rows", DataType::Int64, true),
        Field::new("files", DataType::Int64, false),
        Field::new("objects", DataType::Int64, false),
        Field::new("metric", DataType::Utf8, true),
        Field::new("reason", DataType::Utf8, true),
    ]))
}

const PARTIAL: &str = "partial";
const LOST: &str = "lost";

/// One row of the table.
struct Row {
    window: Window,
    state: &'static str,
    rows: Option<i64>,
    files: i64,
    objects: i64,
    metric: Option<String>,
    reason: Option<String>,
}

/// The rows of a view, in order of time: of each window first the one of all metrics.
///
/// # Errors
/// Never in practice: the columns are built here.
pub(crate) fn rows(view: &View, losses: &Losses) -> Result<RecordBatch> {
    let rows = with_losses(covers(view), view, losses);
    let number = |f: &dyn Fn(&Row) -> Option<i64>| -> ArrayRef {
        Arc::new(rows.iter().map(f).collect::<Int64Array>())
    };
    let text = |f: &dyn Fn(&Row) -> Option<String>| -> ArrayRef {
        Arc::new(rows.iter().map(f).collect::<StringArray>())
    };
    let starts = rows.iter().map(|row| row.window.start_us());
    let starts = TimestampMicrosecondArray::from_iter_values(starts).with_timezone("UTC");
    let states = StringArray::from_iter_values(rows.iter().map(|row| row.state));
    let columns: Vec<ArrayRef> = vec![
        Arc::new(starts),
        Arc::new(states),
        number(&|row| row.rows),
        number(&|row| Some(row.files)),
        number(&|row| Some(row.objects)),
        text(&|row| row.metric.clone()),
        text(&|row| row.reason.clone()),
    ];
    Ok(RecordBatch::try_new(table_schema(), columns)?)
}

fn with_losses(mut covers: BTreeMap<Window, Cover>, view: &View, losses: &Losses) -> Vec<Row> {
    let by_window = by_window(losses);
    for window in by_window.keys() {
        covers.entry(*window).or_default();
    }
    let left = losses.left(view, None);
    let mut left_of: BTreeMap<&str, WindowSet> = BTreeMap::new();
    let metrics = by_window.values().flatten();
    for metric in metrics.filter_map(|loss| loss.metric()) {
        let of_metric = || losses.left(view, Some(metric));
        left_of.entry(metric).or_insert_with(of_metric);
    }
    let mut rows = Vec::new();
    for (window, cover) in &covers {
        let row = |metric: Option<&str>, left: &WindowSet, lost: &[&Loss]| {
            let state = match left.contains(*window) {
                true => PARTIAL,
                false => LOST,
            };
            Row {
                window: *window,
                state,
                rows: (state == LOST).then_some(0),
                files: cover.sealed_files + cover.open_files,
                objects: cover.objects,
                metric: metric.map(str::to_owned),
                reason: reason(lost),
            }
        };
        let Some(lost) = by_window.get(window) else {
            rows.push(Row {
                state: cover.state(),
                rows: cover.exact_rows(),
                ..row(None, &left, &[])
            });
            continue;
        };
        rows.push(row(None, &left, lost));
        let metrics: BTreeSet<&str> = lost.iter().filter_map(|loss| loss.metric()).collect();
        for metric in metrics {
            let is_of = |loss: &&Loss| loss.metric() == Some(metric);
            let lost: Vec<&Loss> = lost.iter().copied().filter(is_of).collect();
            if let Some(left) = left_of.get(metric) {
                rows.push(row(Some(metric), left, &lost));
            }
        }
    }
    rows
}

/// The first of some losses, and how many more there are.
fn reason(lost: &[&Loss]) -> Option<String> {
    let (first, more) = lost.split_first()?;
    Some(match more.len() {
        0 => first.to_string(),
        n => format!("{first}; and {n} more"),
    })
}

fn covers(view: &View) -> BTreeMap<Window, Cover> {
    let mut covers: BTreeMap<Window, Cover> = BTreeMap::new();
    let mut add = |file: &FileEntry, sealed: bool| {
        let rows = i64::try_from(file.stats.rows).ok();
        let rows = rows.filter(|_| file.windows.len() == 1);
        for window in file.windows.iter() {
            let cover = covers.entry(window).or_insert_with(|| Cover {
                rows: Some(0),
                ..Cover::default()
            });
            *match sealed {
                true => &mut cover.sealed_files,
                false => &mut cover.open_files,
            } += 1;
            cover.rows = cover.rows.zip(rows).map(|(sum, more)| sum + more);
        }
    };
    let raw = FileKind::Sealed(Resolution::Raw);
    view.state.files_of(raw).for_each(|file| add(file, true));
    let open = view.state.files_of(FileKind::Open);
    open.for_each(|file| add(file, false));
    let expired = &view.state.expired;
    for resolution in Resolution::ROLLUPS {
        for file in view.state.files_of(FileKind::Sealed(resolution)) {
            for window in expired.of(Resolution::Raw, &file.windows).iter() {
                covers.entry(window).or_default().is_expired = true;
            }
        }
    }
    for object in &view.l0 {
        for window in object.name.windows().iter() {
            covers.entry(window).or_default().objects += 1;
        }
    }
    covers
}
