//! Files of rollups: `60s`, `15m` and `60m` of the table.

use std::sync::Arc;

use bytes::Bytes;
use stele_model::{Aggregate, Series, WindowSet};
use xxhash_rust::xxh3::xxh3_128;

use crate::EncodedFile;
use crate::chunk::Data;
use crate::codec::runs::Runs;
use crate::column::{Blobs, Texts};
use crate::digest::series_hash;
use crate::error::Result;
use crate::file::{Column, Facts, FileBuilder};
use crate::filter::Filter;
use crate::rollup_blocks::{Block, Blocks};
use crate::sample::{RollupChunk, RollupSource};
use crate::sample_file::{CHUNK_ROWS, TABLE};

const fn column(
    name: &'static str,
    physical: &'static str,
    annotation: &'static str,
    omittable: bool,
) -> Column {
    Column {
        name,
        physical,
        annotation,
        omittable,
    }
}

/// All columns of a rollup file, in order.
static COLUMNS: [Column; 14] = [
    column("metric", "required binary", " (STRING)", false),
    column("tags", "required binary", " (STRING)", false),
    column("ts", "required int64", " (TIMESTAMP(MICROS,true))", false),
    column("count", "required int64", "", false),
    column("sum", "optional double", "", false),
    column("min", "optional double", "", false),
    column("max", "optional double", "", false),
    column("first", "optional double", "", false),
    column("last", "optional double", "", false),
    column("sum_squares", "optional double", "", false),
    column("increase", "optional double", "", false),
    column(
        "first_ts",
        "required int64",
        " (TIMESTAMP(MICROS,true))",
        false,
    ),
    column(
        "last_ts",
        "required int64",
        " (TIMESTAMP(MICROS,true))",
        false,
    ),
    column("sketch", "optional binary", "", true),
];

/// The names of the seven columns of doubles, in order.
pub(crate) const FLOATS: [&str; 7] = [
    "sum",
    "min",
    "max",
    "first",
    "last",
    "sum_squares",
    "increase",
];

/// The values of the seven columns of doubles.
pub(crate) fn floats(a: &Aggregate) -> [f64; 7] {
    [
        a.sum,
        a.min,
        a.max,
        a.first,
        a.last,
        a.sum_squares,
        a.increase,
    ]
}

/// The hash of one bin: every column as it is stored, the sketch by its bytes.
pub(crate) fn bin_hash(
    series: u128,
    start_us: i64,
    a: &Aggregate,
    sketch: Option<&[u8]>,
    scratch: &mut Vec<u8>,
) -> u128 {
    scratch.clear();
    scratch.extend_from_slice(&series.to_le_bytes());
    for n in [start_us, a.count, a.first_ts_us, a.last_ts_us] {
        scratch.extend_from_slice(&n.to_le_bytes());
    }
    if a.count != 0 {
        for value in floats(a) {
            scratch.extend_from_slice(&value.to_bits().to_le_bytes());
        }
    }
    if let Some(bytes) = sketch {
        scratch.push(1);
        scratch.extend_from_slice(bytes);
    }
    xxh3_128(scratch)
}

/// Writes one file of bins of one resolution.
pub struct RollupWriter {
    sketch: bool,
    file: FileBuilder,
    facts: Facts,
    /// The hash of the series of the last bin.
    hash: u128,
    metrics: Texts,
    tags: Texts,
    metric: Runs<u32>,
    tag: Runs<u32>,
    keys: (u32, u32),
    ts: Vec<i64>,
    counts: Vec<i64>,
    present: Runs<bool>,
    floats: [Vec<f64>; 7],
    first_ts: Vec<i64>,
    last_ts: Vec<i64>,
    sketched: Runs<bool>,
    sketches: Blobs,
    scratch: Vec<u8>,
}

impl RollupWriter {
    /// A writer without bins; `sketch` says whether the file has a sketch column.
    #[must_use]
    pub fn new(sketch: bool) -> Self {
        Self {
            sketch,
            file: FileBuilder::new(&COLUMNS, TABLE),
            facts: Facts::default(),
            hash: 0,
            metrics: Texts::default(),
            tags: Texts::default(),
            metric: Runs::default(),
            tag: Runs::default(),
            keys: (0, 0),
            ts: Vec::new(),
            counts: Vec::new(),
            present: Runs::default(),
            floats: Default::default(),
            first_ts: Vec::new(),
            last_ts: Vec::new(),
            sketched: Runs::default(),
            sketches: Blobs::default(),
            scratch: Vec::new(),
        }
    }

    /// Adds a bin that ascends strictly by (metric, tags, start) after all bins before it. What
    /// `a` says beyond `count` and its times is not stored when the count is 0.
    ///
    /// # Errors
    /// [`crate::Error::Unsorted`] when it does not ascend.
    pub fn push(&mut self, series: &Series, bin_start_us: i64, a: &Aggregate) -> Result<()> {
        let known = self.facts.series;
        self.facts.begin(series, bin_start_us)?;
        if self.facts.series != known {
            self.hash = series_hash(series);
        }
        if self.facts.series != known || self.ts.is_empty() {
            self.keys = (
                self.metrics.key(&series.metric),
                self.tags.key(&series.tags),
            );
        }
        self.metric.push(self.keys.0, 1);
        self.tag.push(self.keys.1, 1);
        self.ts.push(bin_start_us);
        self.counts.push(a.count);
        self.present.push(a.count != 0, 1);
        if a.count != 0 {
            for (column, value) in self.floats.iter_mut().zip(floats(a)) {
                column.push(value);
            }
        }
        self.first_ts.push(a.first_ts_us);
        self.last_ts.push(a.last_ts_us);
        let sketch = a.sketch.as_ref().filter(|_| self.sketch);
        self.sketched.push(sketch.is_some(), 1);
        let from = self.sketches.bytes.len();
        if let Some(sketch) = sketch {
            sketch.encode(&mut self.sketches.bytes);
            let length = self.sketches.bytes.len() - from;
            self.sketches.lengths.push(length as i64);
        }
        let stored = sketch.map(|_| &self.sketches.bytes[from..]);
        let hash = bin_hash(self.hash, bin_start_us, a, stored, &mut self.scratch);
        self.facts.hash.add(hash);
        self.facts.end(1, bin_start_us, bin_start_us);
        if self.ts.len() == TABLE.group_rows {
            self.flush()?;
        }
        Ok(())
    }

