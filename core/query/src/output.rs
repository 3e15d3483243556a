//! Answers as bytes: JSON array, NDJSON, CSV, Arrow IPC stream, Parquet.
//!
//! Each encoder turns batch after batch into a chunk, so an answer is never whole in memory.
//! Times are RFC 3339 in UTC with µs. JSON has no NaN and no infinities: they become null there;
//! CSV spells them out, Arrow and Parquet keep their bits. A Parquet file without its footer is no
//! file, so one that breaks off cannot be mistaken for a whole one.

mod json;
mod parquet;

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use arrow::array::ArrayRef;
use arrow::compute::cast;
use arrow::csv::{Writer as CsvWriter, WriterBuilder as CsvWriterBuilder};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};
use arrow::error::ArrowError;
use arrow::ipc::writer::StreamWriter;
use arrow::record_batch::RecordBatch;
use bytes::Bytes;
use futures::{Stream, StreamExt};

use crate::error::{Error, Result};
use crate::losses::Coverage;
use crate::stream::QueryStream;

/// Values encoded at once: wide rows of long texts would otherwise make chunks without a bound.
const CELLS_MAX: usize = 64 << 10;

/// An output format.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Format {
    /// One JSON array of row objects.
    #[default]
    Json,
    /// One row object per line.
    Ndjson,
    /// A header line, then rows; RFC 4180.
    Csv,
    /// An Arrow IPC stream.
    Arrow,
    /// A Parquet file, sent row group by row group.
    Parquet,
}

impl Format {
    /// The format called `name` in `?format=`.
    ///
    /// # Errors
    /// [`Error::NoSuchFormat`].
    pub fn of_name(name: &str) -> Result<Self> {
        match name {
            "json" => Ok(Self::Json),
            "ndjson" | "jsonl" => Ok(Self::Ndjson),
            "csv" => Ok(Self::Csv),
            "arrow" => Ok(Self::Arrow),
            "parquet" => Ok(Self::Parquet),
            _ => Err(Error::NoSuchFormat {
                name: name.chars().take(40).collect(),
            }),
        }
    }

    /// The first format of an `Accept` header that exists here; JSON when it names none.
    #[must_use]
    pub fn of_accept(accept: &str) -> Self {
        let types = accept
            .split(',')
            .map(|t| t.split(';').next().unwrap_or(t).trim());
        let known = types.filter_map(|t| match t {
            "application/json" => Some(Self::Json),
            "application/x-ndjson" | "application/jsonl" => Some(Self::Ndjson),
            "text/csv" => Some(Self::Csv),
            "application/vnd.apache.arrow.stream" => Some(Self::Arrow),
            "application/vnd.apache.parquet" => Some(Self::Parquet),
            _ => None,
        });
        known.into_iter().next().unwrap_or_default()
    }

    /// The media type of an answer.
    #[must_use]
    pub fn content_type(self) -> &'static str {
        match self {
            Self::Json => "application/json",
            Self::Ndjson => "application/x-ndjson",
            Self::Csv => "text/csv; charset=utf-8; header=present",
            Self::Arrow => "application/vnd.apache.arrow.stream",
            Self::Parquet => "application/vnd.apache.parquet",
        }
    }
}

/// The bytes of an answer, chunk by chunk. An error is its last item: a body that ends without
/// one is complete.
pub struct Encoded {
    batches: QueryStream,
    encoder: Option<Encoder>,
    /// What is left of a batch that is encoded in parts.
    rest: Option<RecordBatch>,
    ready: VecDeque<Bytes>,
    bytes: u64,
}

/// Encodes an answer. Its first chunks are made at once, so that what fails early can still be
/// answered as an error.
///
/// # Errors
/// When the first batches cannot be encoded or are over the byte cap.
pub async fn encode(batches: QueryStream, format: Format) -> Result<Encoded> {
    let encoder = Encoder::new(format, &batches.schema())?;
    let mut encoded = Encoded {
        batches,
        encoder: Some(encoder),
        rest: None,
        ready: VecDeque::new(),
        bytes: 0,
    };
    // A complete answer is encoded whole before its status is sent.
    while encoded.batches.is_complete() && encoded.encoder.is_some() {
        let chunk = std::future::poll_fn(|cx| encoded.poll_chunk(cx)).await;
        match chunk {
            Some(chunk) => encoded.ready.push_back(chunk?),
            None => break,
        }
    }
    Ok(encoded)
}

impl Encoded {
    /// What is known to be lost of what the answer was made from; `None` when that was not asked
    /// for.
    #[must_use]
    pub fn coverage(&self) -> Option<&Coverage> {
        self.batches.coverage()
    }

    /// Whether every chunk is already made, and of how many bytes.
    #[must_use]
    pub fn complete_bytes(&self) -> Option<u64> {
        self.encoder.is_none().then_some(self.bytes)
    }

    fn poll_chunk(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes>>> {
        loop {
            let Some(encoder) = &mut self.encoder else {
                return Poll::Ready(None);
            };
            let batch = match self.rest.take() {
                Some(rest) => Poll::Ready(Some(Ok(rest))),
                None => self.batches.poll_next_unpin(cx),
            };
            let chunk = match batch {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Some(Ok(batch))) => {
                    let (part, rest) = cut(batch);
                    self.rest = rest;
                    encoder.batch(&part)
                }
                Poll::Ready(Some(Err(error))) => Err(error),
                Poll::Ready(None) => {
                    let last = encoder.end();
                    self.encoder = None;
                    last
                }
            };
            let chunk = chunk.inspect_err(|_| self.encoder = None);
            match chunk {
                Ok(chunk) if chunk.is_empty() => {}
                Ok(chunk) => {
                    self.bytes += chunk.len() as u64;
                    let limit = self.batches.bytes_max();
                    if self.bytes > limit {
                        self.encoder = None;
                        let what = "bytes";
                        return Poll::Ready(Some(Err(Error::OverLimit { what, limit })));
                    }
                    return Poll::Ready(Some(Ok(Bytes::from(chunk))));
                }
                Err(error) => return Poll::Ready(Some(Err(error))),
            }
        }
    }
}

