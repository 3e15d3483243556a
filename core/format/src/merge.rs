//! The streaming k-way merge of sources, with an exact account of what it dropped.
//!
//! Sources are ordered by series once per run of rows, not per row; within a series the source
//! with the earliest row is read up to where the next source begins.

use std::cmp::Ordering;
use std::sync::Arc;

use stele_model::merge::merge_order;
use stele_model::{RowsHash, Series};

use crate::digest::{row_hash, series_hash};
use crate::error::{Error, Result};
use crate::sample::{RollupChunk, RollupSource, SampleChunk, SampleRow, SampleSource};
use crate::sample_file::CHUNK_ROWS;

/// What a merge read, returned and dropped. Once the merge ended,
/// `rows_in = rows_out + duplicates + overridden`, and so with the hashes; all of it depends only
/// on the rows read, not on how they were spread over sources.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct MergeTally {
    /// Rows read from all sources.
    pub rows_in: u64,
    /// Rows returned.
    pub rows_out: u64,
    /// Rows equal to the kept row of their (series, ts).
    pub duplicates: u64,
    /// Rows that differ from the kept row of their (series, ts).
    pub overridden: u64,
    /// The hash of all rows read.
    pub hash_in: RowsHash,
    /// The hash of the rows returned.
    pub hash_out: RowsHash,
    /// The hash of the duplicates.
    pub hash_duplicates: RowsHash,
    /// The hash of the overridden rows.
    pub hash_overridden: RowsHash,
}

impl MergeTally {
    /// Whether no row was lost or invented.
    #[must_use]
    pub fn is_conserved(&self) -> bool {
        let hash = self
            .hash_out
            .union(self.hash_duplicates)
            .union(self.hash_overridden);
        self.rows_in == self.rows_out + self.duplicates + self.overridden && self.hash_in == hash
    }
}

/// A source and the rows of its current chunk that are not yet merged.
struct Head<S, R> {
    source: S,
    series: Arc<Series>,
    rows: Vec<R>,
    at: usize,
}

impl<S, R> Head<S, R> {
    fn rest(&self) -> &[R] {
        &self.rows[self.at..]
    }
}

fn series_order(a: &Arc<Series>, b: &Arc<Series>) -> Ordering {
    if Arc::ptr_eq(a, b) {
        Ordering::Equal
    } else {
        a.cmp(b)
    }
}

/// A binary heap of sources, the least series on top.
struct Heap<T>(Vec<T>);

