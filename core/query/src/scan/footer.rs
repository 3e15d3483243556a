//! Footers of data files: fetched in one request, checked against the log, kept in memory.
//!
//! The log says how long a footer is and what its digest is, so one range GET brings it, its page
//! index and the sums of all pages, and nothing in them is believed before the digest is. Beside
//! it the distinct tags of a row group are kept, read from its dictionary page alone.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use arrow::array::StringArray;
use bytes::{Buf, Bytes};
use parquet::basic::Encoding;
use parquet::column::page::{Page, PageReader};
use parquet::errors::ParquetError;
use parquet::file::metadata::{
    ColumnChunkMetaData, PageIndexPolicy, ParquetMetaData, ParquetMetaDataReader,
};
use parquet::file::reader::{ChunkReader, Length};
use parquet::file::serialized_reader::SerializedPageReader;
use stele_format::PageSums;
use stele_store::{TenantStore, keys};
use stele_table::FileEntry;

use crate::error::{Error, Result};

/// What `stele-format` calls itself in a file's metadata.
const WRITER: &str = "stele";
/// The position of `metric`, `tags` and `ts` in every data file.
pub(crate) const METRIC: usize = 0;
pub(crate) const TAGS: usize = 1;
pub(crate) const TS: usize = 2;

/// Requests and bytes that planning a query cost, for `EXPLAIN ANALYZE`.
#[derive(Debug, Default)]
pub(crate) struct Cost {
    pub(crate) requests: AtomicU64,
    pub(crate) bytes: AtomicU64,
}

impl Cost {
    pub(crate) fn add(&self, bytes: u64) {
        self.requests.fetch_add(1, Ordering::Relaxed);
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
    }
}

/// What is known of one data file without its data.
#[derive(Debug)]
pub(crate) struct Footer {
    /// Parquet metadata with page index.
    pub(crate) metadata: Arc<ParquetMetaData>,
    /// What every page must be.
    pub(crate) sums: Arc<PageSums>,
    /// Distinct tags per row group; `None` when its pages are not all dictionary-encoded.
    tags: Mutex<HashMap<usize, Option<Arc<StringArray>>>>,
}

/// A bounded cache of footers, shared by all queries of a process.
#[derive(Debug)]
pub(crate) struct Footers {
    bytes_max: usize,
    cache: Mutex<Cache>,
}

#[derive(Debug, Default)]
struct Cache {
    entries: HashMap<String, Entry>,
    bytes: usize,
    clock: u64,
}

#[derive(Debug)]
struct Entry {
    footer: Arc<Footer>,
    bytes: usize,
    used: u64,
}

impl Cache {
    fn get(&mut self, key: &str) -> Option<Arc<Footer>> {
        self.clock += 1;
        let entry = self.entries.get_mut(key)?;
        entry.used = self.clock;
        Some(Arc::clone(&entry.footer))
    }

    fn charge(&mut self, key: &str, bytes: usize) {
        if let Some(entry) = self.entries.get_mut(key) {
            entry.bytes += bytes;
            self.bytes += bytes;
        }
    }

    fn insert(&mut self, key: String, footer: Arc<Footer>, bytes: usize) {
        self.clock += 1;
        let used = self.clock;
        let entry = Entry {
            footer,
            bytes,
            used,
        };
        self.bytes += bytes;
        if let Some(old) = self.entries.insert(key, entry) {
            self.bytes -= old.bytes;
        }
    }

    /// Drops what was used least recently until the cache fits. It scans all entries, of which
    /// there are some hundreds.
    fn shrink(&mut self, bytes_max: usize) {
        while self.bytes > bytes_max && self.entries.len() > 1 {
            let oldest = self.entries.iter().min_by_key(|(_, entry)| entry.used);
            let Some(key) = oldest.map(|(key, _)| key.clone()) else {
                return;
            };
            if let Some(gone) = self.entries.remove(&key) {
                self.bytes -= gone.bytes;
            }
        }
    }
}

/// A part of a file in memory, at its place in the file.
struct Part {
    start: u64,
    bytes: Bytes,
}

