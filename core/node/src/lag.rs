//! How far behind a tenant's compaction is, by the data: what the LIST and the log show, not what a
//! job says of itself, so that a job which silently stopped shows.

use std::collections::BTreeSet;

use serde::Serialize;
use stele_model::time::{SECOND_US, rfc3339};
use stele_model::{Resolution, TenantId, Window, WindowSet};
use stele_table::{FileKind, View};

use crate::fan_out::Waiting;

/// Accepted and not yet absorbed.
#[derive(Debug, Default, Clone, Serialize)]
pub struct Backlog {
    /// L0 objects.
    pub l0_objects: u64,
    /// Their bytes.
    pub l0_bytes: u64,
    /// The start of the earliest window that one of them covers.
    pub oldest_unabsorbed_sample: Option<String>,
    /// How long the oldest of them has waited, seconds.
    pub oldest_unabsorbed_age_secs: i64,
    /// Different windows in which they begin.
    #[serde(skip)]
    windows: u32,
}

/// Windows that queries merge on the fly.
#[derive(Debug, Default, Clone, Serialize)]
pub struct Windows {
    /// Open windows, by an open file or an unabsorbed object.
    pub open: usize,
    /// Of them, closed ones: a seal is due.
    pub not_sealed: usize,
    /// Of them, windows that had been sealed before a late sample came.
    pub reopened: usize,
    /// The earliest closed window that is not sealed.
    pub oldest_not_sealed: Option<String>,
    /// Since the end of the earliest closed window that was never sealed, seconds; 0 without one. A
    /// reopened one has its rollups, but for what came late.
    #[serde(skip)]
    pub not_sealed_secs: i64,
}

impl Backlog {
    /// As `view` shows it at `now_us`.
    #[must_use]
    pub fn of(view: &View, now_us: i64) -> Self {
        let earliest = view.l0.iter().map(|object| object.name.first).min();
        let stored = view.l0.iter().map(|object| object.stored_us).min();
        let begins = view.l0.iter().map(|object| object.name.first);
        Self {
            l0_objects: view.l0.len() as u64,
            l0_bytes: view.l0.iter().map(|object| object.size_bytes).sum(),
            oldest_unabsorbed_sample: earliest.map(|window| rfc3339(window.start_us())),
            oldest_unabsorbed_age_secs: stored.map_or(0, |us| ((now_us - us) / SECOND_US).max(0)),
            windows: u32::try_from(begins.collect::<BTreeSet<Window>>().len()).unwrap_or(u32::MAX),
        }
    }

    /// The same for [`share()`](crate::fan_out::share).
    #[must_use]
    pub fn waiting(&self, tenant: &TenantId) -> Waiting {
        Waiting {
            tenant: tenant.clone(),
            objects: self.l0_objects,
            bytes: self.l0_bytes,
            windows: self.windows,
            oldest_secs: self.oldest_unabsorbed_age_secs.unsigned_abs(),
        }
    }
}

impl Windows {
    /// As `view` shows them at `now_us`, when a window may be sealed `seal_delay_us` after its end.
    #[must_use]
    pub fn of(view: &View, now_us: i64, seal_delay_us: i64) -> Self {
        let open = view.open_windows();
        let closed: WindowSet = open
            .iter()
            .filter(|window| window.end_us() <= now_us - seal_delay_us)
            .collect();
        let mut sealed = WindowSet::new();
        for file in view.state.files_of(FileKind::Sealed(Resolution::Raw)) {
            sealed.extend(&file.windows);
        }
        let oldest = closed.iter().next();
        let secs = |window: Window| ((now_us - window.end_us()) / SECOND_US).max(0);
        Self {
            open: open.len(),
            not_sealed: closed.len(),
            reopened: open.intersection(&sealed).len(),
            oldest_not_sealed: oldest.map(|window| rfc3339(window.start_us())),
            not_sealed_secs: closed.difference(&sealed).iter().next().map_or(0, secs),
        }
    }
}