impl<T> Heap<T> {
    fn push(&mut self, item: T, order: impl Fn(&T, &T) -> Ordering) {
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

    fn pop(&mut self, order: impl Fn(&T, &T) -> Ordering) -> Option<T> {
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

type SampleHead = Head<Box<dyn SampleSource>, SampleRow>;

fn by_series<S, R>(a: &Box<Head<S, R>>, b: &Box<Head<S, R>>) -> Ordering {
    series_order(&a.series, &b.series)
}

/// The merge of any number of sources: strictly ascending by (series, ts), the greatest row in
/// merge order kept. It is a source itself.
pub struct Merge {
    /// Sources not yet asked for their first chunk.
    unread: Vec<Box<dyn SampleSource>>,
    heap: Heap<Box<SampleHead>>,
    /// The sources of the current series, the earliest last.
    active: Vec<Box<SampleHead>>,
    series: Arc<Series>,
    hash: u128,
    /// Merged rows of the current series; the last may still be overridden.
    out: Vec<SampleRow>,
    /// How often the last row of `out` was met again.
    repeats: u64,
    tally: MergeTally,
}

impl Merge {
    /// Merges sources that ascend by (series, ts, merge order); each may contain repetitions.
    #[must_use]
    pub fn new(sources: Vec<Box<dyn SampleSource>>) -> Self {
        Self {
            unread: sources,
            heap: Heap(Vec::new()),
            active: Vec::new(),
            series: Arc::default(),
            hash: 0,
            out: Vec::new(),
            repeats: 0,
            tally: MergeTally::default(),
        }
    }

    /// The account so far; complete once the merge returned `None`.
    #[must_use]
    pub fn tally(&self) -> MergeTally {
        self.tally
    }

    /// Loads the next chunk of a source and puts it where it belongs.
    fn refill(&mut self, mut head: Box<SampleHead>) -> Result<()> {
        let Some(chunk) = next_non_empty(&mut head.source)? else {
            return Ok(());
        };
        let order = chunk.series.cmp(&head.series);
        let ascends = order.is_gt() || order.is_eq() && !goes_back(&head.rows, &chunk.rows);
        if !ascends {
            return Err(crate::file::unsorted(&chunk.series, chunk.rows[0].ts_us));
        }
        head.rows = chunk.rows;
        head.at = 0;
        if order.is_eq() {
            self.activate(head);
        } else {
            head.series = chunk.series;
            self.heap.push(head, by_series);
        }
        Ok(())
    }

    /// Places a source of the current series by its next timestamp.
    fn activate(&mut self, head: Box<SampleHead>) {
        let ts_us = head.rest()[0].ts_us;
        let at = self
            .active
            .partition_point(|other| other.rest()[0].ts_us > ts_us);
        self.active.insert(at, head);
    }

    /// Makes the least series of all sources the current one; `false` at the end.
    fn next_series(&mut self) -> Result<bool> {
        for mut source in std::mem::take(&mut self.unread) {
            if let Some(chunk) = next_non_empty(&mut source)? {
                let head = Head {
                    source,
                    series: chunk.series,
                    rows: chunk.rows,
                    at: 0,
                };
                self.heap.push(Box::new(head), by_series);
            }
        }
        let Some(first) = self.heap.pop(by_series) else {
            return Ok(false);
        };
        self.series = Arc::clone(&first.series);
        self.hash = series_hash(&self.series);
        self.active.push(first);
        while let Some(next) = self.heap.0.first() {
            if series_order(&next.series, &self.series).is_ne() {
                break;
            }
            self.active.extend(self.heap.pop(by_series));
        }
        self.active
            .sort_by_key(|head| std::cmp::Reverse(head.rest()[0].ts_us));
        Ok(true)
    }

    /// Moves rows of the earliest source, up to where the next one begins, to `out`.
    fn step(&mut self, mut head: Box<SampleHead>) -> Result<()> {
        let rest = head.rest();
        let n = match self.active.last() {
            None => rest.len(),
            Some(next) => {
                let bound = next.rest()[0].ts_us;
                let first = rest[0].ts_us;
                gallop(rest, |row| row.ts_us < bound || row.ts_us == first)
            }
        };
        let end = head.at + n;
        self.append(&head.rows[head.at..end]);
        head.at = end;
        if head.rest().is_empty() {
            self.refill(head)
        } else {
            self.activate(head);
            Ok(())
        }
    }

    /// Appends rows that are not earlier than the last of `out`.
    fn append(&mut self, rows: &[SampleRow]) {
        self.tally.rows_in += rows.len() as u64;
        let mut rows = rows;
        while let Some(first) = rows.first() {
            if self
                .out
                .last()
                .is_some_and(|last| last.ts_us == first.ts_us)
            {
                self.meet(*first);
                rows = &rows[1..];
                continue;
            }
            // Up to the first repetition all rows are new.
            let repeated = rows
                .windows(2)
                .position(|pair| pair[0].ts_us == pair[1].ts_us);
            let (new, rest) = rows.split_at(repeated.map_or(rows.len(), |at| at + 1));
            for row in new {
                let hash = row_hash(self.hash, row.ts_us, row.value, &row.extra);
                self.tally.hash_in.add(hash);
            }
            self.out.extend_from_slice(new);
            self.repeats = 0;
            rows = rest;
        }
    }

    /// Decides between the last row of `out` and another one of the same time.
    fn meet(&mut self, row: SampleRow) {
        let hash_of = |row: &SampleRow| row_hash(self.hash, row.ts_us, row.value, &row.extra);
        let hash = hash_of(&row);
        let tally = &mut self.tally;
        tally.hash_in.add(hash);
        let Some(kept) = self.out.last_mut() else {
            return;
        };
        match merge_order(row.value, &row.extra, kept.value, &kept.extra) {
            Ordering::Equal => {
                tally.duplicates += 1;
                tally.hash_duplicates.add(hash);
                self.repeats += 1;
            }
            Ordering::Less => {
                tally.overridden += 1;
                tally.hash_overridden.add(hash);
            }
            Ordering::Greater => {
                // What equalled the old row differs from the new one.
                let old = hash_of(kept);
                let repeats = RowsHash(old.wrapping_mul(u128::from(self.repeats)));
                tally.duplicates -= self.repeats;
                tally.hash_duplicates = tally.hash_duplicates.without(repeats);
                tally.overridden += self.repeats + 1;
                tally.hash_overridden = tally.hash_overridden.union(repeats);
                tally.hash_overridden.add(old);
                self.repeats = 0;
                *kept = row;
            }
        }
    }

    /// Hands the first `n` merged rows on.
    fn emit(&mut self, n: usize) -> SampleChunk {
        let rest = self.out.split_off(n);
        let rows = std::mem::replace(&mut self.out, rest);
        self.tally.rows_out += rows.len() as u64;
        for row in &rows {
            let hash = row_hash(self.hash, row.ts_us, row.value, &row.extra);
            self.tally.hash_out.add(hash);
        }
        SampleChunk {
            series: Arc::clone(&self.series),
            rows,
        }
    }
}

fn next_non_empty(source: &mut Box<dyn SampleSource>) -> Result<Option<SampleChunk>> {
    loop {
        match source.next_chunk()? {
            Some(chunk) if chunk.rows.is_empty() => {}
            other => return Ok(other),
        }
    }
}

fn goes_back(before: &[SampleRow], after: &[SampleRow]) -> bool {
    match (before.last(), after.first()) {
        (Some(last), Some(first)) => last.ts_us > first.ts_us,
        _ => false,
    }
}

/// The number of leading rows for which `before` holds: looks 1, 2, 4, … rows ahead, then halves.
fn gallop<R>(rows: &[R], before: impl Fn(&R) -> bool) -> usize {
    let mut step = 1;
    while step < rows.len() && before(&rows[step]) {
        step *= 2;
    }
    let (lo, hi) = (step / 2, step.min(rows.len()));
    lo + rows[lo..hi].partition_point(before)
}

impl SampleSource for Merge {
    fn next_chunk(&mut self) -> Result<Option<SampleChunk>> {
        loop {
            match self.active.pop() {
                Some(head) => self.step(head)?,
                None if self.out.is_empty() => {
                    if !self.next_series()? {
                        return Ok(None);
                    }
                }
                None => return Ok(Some(self.emit(self.out.len()))),
            }
            // The last row waits for rows of its time in other sources.
            if self.out.len() > CHUNK_ROWS && !self.active.is_empty() {
                return Ok(Some(self.emit(self.out.len() - 1)));
            }
        }
    }
}

type RollupHead = Head<Box<dyn RollupSource>, (i64, stele_model::Aggregate)>;

/// The merge of rollup files whose bins are disjoint: row for row, nothing is folded.
pub struct RollupMerge {
    unread: Vec<Box<dyn RollupSource>>,
    heap: Heap<Box<RollupHead>>,
    /// The last bin returned.
    last: Option<(Arc<Series>, i64)>,
}

fn by_bin(a: &Box<RollupHead>, b: &Box<RollupHead>) -> Ordering {
    by_series(a, b).then_with(|| a.rest()[0].0.cmp(&b.rest()[0].0))
}

impl RollupMerge {
    /// Merges sources that ascend strictly by (series, start).
    #[must_use]
    pub fn new(sources: Vec<Box<dyn RollupSource>>) -> Self {
        Self {
            unread: sources,
            heap: Heap(Vec::new()),
            last: None,
        }
    }

    fn fill(&mut self, mut source: Box<dyn RollupSource>) -> Result<()> {
        while let Some(chunk) = source.next_chunk()? {
            if !chunk.bins.is_empty() {
                let head = Head {
                    source,
                    series: chunk.series,
                    rows: chunk.bins,
                    at: 0,
                };
                self.heap.push(Box::new(head), by_bin);
                return Ok(());
            }
        }
        Ok(())
    }
}

impl RollupSource for RollupMerge {
    /// # Errors
    /// [`crate::Error::Corrupt`] when two sources hold the same bin.
    fn next_chunk(&mut self) -> Result<Option<RollupChunk>> {
        for source in std::mem::take(&mut self.unread) {
            self.fill(source)?;
        }
        let Some(mut head) = self.heap.pop(by_bin) else {
            return Ok(None);
        };
        let start = head.rest()[0].0;
        let n = match self.heap.0.first() {
            Some(next) if series_order(&next.series, &head.series).is_eq() => {
                let bound = next.rest()[0].0;
                gallop(head.rest(), |bin| bin.0 < bound).max(1)
            }
            _ => head.rest().len(),
        };
        let ascends = self.last.as_ref().is_none_or(|(series, last)| {
            series_order(series, &head.series)
                .then(last.cmp(&start))
                .is_lt()
        });
        if !ascends {
            return Err(Error::corrupt("two rollup files hold the same bin"));
        }
        let series = Arc::clone(&head.series);
        let bins: Vec<_> = if head.at == 0 && n == head.rows.len() {
            std::mem::take(&mut head.rows)
        } else {
            head.rest()[..n].to_vec()
        };
        head.at += n;
        let end = bins.last().map_or(start, |bin| bin.0);
        self.last = Some((Arc::clone(&series), end));
        if head.at < head.rows.len() {
            self.heap.push(head, by_bin);
        } else {
            self.fill(head.source)?;
        }
        Ok(Some(RollupChunk { series, bins }))
    }
}
