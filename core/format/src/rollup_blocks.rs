//! The columns of rollups read back, one block of rows (a page in every column) at a time.

use std::sync::Arc;

use bytes::Bytes;
use parquet::file::metadata::{ParquetMetaData, RowGroupMetaData};
use stele_model::{Aggregate, Series, Sketch};
use zstd::bulk::Decompressor;

use crate::codec::runs::Runs;
use crate::error::{Error, Result};
use crate::file;
use crate::filter::Filter;
use crate::pages::Pages;
use crate::rollup_file::FLOATS;
use crate::sample_blocks::{
    column, float_dictionary, may_hold, misaligned, required, text_dictionary, zip_runs,
};

/// A file whose blocks are read one after the other.
pub(crate) struct Blocks {
    bytes: Arc<Bytes>,
    metadata: ParquetMetaData,
    zstd: Decompressor<'static>,
    group: usize,
    open: Option<Group>,
}

/// Decoded rows of one block.
#[derive(Default)]
pub(crate) struct Block {
    /// Runs of (metric key, tags key) with their length.
    pub runs: Vec<((u32, u32), usize)>,
    pub bins: Vec<(i64, Aggregate)>,
}

/// The open column chunks of one row group.
struct Group {
    rows_left: usize,
    metric: Pages,
    tags: Pages,
    ts: Pages,
    count: Pages,
    floats: Vec<(Pages, Vec<f64>)>,
    first_ts: Pages,
    last_ts: Pages,
    sketch: Option<Pages>,
    metrics: Vec<String>,
    tag_sets: Vec<String>,
}

impl Blocks {
    /// Checks the file's digest and opens it.
    pub fn open(bytes: Bytes) -> Result<Self> {
        let metadata = file::open(&bytes)?;
        Ok(Self {
            bytes: Arc::new(bytes),
            metadata,
            zstd: Decompressor::new().map_err(Error::Compression)?,
            group: 0,
            open: None,
        })
    }

    /// The dictionaries of metrics and tag sets that the last block's keys refer to.
    pub fn dictionaries(&self) -> (&[String], &[String]) {
        match &self.open {
            Some(group) => (&group.metrics, &group.tag_sets),
            None => (&[], &[]),
        }
    }

    /// Reads the next block that may hold a kept bin; `false` at the end.
    pub fn next(&mut self, block: &mut Block, filter: &Filter, sketch: bool) -> Result<bool> {
        loop {
            if self.open.as_ref().is_none_or(|group| group.rows_left == 0) {
                if !self.next_group(filter)? {
                    return Ok(false);
                }
                continue;
            }
            let Some(group) = &mut self.open else {
                return Ok(false);
            };
            group.read_series(block, &mut self.zstd)?;
            if filter.judges_series() && !group.any_kept(block, filter) {
                group.ts.skip()?;
                group.skip()?;
                continue;
            }
            let rows: usize = block.runs.iter().map(|run| run.1).sum();
            let ts = ints(&mut group.ts, rows, &mut self.zstd)?;
            let lo = ts.iter().min().copied().unwrap_or(i64::MAX);
            let hi = ts.iter().max().copied().unwrap_or(i64::MIN);
            if !filter.keeps_any(lo, hi) {
                group.skip()?;
                continue;
            }
            group.read_bins(ts, block, sketch, &mut self.zstd)?;
            return Ok(true);
        }
    }

    /// Opens the next row group whose statistics do not rule it out; `false` at the end.
    fn next_group(&mut self, filter: &Filter) -> Result<bool> {
        self.open = None;
        while let Some(group) = self.metadata.row_groups().get(self.group) {
            self.group += 1;
            if group.num_rows() > 0 && may_hold(group, filter) {
                self.open = Some(Group::open(&self.bytes, group, &mut self.zstd)?);
                return Ok(true);
            }
        }
        Ok(false)
    }
}

impl Group {
    fn open(
        bytes: &Arc<Bytes>,
        group: &RowGroupMetaData,
        zstd: &mut Decompressor<'_>,
    ) -> Result<Self> {
        let mut metric = required(bytes, group, "metric")?;
        let mut tags = required(bytes, group, "tags")?;
        let metrics = text_dictionary(&mut metric, zstd)?;
        let tag_sets = text_dictionary(&mut tags, zstd)?;
        let mut floats = Vec::with_capacity(FLOATS.len());
        for name in FLOATS {
            let mut pages = required(bytes, group, name)?;
            let dictionary = float_dictionary(&mut pages, zstd)?;
            floats.push((pages, dictionary));
        }
        Ok(Self {
            rows_left: usize::try_from(group.num_rows()).unwrap_or_default(),
            metric,
            tags,
            ts: required(bytes, group, "ts")?,
            count: required(bytes, group, "count")?,
            floats,
            first_ts: required(bytes, group, "first_ts")?,
            last_ts: required(bytes, group, "last_ts")?,
            sketch: column(bytes, group, "sketch")?,
            metrics,
            tag_sets,
        })
    }

