//! The columns of samples read back, one block of rows (a page in every column) at a time.

use std::sync::Arc;

use bytes::Bytes;
use parquet::file::metadata::{ParquetMetaData, RowGroupMetaData};
use parquet::file::statistics::Statistics;
use stele_model::{Extra, Kind, Summary};
use zstd::bulk::Decompressor;

use crate::codec::runs::Runs;
use crate::error::{Error, Result};
use crate::file;
use crate::filter::Filter;
use crate::pages::{self, Pages};
use crate::scale::unscale;

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
    pub ts: Vec<i64>,
    pub values: Vec<f64>,
    /// One per row, or empty when no row carries one.
    pub extras: Vec<Extra>,
    /// Whether the dictionaries are other ones than those of the block before.
    pub first_of_group: bool,
}

/// The open column chunks of one row group.
struct Group {
    rows_left: usize,
    fresh: bool,
    metric: Pages,
    tags: Pages,
    ts: Pages,
    double: Pages,
    doubles: Vec<f64>,
    int: Pages,
    divisor: Pages,
    divisors: Vec<f64>,
    extras: Vec<(ExtraColumn, Pages)>,
    metrics: Vec<String>,
    tag_sets: Vec<String>,
}

/// A column of extras with its dictionary.
enum ExtraColumn {
    Kind(Vec<i32>),
    Rank(Vec<i32>),
    Count,
    /// Sum, min, max and sum of squares, by position.
    Float(usize, Vec<f64>),
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

    pub fn metadata(&self) -> &ParquetMetaData {
        &self.metadata
    }

    /// The dictionaries of metrics and tag sets that the last block's keys refer to.
    pub fn dictionaries(&self) -> (&[String], &[String]) {
        match &self.open {
            Some(group) => (&group.metrics, &group.tag_sets),
            None => (&[], &[]),
        }
    }

