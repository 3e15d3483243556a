//! L0 objects: the accepted batches of one or several requests, as ingest stores them.
//!
//! Batches lie one after the other in the order of their digests, each sorted by (metric, tags,
//! ts); the file's metadata lists their digests and row counts. Nothing in the bytes depends on
//! who stored them or when.

use bytes::Bytes;
use parquet::file::metadata::KeyValue;
use stele_model::{Batch, Digest, Extra, L0Name, NO_EXTRA, Row, Rows, Series, Window};

use crate::chunk::Settings;
use crate::digest::{batch_digest, content_digest, is_plain};
use crate::error::{Error, Result};
use crate::filter::Filter;
use crate::sample_blocks::{Block, Blocks};
use crate::sample_columns::SampleColumns;

/// Fast to write and to read whole; no one seeks in an L0 object.
const SETTINGS: Settings = Settings {
    level: 1,
    page_rows: 32_768,
    group_rows: 262_144,
    indexed: false,
    thorough: false,
};

/// The metadata entry that lists the batches: `digest:rows`, separated by spaces.
const BATCHES: &str = "stele.batches";

/// An L0 object ready to be stored.
#[derive(Debug, Clone)]
pub struct Encoded {
    /// Its name: a function of its batches.
    pub name: L0Name,
    /// Its bytes: a function of its rows alone.
    pub bytes: Bytes,
}

/// Encodes one or several batches of canonical rows; a batch given twice is stored once.
///
/// # Errors
/// [`Error::Empty`] when there is no batch or one has no row, and [`Error::Hours`] when its name
/// would be none.
pub fn encode(batches: &[Batch]) -> Result<Encoded> {
    let mut order: Vec<&Batch> = batches.iter().collect();
    order.sort_by_key(|batch| batch.digest);
    order.dedup_by_key(|batch| batch.digest);
    let mut range: Option<(i64, i64)> = None;
    let mut columns = SampleColumns::new(SETTINGS);
    for batch in &order {
        let rows = &batch.rows;
        let (lo, hi) = rows.ts_range_us().ok_or(Error::Empty)?;
        range = Some(range.map_or((lo, hi), |range| (range.0.min(lo), range.1.max(hi))));
        for run in rows.rows.chunk_by(|a, b| a.series == b.series) {
            columns.push(&rows.series[run[0].series as usize], run, |row| {
                rows.extras.get(row.extra as usize).copied()
            })?;
        }
    }
    let (lo, hi) = range.ok_or(Error::Empty)?;
    let (first, last) = (Window::of(lo), Window::of(hi));
    if !first.is_storable() || !last.is_storable() {
        let (first, last) = (first.0, last.0);
        return Err(Error::Hours { first, last });
    }
    let listed: Vec<String> = order
        .iter()
        .map(|batch| format!("{}:{}", batch.digest, batch.rows.len()))
        .collect();
    let metadata = KeyValue::new(BATCHES.to_owned(), listed.join(" "));
    let written = columns.finish(vec![metadata], false)?;
    Ok(Encoded {
        name: L0Name {
            digest: object_digest(&order),
            first,
            last,
        },
        bytes: written.bytes.into(),
    })
}

/// The digest of its batch; of its sorted batch digests when it holds several.
fn object_digest(sorted: &[&Batch]) -> Digest {
    match sorted {
        [one] => one.digest,
        several => {
            let digests: Vec<u8> = several.iter().flat_map(|batch| batch.digest.0).collect();
            content_digest(&digests)
        }
    }
}

/// Reads the batches of an L0 object, in the order of their digests, and checks each digest.
///
/// # Errors
/// [`Error::Corrupt`] or [`Error::DigestMismatch`] when the bytes are not what was written.
pub fn decode(bytes: Bytes) -> Result<Vec<Batch>> {
    let mut blocks = Blocks::open(bytes)?;
    let listed = list(&blocks)?;
    let mut reader = BatchReader::new(&listed);
    let mut block = Block::default();
    let filter = Filter::default();
    while blocks.next(&mut block, &filter, |_, _| true)? {
        let (metrics, tags) = blocks.dictionaries();
        reader.add(&block, metrics, tags)?;
    }
    reader.finish()
}

/// How many rows an object says it has, before any is decoded.
///
/// # Errors
/// [`Error::Corrupt`] when it has no readable footer.
pub fn rows_claimed(bytes: Bytes) -> Result<u64> {
    let blocks = Blocks::open(bytes)?;
    Ok(u64::try_from(blocks.metadata().file_metadata().num_rows()).unwrap_or(u64::MAX))
}

/// The digests of the batches of an L0 object, ascending, without reading its rows.
///
/// # Errors
/// [`Error::Corrupt`] or [`Error::DigestMismatch`] when the bytes are not what was written.
pub fn digests(bytes: Bytes) -> Result<Vec<Digest>> {
    let listed = list(&Blocks::open(bytes)?)?;
    Ok(listed.into_iter().map(|batch| batch.0).collect())
}