    fn read_series(&mut self, block: &mut Block, zstd: &mut Decompressor<'_>) -> Result<()> {
        let (metric, tags) = (self.metric.next(zstd)?, self.tags.next(zstd)?);
        if metric.rows != tags.rows || metric.rows == 0 || metric.rows > self.rows_left {
            return Err(misaligned());
        }
        let (mut metrics, mut tag_sets) = (Runs::default(), Runs::default());
        metric.keys(self.metrics.len(), &mut metrics)?;
        tags.keys(self.tag_sets.len(), &mut tag_sets)?;
        if metrics.len() != metric.rows || tag_sets.len() != metric.rows {
            return Err(misaligned());
        }
        zip_runs(&metrics, &tag_sets, &mut block.runs);
        self.rows_left -= metric.rows;
        Ok(())
    }

    fn any_kept(&self, block: &Block, filter: &Filter) -> bool {
        block.runs.iter().any(|((metric, tags), _)| {
            filter.keeps_series(&Series {
                metric: self.metrics[*metric as usize].clone(),
                tags: self.tag_sets[*tags as usize].clone(),
            })
        })
    }

    /// Passes over a block in every column from `count` on.
    fn skip(&mut self) -> Result<()> {
        self.count.skip()?;
        self.first_ts.skip()?;
        self.last_ts.skip()?;
        self.sketch.as_mut().map_or(Ok(()), Pages::skip)?;
        self.floats
            .iter_mut()
            .try_for_each(|(pages, _)| pages.skip())
    }

    fn read_bins(
        &mut self,
        ts: Vec<i64>,
        block: &mut Block,
        sketch: bool,
        zstd: &mut Decompressor<'_>,
    ) -> Result<()> {
        let rows = ts.len();
        let counts = ints(&mut self.count, rows, zstd)?;
        let first_ts = ints(&mut self.first_ts, rows, zstd)?;
        let last_ts = ints(&mut self.last_ts, rows, zstd)?;
        let filled = counts.iter().filter(|count| **count != 0).count();
        let mut floats: [Vec<f64>; 7] = Default::default();
        for ((pages, dictionary), values) in self.floats.iter_mut().zip(&mut floats) {
            let page = pages.next(zstd)?;
            if page.rows != rows || page.present != filled {
                return Err(misaligned());
            }
            page.floats(dictionary, values)?;
        }
        block.bins.clear();
        block.bins.reserve(rows);
        let mut at = 0;
        for (row, count) in counts.iter().enumerate() {
            let mut bin = Aggregate::empty(false);
            (bin.count, bin.first_ts_us, bin.last_ts_us) = (*count, first_ts[row], last_ts[row]);
            if *count != 0 {
                let [sum, min, max, first, last, squares, increase] = &floats;
                (bin.sum, bin.min, bin.max) = (sum[at], min[at], max[at]);
                (bin.first, bin.last) = (first[at], last[at]);
                (bin.sum_squares, bin.increase) = (squares[at], increase[at]);
                at += 1;
            }
            block.bins.push((ts[row], bin));
        }
        match &mut self.sketch {
            Some(pages) if sketch => read_sketches(pages, &mut block.bins, zstd),
            Some(pages) => pages.skip(),
            None => Ok(()),
        }
    }
}

/// Reads one page of a column without nulls.
fn ints(pages: &mut Pages, rows: usize, zstd: &mut Decompressor<'_>) -> Result<Vec<i64>> {
    let page = pages.next(zstd)?;
    if page.rows != rows || page.present != rows {
        return Err(misaligned());
    }
    let mut values = Vec::new();
    page.ints(&mut values)?;
    Ok(values)
}

fn read_sketches(
    pages: &mut Pages,
    bins: &mut [(i64, Aggregate)],
    zstd: &mut Decompressor<'_>,
) -> Result<()> {
    let page = pages.next(zstd)?;
    if page.rows != bins.len() {
        return Err(misaligned());
    }
    let mut presence = Runs::default();
    page.presence(&mut presence)?;
    let rows = presence.as_slice().iter();
    let mut with = rows
        .flat_map(|(present, n)| std::iter::repeat_n(*present, *n))
        .zip(bins)
        .filter_map(|(present, bin)| present.then_some(bin));
    page.blobs(|bytes| {
        let (_, bin) = with.next().ok_or_else(misaligned)?;
        bin.sketch = Some(Sketch::decode(bytes)?);
        Ok(())
    })
}
