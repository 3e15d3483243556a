//! Which period expires next, and what keeps it from doing so.

use std::collections::BTreeSet;
use std::sync::Arc;

use stele_model::time::DAY_US;
use stele_model::{Day, Resolution, WindowSet};
use stele_store::L0Object;
use stele_table::{Expired, FileEntry, FileKind, Retention, TableState};

use crate::report::ExpireWaits;

/// A period stays this long beyond its retention: whatever was accepted within it has landed, and
/// can be absorbed and sealed.
const GRACE_US: i64 = 2 * DAY_US;
/// Days of rollups that expire in one commit.
const ROLLUP_DAYS_MAX: i32 = 31;

/// What an expire needs to know beside the table and the LIST.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ExpireRules {
    /// The store's clock, µs.
    pub now_us: i64,
    /// How long each resolution is kept.
    pub retention: Retention,
}

impl ExpireRules {
    /// Days before this one are past the retention of `resolution`.
    pub(super) fn past(&self, resolution: Resolution) -> Option<Day> {
        let kept_us = i64::from(self.retention.days(resolution)?) * DAY_US;
        Some(Day::of(self.now_us.saturating_sub(kept_us + GRACE_US)))
    }
}

/// One expire: files that stop being live, and what has expired then.
#[derive(Debug, Clone, PartialEq)]
pub struct ExpirePlan {
    /// The resolution that moves forward.
    pub resolution: Resolution,
    /// What had expired before.
    pub from: Expired,
    /// What has expired then.
    pub to: Expired,
    /// Every live file of the resolution before that day.
    pub remove: Vec<Arc<FileEntry>>,
    /// For raw: all rollup files over the days of `remove`, which must be what it folds to.
    pub rollups: Vec<Arc<FileEntry>>,
}

/// What an expire does next.
#[derive(Debug, Clone, PartialEq)]
pub enum ExpireStep {
    /// Nothing is due.
    Nothing,
    /// A period is due and must wait.
    Waits(ExpireWaits),
    /// This expires.
    Expire(ExpirePlan),
}

/// The next expire: raw first, the earliest day with raw files alone; then rollups, of days (of
/// 60 min: months) whose finer resolutions have expired.
#[must_use]
pub fn expire(state: &TableState, l0: &[L0Object], rules: &ExpireRules) -> ExpireStep {
    let mut waits = None;
    if let Some(day) = due(state, Resolution::Raw, rules.past(Resolution::Raw)) {
        let before = Day(day.0 + 1);
        match holds_back(state, l0, before) {
            None => return ExpireStep::Expire(ExpirePlan::of(state, Resolution::Raw, before)),
            held => waits = held,
        }
    }
    let mut finer = state.expired.raw_before;
    for resolution in Resolution::ROLLUPS {
        let past = rules.past(resolution).zip(finer);
        let past = past.map(|(past, finer)| whole(resolution, past.min(finer)));
        if let Some(day) = due(state, resolution, past) {
            let before = past.map_or(day, |past| past.min(Day(day.0 + ROLLUP_DAYS_MAX)));
            let before = whole(resolution, before);
            return ExpireStep::Expire(ExpirePlan::of(state, resolution, before));
        }
        finer = state.expired.before(resolution);
    }
    waits.map_or(ExpireStep::Nothing, ExpireStep::Waits)
}

/// 60 min rollups expire by whole months: the first day of the month.
pub(super) fn whole(resolution: Resolution, day: Day) -> Day {
    match resolution {
        Resolution::M60 => Day::of(day.month().start_us()),
        _ => day,
    }
}

/// The earliest day of a live file of `resolution` before `past`.
fn due(state: &TableState, resolution: Resolution, past: Option<Day>) -> Option<Day> {
    let past = past?;
    let files = state.files_of(FileKind::Sealed(resolution));
    let days = files.filter_map(|file| file.windows.days().next());
    days.min().filter(|day| *day < past)
}

/// What covers days before `before` and is not sealed: its rows are in no rollup yet.
fn holds_back(state: &TableState, l0: &[L0Object], before: Day) -> Option<ExpireWaits> {
    let open = |file: &&Arc<FileEntry>| file.windows.days().next().is_some_and(|d| d < before);
    if let Some(file) = state.files_of(FileKind::Open).find(open) {
        let path = file.path.clone();
        return Some(ExpireWaits::Open { path });
    }
    let covers = |object: &&L0Object| {
        let gone = state.expired.holds(Resolution::Raw, object.name.last.day());
        object.name.first.day() < before && !gone
    };
    l0.iter().find(covers).map(|object| ExpireWaits::L0 {
        object: object.name.to_string(),
    })
}

impl ExpirePlan {
    /// The expire of all days of `resolution` before `before`.
    fn of(state: &TableState, resolution: Resolution, before: Day) -> Self {
        let to = state.expired.with(resolution, before);
        let files = state.files_of(FileKind::Sealed(resolution));
        let remove: Vec<_> = files.filter(|file| to.holds_file(file)).cloned().collect();
        let rollups = match resolution {
            Resolution::Raw => rollups_over(state, &remove),
            _ => Vec::new(),
        };
        Self {
            resolution,
            from: state.expired,
            to,
            remove,
            rollups,
        }
    }

    /// The windows of the removed files.
    #[must_use]
    pub fn windows(&self) -> WindowSet {
        let mut windows = WindowSet::new();
        self.remove.iter().for_each(|f| windows.extend(&f.windows));
        windows
    }

    /// The days of the removed files.
    #[must_use]
    pub fn days(&self) -> BTreeSet<Day> {
        self.windows().days().collect()
    }

    /// Whether the period is still as it was planned, and proved.
    #[must_use]
    pub fn still_holds(&self, state: &TableState) -> bool {
        let Some(before) = self.to.before(self.resolution) else {
            return false;
        };
        let raw = self.resolution == Resolution::Raw;
        let held = raw && holds_back(state, &[], before).is_some();
        !held && Self::of(state, self.resolution, before) == *self
    }
}

/// All rollup files of the days of some raw files.
fn rollups_over(state: &TableState, raw: &[Arc<FileEntry>]) -> Vec<Arc<FileEntry>> {
    let mut days = WindowSet::new();
    for day in raw.iter().flat_map(|file| file.windows.days()) {
        days.extend(&day.windows().collect());
    }
    let kinds = Resolution::ROLLUPS.map(FileKind::Sealed);
    let files = kinds.into_iter().flat_map(|kind| state.files_of(kind));
    let over = files.filter(|file| file.windows.intersects(&days));
    over.cloned().collect()
}

#[cfg(test)]
#[path = "expire_tests.rs"]
mod tests;
