//! Reads column chunks page by page into runs and slices.

use std::sync::Arc;

use bytes::Bytes;
use parquet::basic::{Compression, Encoding};
use parquet::column::page::{Page, PageReader};
use parquet::file::metadata::ColumnChunkMetaData;
use parquet::file::serialized_reader::SerializedPageReader;
use zstd::bulk::Decompressor;
use zstd::zstd_safe::get_frame_content_size;

use crate::codec::runs::Runs;
use crate::codec::{delta, hybrid, split};
use crate::error::{Error, Result};

/// No writer makes larger pages; a forged size must not make us allocate.
const PAGE_BYTES_MAX: u64 = 1 << 28;
const PAGE_ROWS_MAX: usize = 1 << 20;

/// The pages of one column chunk.
pub(crate) struct Pages {
    reader: SerializedPageReader<Bytes>,
    optional: bool,
    compressed: bool,
    has_dictionary: bool,
}

/// A data page with its values still encoded.
pub(crate) struct DataPage {
    pub rows: usize,
    /// How many rows have a value.
    pub present: usize,
    levels: Bytes,
    encoding: Encoding,
    values: Bytes,
}

impl Pages {
    pub fn new(bytes: &Arc<Bytes>, column: &ColumnChunkMetaData, rows: usize) -> Result<Self> {
        let start = column
            .dictionary_page_offset()
            .unwrap_or(column.data_page_offset());
        if start < 0 || column.compressed_size() < 0 {
            return Err(Error::corrupt("a column chunk has a negative offset"));
        }
        let compressed = match column.compression() {
            Compression::UNCOMPRESSED => false,
            Compression::ZSTD(_) => true,
            _ => return Err(Error::corrupt("a column chunk is not compressed with zstd")),
        };
        // The library would set up a decompressor for each chunk; the pages are taken as stored.
        let stored = column
            .clone()
            .into_builder()
            .set_compression(Compression::UNCOMPRESSED)
            .build()?;
        Ok(Self {
            reader: SerializedPageReader::new(Arc::clone(bytes), &stored, rows, None)?,
            optional: column.column_descr().max_def_level() > 0,
            compressed,
            has_dictionary: column.dictionary_page_offset().is_some(),
        })
    }

    /// The plain values of the dictionary page, when the chunk begins with one, and their number.
    pub fn dictionary(&mut self, zstd: &mut Decompressor<'_>) -> Result<Option<(Bytes, usize)>> {
        // Not by peeking: the library's look-ahead panics on a header without its body.
        if !self.has_dictionary {
            return Ok(None);
        }
        match self.reader.get_next_page()? {
            Some(Page::DictionaryPage {
                buf, num_values, ..
            }) => {
                let plain = if self.compressed {
                    unpack(&buf, zstd)?
                } else {
                    buf
                };
                Ok(Some((plain, num_values as usize)))
            }
            _ => Err(Error::corrupt("a dictionary page is missing")),
        }
    }

    /// Passes over one data page without decoding it.
    pub fn skip(&mut self) -> Result<()> {
        Ok(self.reader.skip_next_page()?)
    }

    /// The next data page; it is an error when there is none.
    pub fn next(&mut self, zstd: &mut Decompressor<'_>) -> Result<DataPage> {
        let page = self.reader.get_next_page()?;
        let Some(Page::DataPageV2 {
            buf,
            encoding,
            num_nulls,
            num_rows,
            def_levels_byte_len,
            rep_levels_byte_len: 0,
            is_compressed,
            ..
        }) = page
        else {
            return Err(Error::corrupt("a column chunk has too few pages"));
        };
        let (rows, nulls) = (num_rows as usize, num_nulls as usize);
        let split = def_levels_byte_len as usize;
        if rows > PAGE_ROWS_MAX || nulls > rows || split > buf.len() {
            return Err(Error::corrupt("a page header contradicts itself"));
        }
        let stored = buf.slice(split..);
        let values = if is_compressed && self.compressed && !stored.is_empty() {
            unpack(&stored, zstd)?
        } else {
            stored
        };
        Ok(DataPage {
            rows,
            present: rows - nulls,
            levels: if self.optional {
                buf.slice(..split)
            } else {
                Bytes::new()
            },
            encoding,
            values,
        })
    }
}

fn unpack(packed: &[u8], zstd: &mut Decompressor<'_>) -> Result<Bytes> {
    let size = get_frame_content_size(packed).ok().flatten();
    let size = size
        .filter(|size| *size <= PAGE_BYTES_MAX)
        .ok_or(Error::corrupt("a page has no plausible size"))?;
    let out = zstd
        .decompress(packed, size as usize)
        .map_err(Error::Compression)?;
    Ok(out.into())
}

