//! Which periods have expired, and what that forbids.
//!
//! One day per resolution says it all: what lies before it has expired for good. Raw goes first,
//! then 60 s, 15 min and 60 min: a coarser resolution never expires before a finer one, so an
//! expired period always has all coarser rollups that were not themselves expired, and no seal
//! ever writes one that was.

use serde::{Deserialize, Serialize};
use stele_model::{Day, Resolution, Window, WindowSet};

use crate::commit::CommitKind;
use crate::error::Refusal;
use crate::file::{FileEntry, FileKind};
use crate::state::TableState;

/// All resolutions, finest first.
const RESOLUTIONS: [Resolution; 4] = [
    Resolution::Raw,
    Resolution::S60,
    Resolution::M15,
    Resolution::M60,
];

/// Up to where each resolution has expired. Days only ever move forward.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Expired {
    /// Open and raw files of days before this one have expired.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub raw_before: Option<Day>,
    /// 60 s rollups of days before this one have expired.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub s60_before: Option<Day>,
    /// 15 min rollups of days before this one have expired.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub m15_before: Option<Day>,
    /// 60 min rollups of months before this first day of a month have expired.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub m60_before: Option<Day>,
}

impl Expired {
    /// Whether nothing has expired yet.
    #[must_use]
    pub fn is_nothing(&self) -> bool {
        *self == Self::default()
    }

    /// The first day that has not expired; `None` while nothing of the resolution has.
    #[must_use]
    pub fn before(&self, resolution: Resolution) -> Option<Day> {
        match resolution {
            Resolution::Raw => self.raw_before,
            Resolution::S60 => self.s60_before,
            Resolution::M15 => self.m15_before,
            Resolution::M60 => self.m60_before,
        }
    }

    /// The same with another day for `resolution`.
    #[must_use]
    pub fn with(mut self, resolution: Resolution, before: Day) -> Self {
        let slot = match resolution {
            Resolution::Raw => &mut self.raw_before,
            Resolution::S60 => &mut self.s60_before,
            Resolution::M15 => &mut self.m15_before,
            Resolution::M60 => &mut self.m60_before,
        };
        *slot = Some(before);
        self
    }

    /// Whether `day` has expired in `resolution`.
    #[must_use]
    pub fn holds(&self, resolution: Resolution, day: Day) -> bool {
        self.before(resolution).is_some_and(|before| day < before)
    }

    /// The windows of `windows` that have expired in `resolution`.
    #[must_use]
    pub fn of(&self, resolution: Resolution, windows: &WindowSet) -> WindowSet {
        let expired = |window: &Window| self.holds(resolution, window.day());
        match self.before(resolution) {
            None => WindowSet::new(),
            Some(_) => windows.iter().filter(expired).collect(),
        }
    }

    /// The windows of `windows` that have not expired in `resolution`.
    #[must_use]
    pub fn not_of(&self, resolution: Resolution, windows: &WindowSet) -> WindowSet {
        windows.difference(&self.of(resolution, windows))
    }

    /// Whether the period of `file` has expired. A month does so whole.
    #[must_use]
    pub fn holds_file(&self, file: &FileEntry) -> bool {
        let first = file.windows.days().next();
        first.is_some_and(|day| self.holds(resolution_of(file.kind), day))
    }

    /// Whether this is what may follow `known`: one resolution has moved forward, none is ahead
    /// of a finer one, and 60 min rollups end with a month.
    fn follows(&self, known: &Self) -> Result<(), &'static str> {
        let day = |expired: &Self, r| expired.before(r);
        if RESOLUTIONS.iter().any(|r| day(self, *r) < day(known, *r)) {
            return Err("a period cannot come back");
        }
        if RESOLUTIONS
            .windows(2)
            .any(|r| day(self, r[0]) < day(self, r[1]))
        {
            return Err("a coarser resolution would expire before a finer one");
        }
        let moved = RESOLUTIONS
            .iter()
            .filter(|r| day(self, **r) != day(known, **r));
        if moved.count() != 1 {
            return Err("one resolution expires at a time");
        }
        match self.m60_before {
            Some(day) if day.start_us() != day.month().start_us() => {
                Err("60 min rollups expire by whole months")
            }
            _ => Ok(()),
        }
    }
}