impl Length for Part {
    fn len(&self) -> u64 {
        self.start + self.bytes.len() as u64
    }
}

impl ChunkReader for Part {
    type T = bytes::buf::Reader<Bytes>;

    fn get_read(&self, start: u64) -> parquet::errors::Result<Self::T> {
        let at = self.at(start, 0)?;
        Ok(self.bytes.slice(at.start..).reader())
    }

    fn get_bytes(&self, start: u64, length: usize) -> parquet::errors::Result<Bytes> {
        Ok(self.bytes.slice(self.at(start, length)?))
    }
}

impl Part {
    fn at(&self, start: u64, length: usize) -> parquet::errors::Result<Range<usize>> {
        let from = start
            .checked_sub(self.start)
            .and_then(|n| usize::try_from(n).ok());
        let range = from.and_then(|from| Some(from..from.checked_add(length)?));
        match range {
            Some(range) if range.end <= self.bytes.len() => Ok(range),
            _ => Err(ParquetError::EOF(format!("{length} bytes at {start}"))),
        }
    }
}

impl Footers {
    pub(crate) fn new(bytes_max: usize) -> Self {
        Self {
            bytes_max,
            cache: Mutex::default(),
        }
    }

    fn cache(&self) -> std::sync::MutexGuard<'_, Cache> {
        self.cache.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The footer of `file`, from memory or by one range request.
    ///
    /// # Errors
    /// The store's, and [`Error::Corrupt`] when the footer is not the one the log names.
    pub(crate) async fn get(
        &self,
        store: &TenantStore,
        file: &FileEntry,
        cost: &Cost,
    ) -> Result<Arc<Footer>> {
        let key = cache_key(store, file);
        if let Some(footer) = self.cache().get(&key) {
            return Ok(footer);
        }
        let (metadata, sums) = fetch(store, file, cost).await?;
        let bytes = metadata.memory_size() + sums.memory_bytes() + key.len();
        let footer = Arc::new(Footer {
            metadata: Arc::new(metadata),
            sums: Arc::new(sums),
            tags: Mutex::default(),
        });
        let mut cache = self.cache();
        cache.insert(key, Arc::clone(&footer), bytes);
        cache.shrink(self.bytes_max);
        Ok(footer)
    }

    /// The distinct tags of one row group, by one request for its dictionary page; `None` when
    /// that page does not hold them all.
    ///
    /// # Errors
    /// The store's, and [`Error::Corrupt`].
    pub(crate) async fn tags(
        &self,
        store: &TenantStore,
        file: &FileEntry,
        footer: &Footer,
        row_group: usize,
        cost: &Cost,
    ) -> Result<Option<Arc<StringArray>>> {
        let known = || footer.tags.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(found) = known().get(&row_group) {
            return Ok(found.clone());
        }
        let group = footer.metadata.row_group(row_group);
        let column = group.column(TAGS);
        let ours = footer.metadata.file_metadata().created_by() == Some(WRITER);
        let Some(range) = dictionary_range(column, ours) else {
            known().insert(row_group, None);
            return Ok(None);
        };
        let key = keys::data_file(&file.path);
        let bytes = store.get_range(&key, range.clone()).await?;
        cost.add(bytes.len() as u64);
        let sums = &footer.sums;
        sums.check(range.start, &bytes)
            .map_err(|e| damaged(&file.path, &e))?;
        let part = Part {
            start: range.start,
            bytes,
        };
        let tags =
            read_dictionary(part, column, group.num_rows()).map_err(|e| damaged(&file.path, &e))?;
        let tags = Arc::new(tags);
        known().insert(row_group, Some(Arc::clone(&tags)));
        let size = arrow::array::Array::get_array_memory_size(tags.as_ref());
        let mut cache = self.cache();
        cache.charge(&cache_key(store, file), size);
        cache.shrink(self.bytes_max);
        Ok(Some(tags))
    }
}

/// A footer's key: the full path, which spells the tenant, and the digest that the tenant's log
/// names. So a hit is what a fetch would bring, whatever stores and tenants share the cache.
fn cache_key(store: &TenantStore, file: &FileEntry) -> String {
    let path = store.path(&keys::data_file(&file.path));
    format!("{path}#{}", file.stats.footer_digest)
}