/// Digest and rows of each batch.
fn list(blocks: &Blocks) -> Result<Vec<(Digest, usize)>> {
    let metadata = blocks.metadata().file_metadata();
    let rows = usize::try_from(metadata.num_rows()).unwrap_or_default();
    let entries = metadata.key_value_metadata();
    entries
        .and_then(|entries| entries.iter().find(|entry| entry.key == BATCHES))
        .and_then(|entry| parse_batches(entry.value.as_deref()?))
        .filter(|listed| listed.iter().map(|batch| batch.1).sum::<usize>() == rows)
        .ok_or(Error::corrupt("the list of batches does not fit the rows"))
}

fn parse_batches(text: &str) -> Option<Vec<(Digest, usize)>> {
    text.split(' ')
        .map(|batch| {
            let (digest, rows) = batch.split_once(':')?;
            Some((digest.parse().ok()?, rows.parse().ok()?))
        })
        .collect()
}

/// Cuts decoded blocks into batches.
struct BatchReader<'a> {
    listed: &'a [(Digest, usize)],
    /// Rows the current batch still misses.
    missing: usize,
    rows: Rows,
    /// The metric and tags keys of the last row; other dictionaries count as other keys.
    last: Option<(u32, u32)>,
    done: Vec<Batch>,
}

impl<'a> BatchReader<'a> {
    fn new(listed: &'a [(Digest, usize)]) -> Self {
        let missing = listed.first().map_or(0, |batch| batch.1);
        Self {
            listed,
            missing,
            rows: Rows::default(),
            last: None,
            done: Vec::new(),
        }
    }

    fn add(&mut self, block: &Block, metrics: &[String], tags: &[String]) -> Result<()> {
        if block.first_of_group {
            self.last = None;
        }
        let mut at = 0;
        for (keys, n) in &block.runs {
            let mut left = *n;
            while left > 0 {
                let here = left.min(self.missing);
                if here == 0 {
                    return Err(Error::corrupt("a batch without rows"));
                }
                let (metric, tags) = (&metrics[keys.0 as usize], &tags[keys.1 as usize]);
                self.enter(*keys, metric, tags);
                self.add_run(block, at..at + here);
                at += here;
                left -= here;
                self.missing -= here;
                if self.missing == 0 {
                    self.end_batch()?;
                }
            }
        }
        Ok(())
    }

    /// Makes the series of the next rows the last of the dictionary.
    fn enter(&mut self, keys: (u32, u32), metric: &str, tags: &str) {
        if self.last == Some(keys) {
            return;
        }
        self.last = Some(keys);
        let same = |s: &Series| s.metric == metric && s.tags == tags;
        if !self.rows.series.last().is_some_and(same) {
            self.rows.series.push(Series {
                metric: metric.to_owned(),
                tags: tags.to_owned(),
            });
        }
    }

    fn add_run(&mut self, block: &Block, range: std::ops::Range<usize>) {
        let series = u32::try_from(self.rows.series.len() - 1).unwrap_or(u32::MAX);
        let pairs = block.ts[range.clone()]
            .iter()
            .zip(&block.values[range.clone()]);
        let row = |(ts_us, value): (&i64, &f64), extra| Row {
            ts_us: *ts_us,
            value: *value,
            series,
            extra,
        };
        self.rows.rows.reserve(range.len());
        if block.extras.is_empty() {
            self.rows.rows.extend(pairs.map(|pair| row(pair, NO_EXTRA)));
            return;
        }
        for (pair, extra) in pairs.zip(&block.extras[range]) {
            let extra = index_of(&mut self.rows.extras, extra);
            self.rows.rows.push(row(pair, extra));
        }
    }

    fn end_batch(&mut self) -> Result<()> {
        let (expected, _) = self.listed[self.done.len()];
        let rows = std::mem::take(&mut self.rows);
        let found = batch_digest(&rows);
        if found != expected {
            return Err(Error::DigestMismatch {
                what: "a batch",
                expected,
                found,
            });
        }
        self.done.push(Batch {
            digest: expected,
            rows,
        });
        self.last = None;
        self.missing = self.listed.get(self.done.len()).map_or(0, |batch| batch.1);
        Ok(())
    }

    fn finish(self) -> Result<Vec<Batch>> {
        if self.done.len() == self.listed.len() {
            Ok(self.done)
        } else {
            Err(Error::corrupt("rows of a batch are missing"))
        }
    }
}

/// The index of `extra`, shared with the entry before it when both say the same.
fn index_of(extras: &mut Vec<Extra>, extra: &Extra) -> u32 {
    if is_plain(extra) {
        return NO_EXTRA;
    }
    let same = |last: &Extra| {
        last.summary.is_none()
            && extra.summary.is_none()
            && (last.kind, last.rank) == (extra.kind, extra.rank)
    };
    if !extras.last().is_some_and(same) {
        extras.push(*extra);
    }
    u32::try_from(extras.len() - 1).unwrap_or(NO_EXTRA)
}