fn resolution_of(kind: FileKind) -> Resolution {
    match kind {
        FileKind::Open => Resolution::Raw,
        FileKind::Sealed(resolution) => resolution,
    }
}

/// What a commit does to files, as far as expiry has a say in it.
pub(crate) struct Change<'a> {
    pub kind: CommitKind,
    pub add: &'a [FileEntry],
    pub remove: &'a [String],
    /// What has expired from this commit on; only of an expire.
    pub to: Option<Expired>,
    /// Rows it counts as expired.
    pub rows_expired: u64,
    /// L0 objects it consumes.
    pub objects: u64,
}

impl Change<'_> {
    /// Whether the change may be made to `on`: nothing is added to an expired period, rollups of
    /// an expired raw period stay as they are, and an expire removes exactly what it says.
    pub fn check(&self, on: &TableState) -> Result<(), Refusal> {
        let refuse = |what| Err(Refusal::Expiry { what });
        if self.kind == CommitKind::Restore {
            // What had expired comes back as it was; its sums are checked.
            return match self.to.is_some() || self.rows_expired > 0 || self.objects > 0 {
                true => refuse("a restore expires and consumes nothing"),
                false => Ok(()),
            };
        }
        let expires = self.kind == CommitKind::Expire;
        if expires != self.to.is_some() {
            return refuse("an expire, and nothing else, says what has expired");
        }
        if self.rows_expired > 0 && !expires && self.kind != CommitKind::Absorb {
            return refuse("rows expire in an absorb or an expire only");
        }
        let now = self.to.unwrap_or(on.expired);
        for file in self.add {
            let refuse = |what| {
                let path = file.path.clone();
                Err(Refusal::File { path, what })
            };
            if now.holds_file(file) {
                return refuse("added to a period that has expired");
            }
            let derived = file.kind == FileKind::Sealed(Resolution::S60)
                || file.kind == FileKind::Sealed(Resolution::M15);
            let frozen = derived && file.windows.days().any(|d| now.holds(Resolution::Raw, d));
            if frozen && self.kind != CommitKind::Consolidate {
                return refuse("added to a period whose raw data has expired");
            }
        }
        match self.to {
            Some(to) => self.check_expire(on, to),
            None => Ok(()),
        }
    }

    fn check_expire(&self, on: &TableState, to: Expired) -> Result<(), Refusal> {
        if !self.add.is_empty() || self.objects > 0 {
            let what = "an expire adds and consumes nothing";
            return Err(Refusal::Expiry { what });
        }
        to.follows(&on.expired)
            .map_err(|what| Refusal::Expiry { what })?;
        let removed: std::collections::HashSet<&String> = self.remove.iter().collect();
        let mut raw = WindowSet::new();
        for (path, file) in &on.files {
            let what = match (removed.contains(path), to.holds_file(file)) {
                (true, false) => "expired before its time",
                (true, true) if file.kind == FileKind::Open => "open rows are in no rollup yet",
                (false, true) => "live in a period that expires",
                _ => {
                    if removed.contains(path) && file.kind == FileKind::Sealed(Resolution::Raw) {
                        raw.extend(&file.windows);
                    }
                    continue;
                }
            };
            let path = path.clone();
            return Err(Refusal::File { path, what });
        }
        check_rollups_cover(on, &raw)
    }
}

/// Raw never goes before its rollups are committed.
fn check_rollups_cover(on: &TableState, raw: &WindowSet) -> Result<(), Refusal> {
    for resolution in Resolution::ROLLUPS {
        let mut covered = WindowSet::new();
        if !raw.is_empty() {
            on.files_of(FileKind::Sealed(resolution))
                .for_each(|file| covered.extend(&file.windows));
        }
        if !raw.difference(&covered).is_empty() {
            let what = "raw would expire before its rollups are committed";
            return Err(Refusal::Expiry { what });
        }
    }
    Ok(())
}