impl DataPage {
    /// Appends which rows have a value, as runs.
    pub fn presence(&self, into: &mut Runs<bool>) -> Result<()> {
        if self.present == 0 || self.present == self.rows {
            into.push(self.present > 0, self.rows);
            return Ok(());
        }
        let mut levels = Runs::default();
        hybrid::decode(&self.levels, 1, self.rows, &mut levels).ok_or_else(bad_levels)?;
        let ones = levels.as_slice().iter().filter(|run| run.0 == 1);
        if ones.map(|run| run.1).sum::<usize>() != self.present {
            return Err(bad_levels());
        }
        for (level, n) in levels.as_slice() {
            into.push(*level == 1, *n);
        }
        Ok(())
    }

    /// Appends the dictionary keys of the present values, each below `entries`.
    pub fn keys(&self, entries: usize, into: &mut Runs<u32>) -> Result<()> {
        if self.present == 0 {
            return Ok(());
        }
        let (width, keys) = self.values.split_first().ok_or_else(bad_values)?;
        let from = into.as_slice().len();
        if self.encoding != Encoding::RLE_DICTIONARY {
            return Err(bad_values());
        }
        hybrid::decode(keys, u32::from(*width), self.present, into).ok_or_else(bad_values)?;
        // The run before may have grown by equal keys.
        let known = |run: &(u32, usize)| (run.0 as usize) < entries;
        if into.as_slice()[from.saturating_sub(1)..].iter().all(known) {
            Ok(())
        } else {
            Err(Error::corrupt("a page refers beyond its dictionary"))
        }
    }

    /// Appends the present integers.
    pub fn ints(&self, into: &mut Vec<i64>) -> Result<()> {
        if self.present == 0 {
            return Ok(());
        }
        if self.encoding != Encoding::DELTA_BINARY_PACKED {
            return Err(bad_values());
        }
        delta::decode(&self.values, self.present, into)
            .map(|_| ())
            .ok_or_else(bad_values)
    }

    /// Appends the present doubles; `dictionary` serves pages of keys.
    pub fn floats(&self, dictionary: &[f64], into: &mut Vec<f64>) -> Result<()> {
        if self.present == 0 {
            return Ok(());
        }
        match self.encoding {
            Encoding::BYTE_STREAM_SPLIT => {
                split::decode(&self.values, self.present, into).ok_or_else(bad_values)
            }
            Encoding::RLE_DICTIONARY => {
                let mut keys = Runs::default();
                self.keys(dictionary.len(), &mut keys)?;
                for (key, n) in keys.as_slice() {
                    into.extend(std::iter::repeat_n(dictionary[*key as usize], *n));
                }
                Ok(())
            }
            _ => Err(bad_values()),
        }
    }

    /// Calls `visit` with each present byte string.
    pub fn blobs(&self, mut visit: impl FnMut(&[u8]) -> Result<()>) -> Result<()> {
        if self.present == 0 {
            return Ok(());
        }
        if self.encoding != Encoding::DELTA_LENGTH_BYTE_ARRAY {
            return Err(bad_values());
        }
        let mut lengths = Vec::new();
        let rest =
            delta::decode(&self.values, self.present, &mut lengths).ok_or_else(bad_values)?;
        let mut bytes = rest;
        for length in lengths {
            let length = usize::try_from(length).ok().filter(|n| *n <= bytes.len());
            let (blob, rest) = bytes.split_at(length.ok_or_else(bad_values)?);
            visit(blob)?;
            bytes = rest;
        }
        Ok(())
    }
}

fn bad_levels() -> Error {
    Error::corrupt("the definition levels of a page cannot be decoded")
}

fn bad_values() -> Error {
    Error::corrupt("the values of a page cannot be decoded")
}

/// Reads the plain texts of a dictionary page.
pub(crate) fn texts(page: &[u8], entries: usize) -> Result<Vec<String>> {
    let mut rest = page;
    let mut texts = Vec::with_capacity(entries.min(page.len() / 4));
    for _ in 0..entries {
        let cut = || Error::corrupt("a dictionary page ends early");
        let (length, tail) = rest.split_first_chunk::<4>().ok_or_else(cut)?;
        let length = u32::from_le_bytes(*length) as usize;
        let (text, tail) = tail.split_at_checked(length).ok_or_else(cut)?;
        let text = std::str::from_utf8(text);
        let text = text.map_err(|_| Error::corrupt("a dictionary holds text that is not UTF-8"))?;
        texts.push(text.to_owned());
        rest = tail;
    }
    Ok(texts)
}

/// Reads the plain fixed-width values of a dictionary page.
pub(crate) fn fixed<const N: usize, T>(
    page: &[u8],
    entries: usize,
    value: impl Fn([u8; N]) -> T,
) -> Result<Vec<T>> {
    if Some(page.len()) != entries.checked_mul(N) {
        return Err(Error::corrupt("a dictionary page has another size"));
    }
    let (chunks, _) = page.as_chunks::<N>();
    Ok(chunks.iter().map(|chunk| value(*chunk)).collect())
}
