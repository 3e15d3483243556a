//! One column chunk: pages, their headers, statistics and indexes.
//!
//! All columns of a row group have their page boundaries at the same rows, which is what lets a
//! reader of this crate skip a block of rows in every column at once.

use bytes::Bytes;
use parquet::basic::{Encoding, Type};
use parquet::data_type::ByteArray;
use parquet::file::metadata::ColumnIndexBuilder;
use parquet::file::page_index::column_index::ColumnIndexMetaData;
use parquet::file::page_index::offset_index::OffsetIndexMetaData;
use parquet::file::statistics::{Statistics, ValueStatistics};

use crate::codec::runs::{Cursor, Runs};
use crate::codec::{bits, delta, hybrid, split};
use crate::column::{Blobs, Texts, keyed};
use crate::error::Result;
use crate::page_sums::page_sum;
use crate::page_writer::{PageWriter, Zstd};

/// Texts in the column index and statistics are cut to this many bytes: longer than the tags of
/// almost every series.
const INDEX_BYTES_MAX: usize = 256;

/// How files are cut and compressed.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Settings {
    /// zstd's compression level.
    pub level: i32,
    /// Rows of a page.
    pub page_rows: usize,
    /// Rows of a row group; a multiple of `page_rows`.
    pub group_rows: usize,
    /// Whether pages have statistics and an index.
    pub indexed: bool,
    /// Whether integers are encoded in two ways and the smaller one kept.
    pub thorough: bool,
}

