//! The table `coverage`: every window that has data, and how far compaction has brought it.
//!
//! It is read from the log and the list of L0 objects alone, never from data files. An L0 object
//! says only its first and last window, so until it is absorbed the windows between count as its
//! own. `rows` is exact or NULL: it is known when each file of the window holds no other one, and
//! nothing else can hold the same samples.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use datafusion::common::Result;
use stele_format::schema;
use stele_model::{Resolution, Window};
use stele_table::{FileEntry, FileKind, View};

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
    ]))
}

/// One row per window of the view, in order of time.
///
/// # Errors
/// Never in practice: the columns are built here.
pub(crate) fn rows(view: &View) -> Result<RecordBatch> {
    let covers = covers(view);
    let number = |f: &dyn Fn(&Cover) -> i64| -> ArrayRef {
        Arc::new(Int64Array::from_iter_values(covers.values().map(f)))
    };
    let starts = covers.keys().map(|window| window.start_us());
    let starts = TimestampMicrosecondArray::from_iter_values(starts).with_timezone("UTC");
    let states = StringArray::from_iter_values(covers.values().map(Cover::state));
    let rows: Int64Array = covers.values().map(Cover::exact_rows).collect();
    let columns: Vec<ArrayRef> = vec![
        Arc::new(starts),
        Arc::new(states),
        Arc::new(rows),
        number(&|cover| cover.sealed_files + cover.open_files),
        number(&|cover| cover.objects),
    ];
    Ok(RecordBatch::try_new(table_schema(), columns)?)
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
