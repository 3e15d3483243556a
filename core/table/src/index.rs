//! What a LIST of the log shows: which versions are there, since when, and what it proves.

use std::collections::{BTreeMap, BTreeSet};

use stele_store::{ObjectInfo, keys};

/// Whether a pin may have been acknowledged: by the times of the store alone, so that whoever
/// asks, and whenever, gets no other answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Its version was the newest, or superseded less than half the history before the pin was
    /// stored: sweep cannot have deleted anything of it before it saw the pin.
    Valid,
    /// Neither is proven.
    Doubtful,
    /// Its version was superseded long before the pin was stored: nobody acknowledged it.
    Never,
}

/// The entries and checkpoints of a log by version.
#[derive(Debug, Clone, Default)]
pub struct LogIndex {
    /// Real entries and the store's time of each, µs.
    entries: BTreeMap<u64, i64>,
    ghosts: BTreeMap<u64, i64>,
    checkpoints: BTreeMap<u64, i64>,
    history_us: i64,
}

impl LogIndex {
    /// Reads a complete LIST of the log. `history_us` is what sweep keeps.
    ///
    /// An entry that is younger than a later version is a **ghost**: a writer that slept through
    /// the sweep of its version created it anew. Entries are written in order, and a ghost is at
    /// least a history younger than what sweep left; half of it is allowed for the store's clocks.
    #[must_use]
    pub fn new(listed: &[ObjectInfo], history_us: i64) -> Self {
        let by = |version: fn(&str) -> Option<u64>| {
            let named = listed.iter();
            let named = named.filter_map(move |o| Some((version(&o.key)?, o.modified_us)));
            named.collect::<BTreeMap<u64, i64>>()
        };
        let mut index = Self {
            checkpoints: by(keys::checkpoint_version),
            history_us,
            ..Self::default()
        };
        let mut least_us = i64::MAX;
        for (version, stored_us) in by(keys::log_entry_version).into_iter().rev() {
            if stored_us.saturating_sub(history_us / 2) > least_us {
                index.ghosts.insert(version, stored_us);
            } else {
                least_us = least_us.min(stored_us);
                index.entries.insert(version, stored_us);
            }
        }
        index
    }

    /// How long sweep keeps what is superseded, µs.
    #[must_use]
    pub fn history_us(&self) -> i64 {
        self.history_us
    }

    /// The newest version.
    #[must_use]
    pub fn newest(&self) -> Option<u64> {
        self.entries.keys().next_back().copied()
    }

    /// When the entry of `version` was stored, µs by the store's clock.
    #[must_use]
    pub fn stored_us(&self, version: u64) -> Option<i64> {
        self.entries.get(&version).copied()
    }

    /// The entries, ghosts apart, in order.
    pub fn entries(&self) -> impl DoubleEndedIterator<Item = (u64, i64)> {
        self.entries.iter().map(|(version, us)| (*version, *us))
    }

    /// The versions with a checkpoint, in order.
    pub fn checkpoints(&self) -> impl Iterator<Item = u64> {
        self.checkpoints.keys().copied()
    }

    /// The ghost entries, in order.
    pub fn ghosts(&self) -> impl Iterator<Item = (u64, i64)> {
        self.ghosts.iter().map(|(version, us)| (*version, *us))
    }

    /// The newest version that was stored at `us` or before, of those that any later one follows
    /// without a gap.
    #[must_use]
    pub fn at(&self, us: i64) -> Option<u64> {
        let first = self.first_of_tail()?;
        let tail = self.entries.range(first..).rev();
        let mut old = tail.filter(|(_, stored_us)| **stored_us <= us);
        old.next().map(|(version, _)| *version)
    }

    /// The first version from which on no entry is missing.
    #[must_use]
    pub fn first_of_tail(&self) -> Option<u64> {
        let mut versions = self.entries.keys().rev();
        let mut first = *versions.next()?;
        for version in versions {
            if version + 1 != first {
                break;
            }
            first = *version;
        }
        Some(first)
    }

    /// Whether every entry from `first` to `last` is there.
    #[must_use]
    pub fn has_all(&self, first: u64, last: u64) -> bool {
        let count = self.entries.range(first..=last.max(first)).count() as u64;
        first <= last && count == last - first + 1
    }

    /// Versions from which `version` may be loaded, best first: checkpoints that every entry up
    /// to it follows, and version 0.
    #[must_use]
    pub fn bases(&self, version: u64) -> Vec<u64> {
        let checkpoints = self.checkpoints.range(..=version).rev();
        let checkpoints = checkpoints.map(|(base, _)| *base);
        let bases: BTreeSet<u64> = checkpoints.chain([0]).collect();
        let usable = |base: &u64| self.has_all(*base, version);
        bases.into_iter().rev().filter(usable).collect()
    }

