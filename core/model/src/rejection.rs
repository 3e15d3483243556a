//! Refused items of a request: each with its position and reason, so nothing is dropped silently.

use serde::{Deserialize, Serialize};

/// How many rejections of one request are named; all are counted.
pub const NAMED_MAX: usize = 100;

/// One refused item.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rejection {
    /// Where it stood: 1-based line for line protocol, 0-based index for JSON arrays.
    pub position: u64,
    /// What is wrong, naming the value and the limit.
    pub reason: String,
}

/// The refused items of one request: the first [`NAMED_MAX`] named, and the total.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Rejections {
    /// The first ones, in order.
    pub named: Vec<Rejection>,
    /// How many there were.
    pub total: u64,
}

impl Rejections {
    /// Counts one more; `reason` is called only while there is room to name it.
    pub fn push(&mut self, position: u64, reason: impl FnOnce() -> String) {
        self.total += 1;
        if self.named.len() < NAMED_MAX {
            self.named.push(Rejection {
                position,
                reason: reason(),
            });
        }
    }

    /// Whether nothing was refused.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.total == 0
    }
}