    /// Reads the next block that may hold a kept row; `false` at the end. The series of a block
    /// are judged by `keep`, called with the dictionaries and each run's keys.
    pub fn next(
        &mut self,
        block: &mut Block,
        filter: &Filter,
        mut keep: impl FnMut(&str, &str) -> bool,
    ) -> Result<bool> {
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
            let (metrics, tags) = (&group.metrics, &group.tag_sets);
            let mut wanted = |run: &((u32, u32), usize)| {
                keep(&metrics[run.0.0 as usize], &tags[run.0.1 as usize])
            };
            if !block.runs.iter().any(&mut wanted) {
                group.skip(true)?;
                continue;
            }
            group.read_ts(block, &mut self.zstd)?;
            let lo = block.ts.iter().min().copied().unwrap_or(i64::MAX);
            let hi = block.ts.iter().max().copied().unwrap_or(i64::MIN);
            if !filter.keeps_any(lo, hi) {
                group.skip(false)?;
                continue;
            }
            group.read_values(block, &mut self.zstd)?;
            group.read_extras(block, &mut self.zstd)?;
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

/// Whether the statistics of `ts` allow a kept row.
pub(crate) fn may_hold(group: &RowGroupMetaData, filter: &Filter) -> bool {
    let ts = group
        .columns()
        .iter()
        .find(|c| c.column_path().string() == "ts");
    match ts.and_then(|ts| ts.statistics()) {
        Some(Statistics::Int64(ts)) => match (ts.min_opt(), ts.max_opt()) {
            (Some(min), Some(max)) => filter.keeps_any(*min, *max),
            _ => true,
        },
        _ => true,
    }
}

/// The pages of the named column; `None` when the file has none.
pub(crate) fn column(
    bytes: &Arc<Bytes>,
    group: &RowGroupMetaData,
    name: &str,
) -> Result<Option<Pages>> {
    let rows = usize::try_from(group.num_rows()).unwrap_or_default();
    let at = group
        .columns()
        .iter()
        .find(|c| c.column_path().parts() == [name]);
    at.map(|c| Pages::new(bytes, c, rows)).transpose()
}

pub(crate) fn required(
    bytes: &Arc<Bytes>,
    group: &RowGroupMetaData,
    name: &'static str,
) -> Result<Pages> {
    column(bytes, group, name)?.ok_or(Error::corrupt("a column is missing"))
}

/// The dictionary of texts at the head of a chunk.
pub(crate) fn text_dictionary(
    pages: &mut Pages,
    zstd: &mut Decompressor<'_>,
) -> Result<Vec<String>> {
    let (page, entries) = pages
        .dictionary(zstd)?
        .ok_or(Error::corrupt("a column has no dictionary"))?;
    pages::texts(&page, entries)
}

/// The dictionary of doubles at the head of a chunk; empty when it has none.
pub(crate) fn float_dictionary(pages: &mut Pages, zstd: &mut Decompressor<'_>) -> Result<Vec<f64>> {
    match pages.dictionary(zstd)? {
        Some((page, entries)) => pages::fixed(&page, entries, f64::from_le_bytes),
        None => Ok(Vec::new()),
    }
}

fn int_dictionary(pages: &mut Pages, zstd: &mut Decompressor<'_>) -> Result<Vec<i32>> {
    match pages.dictionary(zstd)? {
        Some((page, entries)) => pages::fixed(&page, entries, i32::from_le_bytes),
        None => Ok(Vec::new()),
    }
}

pub(crate) fn misaligned() -> Error {
    Error::corrupt("the pages of a row group do not end at the same rows")
}

/// Pairs the runs of both columns up.
pub(crate) fn zip_runs(metric: &Runs<u32>, tags: &Runs<u32>, into: &mut Vec<((u32, u32), usize)>) {
    into.clear();
    let mut cursor = tags.cursor();
    for (metric, n) in metric.as_slice() {
        cursor.take(*n, |tags, n| into.push(((*metric, tags), n)));
    }
}

impl Group {
    fn open(
        bytes: &Arc<Bytes>,
        group: &RowGroupMetaData,
        zstd: &mut Decompressor<'_>,
    ) -> Result<Self> {
        let (mut metric, mut tags) = (
            required(bytes, group, "metric")?,
            required(bytes, group, "tags")?,
        );
        let metrics = text_dictionary(&mut metric, zstd)?;
        let tag_sets = text_dictionary(&mut tags, zstd)?;
        let mut double = required(bytes, group, "value")?;
        let doubles = float_dictionary(&mut double, zstd)?;
        let mut divisor = required(bytes, group, "value_div")?;
        let divisors = float_dictionary(&mut divisor, zstd)?;
        let mut extras = Vec::new();
        for name in ["kind", "rank", "count", "sum", "min", "max", "sum_squares"] {
            let Some(mut pages) = column(bytes, group, name)? else {
                continue;
            };
            let column = match name {
                "kind" => ExtraColumn::Kind(int_dictionary(&mut pages, zstd)?),
                "rank" => ExtraColumn::Rank(int_dictionary(&mut pages, zstd)?),
                "count" => ExtraColumn::Count,
                "sum" => ExtraColumn::Float(0, float_dictionary(&mut pages, zstd)?),
                "min" => ExtraColumn::Float(1, float_dictionary(&mut pages, zstd)?),
                "max" => ExtraColumn::Float(2, float_dictionary(&mut pages, zstd)?),
                _ => ExtraColumn::Float(3, float_dictionary(&mut pages, zstd)?),
            };
            extras.push((column, pages));
        }
        Ok(Self {
            rows_left: usize::try_from(group.num_rows()).unwrap_or_default(),
            fresh: true,
            metric,
            tags,
            ts: required(bytes, group, "ts")?,
            double,
            doubles,
            int: required(bytes, group, "value_int")?,
            divisor,
            divisors,
            extras,
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
        block.first_of_group = std::mem::take(&mut self.fresh);
        block.ts.clear();
        block.values.clear();
        block.extras.clear();
        Ok(())
    }

    fn skip(&mut self, ts: bool) -> Result<()> {
        if ts {
            self.ts.skip()?;
        }
        self.double.skip()?;
        self.int.skip()?;
        self.divisor.skip()?;
        self.extras
            .iter_mut()
            .try_for_each(|(_, pages)| pages.skip())
    }

    fn read_ts(&mut self, block: &mut Block, zstd: &mut Decompressor<'_>) -> Result<()> {
        let rows: usize = block.runs.iter().map(|run| run.1).sum();
        let page = self.ts.next(zstd)?;
        if page.rows != rows || page.present != rows {
            return Err(misaligned());
        }
        page.ints(&mut block.ts)
    }

    fn read_values(&mut self, block: &mut Block, zstd: &mut Decompressor<'_>) -> Result<()> {
        let rows = block.ts.len();
        let (double, int) = (self.double.next(zstd)?, self.int.next(zstd)?);
        let divisor = self.divisor.next(zstd)?;
        let aligned = [&double, &int, &divisor]
            .iter()
            .all(|page| page.rows == rows);
        if !aligned || double.present + int.present != rows || divisor.present != int.present {
            return Err(misaligned());
        }
        if int.present == 0 {
            return double.floats(&self.doubles, &mut block.values);
        }
        let mut ints = Vec::new();
        int.ints(&mut ints)?;
        let mut keys = Runs::default();
        divisor.keys(self.divisors.len(), &mut keys)?;
        let mut scaled = Vec::with_capacity(ints.len());
        let mut rest = ints.as_slice();
        for (key, n) in keys.as_slice() {
            let power = self.divisors[*key as usize];
            let (now, later) = rest.split_at((*n).min(rest.len()));
            scaled.extend(now.iter().map(|m| unscale(*m, power)));
            rest = later;
        }
        if double.present == 0 {
            block.values = scaled;
            return Ok(());
        }
        let mut doubles = Vec::new();
        double.floats(&self.doubles, &mut doubles)?;
        let mut presence = Runs::default();
        double.presence(&mut presence)?;
        let (mut doubles, mut scaled) = (doubles.as_slice(), scaled.as_slice());
        for (is_double, n) in presence.as_slice() {
            let from = if *is_double {
                &mut doubles
            } else {
                &mut scaled
            };
            let (now, later) = from.split_at_checked(*n).ok_or_else(misaligned)?;
            block.values.extend_from_slice(now);
            *from = later;
        }
        Ok(())
    }

    fn read_extras(&mut self, block: &mut Block, zstd: &mut Decompressor<'_>) -> Result<()> {
        let rows = block.ts.len();
        for (column, pages) in &mut self.extras {
            let page = pages.next(zstd)?;
            if page.rows != rows {
                return Err(misaligned());
            }
            if page.present == 0 {
                continue;
            }
            block.extras.resize(rows, Extra::default());
            let mut presence = Runs::default();
            page.presence(&mut presence)?;
            let mut set = Setter::new(&presence, &mut block.extras);
            match column {
                ExtraColumn::Kind(dictionary) => set.keys(&page, dictionary, |extra, code| {
                    extra.kind = Kind::from_code(code)
                        .ok_or(Error::corrupt("a sample has a kind that does not exist"))?;
                    Ok(())
                })?,
                ExtraColumn::Rank(dictionary) => set.keys(&page, dictionary, |extra, rank| {
                    extra.rank = Some(rank);
                    Ok(())
                })?,
                ExtraColumn::Count => {
                    let mut counts = Vec::new();
                    page.ints(&mut counts)?;
                    set.each(&counts, |extra, count| summary(extra).count = count)?;
                }
                ExtraColumn::Float(at, dictionary) => {
                    let mut values = Vec::new();
                    page.floats(dictionary, &mut values)?;
                    set.each(&values, |extra, value| {
                        let summary = summary(extra);
                        match at {
                            0 => summary.sum = value,
                            1 => summary.min = Some(value),
                            2 => summary.max = Some(value),
                            _ => summary.sum_squares = Some(value),
                        }
                    })?;
                }
            }
        }
        Ok(())
    }
}

/// The summary of a row, made when its first column is met.
fn summary(extra: &mut Extra) -> &mut Summary {
    extra.summary.get_or_insert(Summary {
        count: 0,
        sum: 0.0,
        min: None,
        max: None,
        sum_squares: None,
    })
}

/// Sets the fields of those rows that have a value.
struct Setter<'a> {
    presence: &'a Runs<bool>,
    extras: &'a mut [Extra],
}

impl<'a> Setter<'a> {
    fn new(presence: &'a Runs<bool>, extras: &'a mut [Extra]) -> Self {
        Self { presence, extras }
    }

    fn each<T: Copy>(&mut self, values: &[T], mut set: impl FnMut(&mut Extra, T)) -> Result<()> {
        let mut values = values.iter();
        let mut row = 0;
        for (present, n) in self.presence.as_slice() {
            if *present {
                for extra in &mut self.extras[row..row + n] {
                    set(extra, *values.next().ok_or_else(misaligned)?);
                }
            }
            row += n;
        }
        Ok(())
    }

    fn keys(
        &mut self,
        page: &pages::DataPage,
        dictionary: &[i32],
        mut set: impl FnMut(&mut Extra, i32) -> Result<()>,
    ) -> Result<()> {
        let mut keys = Runs::default();
        page.keys(dictionary.len(), &mut keys)?;
        let values: Vec<i32> = keys
            .as_slice()
            .iter()
            .flat_map(|(key, n)| std::iter::repeat_n(dictionary[*key as usize], *n))
            .collect();
        let mut outcome = Ok(());
        self.each(&values, |extra, value| {
            if outcome.is_ok() {
                outcome = set(extra, value);
            }
        })?;
        outcome
    }
}
