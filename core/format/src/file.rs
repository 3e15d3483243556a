//! A Parquet file with its own digest, written and opened.
//!
//! ```text
//! "PAR1" · 16 bytes: digest of all that follows · row groups · footer
//! footer: page sums · page indexes · metadata · tail
//! ```
//!
//! Parquet addresses pages by offset, so readers skip the digest; ours check it before they parse
//! anything, and need neither defences nor luck against damaged metadata.

use std::cmp::Ordering;
use std::sync::Arc;

use bytes::Bytes;
use parquet::basic::{Compression, ZstdLevel};
use parquet::column::writer::ColumnCloseResult;
use parquet::file::metadata::{
    ColumnChunkMetaData, KeyValue, ParquetMetaData, ParquetMetaDataReader, SortingColumn,
};
use parquet::file::properties::{WriterProperties, WriterVersion};
use parquet::file::writer::SerializedFileWriter;
use parquet::schema::parser::parse_message_type;
use parquet::schema::types::ColumnDescPtr;
use stele_model::{Digest, FileStats, RowsHash, Series};

use crate::EncodedFile;
use crate::chunk::{self, Chunk, Data, Settings};
use crate::codec::runs::Runs;
use crate::digest::content_digest;
use crate::error::{Error, Result};
use crate::page_writer::Zstd;

/// Where the digest lies: after the magic.
const DIGEST: std::ops::Range<usize> = 4..20;
/// Where the first page lies.
pub(crate) const DATA_START: usize = DIGEST.end;

/// One column a file may have.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Column {
    pub name: &'static str,
    /// Its declaration in Parquet's schema language: `repetition type`, then an annotation.
    pub physical: &'static str,
    pub annotation: &'static str,
    /// Whether it may be left out where it is null throughout.
    pub omittable: bool,
}

/// The encoded chunks of one row group, by position in the list of columns.
struct Group {
    rows: usize,
    chunks: Vec<Option<Chunk>>,
}

/// A file as it was written.
pub(crate) struct Written {
    pub bytes: Vec<u8>,
    /// Where its footer begins.
    footer: usize,
}

/// Gathers row groups and writes the file once it is known which columns it has.
pub(crate) struct FileBuilder {
    columns: &'static [Column],
    pub settings: Settings,
    zstd: Zstd,
    groups: Vec<Group>,
    bytes: usize,
    rows: usize,
}

impl FileBuilder {
    pub fn new(columns: &'static [Column], settings: Settings) -> Self {
        Self {
            columns,
            settings,
            zstd: Zstd::new(settings.level),
            groups: Vec::new(),
            bytes: 0,
            rows: 0,
        }
    }

