//! The sources of a merge, ordered by the series they stand at.

use std::cmp::Ordering;
use std::sync::Arc;

use stele_model::Series;

use crate::column::ByHash;
use crate::digest::series_hash;
use crate::sample::{SampleRow, SampleSource};

/// A source and the rows of its current chunk that are not yet merged.
pub(crate) struct Head<S, R> {
    pub source: S,
    pub series: Arc<Series>,
    pub rows: Vec<R>,
    pub at: usize,
}

impl<S, R> Head<S, R> {
    pub fn rest(&self) -> &[R] {
        &self.rows[self.at..]
    }
}

pub(crate) fn series_order(a: &Arc<Series>, b: &Arc<Series>) -> Ordering {
    if Arc::ptr_eq(a, b) {
        Ordering::Equal
    } else {
        a.cmp(b)
    }
}

/// A binary heap, the least item on top.
pub(crate) struct Heap<T>(Vec<T>);

impl<T> Default for Heap<T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<T> Heap<T> {
    /// The least item.
    pub fn first(&self) -> Option<&T> {
        self.0.first()
    }

    pub fn push(&mut self, item: T, order: impl Fn(&T, &T) -> Ordering) {
        self.0.push(item);
        let mut at = self.0.len() - 1;
        while at > 0 {
            let parent = (at - 1) / 2;
            if order(&self.0[at], &self.0[parent]).is_ge() {
                break;
            }
            self.0.swap(at, parent);
            at = parent;
        }
    }

    pub fn pop(&mut self, order: impl Fn(&T, &T) -> Ordering) -> Option<T> {
        if self.0.is_empty() {
            return None;
        }
        let top = self.0.swap_remove(0);
        let mut at = 0;
        loop {
            let (left, right) = (2 * at + 1, 2 * at + 2);
            if left >= self.0.len() {
                return Some(top);
            }
            let smaller = right < self.0.len() && order(&self.0[right], &self.0[left]).is_lt();
            let child = if smaller { right } else { left };
            if order(&self.0[child], &self.0[at]).is_ge() {
                return Some(top);
            }
            self.0.swap(at, child);
            at = child;
        }
    }
}

pub(crate) type SampleHead = Head<Box<dyn SampleSource>, SampleRow>;

/// The sources that stand at one series.
#[derive(Default)]
struct Group {
    series: Arc<Series>,
    hash: u128,
    #[expect(
        clippy::vec_box,
        reason = "a head is large and moves between lists at every series"
    )]
    heads: Vec<Box<SampleHead>>,
}

/// Sources by the series they stand at. Sources are usually at the same few series, so a source
/// is placed by the hash of its series, and series are put in order once for all their sources.
#[derive(Default)]
pub(crate) struct Waiting {
    groups: Vec<Group>,
    /// Places in `groups` not in use.
    free: Vec<usize>,
    heap: Heap<usize>,
    /// Where the group of a series is, by its hash; of two series with one hash only the first.
    index: ByHash<usize>,
}

impl Waiting {
    /// Adds a source by the series of its chunk.
    pub fn push(&mut self, head: Box<SampleHead>) {
        let hash = series_hash(&head.series);
        if let Some(at) = self.index.get(&(hash as u64)) {
            let group = &mut self.groups[*at];
            if group.hash == hash && *group.series == *head.series {
                group.heads.push(head);
                return;
            }
        }
        let at = self.free.pop().unwrap_or_else(|| {
            self.groups.push(Group::default());
            self.groups.len() - 1
        });
        let group = &mut self.groups[at];
        group.series = Arc::clone(&head.series);
        group.hash = hash;
        group.heads.push(head);
        self.index.entry(hash as u64).or_insert(at);
        let groups = &self.groups;
        self.heap
            .push(at, |a, b| groups[*a].series.cmp(&groups[*b].series));
    }

    /// Moves the sources of the least series to `active`; `None` when no source is left.
    #[expect(
        clippy::vec_box,
        reason = "a head is large and moves between lists at every series"
    )]
    pub fn pop(&mut self, active: &mut Vec<Box<SampleHead>>) -> Option<(Arc<Series>, u128)> {
        let mut popped: Option<(Arc<Series>, u128)> = None;
        // More than one group has the series only when hashes collide.
        while let Some(at) = self.heap.first().copied()
            && popped
                .as_ref()
                .is_none_or(|(series, _)| *series == self.groups[at].series)
        {
            let groups = &self.groups;
            self.heap
                .pop(|a, b| groups[*a].series.cmp(&groups[*b].series));
            let group = &mut self.groups[at];
            active.append(&mut group.heads);
            if self.index.get(&(group.hash as u64)) == Some(&at) {
                self.index.remove(&(group.hash as u64));
            }
            popped = Some((std::mem::take(&mut group.series), group.hash));
            self.free.push(at);
        }
        popped
    }
}

/// The number of leading rows for which `before` holds: looks 1, 2, 4, … rows ahead, then halves.
pub(crate) fn gallop<R>(rows: &[R], before: impl Fn(&R) -> bool) -> usize {
    let mut step = 1;
    while step < rows.len() && before(&rows[step]) {
        step *= 2;
    }
    let (lo, hi) = (step / 2, step.min(rows.len()));
    lo + rows[lo..hi].partition_point(before)
}
