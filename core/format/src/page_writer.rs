//! Pages with their headers, compressed, end to end in memory.

use std::ops::Range;

use parquet::basic::Encoding;
use parquet::column::page::{CompressedPage, Page, PageWriter as _};
use parquet::file::metadata::OffsetIndexBuilder;
use parquet::file::writer::{SerializedPageWriter, TrackedWrite};
use zstd::bulk::Compressor;
use zstd::zstd_safe::{CParameter, Strategy};

use crate::error::{Error, Result};

/// The compressors of one file.
pub(crate) struct Zstd {
    general: Compressor<'static>,
    /// For bytes that are symbols drawn at random: hardly looks for matches, which would cost
    /// more than the symbols.
    symbols: Compressor<'static>,
}

impl Zstd {
    pub fn new(level: i32) -> Self {
        let mut general = Compressor::default();
        let mut symbols = Compressor::default();
        general
            .set_compression_level(level)
            .and_then(|()| symbols.set_parameter(CParameter::Strategy(Strategy::ZSTD_fast)))
            .and_then(|()| symbols.set_parameter(CParameter::MinMatch(7)))
            .and_then(|()| symbols.set_parameter(CParameter::HashLog(6)))
            // For readers of other makes, which know no sums: a flipped bit must not decode.
            .and_then(|()| general.set_parameter(CParameter::ChecksumFlag(true)))
            .and_then(|()| symbols.set_parameter(CParameter::ChecksumFlag(true)))
            .expect("zstd has these levels and parameters");
        Self { general, symbols }
    }
}

/// Writes pages with their headers and notes where they are.
pub(crate) struct PageWriter<'a> {
    zstd: &'a mut Zstd,
    pub out: TrackedWrite<Vec<u8>>,
    pub offsets: OffsetIndexBuilder,
    /// Where each page is, the dictionary's first.
    pub pages: Vec<Range<usize>>,
    pub encodings: Vec<Encoding>,
    pub uncompressed: usize,
    pub dictionary_bytes: usize,
}

impl<'a> PageWriter<'a> {
    pub fn new(zstd: &'a mut Zstd) -> Self {
        Self {
            zstd,
            out: TrackedWrite::new(Vec::new()),
            offsets: OffsetIndexBuilder::default(),
            pages: Vec::new(),
            encodings: vec![Encoding::RLE],
            uncompressed: 0,
            dictionary_bytes: 0,
        }
    }

    /// The dictionary page: plain values, always compressed.
    pub fn dictionary(&mut self, plain: &[u8], entries: usize) -> Result<()> {
        let page = Page::DictionaryPage {
            buf: self
                .zstd
                .general
                .compress(plain)
                .map_err(Error::Compression)?
                .into(),
            num_values: count(entries)?,
            encoding: Encoding::PLAIN,
            is_sorted: false,
        };
        self.note(Encoding::PLAIN);
        self.dictionary_bytes = self.write(page, plain.len())?.1;
        Ok(())
    }

    /// Compresses the values of a page, or their other form when that becomes smaller; returns
    /// the chosen form, plain and compressed. Values that do not become smaller are compressed all
    /// the same, for the checksum.
    pub fn smaller(&mut self, body: Vec<u8>, wide: Vec<u8>) -> Result<(Vec<u8>, Vec<u8>)> {
        let packed = self
            .zstd
            .general
            .compress(&body)
            .map_err(Error::Compression)?;
        if !wide.is_empty() {
            let other = self
                .zstd
                .symbols
                .compress(&wide)
                .map_err(Error::Compression)?;
            if other.len() < packed.len() {
                return Ok((wide, other));
            }
        }
        Ok((body, packed))
    }

    /// A data page (version 2: levels stay outside the compression) of `rows` rows.
    pub fn data(
        &mut self,
        rows: usize,
        nulls: usize,
        levels: &[u8],
        (values, packed): (&[u8], &[u8]),
        encoding: Encoding,
    ) -> Result<()> {
        let mut buf = levels.to_vec();
        let is_compressed = !values.is_empty();
        if is_compressed {
            buf.extend_from_slice(packed);
        }
        let page = Page::DataPageV2 {
            buf: buf.into(),
            num_values: count(rows)?,
            encoding,
            num_nulls: count(nulls)?,
            num_rows: count(rows)?,
            def_levels_byte_len: count(levels.len())?,
            rep_levels_byte_len: 0,
            is_compressed,
            statistics: None,
        };
        self.note(encoding);
        let (offset, size) = self.write(page, levels.len() + values.len())?;
        self.offsets.append_row_count(rows as i64);
        let size = i32::try_from(size).unwrap_or(i32::MAX);
        self.offsets.append_offset_and_size(offset as i64, size);
        Ok(())
    }

    /// Writes a page; returns its offset and its size with the header.
    fn write(&mut self, page: Page, uncompressed: usize) -> Result<(u64, usize)> {
        let page = CompressedPage::new(page, uncompressed);
        let spec = SerializedPageWriter::new(&mut self.out).write_page(page)?;
        let start = usize::try_from(spec.offset).unwrap_or(usize::MAX);
        self.pages.push(start..start + spec.compressed_size);
        self.uncompressed += spec.uncompressed_size;
        Ok((spec.offset, spec.compressed_size))
    }

    fn note(&mut self, encoding: Encoding) {
        if !self.encodings.contains(&encoding) {
            self.encodings.push(encoding);
        }
    }
}

fn count(n: usize) -> Result<u32> {
    u32::try_from(n).map_err(|_| Error::TooLarge {
        what: "the size of a page",
        value: n as u64,
        max: u64::from(u32::MAX),
    })
}
