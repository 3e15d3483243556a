//! The recorded losses that count in one view, and what they mean for what a query reads.
//!
//! A loss counts while the view needs what is lost: a file that is live, an object that is not
//! absorbed, a restore that is part of the table's history. A window is *lost* when nothing that
//! holds rows of it is left, and *partial* while something is.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::fmt;
use std::sync::Arc;

use stele_model::time::rfc3339;
use stele_model::{L0Name, Resolution, Window, WindowSet};
use stele_table::{FileEntry, FileKind, Loss, LossKind, LostObject, View};

use crate::scan::Read;

const RAW: FileKind = FileKind::Sealed(Resolution::Raw);

/// A loss that counts, and where.
#[derive(Debug)]
pub(crate) struct Counted {
    pub(crate) loss: Loss,
    pub(crate) windows: WindowSet,
    /// The file, when it is one.
    file: Option<Arc<FileEntry>>,
}

/// The losses that count in a view.
#[derive(Debug, Default)]
pub(crate) struct Losses {
    pub(crate) counted: Vec<Counted>,
    paths: HashSet<String>,
    names: HashSet<L0Name>,
}

impl Losses {
    /// Those of `recorded` that count in `view`; `is_now` when that is not an old version, which
    /// has no L0.
    pub(crate) fn of(recorded: Vec<Loss>, view: &View, is_now: bool) -> Self {
        let mut losses = Self::default();
        for loss in recorded {
            let file = match &loss.object {
                LostObject::File(path) => view.state.files.get(path).cloned(),
                _ => None,
            };
            let windows = windows_in(&loss, view, is_now, file.as_deref());
            if windows.is_empty() {
                continue;
            }
            match &loss.object {
                LostObject::File(path) => {
                    losses.paths.insert(path.clone());
                }
                LostObject::L0(name) => {
                    losses.names.insert(*name);
                }
                LostObject::Restore { .. } | LostObject::Others => {}
            }
            losses.counted.push(Counted {
                loss,
                windows,
                file,
            });
        }
        losses
    }

    /// Windows of which something is left: of `metric` alone when given.
    pub(crate) fn left(&self, view: &View, metric: Option<&str>) -> WindowSet {
        let mut left = WindowSet::new();
        let may_hold = |file: &FileEntry| {
            let stats = &file.stats;
            metric.is_none_or(|m| stats.metric_min.as_str() <= m && m <= stats.metric_max.as_str())
        };
        let files = view.state.files.values();
        for file in files.filter(|file| !self.paths.contains(&file.path) && may_hold(file)) {
            left.extend(&file.windows);
        }
        for object in view.l0.iter().filter(|o| !self.names.contains(&o.name)) {
            left.extend(&object.name.windows());
        }
        left
    }

    /// What is lost of what a query reads.
    pub(crate) fn cover(&self, view: &View, reads: &[Read]) -> Coverage {
        let mut coverage = Coverage::default();
        if self.counted.is_empty() {
            return coverage;
        }
        let open = view.open_windows();
        let (mut missed, mut lost) = (WindowSet::new(), WindowSet::new());
        for read in reads {
            let here = self.missed(read, &open, &mut coverage.reasons);
            if !here.is_empty() {
                lost.extend(&here.difference(&self.left_for(read, view, &open)));
                missed.extend(&here);
            }
        }
        coverage.windows = missed.len() as u64;
        coverage.lost = lost.len() as u64;
        let ranges = missed.ranges_us();
        coverage.range_us = ranges.first().zip(ranges.last()).map(|(a, b)| (a.0, b.1));
        coverage
    }

    /// The windows that one scan reads and something is missing of.
    fn missed(&self, read: &Read, open: &WindowSet, reasons: &mut BTreeSet<LossKind>) -> WindowSet {
        let mut missed = WindowSet::new();
        for Counted {
            loss,
            windows,
            file,
        } in &self.counted
        {
            let windows = match (&loss.object, file) {
                (LostObject::File(_), Some(file)) if read.may_hold(file) => {
                    needed(file, read.resolution, open)
                }
                (LostObject::File(_), _) => continue,
                _ => windows.clone(),
            };
            let windows = read.within(&windows);
            if !windows.is_empty() {
                missed.extend(&windows);
                reasons.insert(loss.kind);
            }
        }
        missed
    }

