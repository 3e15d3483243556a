//! Table states made by hand, for the unit tests of plans.

use std::sync::Arc;

use stele_model::time::HOUR_US;
use stele_model::{Digest, FileStats, RowsHash, Window, WindowSet};
use stele_table::{FileEntry, FileKind, TableState};

/// A file called `name` over some hours since the epoch.
pub fn file(kind: FileKind, name: &str, hours: &[i32], size_bytes: u64) -> Arc<FileEntry> {
    let windows: WindowSet = hours.iter().map(|hour| Window(*hour)).collect();
    let period = kind.period_of(Window(hours[0]));
    Arc::new(FileEntry {
        path: FileEntry::path_of(kind, &period, name),
        kind,
        period,
        stats: FileStats {
            size_bytes,
            digest: Digest::default(),
            footer_digest: Digest::default(),
            footer_bytes: 8,
            rows: 1,
            rows_hash: RowsHash(1),
            ts_min_us: i64::from(hours[0]) * HOUR_US,
            ts_max_us: i64::from(hours[hours.len() - 1]) * HOUR_US,
            metric_min: "m".to_owned(),
            metric_max: "m".to_owned(),
            series: 1,
        },
        windows,
    })
}

/// A table of these files.
pub fn state(files: &[Arc<FileEntry>]) -> TableState {
    TableState {
        operation: "0".repeat(32),
        files: files
            .iter()
            .map(|f| (f.path.clone(), Arc::clone(f)))
            .collect(),
        ..TableState::default()
    }
}

/// The file's own name, without its folder.
pub fn name(file: &FileEntry) -> String {
    let name = file.path.rsplit('/').next().unwrap();
    name.trim_end_matches(".parquet").to_owned()
}
