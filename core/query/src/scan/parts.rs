//! Divides the selected rows of files among the partitions of a scan.

use std::sync::Arc;

use stele_table::FileEntry;

use super::footer::Footer;
use super::prune::GroupRows;

/// Fewer rows than this are not worth a second partition.
const PARTITION_ROWS_MIN: usize = 100_000;
/// A row group is cut only if at least this many rows go to each side.
const CUT_ROWS_MIN: usize = 16_384;

/// A file and the rows of it to read.
#[derive(Debug, Clone)]
pub(crate) struct Selected {
    pub(crate) file: Arc<FileEntry>,
    pub(crate) footer: Arc<Footer>,
    /// Ascending by row group, none empty.
    pub(crate) groups: Vec<GroupRows>,
}

impl Selected {
    pub(crate) fn rows(&self) -> usize {
        self.groups.iter().map(GroupRows::count).sum()
    }
}

/// Up to `partitions` lists of about equally many rows, in order; never empty ones.
pub(crate) fn split(selected: &[Selected], partitions: usize) -> Vec<Vec<Selected>> {
    let rows: usize = selected.iter().map(Selected::rows).sum();
    let partitions = partitions.min(rows / PARTITION_ROWS_MIN).max(1);
    let quota = rows.div_ceil(partitions);
    let mut parts: Vec<Vec<Selected>> = vec![Vec::new()];
    let mut room = quota;
    for file in selected {
        let mut mine = Vec::new();
        for group in &file.groups {
            let mut rest = group.clone();
            while parts.len() < partitions && rest.count() > room {
                let (head, tail) = cut(&rest, room);
                mine.extend(head);
                if !mine.is_empty() {
                    push(&mut parts, file, std::mem::take(&mut mine));
                }
                parts.push(Vec::new());
                room = quota;
                rest = tail;
            }
            room = room.saturating_sub(rest.count());
            mine.push(rest);
        }
        if !mine.is_empty() {
            push(&mut parts, file, mine);
        }
    }
    parts.retain(|part| !part.is_empty());
    parts
}

fn push(parts: &mut [Vec<Selected>], file: &Selected, groups: Vec<GroupRows>) {
    if let Some(part) = parts.last_mut() {
        part.push(Selected {
            file: Arc::clone(&file.file),
            footer: Arc::clone(&file.footer),
            groups,
        });
    }
}

/// The first `room` rows of a group and the rest; no head when either would be too small.
fn cut(group: &GroupRows, room: usize) -> (Option<GroupRows>, GroupRows) {
    if room < CUT_ROWS_MIN || group.count() - room < CUT_ROWS_MIN {
        return (None, group.clone());
    }
    let (mut head, mut tail) = (Vec::new(), Vec::new());
    let mut left = room;
    for range in &group.ranges {
        let at = range.start + range.len().min(left);
        left -= at - range.start;
        if range.start < at {
            head.push(range.start..at);
        }
        if at < range.end {
            tail.push(at..range.end);
        }
    }
    let with = |ranges| GroupRows {
        ranges,
        ..group.clone()
    };
    (Some(with(head)), with(tail))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn group(group: usize, ranges: &[std::ops::Range<usize>]) -> GroupRows {
        GroupRows {
            group,
            total: 1 << 20,
            ranges: ranges.to_vec(),
        }
    }

    #[test]
    fn a_cut_loses_and_doubles_no_row() {
        let whole = group(0, &[0..30_000, 50_000..100_000]);
        let (head, tail) = cut(&whole, 40_000);
        let head = head.unwrap();
        assert_eq!((head.count(), tail.count()), (40_000, 40_000));
        assert_eq!(head.ranges, [0..30_000, 50_000..60_000]);
        assert_eq!(tail.ranges, std::slice::from_ref(&(60_000..100_000)));
        assert!(cut(&whole, 10).0.is_none());
    }
}