    /// The windows that one scan finds something of.
    fn left_for(&self, read: &Read, view: &View, open: &WindowSet) -> WindowSet {
        let mut left = WindowSet::new();
        for file in view.state.files.values() {
            if !self.paths.contains(&file.path) && read.may_hold(file) {
                left.extend(&needed(file, read.resolution, open));
            }
        }
        for object in view.l0.iter().filter(|o| !self.names.contains(&o.name)) {
            left.extend(&object.name.windows().intersection(open));
        }
        left
    }
}

/// The windows for which a scan of `resolution` reads `file`: sealed ones from files of their own
/// resolution, open ones through the merge of raw and open files.
fn needed(file: &FileEntry, resolution: Resolution, open: &WindowSet) -> WindowSet {
    let mut windows = WindowSet::new();
    if file.kind == FileKind::Sealed(resolution) {
        windows.extend(&file.windows.difference(open));
    }
    if file.kind == RAW || file.kind == FileKind::Open {
        windows.extend(&file.windows.intersection(open));
    }
    windows
}

/// Where a loss counts in a view: nowhere, when nothing of the view needs what is lost.
fn windows_in(loss: &Loss, view: &View, is_now: bool, file: Option<&FileEntry>) -> WindowSet {
    let state = &view.state;
    let counts = match &loss.object {
        LostObject::File(_) => return file.map_or_else(WindowSet::new, |f| f.windows.clone()),
        // Deleted by hand it is not listed, and lost all the same.
        LostObject::L0(name) => is_now && !state.unswept.contains_key(&name.digest),
        LostObject::Restore { version, .. } => {
            state.revoked.iter().any(|range| range.before == *version)
        }
        LostObject::Others => true,
    };
    if !counts {
        return WindowSet::new();
    }
    // Late samples of a window whose raw samples have expired are dropped, whole or not.
    let keeps = match loss.object {
        LostObject::L0(_) => Resolution::Raw,
        _ => Resolution::M60,
    };
    state.expired.not_of(keeps, &loss.windows)
}

/// What is known to be lost of the windows that a query reads.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Coverage {
    /// Windows of which something is lost.
    pub windows: u64,
    /// Of them, windows of which nothing is left.
    pub lost: u64,
    /// From the first of them to the end of the last, µs; `None` when nothing is lost.
    pub range_us: Option<(i64, i64)>,
    /// Why.
    pub reasons: BTreeSet<LossKind>,
}

impl Coverage {
    /// Whether nothing is known to be lost.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.windows == 0
    }
}

/// The value of the header `Stele-Coverage`: ASCII, and short.
impl fmt::Display for Coverage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some((from_us, to_us)) = self.range_us else {
            return f.write_str("complete");
        };
        let (from, to) = (rfc3339(from_us), rfc3339(to_us));
        let reasons: Vec<&str> = self.reasons.iter().map(|kind| kind.as_str()).collect();
        write!(
            f,
            "partial; windows={}; lost={}; from={}; to={}; reason={}",
            self.windows,
            self.lost,
            from.replace(".000000Z", "Z"),
            to.replace(".000000Z", "Z"),
            reasons.join(",")
        )
    }
}

/// The losses by window, for the rows of the table `coverage`.
pub(crate) fn by_window(losses: &Losses) -> HashMap<Window, Vec<&Loss>> {
    let mut by_window: HashMap<Window, Vec<&Loss>> = HashMap::new();
    for Counted { loss, windows, .. } in &losses.counted {
        for window in windows.iter() {
            by_window.entry(window).or_default().push(loss);
        }
    }
    by_window
}
