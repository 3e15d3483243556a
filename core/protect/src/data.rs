//! The files: every byte of every live file, and every rollup row against its samples.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;
use stele_format::{
    Merge, RollupMerge, RollupReader, RollupSource, SampleOrRollup, SampleReader, SampleSource,
    check_file,
};
use stele_model::{Day, Resolution, WindowSet};
use stele_store::{TenantStore, keys};
use stele_table::{FileEntry, FileKind, TableState};

use crate::compare::compare;
use crate::report::{Check, Progress, Stage, VerifyReport};
use crate::text::chain;
use crate::verify::Tell;

const RAW: FileKind = FileKind::Sealed(Resolution::Raw);

/// A file that was read and found whole.
type Whole = (Arc<FileEntry>, Bytes);

/// Reads files and counts them.
struct Files<'a> {
    store: &'a TenantStore,
    tell: Tell<'a>,
    total: u64,
}

/// Checks all live files, month by month and day by day.
pub(crate) async fn check_files(
    store: &TenantStore,
    state: &TableState,
    report: &mut VerifyReport,
    tell: Tell<'_>,
) {
    let files = Files {
        store,
        tell,
        total: state.files.len() as u64,
    };
    let mut months: BTreeMap<String, Vec<Arc<FileEntry>>> = BTreeMap::new();
    let mut days: BTreeMap<String, Vec<Arc<FileEntry>>> = BTreeMap::new();
    for file in state.files.values() {
        let periods = match file.kind {
            FileKind::Sealed(Resolution::M60) => &mut months,
            _ => &mut days,
        };
        periods
            .entry(file.period.clone())
            .or_default()
            .push(Arc::clone(file));
    }
    let day_months = days
        .keys()
        .filter_map(|day| Day::parse(day).map(|day| day.month().period()));
    let all: BTreeSet<String> = months.keys().cloned().chain(day_months).collect();
    for month in all {
        let of_month = months.remove(&month).unwrap_or_default();
        let in_month = |day: &&String| day.starts_with(&month);
        let in_month: Vec<String> = days.keys().filter(in_month).cloned().collect();
        check_month(&of_month, &month, state, report);
        let coarse = files.read_all(of_month, report).await;
        for day in &in_month {
            let of_day = days.remove(day).unwrap_or_default();
            let sealed = check_day_coverage(&of_day, day, report);
            // Where a file is damaged, comparing the others would only repeat that.
            if let Some(whole) = files.read_all(of_day, report).await {
                check_day(day, &whole, &sealed, coarse.as_deref(), report);
            }
        }
    }
}

impl Files<'_> {
    /// Reads files whole; those that are not what the log says become findings, and then there is
    /// no result.
    async fn read_all(
        &self,
        files: Vec<Arc<FileEntry>>,
        report: &mut VerifyReport,
    ) -> Option<Vec<Whole>> {
        let mut whole = Some(Vec::new());
        for file in files {
            (self.tell)(Progress {
                stage: Stage::Files,
                done: report.files,
                total: self.total,
            });
            match self.read(&file, report).await {
                Ok(bytes) => {
                    if let Some(whole) = &mut whole {
                        whole.push((file, bytes));
                    }
                }
                Err(what) => {
                    report.find(Check::Objects, keys::data_file(&file.path), what);
                    whole = None;
                }
            }
            tokio::task::yield_now().await;
        }
        whole
    }

    async fn read(&self, file: &FileEntry, report: &mut VerifyReport) -> Result<Bytes, String> {
        report.files += 1;
        let key = keys::data_file(&file.path);
        let bytes = self.store.get(&key).await.map_err(|error| chain(&error))?;
        report.files_bytes += bytes.len() as u64;
        let rows = match file.kind.holds_samples() {
            true => SampleOrRollup::Sample,
            false => SampleOrRollup::Rollup,
        };
        check_file(&bytes, &file.stats, rows).map_err(|error| chain(&error))?;
        Ok(bytes)
    }
}

/// The truth of all rollups of one day; of 60 min only when the month's files are whole.
fn check_day(
    day: &str,
    files: &[Whole],
    sealed: &WindowSet,
    coarse: Option<&[Whole]>,
    report: &mut VerifyReport,
) {
    let mut sources: Vec<Box<dyn SampleSource>> = Vec::new();
    for (file, bytes) in files.iter().filter(|(file, _)| file.kind == RAW) {
        match SampleReader::open(bytes.clone()) {
            Ok(reader) => sources.push(Box::new(reader)),
            Err(error) => report.find(Check::Objects, keys::data_file(&file.path), chain(&error)),
        }
    }
    let stored = Resolution::ROLLUPS.into_iter().map_while(|resolution| {
        let of = match resolution {
            Resolution::M60 => coarse?,
            _ => files,
        };
        let kind = FileKind::Sealed(resolution);
        Some(rollups(
            of.iter().filter(|(file, _)| file.kind == kind),
            sealed,
            report,
        ))
    });
    let stored: Vec<_> = stored.collect();
    let folder = format!("table/resolution=*/period={day}");
    compare(Merge::new(sources), stored, &folder, report);
}

/// Whether 60 s and 15 min files cover exactly the windows that the day's raw files do: those.
fn check_day_coverage(files: &[Arc<FileEntry>], day: &str, report: &mut VerifyReport) -> WindowSet {
    let sealed = covered(files, RAW);
    for resolution in [Resolution::S60, Resolution::M15] {
        check_coverage(files, day, resolution, &sealed, report);
    }
    sealed
}

/// Whether the 60 min files of a month cover exactly the windows that its raw files do.
fn check_month(
    files: &[Arc<FileEntry>],
    month: &str,
    state: &TableState,
    report: &mut VerifyReport,
) {
    let raw = state
        .files_of(RAW)
        .filter(|file| file.period.starts_with(month));
    let raw: Vec<Arc<FileEntry>> = raw.cloned().collect();
    check_coverage(files, month, Resolution::M60, &covered(&raw, RAW), report);
}

fn covered(files: &[Arc<FileEntry>], kind: FileKind) -> WindowSet {
    let mut windows = WindowSet::new();
    let of_kind = files.iter().filter(|file| file.kind == kind);
    of_kind.for_each(|file| windows.extend(&file.windows));
    windows
}

fn check_coverage(
    files: &[Arc<FileEntry>],
    period: &str,
    resolution: Resolution,
    sealed: &WindowSet,
    report: &mut VerifyReport,
) {
    let covered = covered(files, FileKind::Sealed(resolution));
    if covered != *sealed {
        let what = format!(
            "covers {} windows that raw does not, and misses {} that it does",
            covered.difference(sealed).len(),
            sealed.difference(&covered).len()
        );
        let folder = format!("resolution={}/period={period}", resolution.partition());
        report.find(Check::Rollups, keys::data_file(&folder), what);
    }
}

fn rollups<'a>(
    files: impl Iterator<Item = &'a Whole>,
    windows: &WindowSet,
    report: &mut VerifyReport,
) -> Box<dyn RollupSource> {
    let mut sources: Vec<Box<dyn RollupSource>> = Vec::new();
    for (file, bytes) in files {
        match RollupReader::open(bytes.clone()) {
            Ok(reader) => sources.push(Box::new(reader.with_windows(windows.clone()))),
            Err(error) => {
                report.find(Check::Objects, keys::data_file(&file.path), chain(&error));
            }
        }
    }
    Box::new(RollupMerge::new(sources))
}
