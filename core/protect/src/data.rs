//! The files: every byte of every live file, and every rollup row against its samples.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;
use stele_format::{
    Compared, Merge, RollupMerge, RollupReader, RollupSource, RollupTruth, SampleOrRollup,
    SampleReader, SampleSource, check_file,
};
use stele_model::{Day, Resolution, WindowSet, chain};
use stele_store::{TenantStore, keys};
use stele_table::{FileEntry, FileKind, TableState};

use crate::report::{Check, Progress, Stage, VerifyReport};
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
            let frozen = Day::parse(day).is_some_and(|d| state.expired.holds(Resolution::Raw, d));
            let sealed = match frozen {
                true => check_frozen_day(&of_day, day, state, report),
                false => check_day_coverage(&of_day, day, report),
            };
            // Where a file is damaged, comparing the others would only repeat that.
            let whole = files.read_all(of_day, report).await;
            if let Some(whole) = whole.filter(|_| !frozen) {
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
        let of_kind = of.iter().filter(|(file, _)| file.kind == kind);
        Some((resolution, rollups(of_kind, sealed, report)))
    });
    let stored: Vec<_> = stored.collect();
    let folder = |resolution: &str| format!("table/resolution={resolution}/period={day}");
    let mut raw = Merge::new(sources);
    let compared = match compare(&mut raw, stored) {
        Ok(compared) => compared,
        Err(error) => return report.find(Check::Rollups, folder("*"), chain(&error)),
    };
    let tally = raw.tally();
    let twice = tally.duplicates + tally.overridden;
    if twice > 0 {
        let what = format!("raw files hold {twice} samples twice");
        report.find(Check::Objects, folder("raw"), what);
    }
    for compared in compared {
        report.rollup_rows += compared.rows;
        let object = folder(compared.resolution.partition());
        for what in compared.found {
            report.find(Check::Rollups, object.clone(), what);
        }
        if compared.unspelled > 0 {
            let what = format!("and {} more rows are wrong", compared.unspelled);
            report.find(Check::Rollups, object, what);
        }
    }
}

fn compare(
    raw: &mut Merge,
    stored: Vec<(Resolution, Box<dyn RollupSource>)>,
) -> stele_format::Result<Vec<Compared>> {
    let mut truth = RollupTruth::new(stored);
    while let Some(chunk) = raw.next_chunk()? {
        truth.push(&chunk.series, &chunk.rows)?;
    }
    truth.finish()
}

/// Whether 60 s and 15 min files cover exactly the windows that the day's raw files do: those.
fn check_day_coverage(files: &[Arc<FileEntry>], day: &str, report: &mut VerifyReport) -> WindowSet {
    let sealed = covered(files, RAW);
    for resolution in [Resolution::S60, Resolution::M15] {
        check_coverage(files, day, resolution, &sealed, report);
    }
    sealed
}

/// Of a day whose raw samples have expired nothing is left to recompute its rollups from. Those
/// that are left must cover the same windows. Answers which.
fn check_frozen_day(
    files: &[Arc<FileEntry>],
    day: &str,
    state: &TableState,
    report: &mut VerifyReport,
) -> WindowSet {
    report.frozen_days += 1;
    let frozen = covered(files, FileKind::Sealed(Resolution::M15));
    let fine = files
        .iter()
        .any(|f| f.kind == FileKind::Sealed(Resolution::S60));
    let expired = Day::parse(day).is_some_and(|d| state.expired.holds(Resolution::S60, d));
    if fine || !expired {
        check_coverage(files, day, Resolution::S60, &frozen, report);
    }
    for file in files.iter().filter(|file| state.expired.holds_file(file)) {
        let key = keys::data_file(&file.path);
        report.find(Check::Objects, key, "is live in a period that has expired");
    }
    frozen
}

/// Whether the 60 min files of a month cover exactly the windows that its raw files do, and of
/// days whose raw samples have expired those that its 15 min files do, while there are any.
fn check_month(
    files: &[Arc<FileEntry>],
    month: &str,
    state: &TableState,
    report: &mut VerifyReport,
) {
    let of_month = |kind| {
        let files = state.files_of(kind);
        let files = files.filter(|file| file.period.starts_with(month)).cloned();
        covered(&files.collect::<Vec<_>>(), kind)
    };
    let fine = of_month(FileKind::Sealed(Resolution::M15));
    let mut sealed = of_month(RAW);
    sealed.extend(&state.expired.of(Resolution::Raw, &fine));
    // Where 15 min rollups have expired, too, there is nothing to compare with.
    let hourly = covered(files, FileKind::Sealed(Resolution::M60));
    sealed.extend(&state.expired.of(Resolution::M15, &hourly));
    check_coverage(files, month, Resolution::M60, &sealed, report);
    for file in files.iter().filter(|file| state.expired.holds_file(file)) {
        let key = keys::data_file(&file.path);
        report.find(Check::Objects, key, "is live in a period that has expired");
    }
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
