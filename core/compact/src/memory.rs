//! How a run's memory is shared out, so that the sum stays within the budget.
//!
//! ```text
//! ¼ inputs, whole objects as stored        ⅛ L0 batches as decoded, ⅛ the same rows by day
//! ½ outputs: up to four writers at once, each put away at its split size (⅛), and decode buffers
//! ```
//!
//! One thing is not bounded by it: the rows of a single window are sealed together, so a window
//! whose stored rows exceed a quarter of the budget (128 MiB of 512) takes its own size.

use crate::options::{Budget, Options};

/// The shares of one run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Shares {
    /// Stored bytes of the inputs of one merge.
    pub input_bytes: u64,
    /// L0 batches decoded in one round.
    pub decoded_bytes: u64,
    /// Size at which an output is put away and the next begun.
    pub split_bytes: u64,
}

impl Shares {
    /// The shares of `budget`.
    pub fn of(budget: &Budget, options: &Options) -> Self {
        let floor = |share: u64| share.max(1 << 20);
        Self {
            input_bytes: floor(budget.memory_bytes / 4),
            decoded_bytes: floor(budget.memory_bytes / 8),
            split_bytes: options
                .target_file_bytes
                .min(floor(budget.memory_bytes / 8)),
        }
    }
}
