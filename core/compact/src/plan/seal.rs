//! Which windows of which day to seal, from which files, and in how many steps.

use std::collections::BTreeMap;
use std::sync::Arc;

use stele_model::{Day, Resolution, Window, WindowSet};
use stele_table::{FileEntry, FileKind, TableState};

/// What a seal needs to know beside the files.
#[derive(Debug, Clone, PartialEq)]
pub struct SealRules {
    /// The compactor's clock, µs.
    pub now_us: i64,
    /// A window closes this long after its end, µs.
    pub seal_delay_us: i64,
    /// Reopened windows are due when their open bytes pass this share of the sealed bytes.
    pub reopen_ratio: f64,
    /// Reopened windows are due when they have been reopened for so long, µs.
    pub reopen_age_us: i64,
    /// Reopened windows are always due.
    pub force_reopened: bool,
}

impl SealRules {
    /// Whether `window` may be sealed: its end and the delay have passed.
    #[must_use]
    pub fn is_closed(&self, window: Window) -> bool {
        window.end_us().saturating_add(self.seal_delay_us) <= self.now_us
    }
}

/// Files that one seal replaces, and the windows it seals.
#[derive(Debug, Clone, PartialEq)]
pub struct SealPlan {
    /// The day all windows lie in.
    pub day: Day,
    /// Every window that is sealed; closed under the raw files that are rewritten.
    pub windows: WindowSet,
    /// Of them, windows that are sealed again.
    pub resealed: WindowSet,
    /// All open files over any of the windows; rows of other windows are carried over.
    pub open: Vec<Arc<FileEntry>>,
    /// All raw files over any of the windows.
    pub raw: Vec<Arc<FileEntry>>,
    /// All rollup files over any of the windows; rows of other windows are carried over.
    pub rollups: Vec<Arc<FileEntry>>,
}

impl SealPlan {
    /// Stored bytes of the samples that are merged.
    #[must_use]
    pub fn input_bytes(&self) -> u64 {
        let files = self.open.iter().chain(&self.raw);
        files.map(|file| file.stats.size_bytes).sum()
    }

    /// The files that stop being live.
    pub fn replaced(&self) -> impl Iterator<Item = &Arc<FileEntry>> {
        self.open.iter().chain(&self.raw).chain(&self.rollups)
    }

    /// Whether the sealed files over its windows are still exactly those it replaces. Otherwise a
    /// commit of this plan would hold rows of a window twice.
    #[must_use]
    pub fn still_covers(&self, state: &TableState) -> bool {
        let now = close(state, self.day, &self.windows);
        now.windows == self.windows && now.raw == self.raw && now.rollups == self.rollups
    }
}

/// What to do for a plan, within a bound on the bytes read at once.
#[derive(Debug, Clone, PartialEq)]
pub enum Step {
    /// Seal these windows.
    Seal(SealPlan),
    /// First rewrite these open files into files of single windows, so that windows can be sealed
    /// one after the other.
    Split(Vec<Arc<FileEntry>>),
}

/// Closed windows that hold sealed and open rows.
#[must_use]
pub fn reopened_windows(state: &TableState) -> WindowSet {
    let mut sealed = WindowSet::new();
    for file in state.files_of(FileKind::Sealed(Resolution::Raw)) {
        sealed.extend(&file.windows);
    }
    state.open_windows_of_files().intersection(&sealed)
}

/// The seals that are due, one per day, earliest day first. `reopened_since` says since when a
/// day has been known to have reopened windows, µs.
#[must_use]
pub fn seals(
    state: &TableState,
    rules: &SealRules,
    reopened_since: &BTreeMap<Day, i64>,
) -> Vec<SealPlan> {
    let open = state.open_windows_of_files();
    let days: Vec<Day> = open.days().collect();
    let plan = |day: Day| {
        let closed: WindowSet = open
            .of_day(day)
            .iter()
            .filter(|window| rules.is_closed(*window))
            .collect();
        let mut sealed = WindowSet::new();
        for file in of_period(state, FileKind::Sealed(Resolution::Raw), &day.period()) {
            sealed.extend(&file.windows);
        }
        let reopened = closed.intersection(&sealed);
        let mut windows = closed.difference(&sealed);
        let since = reopened_since.get(&day).copied();
        if rules.force_reopened || is_due(state, rules, day, &reopened, since) {
            windows.extend(&reopened);
        }
        (!windows.is_empty()).then(|| close(state, day, &windows))
    };
    days.into_iter().filter_map(plan).collect()
}

