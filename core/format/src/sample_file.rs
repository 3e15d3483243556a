//! Files of samples: `raw` and `open` of the table.

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use stele_model::{Extra, Series, WindowSet};

use crate::EncodedFile;
use crate::chunk::Settings;
use crate::digest::{row_hash, series_hash};
use crate::error::Result;
use crate::file::{Facts, unsorted};
use crate::filter::Filter;
use crate::sample::{SampleChunk, SampleRow, SampleSource};
use crate::sample_blocks::{Block, Blocks};
use crate::sample_columns::SampleColumns;

/// How table files are written: pages small enough to serve one series of one day, row groups
/// that bound a writer's memory to some 10 MB.
pub(crate) const TABLE: Settings = Settings {
    level: 3,
    page_rows: 8192,
    group_rows: 262_144,
    indexed: true,
    thorough: true,
};

/// Rows of a chunk handed on: a chunk and its copies stay in the processor's cache.
pub(crate) const CHUNK_ROWS: usize = 2048;

/// Writes one file of samples.
pub struct SampleWriter {
    columns: SampleColumns,
    facts: Facts,
}

impl Default for SampleWriter {
    fn default() -> Self {
        Self::new()
    }
}

impl SampleWriter {
    /// A writer without rows.
    #[must_use]
    pub fn new() -> Self {
        Self {
            columns: SampleColumns::new(TABLE),
            facts: Facts::default(),
        }
    }

    /// Adds rows that ascend strictly by (metric, tags, ts) after all rows before them. The more
    /// rows of a series come at once, the better its values are packed.
    ///
    /// # Errors
    /// [`crate::Error::Unsorted`] when they do not ascend.
    pub fn push(&mut self, series: &Series, rows: &[SampleRow]) -> Result<()> {
        let (Some(first), Some(last)) = (rows.first(), rows.last()) else {
            return Ok(());
        };
        if let Some(pair) = rows.windows(2).find(|pair| pair[0].ts_us >= pair[1].ts_us) {
            return Err(unsorted(series, pair[1].ts_us));
        }
        self.facts.begin(series, first.ts_us)?;
        self.columns.push(series, rows, |row| Some(row.extra))?;
        let hash = series_hash(series);
        for row in rows {
            self.facts
                .hash
                .add(row_hash(hash, row.ts_us, row.value, &row.extra));
        }
        self.facts.end(rows.len(), first.ts_us, last.ts_us);
        Ok(())
    }

    /// About how large the file would be if it were finished now.
    #[must_use]
    pub fn bytes_so_far(&self) -> usize {
        self.columns.bytes_so_far()
    }

    /// The file; `None` when no row was pushed.
    ///
    /// # Errors
    /// When a page cannot be compressed or the metadata not be written.
    pub fn finish(self) -> Result<Option<EncodedFile>> {
        if self.facts.rows == 0 {
            return Ok(None);
        }
        let written = self.columns.finish(Vec::new(), true)?;
        Ok(Some(self.facts.into_file(written)))
    }
}

/// Reads one file of samples from its bytes, block by block.
pub struct SampleReader {
    blocks: Blocks,
    filter: Filter,
    block: Block,
    /// Kept ranges of rows of the current block, last first, with the series of each.
    pending: Vec<(Arc<Series>, Range<usize>)>,
    last: Option<Arc<Series>>,
}

impl SampleReader {
    /// Checks the object's own digest and reads its metadata.
    ///
    /// # Errors
    /// [`crate::Error::Corrupt`] or [`crate::Error::DigestMismatch`] when the bytes are not what
    /// was written.
    pub fn open(bytes: Bytes) -> Result<Self> {
        Ok(Self {
            blocks: Blocks::open(bytes)?,
            filter: Filter::default(),
            block: Block::default(),
            pending: Vec::new(),
            last: None,
        })
    }

    /// Keeps only rows of these windows.
    #[must_use]
    pub fn with_windows(mut self, windows: WindowSet) -> Self {
        self.filter.add_windows(&windows);
        self
    }

    /// Keeps only rows with a timestamp in `[lo, hi)` µs.
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

    /// Decodes the next block and lists what of it is kept; `false` at the end.
    fn fill(&mut self) -> Result<bool> {
        let filter = &self.filter;
        let by_series = filter.judges_series();
        let mut kept = Vec::new();
        let found = self.blocks.next(&mut self.block, filter, |metric, tags| {
            // Without a predicate one call suffices to read the block.
            if !by_series {
                return true;
            }
            let series = Series {
                metric: metric.to_owned(),
                tags: tags.to_owned(),
            };
            filter.keeps_series(&series)
        })?;
        if !found {
            return Ok(false);
        }
        let (metrics, tag_sets) = self.blocks.dictionaries();
        let mut start = 0;
        for ((metric, tags), n) in &self.block.runs {
            let rows = start..start + n;
            start += n;
            let (metric, tags) = (&metrics[*metric as usize], &tag_sets[*tags as usize]);
            let same = |s: &&Arc<Series>| s.metric == *metric && s.tags == *tags;
            let series = match self.last.as_ref().filter(same) {
                Some(series) => Arc::clone(series),
                None => Arc::new(Series {
                    metric: metric.clone(),
                    tags: tags.clone(),
                }),
            };
            if !by_series || filter.keeps_series(&series) {
                let ts = &self.block.ts[rows.clone()];
                for range in filter.kept(*n, |i| ts[i]) {
                    let range = rows.start + range.start..rows.start + range.end;
                    kept.push((Arc::clone(&series), range));
                }
            }
            self.last = Some(series);
        }
        kept.reverse();
        self.pending = kept;
        Ok(true)
    }
}

impl SampleSource for SampleReader {
    fn next_chunk(&mut self) -> Result<Option<SampleChunk>> {
        loop {
            let Some((series, range)) = self.pending.pop() else {
                if self.fill()? {
                    continue;
                }
                return Ok(None);
            };
            let end = range.end.min(range.start + CHUNK_ROWS);
            if end < range.end {
                self.pending.push((Arc::clone(&series), end..range.end));
            }
            let rows = rows(&self.block, range.start..end);
            return Ok(Some(SampleChunk { series, rows }));
        }
    }
}

fn rows(block: &Block, range: Range<usize>) -> Vec<SampleRow> {
    let ts = &block.ts[range.clone()];
    let values = &block.values[range.clone()];
    let row = |(ts_us, value): (&i64, &f64), extra| SampleRow {
        ts_us: *ts_us,
        value: *value,
        extra,
    };
    let pairs = ts.iter().zip(values);
    match block.extras.get(range) {
        Some(extras) if !extras.is_empty() => pairs
            .zip(extras)
            .map(|(pair, extra)| row(pair, *extra))
            .collect(),
        _ => pairs.map(|pair| row(pair, Extra::default())).collect(),
    }
}
