//! The streaming k-way merge of sources, with an exact account of what it dropped.
//!
//! Sources are placed by series once per run of rows, not per row; within a series the source
//! with the earliest row is read up to where the next source begins.

use std::cmp::Ordering;
use std::sync::Arc;

use stele_model::merge::merge_order;
use stele_model::{RowsHash, Series};

use crate::digest::row_hash;
use crate::error::Result;
use crate::sample::{SampleChunk, SampleRow, SampleSource};
use crate::sample_file::CHUNK_ROWS;
use crate::waiting::{Head, SampleHead, Waiting, gallop};

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

/// The merge of any number of sources: strictly ascending by (series, ts), the greatest row in
/// merge order kept. It is a source itself.
pub struct Merge {
    /// Sources not yet asked for their first chunk.
    unread: Vec<Box<dyn SampleSource>>,
    waiting: Waiting,
    /// The sources of the current series, the earliest last.
    #[expect(
        clippy::vec_box,
        reason = "a head is large and moves between lists at every series"
    )]
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
            waiting: Waiting::default(),
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
        // The last row of `out` is the last one this source gave, or another of its time.
        let first = chunk.rows[0].ts_us;
        let ascends = || self.out.last().is_none_or(|last| last.ts_us <= first);
        if order.is_lt() || order.is_eq() && !ascends() {
            return Err(crate::file::unsorted(&chunk.series, chunk.rows[0].ts_us));
        }
        head.rows = chunk.rows;
        head.at = 0;
        if order.is_eq() {
            self.activate(head);
        } else {
            head.series = chunk.series;
            self.waiting.push(head);
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
                self.waiting.push(Box::new(head));
            }
        }
        let Some((series, hash)) = self.waiting.pop(&mut self.active) else {
            return Ok(false);
        };
        (self.series, self.hash) = (series, hash);
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
        if self.out.is_empty() && n == head.rows.len() && is_strict(&head.rows) {
            self.take_all(std::mem::take(&mut head.rows));
            return self.refill(head);
        }
        self.append(&head.rows[head.at..end]);
        head.at = end;
        if head.rest().is_empty() {
            self.refill(head)
        } else {
            self.activate(head);
            Ok(())
        }
    }

    /// Makes strictly ascending rows the first of a series without copying them.
    fn take_all(&mut self, rows: Vec<SampleRow>) {
        self.tally.rows_in += rows.len() as u64;
        for row in &rows {
            let hash = row_hash(self.hash, row.ts_us, row.value, &row.extra);
            self.tally.hash_in.add(hash);
        }
        self.out = rows;
        self.repeats = 0;
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
        // The next series is likely to be as long.
        let mut rest = Vec::with_capacity(self.out.len());
        rest.extend_from_slice(&self.out[n..]);
        self.out.truncate(n);
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

fn is_strict(rows: &[SampleRow]) -> bool {
    rows.windows(2).all(|pair| pair[0].ts_us < pair[1].ts_us)
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