    /// The oldest version whose files are all kept, whatever is pinned: the history.
    #[must_use]
    pub fn oldest_kept(&self, now_us: i64) -> Option<u64> {
        let newest = self.newest()?;
        let first = self.first_of_tail()?;
        let kept = |version: &u64| self.is_kept(*version, now_us);
        (first..=newest).find(|version| kept(version) && !self.bases(*version).is_empty())
    }

    /// Whether `version` is the newest or was superseded less than the history ago.
    #[must_use]
    pub fn is_kept(&self, version: u64, now_us: i64) -> bool {
        let follows = |next: u64| self.stored_us(next);
        match self.newest() {
            Some(newest) if version < newest => {
                follows(version + 1).is_some_and(|us| us.saturating_add(self.history_us) > now_us)
            }
            newest => newest == Some(version),
        }
    }

    /// Whether a pin of `version` that was stored at `pinned_us` may have been acknowledged.
    #[must_use]
    pub fn judge(&self, version: u64, pinned_us: i64) -> Verdict {
        let mut later = self.entries.range(version.saturating_add(1)..);
        let Some((next, superseded_us)) = later.next() else {
            return match self.newest() == Some(version) {
                true => Verdict::Valid,
                false => Verdict::Doubtful,
            };
        };
        // Later entries were stored later: their age is at most that of the next one.
        let late_us = pinned_us.saturating_sub(*superseded_us);
        let (half, most) = (self.history_us / 2, self.history_us / 4 * 3);
        match late_us {
            late_us if late_us >= most => Verdict::Never,
            late_us if late_us < half && *next == version + 1 => Verdict::Valid,
            _ => Verdict::Doubtful,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn object(key: String, modified_us: i64) -> ObjectInfo {
        ObjectInfo {
            key,
            size_bytes: 1,
            modified_us,
        }
    }

    fn index(entries: &[(u64, i64)], checkpoints: &[u64]) -> LogIndex {
        let entries = entries
            .iter()
            .map(|(v, us)| object(keys::log_entry(*v), *us));
        let checkpoints = checkpoints.iter().map(|v| object(keys::checkpoint(*v), 0));
        let listed: Vec<_> = entries.chain(checkpoints).collect();
        LogIndex::new(&listed, 100)
    }

    #[test]
    fn a_version_loads_from_a_checkpoint_that_no_gap_separates_from_it() {
        let index = index(
            &[
                (0, 1),
                (1, 2),
                (4, 5),
                (5, 6),
                (6, 7),
                (7, 8),
                (9, 10),
                (10, 11),
            ],
            &[4, 6, 9],
        );
        assert_eq!(index.bases(1), [0]);
        assert_eq!(index.bases(5), [4]);
        assert_eq!(index.bases(7), [6, 4]);
        assert_eq!(index.bases(10), [9]);
        assert_eq!(index.bases(8), [] as [u64; 0]);
        assert_eq!(index.first_of_tail(), Some(9));
        assert_eq!(
            (index.at(10), index.at(9), index.at(500)),
            (Some(9), None, Some(10))
        );
    }

    #[test]
    fn a_ghost_is_no_version() {
        let index = index(&[(3, 500), (6, 10), (7, 20)], &[6]);
        assert_eq!(index.ghosts().collect::<Vec<_>>(), [(3, 500)]);
        assert_eq!(index.stored_us(3), None);
        assert_eq!(index.newest(), Some(7));
    }

    #[test]
    fn a_pin_is_judged_by_the_times_of_the_store_alone() {
        let index = index(&[(5, 1_000), (6, 1_010), (9, 1_100)], &[5]);
        // The newest, whenever it was pinned.
        assert_eq!(index.judge(9, 99_999), Verdict::Valid);
        assert_eq!(index.judge(5, 1_059), Verdict::Valid);
        assert_eq!(index.judge(5, 1_060), Verdict::Doubtful);
        assert_eq!(index.judge(5, 1_085), Verdict::Never);
        // What followed was swept.
        assert_eq!(index.judge(7, 1_101), Verdict::Doubtful);
        assert_eq!(index.judge(7, 1_175), Verdict::Never);
        assert_eq!(index.judge(10, 1_200), Verdict::Doubtful);
    }

    #[test]
    fn the_history_ends_where_a_version_was_superseded_that_long_ago() {
        let index = index(&[(0, 0), (1, 10), (2, 20), (3, 200)], &[]);
        assert_eq!(index.oldest_kept(100), Some(0));
        assert_eq!(index.oldest_kept(110), Some(1));
        assert_eq!(index.oldest_kept(250), Some(2));
        assert_eq!(index.oldest_kept(9_999), Some(3));
        assert!(!index.is_kept(4, 0));
    }
}