/// The values of a column; of an optional one, those that are present.
#[derive(Clone, Copy)]
pub(crate) enum Data<'a> {
    /// Dictionary-encoded texts with statistics.
    Texts(&'a Texts, &'a Runs<u32>),
    /// Dictionary-encoded values: the dictionary page, its size, the keys.
    Keys(&'a [u8], usize, &'a Runs<u32>),
    /// Integers, with statistics when flagged.
    Ints(&'a [i64], bool),
    /// Doubles, without statistics: NaN and −0.0 in them prune rows that exist.
    Floats(&'a [f64]),
    /// Byte strings.
    Blobs(&'a Blobs),
}

/// An encoded column chunk, at offset 0 of its own bytes.
pub(crate) struct Chunk {
    pub bytes: Bytes,
    pub rows: usize,
    pub uncompressed: usize,
    pub encodings: Vec<Encoding>,
    /// The length of the dictionary page; 0 when there is none.
    pub dictionary_bytes: usize,
    /// The sum of each page, the dictionary's first.
    pub sums: Vec<u32>,
    pub statistics: Option<Statistics>,
    pub column_index: Option<ColumnIndexMetaData>,
    pub offset_index: Option<OffsetIndexMetaData>,
}

/// Encodes a column of `rows` rows; `presence` is `None` for a required one.
pub(crate) fn encode(
    data: Data<'_>,
    presence: Option<&Runs<bool>>,
    rows: usize,
    settings: &Settings,
    zstd: &mut Zstd,
) -> Result<Chunk> {
    if let Data::Floats(values) = data
        && let Some(keyed) = few_distinct(values)
    {
        let data = Data::Keys(&keyed.page, keyed.entries, &keyed.keys);
        return encode(data, presence, rows, settings, zstd);
    }
    let mut pages = PageWriter::new(zstd);
    let mut values = Values::new(data);
    if let Some((page, entries)) = values.dictionary() {
        pages.dictionary(page, entries)?;
    }
    let mut present = presence.map(Runs::cursor);
    let mut index = PageIndex::new(data, settings.indexed);
    let mut done = 0;
    while done < rows {
        let here = settings.page_rows.min(rows - done);
        let (levels, count) = match &mut present {
            None => (Vec::new(), here),
            Some(cursor) => levels(cursor, here),
        };
        let mut body = Vec::new();
        let (encoding, range) = values.page(count, &mut body);
        index.add(&range, here - count);
        let wide = if settings.thorough {
            values.symbols(count)
        } else {
            Vec::new()
        };
        let (body, packed) = pages.smaller(body, wide)?;
        pages.data(here, here - count, &levels, (&body, &packed), encoding)?;
        done += here;
    }
    index.finish(pages, rows, settings.indexed)
}

/// Dictionary-encodes doubles when few are distinct.
fn few_distinct(values: &[f64]) -> Option<crate::column::Keyed> {
    let bits = |v: f64| v.to_bits().to_le_bytes();
    let sample = &values[..values.len().min(1024)];
    if sample.is_empty() {
        return None;
    }
    keyed(sample, bits, sample.len() / 2)?;
    keyed(values, bits, (values.len() / 16).max(16))
}

/// The definition levels of a page, and how many of its rows have a value.
fn levels(cursor: &mut Cursor<'_, bool>, rows: usize) -> (Vec<u8>, usize) {
    let mut out = Vec::new();
    let mut encoder = hybrid::Encoder::new(&mut out, 1);
    let mut count = 0;
    cursor.take(rows, |present, n| {
        encoder.push(u32::from(present), n);
        count += if present { n } else { 0 };
    });
    encoder.finish();
    (out, count)
}

/// What a page's statistics say.
enum Range {
    None,
    Ints(i64, i64),
    /// The keys of the least and the greatest text.
    Texts(u32, u32),
}

/// Cuts the values of a column into pages.
struct Values<'a> {
    data: Data<'a>,
    keys: Option<Cursor<'a, u32>>,
    width: u32,
    /// The order of the dictionary's texts: rank by key.
    ranks: Vec<u32>,
    done: usize,
    done_bytes: usize,
}

impl<'a> Values<'a> {
    fn new(data: Data<'a>) -> Self {
        let (keys, entries) = match data {
            Data::Texts(texts, keys) => (Some(keys.cursor()), texts.len()),
            Data::Keys(_, entries, keys) => (Some(keys.cursor()), entries),
            Data::Ints(..) | Data::Floats(_) | Data::Blobs(_) => (None, 0),
        };
        let ranks = match data {
            Data::Texts(texts, _) => ranks(texts),
            _ => Vec::new(),
        };
        Self {
            data,
            keys,
            width: bits((entries as u64).saturating_sub(1)).max(1),
            ranks,
            done: 0,
            done_bytes: 0,
        }
    }

    fn dictionary(&self) -> Option<(&'a [u8], usize)> {
        match self.data {
            Data::Texts(texts, _) => Some((texts.page(), texts.len())),
            Data::Keys(page, entries, _) => Some((page, entries)),
            Data::Ints(..) | Data::Floats(_) | Data::Blobs(_) => None,
        }
        .filter(|dictionary| dictionary.1 > 0)
    }

    /// Encodes the next `n` values into `out`.
    fn page(&mut self, n: usize, out: &mut Vec<u8>) -> (Encoding, Range) {
        if n == 0 {
            return (Encoding::PLAIN, Range::None);
        }
        let from = self.done;
        self.done += n;
        match self.data {
            Data::Texts(..) | Data::Keys(..) => (Encoding::RLE_DICTIONARY, self.keys(n, out)),
            Data::Ints(values, indexed) => {
                let values = &values[from..from + n];
                delta::encode(out, values);
                let range = match (values.iter().min(), values.iter().max()) {
                    (Some(min), Some(max)) if indexed => Range::Ints(*min, *max),
                    _ => Range::None,
                };
                (Encoding::DELTA_BINARY_PACKED, range)
            }
            Data::Floats(values) => {
                split::encode(out, &values[from..from + n]);
                (Encoding::BYTE_STREAM_SPLIT, Range::None)
            }
            Data::Blobs(blobs) => {
                let lengths = &blobs.lengths[from..from + n];
                delta::encode(out, lengths);
                let total = usize::try_from(lengths.iter().sum::<i64>()).unwrap_or_default();
                out.extend_from_slice(&blobs.bytes[self.done_bytes..self.done_bytes + total]);
                self.done_bytes += total;
                (Encoding::DELTA_LENGTH_BYTE_ARRAY, Range::None)
            }
        }
    }

    /// The last `n` values in the form of whole bytes; empty where that makes no sense.
    fn symbols(&self, n: usize) -> Vec<u8> {
        let mut out = Vec::new();
        if let Data::Ints(values, _) = self.data
            && n > 0
        {
            delta::encode_bytes(&mut out, &values[self.done - n..self.done]);
        }
        out
    }

    fn keys(&mut self, n: usize, out: &mut Vec<u8>) -> Range {
        let Some(cursor) = &mut self.keys else {
            return Range::None;
        };
        out.push(self.width as u8);
        let mut encoder = hybrid::Encoder::new(out, self.width);
        let mut range: Option<(u32, u32)> = None;
        let ranks = &self.ranks;
        let rank = |key: u32| ranks[key as usize];
        cursor.take(n, |key, n| {
            encoder.push(key, n);
            if ranks.is_empty() {
                return;
            }
            range = Some(match range {
                None => (key, key),
                Some((min, max)) => (
                    if rank(key) < rank(min) { key } else { min },
                    if rank(key) > rank(max) { key } else { max },
                ),
            });
        });
        encoder.finish();
        range.map_or(Range::None, |(min, max)| Range::Texts(min, max))
    }
}

fn ranks(texts: &Texts) -> Vec<u32> {
    let n = u32::try_from(texts.len()).unwrap_or(u32::MAX);
    let mut order: Vec<u32> = (0..n).collect();
    order.sort_unstable_by_key(|key| texts.get(*key));
    let mut ranks = vec![0; order.len()];
    for (rank, key) in (0..).zip(order) {
        ranks[key as usize] = rank;
    }
    ranks
}

/// Gathers the page statistics of one column.
struct PageIndex<'a> {
    texts: Option<&'a Texts>,
    builder: Option<ColumnIndexBuilder>,
    ints: Option<(i64, i64)>,
    least: Option<&'a [u8]>,
    greatest: Option<&'a [u8]>,
}