fn is_due(
    state: &TableState,
    rules: &SealRules,
    day: Day,
    reopened: &WindowSet,
    since_us: Option<i64>,
) -> bool {
    if reopened.is_empty() {
        return false;
    }
    if since_us.is_some_and(|since| rules.now_us.saturating_sub(since) >= rules.reopen_age_us) {
        return true;
    }
    let plan = close(state, day, reopened);
    let open_bytes: f64 = plan.open.iter().map(|file| share(file, reopened)).sum();
    let sealed_bytes: u64 = plan.raw.iter().map(|file| file.stats.size_bytes).sum();
    open_bytes > rules.reopen_ratio * as_f64(sealed_bytes)
}

/// The bytes of `file` that belong to `windows`, taken as spread evenly.
fn share(file: &FileEntry, windows: &WindowSet) -> f64 {
    let inside = file.windows.intersection(windows).len();
    as_f64(file.stats.size_bytes) * as_f64(inside as u64) / as_f64(file.windows.len() as u64)
}

#[expect(
    clippy::cast_precision_loss,
    reason = "a ratio of sizes needs no more than 53 bits"
)]
fn as_f64(n: u64) -> f64 {
    n as f64
}

/// The seal of `windows` of one day: as a raw file is rewritten whole, it takes every window of
/// the raw files it touches, and every file over any of them.
#[must_use]
pub fn close(state: &TableState, day: Day, windows: &WindowSet) -> SealPlan {
    let day_files = |kind| of_period(state, kind, &day.period());
    let mut windows = windows.of_day(day);
    let mut raw: Vec<Arc<FileEntry>> = Vec::new();
    loop {
        let over: Vec<_> = day_files(FileKind::Sealed(Resolution::Raw))
            .filter(|file| file.windows.intersects(&windows))
            .cloned()
            .collect();
        let known = raw.len();
        raw = over;
        if raw.len() == known {
            break;
        }
        raw.iter().for_each(|file| windows.extend(&file.windows));
    }
    let mut resealed = WindowSet::new();
    raw.iter().for_each(|file| resealed.extend(&file.windows));
    let over = |kind: FileKind, period: String| {
        of_period(state, kind, &period)
            .filter(|file| file.windows.intersects(&windows))
            .cloned()
            .collect::<Vec<_>>()
    };
    let open = over(FileKind::Open, day.period());
    let mut rollups = over(FileKind::Sealed(Resolution::S60), day.period());
    rollups.extend(over(FileKind::Sealed(Resolution::M15), day.period()));
    rollups.extend(over(
        FileKind::Sealed(Resolution::M60),
        day.month().period(),
    ));
    SealPlan {
        day,
        windows,
        resealed,
        open,
        raw,
        rollups,
    }
}

/// What to do first for `plan`: all of it when its inputs fit `input_bytes_max`; else as many of
/// its windows, in time order, as fit; else, when one window alone drags in open files of other
/// windows, split those.
#[must_use]
pub fn step(state: &TableState, plan: &SealPlan, input_bytes_max: u64) -> Step {
    if plan.input_bytes() <= input_bytes_max {
        return Step::Seal(plan.clone());
    }
    let mut some = WindowSet::new();
    let mut fits: Option<SealPlan> = None;
    for window in plan.windows.iter() {
        some.insert(window);
        let part = close(state, plan.day, &some);
        if part.open.is_empty() {
            continue;
        }
        if part.input_bytes() > input_bytes_max {
            let Some(fits) = fits else {
                return first_too_large(part);
            };
            return Step::Seal(fits);
        }
        some = part.windows.clone();
        fits = Some(part);
    }
    Step::Seal(fits.unwrap_or_else(|| plan.clone()))
}

fn first_too_large(part: SealPlan) -> Step {
    let wide: Vec<_> = part
        .open
        .iter()
        .filter(|file| !file.windows.difference(&part.windows).is_empty())
        .cloned()
        .collect();
    if wide.is_empty() {
        Step::Seal(part)
    } else {
        Step::Split(wide)
    }
}

/// The live files of one kind and period, in path order.
pub(crate) fn of_period<'a>(
    state: &'a TableState,
    kind: FileKind,
    period: &str,
) -> impl Iterator<Item = &'a Arc<FileEntry>> + use<'a> {
    let prefix = format!("resolution={}/period={period}/", kind.partition());
    state
        .files
        .range(prefix.clone()..)
        .take_while(move |(path, _)| path.starts_with(&prefix))
        .map(|(_, file)| file)
}

#[cfg(test)]
#[path = "seal_tests.rs"]
mod tests;
