//! A checksum of every page of a table file, so that a reader of single pages needs no trust.
//!
//! The log has a digest of a file's footer: the sums, the page indexes and the metadata, which lie
//! together at its end. A page that was fetched on its own is held against its sum, header, levels
//! and values alike.

use parquet::file::metadata::ParquetMetaData;
use xxhash_rust::xxh3::xxh3_64;

use crate::error::{Error, Result};

/// What a sum takes in the file, little-endian.
const SUM_BYTES: usize = size_of::<u32>();

/// The sum of one page's bytes, its header included: the low half of xxh3's 64 bits, as wide as
/// the checksums of zstd and of Parquet itself.
pub(crate) fn page_sum(page: &[u8]) -> u32 {
    xxh3_64(page) as u32
}

/// A page's place in its file, and its sum.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct PageSum {
    start: u64,
    end: u64,
    sum: u32,
}

/// The sums of all pages of one file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PageSums {
    /// In the order of the file, one after the other.
    pages: Vec<PageSum>,
}

impl PageSums {
    /// The sums at the beginning of `footer`, which the log's digest was found to cover;
    /// `metadata` is the same footer's, with its page indexes.
    ///
    /// # Errors
    /// [`Error::Corrupt`] when they are not the sums of the pages in `metadata`.
    pub fn read(footer: &[u8], metadata: &ParquetMetaData) -> Result<Self> {
        let ranges = page_ranges(metadata).ok_or(Error::corrupt("a file without a page index"))?;
        let sums = ranges.len().checked_mul(SUM_BYTES);
        let sums = sums
            .and_then(|length| footer.get(..length))
            .ok_or(Error::corrupt("a footer shorter than its page sums"))?;
        let sums = sums.chunks_exact(SUM_BYTES).map(|sum| {
            let mut bytes = [0; SUM_BYTES];
            bytes.copy_from_slice(sum);
            u32::from_le_bytes(bytes)
        });
        let pages = ranges.into_iter().zip(sums);
        let pages = pages.map(|((start, end), sum)| PageSum { start, end, sum });
        let pages: Vec<PageSum> = pages.collect();
        if pages.windows(2).any(|pair| pair[0].end != pair[1].start) {
            return Err(Error::corrupt("pages that do not follow each other"));
        }
        Ok(Self { pages })
    }

    /// Checks `bytes`, which were read at `start`: whole pages, as they were written.
    ///
    /// # Errors
    /// [`Error::Corrupt`] when they are not.
    pub fn check(&self, start: u64, bytes: &[u8]) -> Result<()> {
        const PART: Error = Error::corrupt("a read of less than a page");
        let first = self.pages.partition_point(|page| page.start < start);
        let (mut at, mut rest) = (start, bytes);
        for page in &self.pages[first..] {
            if rest.is_empty() {
                return Ok(());
            }
            let length = usize::try_from(page.end - page.start).unwrap_or(usize::MAX);
            if page.start != at || rest.len() < length {
                return Err(PART);
            }
            let (this, after) = rest.split_at(length);
            if page_sum(this) != page.sum {
                return Err(Error::corrupt("a page has another sum than recorded"));
            }
            (at, rest) = (page.end, after);
        }
        if rest.is_empty() { Ok(()) } else { Err(PART) }
    }

    /// What it holds in memory, bytes.
    #[must_use]
    pub fn memory_bytes(&self) -> usize {
        self.pages.capacity() * size_of::<PageSum>()
    }
}

/// Where the pages are, in the order of the file; `None` without a page index.
fn page_ranges(metadata: &ParquetMetaData) -> Option<Vec<(u64, u64)>> {
    let index = metadata.offset_index()?;
    let mut ranges = Vec::new();
    for (group, index) in metadata.row_groups().iter().zip(index) {
        for (column, index) in group.columns().iter().zip(index) {
            let data = u64::try_from(column.data_page_offset()).ok()?;
            if let Some(dictionary) = column.dictionary_page_offset() {
                ranges.push((u64::try_from(dictionary).ok()?, data));
            }
            for page in index.page_locations() {
                let start = u64::try_from(page.offset).ok()?;
                let length = u64::try_from(page.compressed_page_size).ok()?;
                ranges.push((start, start.checked_add(length)?));
            }
        }
    }
    Some(ranges)
}