impl<'a> PageIndex<'a> {
    fn new(data: Data<'a>, indexed: bool) -> Self {
        let (texts, physical) = match data {
            Data::Texts(texts, _) => (Some(texts), Some(Type::BYTE_ARRAY)),
            Data::Ints(_, true) => (None, Some(Type::INT64)),
            _ => (None, None),
        };
        Self {
            texts,
            builder: physical.filter(|_| indexed).map(ColumnIndexBuilder::new),
            ints: None,
            least: None,
            greatest: None,
        }
    }

    fn add(&mut self, range: &Range, nulls: usize) {
        let nulls = nulls as i64;
        let (min, max) = match (range, self.texts) {
            (Range::Ints(min, max), _) => {
                let all = self.ints.unwrap_or((*min, *max));
                self.ints = Some((all.0.min(*min), all.1.max(*max)));
                (min.to_le_bytes().to_vec(), max.to_le_bytes().to_vec())
            }
            (Range::Texts(min, max), Some(texts)) => {
                let (min, max) = (texts.get(*min), texts.get(*max));
                self.least = Some(self.least.map_or(min, |least| least.min(min)));
                self.greatest = Some(self.greatest.map_or(max, |greatest| greatest.max(max)));
                (cut_below(min).to_vec(), cut_above(max).0)
            }
            _ => return,
        };
        if let Some(builder) = &mut self.builder {
            builder.append(false, min, max, nulls);
        }
    }

    fn finish(self, pages: PageWriter<'_>, rows: usize, indexed: bool) -> Result<Chunk> {
        let statistics = match (self.ints, self.least.zip(self.greatest)) {
            (Some((min, max)), _) => Some(Statistics::int64(
                Some(min),
                Some(max),
                None,
                Some(0),
                false,
            )),
            (None, Some((min, max))) => {
                let (low, (high, exact)) = (cut_below(min), cut_above(max));
                let array = |bytes: &[u8]| Some(ByteArray::from(bytes.to_vec()));
                let values = ValueStatistics::new(array(low), array(&high), None, Some(0), false)
                    .with_min_is_exact(low.len() == min.len())
                    .with_max_is_exact(exact);
                Some(Statistics::ByteArray(values))
            }
            (None, None) => None,
        };
        let column_index = self.builder.map(ColumnIndexBuilder::build).transpose()?;
        let bytes = pages.out.into_inner()?;
        let sums = pages.pages.iter();
        let sums = sums.map(|page| page_sum(&bytes[page.clone()])).collect();
        Ok(Chunk {
            bytes: bytes.into(),
            rows,
            uncompressed: pages.uncompressed,
            encodings: pages.encodings,
            dictionary_bytes: pages.dictionary_bytes,
            sums,
            statistics,
            column_index,
            offset_index: indexed.then(|| pages.offsets.build()),
        })
    }
}

/// A text that is not greater than `text` and at most [`INDEX_BYTES_MAX`] long.
fn cut_below(text: &[u8]) -> &[u8] {
    match std::str::from_utf8(text) {
        Ok(utf8) => &text[..utf8.floor_char_boundary(INDEX_BYTES_MAX)],
        Err(_) => text,
    }
}

/// A text that is not less than `text` and short where that is possible; and whether it is exact.
fn cut_above(text: &[u8]) -> (Vec<u8>, bool) {
    let mut cut = cut_below(text).to_vec();
    if cut.len() == text.len() {
        return (cut, true);
    }
    // The last ASCII character that has a successor gives a greater text of valid UTF-8.
    match cut.iter().rposition(|byte| *byte < 0x7f) {
        Some(at) => {
            cut.truncate(at + 1);
            cut[at] += 1;
            (cut, false)
        }
        None => (text.to_vec(), true),
    }
}
