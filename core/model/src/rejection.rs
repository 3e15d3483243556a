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

/// Where the accepted samples of a request stood, for whoever refuses one after it was decoded.
/// Samples that follow each other evenly take no memory.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Positions {
    runs: Vec<Run>,
}

/// Items of the same number of samples, one position after the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Run {
    row: usize,
    position: u64,
    item_rows: usize,
}

impl Positions {
    /// Notes that the item at `position` became the `item_rows` samples from `row` on. Items come
    /// in the order of their samples.
    #[inline]
    pub fn note(&mut self, row: usize, item_rows: usize, position: u64) {
        if item_rows == 0 {
            return;
        }
        if let Some(last) = self.runs.last()
            && last.item_rows == item_rows
            && last.at(row) == position
        {
            return;
        }
        self.runs.push(Run {
            row,
            position,
            item_rows,
        });
    }

    /// Where sample `row` stood; its number from 0 when nobody noted it.
    #[must_use]
    pub fn of(&self, row: usize) -> u64 {
        let after = self.runs.partition_point(|run| run.row <= row);
        let run = after.checked_sub(1).and_then(|i| self.runs.get(i));
        run.map_or(row as u64, |run| run.at(row))
    }
}

impl Run {
    fn at(&self, row: usize) -> u64 {
        self.position + ((row - self.row) / self.item_rows) as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_sample_knows_its_position() {
        let mut positions = Positions::default();
        let mut expected = Vec::new();
        for (position, rows) in [(1, 2), (2, 2), (4, 2), (5, 1), (6, 1), (7, 0), (9, 3)] {
            positions.note(expected.len(), rows, position);
            expected.extend(std::iter::repeat_n(position, rows));
        }
        let found: Vec<u64> = (0..expected.len()).map(|row| positions.of(row)).collect();
        assert_eq!(found, expected);
    }

    #[test]
    fn even_items_take_one_entry() {
        let mut positions = Positions::default();
        for item in 0..1000 {
            positions.note(item * 3, 3, item as u64 + 1);
        }
        assert_eq!((positions.runs.len(), positions.of(2999)), (1, 1000));
        assert_eq!(Positions::default().of(7), 7);
    }
}