    /// Adds a row group; `columns` are (position, values, presence).
    pub fn add_group(
        &mut self,
        rows: usize,
        columns: &[(usize, Data<'_>, Option<&Runs<bool>>)],
    ) -> Result<()> {
        let mut chunks: Vec<Option<Chunk>> = self.columns.iter().map(|_| None).collect();
        for (at, data, presence) in columns {
            let chunk = chunk::encode(*data, *presence, rows, &self.settings, &mut self.zstd)?;
            self.bytes += chunk.bytes.len();
            chunks[*at] = Some(chunk);
        }
        self.rows += rows;
        self.groups.push(Group { rows, chunks });
        Ok(())
    }

    /// The bytes of all row groups so far, and their rows.
    pub fn size(&self) -> (usize, usize) {
        (self.bytes, self.rows)
    }

    /// Writes the file. `sorted` declares the rows ascending by (metric, tags, ts), the first
    /// three columns.
    pub fn finish(mut self, metadata: Vec<KeyValue>, sorted: bool) -> Result<Written> {
        let kept: Vec<usize> = (0..self.columns.len())
            .filter(|at| {
                let used = self.groups.iter().any(|g| g.chunks[*at].is_some());
                used || !self.columns[*at].omittable
            })
            .collect();
        let schema = Arc::new(parse_message_type(&self.message(&kept))?);
        let sorting = (0..3).map(|column_idx| SortingColumn {
            column_idx,
            descending: false,
            nulls_first: false,
        });
        let properties = WriterProperties::builder()
            .set_writer_version(WriterVersion::PARQUET_2_0)
            .set_created_by("stele".to_owned())
            .set_key_value_metadata((!metadata.is_empty()).then_some(metadata))
            .set_sorting_columns(sorted.then(|| sorting.collect()))
            .set_offset_index_disabled(!self.settings.indexed)
            .build();
        let out = Vec::with_capacity(self.bytes + 4096);
        let mut writer = SerializedFileWriter::new(out, schema, Arc::new(properties))?;
        writer.write_all(&[0; 16]).map_err(Error::Compression)?;
        let descriptors: Vec<ColumnDescPtr> = writer.schema_descr().columns().to_vec();
        let mut sums: Vec<u8> = Vec::new();
        for mut group in std::mem::take(&mut self.groups) {
            let mut row_group = writer.next_row_group()?;
            for (at, descriptor) in kept.iter().zip(&descriptors) {
                let chunk = match group.chunks[*at].take() {
                    Some(chunk) => chunk,
                    None => self.nulls(group.rows)?,
                };
                let close = chunk.close(descriptor, self.settings.level)?;
                row_group.append_column(&chunk.bytes, close)?;
                sums.extend(chunk.sums.iter().flat_map(|sum| sum.to_le_bytes()));
            }
            row_group.close()?;
        }
        let footer = writer.bytes_written();
        if self.settings.indexed {
            writer.write_all(&sums).map_err(Error::Compression)?;
        }
        let mut bytes = writer.into_inner()?;
        let digest = content_digest(&bytes[DIGEST.end..]);
        bytes[DIGEST].copy_from_slice(&digest.0);
        Ok(Written { bytes, footer })
    }

    fn message(&self, kept: &[usize]) -> String {
        let mut text = String::from("message stele {\n");
        for column in kept.iter().map(|at| &self.columns[*at]) {
            for part in [column.physical, " ", column.name, column.annotation, ";\n"] {
                text.push_str(part);
            }
        }
        text.push('}');
        text
    }

    /// A column without a value.
    fn nulls(&mut self, rows: usize) -> Result<Chunk> {
        let mut presence = Runs::default();
        presence.push(false, rows);
        let data = Data::Ints(&[], false);
        chunk::encode(data, Some(&presence), rows, &self.settings, &mut self.zstd)
    }
}

impl Chunk {
    fn close(&self, descriptor: &ColumnDescPtr, level: i32) -> Result<ColumnCloseResult> {
        let (size, dictionary) = (self.bytes.len() as i64, self.dictionary_bytes as i64);
        let mut metadata = ColumnChunkMetaData::builder(Arc::clone(descriptor))
            .set_compression(Compression::ZSTD(ZstdLevel::try_new(level)?))
            .set_encodings(self.encodings.clone())
            .set_num_values(self.rows as i64)
            .set_total_compressed_size(size)
            .set_total_uncompressed_size(self.uncompressed as i64)
            .set_data_page_offset(dictionary)
            .set_dictionary_page_offset((dictionary > 0).then_some(0));
        if let Some(statistics) = &self.statistics {
            metadata = metadata.set_statistics(statistics.clone());
        }
        Ok(ColumnCloseResult {
            bytes_written: self.bytes.len() as u64,
            rows_written: self.rows as u64,
            metadata: metadata.build()?,
            bloom_filter: None,
            column_index: self.column_index.clone(),
            offset_index: self.offset_index.clone(),
        })
    }
}

/// Checks a file's own digest and parses its metadata.
///
/// # Errors
/// [`Error::DigestMismatch`] or [`Error::Corrupt`] when the bytes are not what was written.
pub(crate) fn open(bytes: &Bytes) -> Result<ParquetMetaData> {
    let (head, body) = bytes
        .split_at_checked(DIGEST.end)
        .ok_or(Error::corrupt("the object is shorter than its header"))?;
    if &head[..4] != b"PAR1" {
        return Err(Error::corrupt("the object is not a Parquet file"));
    }
    let mut expected = Digest([0; 16]);
    expected.0.copy_from_slice(&head[DIGEST]);
    let found = content_digest(body);
    if found != expected {
        return Err(Error::DigestMismatch {
            what: "the object",
            expected,
            found,
        });
    }
    Ok(ParquetMetaDataReader::new().parse_and_finish(bytes)?)
}

/// What is known of the rows written so far.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Facts {
    pub rows: u64,
    pub hash: RowsHash,
    pub ts_min_us: i64,
    pub ts_max_us: i64,
    pub series: u64,
    pub metric_min: String,
    /// The series of the last row, and its timestamp.
    pub last: Option<(Series, i64)>,
}

impl Default for Facts {
    fn default() -> Self {
        Self {
            rows: 0,
            hash: RowsHash::default(),
            ts_min_us: i64::MAX,
            ts_max_us: i64::MIN,
            series: 0,
            metric_min: String::new(),
            last: None,
        }
    }
}

impl Facts {
    /// Notes that rows of `series` from `first_us` on follow.
    ///
    /// # Errors
    /// [`Error::Unsorted`] when they do not ascend.
    pub fn begin(&mut self, series: &Series, first_us: i64) -> Result<()> {
        match &mut self.last {
            None => {
                self.metric_min.clone_from(&series.metric);
                self.last = Some((series.clone(), first_us));
                self.series = 1;
            }
            Some((last, ts_us)) => match series.cmp(last) {
                Ordering::Greater => {
                    last.metric.clone_from(&series.metric);
                    last.tags.clone_from(&series.tags);
                    self.series += 1;
                }
                Ordering::Equal if *ts_us < first_us => {}
                Ordering::Equal | Ordering::Less => return Err(unsorted(series, first_us)),
            },
        }
        Ok(())
    }

    /// Notes that the rows of one series from `first_us` to `last_us` were added.
    pub fn end(&mut self, rows: usize, first_us: i64, last_us: i64) {
        self.rows += rows as u64;
        self.ts_min_us = self.ts_min_us.min(first_us);
        self.ts_max_us = self.ts_max_us.max(last_us);
        if let Some(last) = &mut self.last {
            last.1 = last_us;
        }
    }

    /// The finished file, its digests taken.
    pub fn into_file(self, Written { bytes, footer }: Written) -> EncodedFile {
        let (digest, footer_digest) = (content_digest(&bytes), content_digest(&bytes[footer..]));
        let stats = FileStats {
            size_bytes: bytes.len() as u64,
            digest,
            footer_digest,
            footer_bytes: (bytes.len() - footer) as u64,
            rows: self.rows,
            rows_hash: self.hash,
            ts_min_us: self.ts_min_us,
            ts_max_us: self.ts_max_us,
            metric_min: self.metric_min,
            metric_max: self.last.map(|last| last.0.metric).unwrap_or_default(),
            series: self.series,
        };
        EncodedFile {
            bytes: bytes.into(),
            stats,
        }
    }
}

pub(crate) fn unsorted(series: &Series, ts_us: i64) -> Error {
    Error::Unsorted {
        metric: series.metric.clone(),
        tags: series.tags.clone(),
        ts_us,
    }
}
