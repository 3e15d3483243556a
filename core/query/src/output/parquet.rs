//! Answers as one Parquet file, given out row group by row group.

use arrow::datatypes::{DataType, SchemaRef};
use arrow::record_batch::RecordBatch;
use parquet::arrow::ArrowWriter;
use parquet::basic::{Compression, ZstdLevel};
use parquet::errors::ParquetError;
use parquet::file::properties::WriterProperties;

use super::plain;
use crate::error::{Error, Result};

/// Rows of a row group.
const ROWS_MAX: usize = 128 << 10;
/// Bytes of a row group before it is given out, about.
const BYTES_MAX: usize = 8 << 20;

/// The row groups of an answer.
pub(super) struct Groups {
    schema: SchemaRef,
    writer: ArrowWriter<Vec<u8>>,
}

fn broken(error: ParquetError) -> Error {
    Error::Internal(Box::new(error.into()))
}

fn has_interval(data_type: &DataType) -> bool {
    match data_type {
        DataType::Interval(_) => true,
        DataType::List(item) | DataType::LargeList(item) => has_interval(item.data_type()),
        DataType::Struct(fields) => fields.iter().any(|f| has_interval(f.data_type())),
        _ => false,
    }
}

impl Groups {
    /// A file of rows of `schema`.
    ///
    /// # Errors
    /// [`Error::NotInParquet`].
    pub(super) fn new(schema: SchemaRef) -> Result<Self> {
        let unfit = schema.fields().iter().find(|f| has_interval(f.data_type()));
        if let Some(field) = unfit {
            return Err(Error::NotInParquet {
                column: field.name().clone(),
            });
        }
        let properties = WriterProperties::builder()
            .set_created_by("stele".to_owned())
            .set_compression(Compression::ZSTD(ZstdLevel::default()))
            .set_max_row_group_row_count(Some(ROWS_MAX))
            .build();
        let writer = ArrowWriter::try_new(Vec::new(), SchemaRef::clone(&schema), Some(properties));
        Ok(Self {
            writer: writer.map_err(broken)?,
            schema,
        })
    }

    /// The bytes of the row groups that are full with `batch`; often none.
    ///
    /// # Errors
    /// A defect.
    pub(super) fn batch(&mut self, batch: &RecordBatch) -> Result<Vec<u8>> {
        let batch = plain(batch, &self.schema)?;
        self.writer.write(&batch).map_err(broken)?;
        if self.writer.in_progress_size() > BYTES_MAX {
            self.writer.flush().map_err(broken)?;
        }
        Ok(std::mem::take(self.writer.inner_mut()))
    }

    /// The last row group and the footer.
    ///
    /// # Errors
    /// A defect.
    pub(super) fn end(&mut self) -> Result<Vec<u8>> {
        self.writer.finish().map_err(broken)?;
        Ok(std::mem::take(self.writer.inner_mut()))
    }
}
