//! Proves that a stored object is what its writer said it wrote.

use bytes::Bytes;
use parquet::file::metadata::{PageIndexPolicy, ParquetMetaDataReader};
use stele_model::{FileStats, Series};

use crate::digest::{content_digest, row_hash, series_hash};
use crate::error::{Error, Result};
use crate::file::{DATA_START, Facts};
use crate::filter::Filter;
use crate::page_sums::PageSums;
use crate::rollup_file::{RollupReader, bin_hash};
use crate::sample::RollupSource;
use crate::sample_blocks::{Block, Blocks};

/// What the rows of a file are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SampleOrRollup {
    /// Samples (`raw`, `open`).
    Sample,
    /// Bins (`60s`, `15m`, `60m`).
    Rollup,
}

/// Re-reads a file and compares digests, order, row count, ranges and rows hash with `stats`.
///
/// # Errors
/// [`Error::Corrupt`] or [`Error::DigestMismatch`] naming the first difference.
pub fn check_file(bytes: &Bytes, stats: &FileStats, kind: SampleOrRollup) -> Result<()> {
    if bytes.len() as u64 != stats.size_bytes {
        return Err(Error::corrupt("the object has another size than recorded"));
    }
    let found = content_digest(bytes);
    if found != stats.digest {
        return Err(Error::DigestMismatch {
            what: "the object",
            expected: stats.digest,
            found,
        });
    }
    let footer = usize::try_from(stats.footer_bytes).ok();
    let footer = footer.and_then(|length| bytes.len().checked_sub(length));
    let data_end = footer.ok_or(Error::corrupt("the footer is longer than the object"))?;
    let footer = &bytes[data_end..];
    let found = content_digest(footer);
    if found != stats.footer_digest {
        return Err(Error::DigestMismatch {
            what: "the footer",
            expected: stats.footer_digest,
            found,
        });
    }
    check_pages(bytes, data_end)?;
    let facts = match kind {
        SampleOrRollup::Sample => sample_facts(bytes.clone()),
        SampleOrRollup::Rollup => rollup_facts(bytes.clone()),
    };
    let facts = facts.map_err(|error| match error {
        Error::Unsorted { .. } => Error::corrupt("the rows do not ascend"),
        other => other,
    })?;
    compare(&facts, stats)
}

/// What queries trust when they read single pages.
fn check_pages(bytes: &Bytes, data_end: usize) -> Result<()> {
    let metadata = ParquetMetaDataReader::new()
        .with_page_index_policy(PageIndexPolicy::Required)
        .parse_and_finish(bytes)?;
    let sums = PageSums::read(&bytes[data_end..], &metadata)?;
    sums.check(DATA_START as u64, &bytes[DATA_START..data_end])
}

fn compare(facts: &Facts, stats: &FileStats) -> Result<()> {
    let metric_max = facts
        .last
        .as_ref()
        .map_or("", |last| last.0.metric.as_str());
    let equal = [
        (
            facts.rows == stats.rows,
            "the number of rows is not the recorded one",
        ),
        (
            facts.hash == stats.rows_hash,
            "the hash of the rows is not the recorded one",
        ),
        (
            (facts.ts_min_us, facts.ts_max_us) == (stats.ts_min_us, stats.ts_max_us),
            "the range of timestamps is not the recorded one",
        ),
        (
            facts.metric_min == stats.metric_min && metric_max == stats.metric_max,
            "the range of metrics is not the recorded one",
        ),
        (
            facts.series == stats.series,
            "the number of series is not the recorded one",
        ),
    ];
    match equal.iter().find(|(equal, _)| !equal) {
        Some((_, what)) => Err(Error::corrupt(what)),
        None => Ok(()),
    }
}

fn sample_facts(bytes: Bytes) -> Result<Facts> {
    let mut blocks = Blocks::open(bytes)?;
    let (mut block, filter) = (Block::default(), Filter::default());
    let mut facts = Facts::default();
    let mut series = Series::default();
    while blocks.next(&mut block, &filter, |_, _| true)? {
        let (metrics, tags) = blocks.dictionaries();
        let mut at = 0;
        for (keys, n) in &block.runs {
            series.metric.clone_from(&metrics[keys.0 as usize]);
            series.tags.clone_from(&tags[keys.1 as usize]);
            let ts = &block.ts[at..at + n];
            facts.begin(&series, ts[0])?;
            if ts.windows(2).any(|pair| pair[0] >= pair[1]) {
                return Err(Error::corrupt("the rows do not ascend"));
            }
            let hash = series_hash(&series);
            let plain = stele_model::Extra::default();
            for (row, ts_us) in (at..).zip(ts) {
                let extra = block.extras.get(row).unwrap_or(&plain);
                facts
                    .hash
                    .add(row_hash(hash, *ts_us, block.values[row], extra));
            }
            facts.end(*n, ts[0], ts[n - 1]);
            at += n;
        }
    }
    Ok(facts)
}

fn rollup_facts(bytes: Bytes) -> Result<Facts> {
    let mut reader = RollupReader::open(bytes)?;
    let mut facts = Facts::default();
    let (mut sketch, mut scratch) = (Vec::new(), Vec::new());
    while let Some(chunk) = reader.next_chunk()? {
        let hash = series_hash(&chunk.series);
        for (start_us, bin) in &chunk.bins {
            facts.begin(&chunk.series, *start_us)?;
            sketch.clear();
            let stored = bin.sketch.as_ref().map(|s| {
                s.encode(&mut sketch);
                sketch.as_slice()
            });
            facts
                .hash
                .add(bin_hash(hash, *start_us, bin, stored, &mut scratch));
            facts.end(1, *start_us, *start_us);
        }
    }
    Ok(facts)
}