    fn flush(&mut self) -> Result<()> {
        let rows = self.ts.len();
        if rows == 0 {
            return Ok(());
        }
        let mut columns = vec![
            (0, Data::Texts(&self.metrics, &self.metric), None),
            (1, Data::Texts(&self.tags, &self.tag), None),
            (2, Data::Ints(&self.ts, true), None),
            (3, Data::Ints(&self.counts, false), None),
            (11, Data::Ints(&self.first_ts, false), None),
            (12, Data::Ints(&self.last_ts, false), None),
        ];
        for (at, values) in (4..).zip(&self.floats) {
            columns.push((at, Data::Floats(values), Some(&self.present)));
        }
        if !self.sketches.lengths.is_empty() {
            columns.push((13, Data::Blobs(&self.sketches), Some(&self.sketched)));
        }
        self.file.add_group(rows, &columns)?;
        self.clear();
        Ok(())
    }

    fn clear(&mut self) {
        self.metrics.clear();
        self.tags.clear();
        self.metric.clear();
        self.tag.clear();
        self.ts.clear();
        self.counts.clear();
        self.present.clear();
        self.floats.iter_mut().for_each(Vec::clear);
        self.first_ts.clear();
        self.last_ts.clear();
        self.sketched.clear();
        self.sketches.bytes.clear();
        self.sketches.lengths.clear();
    }

    /// About how large the file would be if it were finished now.
    #[must_use]
    pub fn bytes_so_far(&self) -> usize {
        let (bytes, rows) = self.file.size();
        // Bins still in memory are guessed at the rate of those encoded, 16 bytes at first.
        let here = self.ts.len();
        bytes + (here * bytes).checked_div(rows).unwrap_or(here * 16)
    }

    /// The file; `None` when no bin was pushed.
    ///
    /// # Errors
    /// When a page cannot be compressed or the metadata not be written.
    pub fn finish(mut self) -> Result<Option<EncodedFile>> {
        if self.facts.rows == 0 {
            return Ok(None);
        }
        self.flush()?;
        let written = self.file.finish(Vec::new(), true)?;
        Ok(Some(self.facts.into_file(written)))
    }
}

/// Reads one file of rollups from its bytes, block by block.
pub struct RollupReader {
    blocks: Blocks,
    filter: Filter,
    sketch: bool,
    /// Kept bins of the current block, last first.
    pending: Vec<RollupChunk>,
}

impl RollupReader {
    /// Checks the object's own digest and reads its metadata.
    ///
    /// # Errors
    /// [`crate::Error::Corrupt`] or [`crate::Error::DigestMismatch`] when the bytes are not what
    /// was written.
    pub fn open(bytes: Bytes) -> Result<Self> {
        Ok(Self {
            blocks: Blocks::open(bytes)?,
            filter: Filter::default(),
            sketch: true,
            pending: Vec::new(),
        })
    }

    /// Keeps only bins that start in these windows.
    #[must_use]
    pub fn with_windows(mut self, windows: WindowSet) -> Self {
        self.filter.add_windows(&windows);
        self
    }

    /// Keeps only bins that start in `[lo, hi)` µs.
    #[must_use]
    pub fn with_ts_range(mut self, lo: i64, hi: i64) -> Self {
        self.filter.add_ts_range(lo, hi);
        self
    }

    /// Keeps only series for which the predicate holds.
    #[must_use]
    pub fn with_series(mut self, keep: Arc<dyn Fn(&Series) -> bool + Send + Sync>) -> Self {
        self.filter.add_series(keep);
        self
    }

    /// Leaves the sketches unread: every aggregate comes without one.
    #[must_use]
    pub fn without_sketch(mut self) -> Self {
        self.sketch = false;
        self
    }

    /// Decodes the next block and makes its chunks; `false` at the end.
    fn fill(&mut self) -> Result<bool> {
        let mut block = Block::default();
        if !self.blocks.next(&mut block, &self.filter, self.sketch)? {
            return Ok(false);
        }
        let (metrics, tag_sets) = self.blocks.dictionaries();
        let mut bins = block.bins.into_iter();
        for ((metric, tags), n) in block.runs {
            let series = Series {
                metric: metrics[metric as usize].clone(),
                tags: tag_sets[tags as usize].clone(),
            };
            let run: Vec<(i64, Aggregate)> = bins.by_ref().take(n).collect();
            if !self.filter.keeps_series(&series) {
                continue;
            }
            let series = Arc::new(series);
            for range in self.filter.kept(n, |i| run[i].0) {
                self.pending
                    .extend(run[range].chunks(CHUNK_ROWS).map(|bins| RollupChunk {
                        series: Arc::clone(&series),
                        bins: bins.to_vec(),
                    }));
            }
        }
        self.pending.reverse();
        Ok(true)
    }
}

impl RollupSource for RollupReader {
    fn next_chunk(&mut self) -> Result<Option<RollupChunk>> {
        loop {
            if let Some(chunk) = self.pending.pop() {
                return Ok(Some(chunk));
            }
            if !self.fill()? {
                return Ok(None);
            }
        }
    }
}