/// The part of a batch that is encoded at once, and the others.
fn cut(batch: RecordBatch) -> (RecordBatch, Option<RecordBatch>) {
    let rows = (CELLS_MAX / batch.num_columns().max(1)).max(1);
    if batch.num_rows() <= rows {
        return (batch, None);
    }
    let rest = batch.slice(rows, batch.num_rows() - rows);
    (batch.slice(0, rows), Some(rest))
}

impl Stream for Encoded {
    type Item = Result<Bytes>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if let Some(chunk) = self.ready.pop_front() {
            return Poll::Ready(Some(Ok(chunk)));
        }
        self.poll_chunk(cx)
    }
}

enum Encoder {
    Json(json::Rows),
    Csv {
        schema: SchemaRef,
        header: bool,
    },
    Arrow {
        schema: SchemaRef,
        writer: Box<StreamWriter<Vec<u8>>>,
    },
    Parquet(Box<parquet::Groups>),
}

impl Encoder {
    fn new(format: Format, schema: &Schema) -> Result<Self> {
        if format == Format::Csv
            && let Some(field) = schema.fields().iter().find(|f| f.data_type().is_nested())
        {
            return Err(Error::NotTabular {
                column: field.name().clone(),
            });
        }
        Ok(match format {
            Format::Json => Self::Json(json::Rows::array()),
            Format::Ndjson => Self::Json(json::Rows::lines()),
            Format::Csv => Self::Csv {
                schema: plain_schema(schema, true),
                header: true,
            },
            Format::Arrow => {
                let schema = plain_schema(schema, false);
                let writer = StreamWriter::try_new(Vec::new(), &schema).map_err(broken)?;
                Self::Arrow {
                    schema,
                    writer: Box::new(writer),
                }
            }
            Format::Parquet => {
                let groups = parquet::Groups::new(plain_schema(schema, false))?;
                Self::Parquet(Box::new(groups))
            }
        })
    }

    fn batch(&mut self, batch: &RecordBatch) -> Result<Vec<u8>> {
        match self {
            Self::Json(rows) => rows.batch(batch).map_err(broken),
            Self::Csv { schema, header } => {
                let batch = plain(batch, schema)?;
                let mut out = Vec::new();
                let mut writer = csv_writer(&mut out, std::mem::take(header));
                writer.write(&batch).map_err(broken)?;
                drop(writer);
                Ok(out)
            }
            Self::Arrow { schema, writer } => {
                writer.write(&plain(batch, schema)?).map_err(broken)?;
                Ok(std::mem::take(writer.get_mut()))
            }
            Self::Parquet(groups) => groups.batch(batch),
        }
    }

    fn end(&mut self) -> Result<Vec<u8>> {
        match self {
            Self::Json(rows) => Ok(rows.end()),
            Self::Csv { schema, header } => {
                // An answer without rows still has its header line.
                if !std::mem::take(header) {
                    return Ok(Vec::new());
                }
                let mut out = Vec::new();
                let mut writer = csv_writer(&mut out, true);
                writer
                    .write(&RecordBatch::new_empty(Arc::clone(schema)))
                    .map_err(broken)?;
                drop(writer);
                Ok(out)
            }
            Self::Arrow { writer, .. } => {
                writer.finish().map_err(broken)?;
                Ok(std::mem::take(writer.get_mut()))
            }
            Self::Parquet(groups) => groups.end(),
        }
    }
}

fn csv_writer(out: &mut Vec<u8>, header: bool) -> CsvWriter<&mut Vec<u8>> {
    CsvWriterBuilder::new()
        .with_header(header)
        .with_timestamp_tz_format("%Y-%m-%dT%H:%M:%S%.6fZ".to_owned())
        .build(out)
}

fn broken(error: ArrowError) -> Error {
    Error::Internal(Box::new(error.into()))
}

/// Times of any unit and zone become µs in UTC.
pub(crate) fn utc_us() -> DataType {
    DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()))
}

/// The schema without dictionaries and views, which some readers of Arrow cannot follow from
/// batch to batch; with times in µs of UTC when `times`.
fn plain_schema(schema: &Schema, times: bool) -> SchemaRef {
    let fields = schema.fields().iter().map(|field| {
        let plain = match field.data_type() {
            DataType::Dictionary(_, value) => match value.as_ref() {
                DataType::Utf8View => DataType::Utf8,
                other => other.clone(),
            },
            DataType::Utf8View => DataType::Utf8,
            DataType::Timestamp(..) if times => utc_us(),
            other => other.clone(),
        };
        Field::new(field.name(), plain, field.is_nullable())
    });
    Arc::new(Schema::new(fields.collect::<Vec<_>>()))
}

fn plain(batch: &RecordBatch, schema: &SchemaRef) -> Result<RecordBatch> {
    let cast_to = |(column, field): (&ArrayRef, &Arc<Field>)| {
        if column.data_type() == field.data_type() {
            Ok(Arc::clone(column))
        } else {
            cast(column, field.data_type())
        }
    };
    let columns = batch.columns().iter().zip(schema.fields()).map(cast_to);
    let columns = columns.collect::<Result<Vec<_>, _>>().map_err(broken)?;
    let options =
        arrow::record_batch::RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
    RecordBatch::try_new_with_options(Arc::clone(schema), columns, &options).map_err(broken)
}