pub(crate) fn damaged(path: &str, why: &dyn std::fmt::Display) -> Error {
    Error::Corrupt {
        why: format!("{path}: {why}"),
    }
}

async fn fetch(
    store: &TenantStore,
    file: &FileEntry,
    cost: &Cost,
) -> Result<(ParquetMetaData, PageSums)> {
    let stats = &file.stats;
    let key = keys::data_file(&file.path);
    let Some(start) = stats.size_bytes.checked_sub(stats.footer_bytes) else {
        return Err(damaged(&file.path, &"its footer is longer than the file"));
    };
    let bytes = store.get_range(&key, start..stats.size_bytes).await?;
    cost.add(bytes.len() as u64);
    if bytes.len() as u64 != stats.footer_bytes {
        return Err(damaged(&file.path, &"it is shorter than the log says"));
    }
    let found = stele_format::content_digest(&bytes);
    if found != stats.footer_digest {
        let expected = stats.footer_digest;
        let why = format!("the footer's digest is {found}, not {expected}");
        return Err(damaged(&file.path, &why));
    }
    // Offsets in the metadata count from the file's start; the reader is told the size and given
    // the tail alone.
    let mut reader = ParquetMetaDataReader::new().with_page_index_policy(PageIndexPolicy::Required);
    let parsed = reader.try_parse_sized(&bytes, stats.size_bytes);
    let metadata = parsed.and_then(|()| reader.finish());
    let metadata = metadata.map_err(|e| damaged(&file.path, &e))?;
    let sums = PageSums::read(&bytes, &metadata).map_err(|e| damaged(&file.path, &e))?;
    Ok((metadata, sums))
}

/// Where the dictionary page of a chunk lies, when every value of the chunk is in it: always so in
/// text columns that `stele-format` wrote, else where the footer counts pages by encoding.
fn dictionary_range(column: &ColumnChunkMetaData, ours: bool) -> Option<Range<u64>> {
    let dictionary =
        |e: Encoding| matches!(e, Encoding::PLAIN_DICTIONARY | Encoding::RLE_DICTIONARY);
    let only_dictionary = match (
        column.page_encoding_stats_mask(),
        column.page_encoding_stats(),
    ) {
        (Some(mask), _) => mask.encodings().all(dictionary),
        (None, Some(stats)) => stats.iter().all(|s| {
            s.page_type == parquet::basic::PageType::DICTIONARY_PAGE || dictionary(s.encoding)
        }),
        (None, None) => ours,
    };
    let start = u64::try_from(column.dictionary_page_offset()?).ok()?;
    let end = u64::try_from(column.data_page_offset()).ok()?;
    (only_dictionary && start < end).then_some(start..end)
}

fn read_dictionary(
    part: Part,
    column: &ColumnChunkMetaData,
    rows: i64,
) -> parquet::errors::Result<StringArray> {
    let rows = usize::try_from(rows).unwrap_or(usize::MAX);
    let mut pages = SerializedPageReader::new(Arc::new(part), column, rows, None)?;
    let Some(Page::DictionaryPage {
        buf, num_values, ..
    }) = pages.get_next_page()?
    else {
        return Err(ParquetError::General("no dictionary page".to_owned()));
    };
    let mut rest = buf.as_ref();
    let mut values = Vec::with_capacity(num_values as usize);
    for _ in 0..num_values {
        let (length, after) = rest
            .split_first_chunk::<4>()
            .ok_or_else(|| ParquetError::EOF("dictionary page".to_owned()))?;
        let (value, after) = after
            .split_at_checked(u32::from_le_bytes(*length) as usize)
            .ok_or_else(|| ParquetError::EOF("dictionary page".to_owned()))?;
        let text = std::str::from_utf8(value)
            .map_err(|e| ParquetError::General(format!("tags are no UTF-8: {e}")))?;
        values.push(text);
        rest = after;
    }
    Ok(StringArray::from(values))
}
