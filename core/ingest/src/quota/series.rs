//! Which series of a tenant are active.

use std::collections::{HashMap, HashSet};
use std::hash::BuildHasher;

use stele_model::Rows;
use stele_model::time::MINUTE_US;

/// How often at most the set is searched for series that stopped, s.
pub(super) const SWEEP_SECS: u64 = 60;
const SWEEP_US: i64 = MINUTE_US;

/// The hashes of active series and the minute of their last sample.
///
/// Two series that hash alike (one pair in 2^64) count as one. 16 bytes an entry and 1 of the
/// table's own, at a load of at least 7/16: at most 40 bytes per series.
#[derive(Debug, Default)]
pub(super) struct ActiveSeries {
    seen: HashMap<u64, u32>,
    swept_us: Option<i64>,
}

/// The series one request asks for.
#[derive(Debug)]
pub(super) struct Asked {
    /// By dictionary index; `None` when no sample uses the entry.
    entries: Vec<Option<Entry>>,
    /// Samples of refused series.
    pub(super) rows_refused: u64,
}

#[derive(Debug, Clone, Copy)]
struct Entry {
    hash: u64,
    rows: u64,
    verdict: Verdict,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    Known,
    New,
    Refused,
}

impl Asked {
    pub(super) fn of(rows: &Rows, hasher: &impl BuildHasher) -> Self {
        let mut entries: Vec<Option<Entry>> = vec![None; rows.series.len()];
        for row in &rows.rows {
            let index = row.series as usize;
            let entry = entries[index].get_or_insert_with(|| Entry {
                hash: hasher.hash_one(&rows.series[index]),
                rows: 0,
                verdict: Verdict::Known,
            });
            entry.rows += 1;
        }
        Self {
            entries,
            rows_refused: 0,
        }
    }

    pub(super) fn is_refused(&self, series: u32) -> bool {
        let entry = self.entries.get(series as usize).copied().flatten();
        entry.is_some_and(|entry| entry.verdict == Verdict::Refused)
    }

    /// The dictionary entries that were not active, refused or not.
    pub(super) fn new_series(&self) -> impl Iterator<Item = usize> {
        let entries = self.entries.iter().enumerate();
        entries.filter_map(|(index, entry)| {
            let verdict = (*entry)?.verdict;
            (verdict != Verdict::Known).then_some(index)
        })
    }
}

impl ActiveSeries {
    pub(super) fn len(&self) -> u64 {
        self.seen.len() as u64
    }

    /// Decides which of the series fit, first come first served. Takes nothing yet.
    pub(super) fn judge(&mut self, asked: &mut Asked, limit: u64, hours: u32, now_us: i64) {
        if self.len() + asked.entries.len() as u64 > limit {
            self.sweep(hours, now_us);
        }
        let mut fresh = HashSet::new();
        for entry in asked.entries.iter_mut().flatten() {
            if self.seen.contains_key(&entry.hash) {
                continue;
            }
            if fresh.contains(&entry.hash) || self.len() + (fresh.len() as u64) < limit {
                fresh.insert(entry.hash);
                entry.verdict = Verdict::New;
            } else {
                entry.verdict = Verdict::Refused;
                asked.rows_refused += entry.rows;
            }
        }
    }

    /// Forgets series without a sample for more than `hours`, unless that was done just now.
    fn sweep(&mut self, hours: u32, now_us: i64) {
        let since = self
            .swept_us
            .map(|swept_us| now_us.saturating_sub(swept_us));
        if since.is_some_and(|since_us| (0..SWEEP_US).contains(&since_us)) {
            return;
        }
        self.swept_us = Some(now_us);
        let (now, minutes) = (minute(now_us), hours.saturating_mul(60));
        // Whole minutes: a series is forgotten up to a minute late, never early.
        self.seen
            .retain(|_, seen| now.saturating_sub(*seen) <= minutes);
    }

    /// Counts the series that were not refused as seen now.
    pub(super) fn reserve(&mut self, asked: &Asked, now_us: i64) {
        let now = minute(now_us);
        for entry in asked.entries.iter().flatten() {
            if entry.verdict != Verdict::Refused {
                let seen = self.seen.entry(entry.hash).or_insert(now);
                *seen = now.max(*seen);
            }
        }
    }
}

/// Minutes since the epoch; a u32 holds 8000 years of them.
fn minute(now_us: i64) -> u32 {
    u32::try_from(now_us.div_euclid(MINUTE_US)).unwrap_or(0)
}
