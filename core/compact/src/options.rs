//! What an operator may choose, and what one run may spend.

use serde::{Deserialize, Serialize};
use stele_model::time::{HOUR_US, MINUTE_US};
use stele_model::{Day, Window};

/// The choices of a compactor. The defaults are the documented ones.
#[derive(Debug, Clone, PartialEq)]
pub struct Options {
    /// A window may be sealed this long after its end, µs.
    pub seal_delay_us: i64,
    /// Reopened windows of a day are sealed again when their open bytes pass this share of the
    /// sealed bytes that would be rewritten …
    pub reopen_ratio: f64,
    /// … or when they have been reopened for this long, µs.
    pub reopen_age_us: i64,
    /// Whether rollups carry a quantile sketch.
    pub sketch: bool,
    /// How long a consumed L0 object outlives its commit, µs. At least twice the longest query.
    pub sweep_grace_us: i64,
    /// How long a superseded table file or log entry is kept, µs.
    pub history_us: i64,
    /// How long the marker of an idempotency key is kept, µs by the store's clock. Twice as long
    /// as ingest accepts the key, so that no attempt with it can be under way any more.
    pub marker_keep_us: i64,
    /// A table of less than so many live bytes expires what is due without asking, however much
    /// of it that is.
    pub asks_live_bytes_min: u64,
    /// A data file is split beyond this size, and not merged further above half of it.
    pub target_file_bytes: u64,
    /// Heads kept by sweep, newest first.
    pub heads_kept: usize,
    /// Attempts of one commit before a job gives up as contended.
    pub attempts_max: u32,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            seal_delay_us: 10 * MINUTE_US,
            reopen_ratio: 0.10,
            reopen_age_us: HOUR_US,
            sketch: true,
            sweep_grace_us: 15 * MINUTE_US,
            history_us: 24 * HOUR_US,
            marker_keep_us: 48 * HOUR_US,
            asks_live_bytes_min: 64 << 20,
            target_file_bytes: 64 << 20,
            heads_kept: 20,
            attempts_max: 8,
        }
    }
}

/// What one run of a job may spend. Jobs stop between commits, never inside one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Budget {
    /// No new round is begun at or after this instant of the compactor's clock, µs.
    pub deadline_us: i64,
    /// What the run may hold in memory: inputs, decoded rows and outputs not yet stored.
    pub memory_bytes: u64,
    /// Which of the work it is to do.
    pub part: Part,
}

/// A part of a tenant's absorbs and seals, for a backlog that several processes share. It only
/// keeps them out of each other's way: any number of compactors may do any of the work.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Part {
    /// From 0.
    pub index: u32,
    /// How many there are; 0 counts as 1.
    pub of: u32,
}

impl Part {
    /// All of it.
    pub const WHOLE: Self = Self { index: 0, of: 1 };

    /// Whether an L0 object that begins in `window` is of this part.
    pub(crate) fn has_window(self, window: Window) -> bool {
        self.has(window.0)
    }

    /// Whether `day` is sealed by this part.
    pub(crate) fn has_day(self, day: Day) -> bool {
        self.has(day.0)
    }

    fn has(self, number: i32) -> bool {
        let of = i64::from(self.of.max(1));
        i64::from(number).rem_euclid(of) == i64::from(self.index).rem_euclid(of)
    }
}

impl Default for Part {
    fn default() -> Self {
        Self::WHOLE
    }
}

impl Budget {
    /// The default memory of a run: 512 MiB.
    pub const MEMORY_BYTES: u64 = 512 << 20;

    /// A run over everything, until `deadline_us` and within `memory_bytes`.
    #[must_use]
    pub const fn within(deadline_us: i64, memory_bytes: u64) -> Self {
        Self {
            deadline_us,
            memory_bytes,
            part: Part::WHOLE,
        }
    }

    /// A run without a deadline, in the default memory.
    #[must_use]
    pub const fn unlimited() -> Self {
        Self::within(i64::MAX, Self::MEMORY_BYTES)
    }
}

impl Default for Budget {
    fn default() -> Self {
        Self::unlimited()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_window_and_day_is_of_exactly_one_part() {
        for of in 0..5 {
            for number in -7..7 {
                let parts = (0..of.max(1)).map(|index| Part { index, of });
                let has = parts.filter(|part| part.has_window(Window(number)));
                assert_eq!(has.count(), 1, "{number} of {of}");
                let parts = (0..of.max(1)).map(|index| Part { index, of });
                assert_eq!(parts.filter(|part| part.has_day(Day(number))).count(), 1);
            }
        }
    }
}
