//! Merged rows as Arrow record batches of the SQL schema.

use arrow::array::RecordBatch;

use crate::error::Result;
use crate::sample::{RollupChunk, SampleChunk};
use crate::schema;

/// The rows of all chunks in one batch of [`schema::logical_samples`].
///
/// # Errors
/// [`crate::Error::TooLarge`] beyond 2³¹ distinct texts.
pub fn samples(_chunks: &[SampleChunk]) -> Result<RecordBatch> {
    Ok(RecordBatch::new_empty(schema::logical_samples()))
}

/// The bins of all chunks in one batch of [`schema::logical_rollups`].
///
/// # Errors
/// [`crate::Error::TooLarge`] beyond 2³¹ distinct texts.
pub fn rollups(_chunks: &[RollupChunk]) -> Result<RecordBatch> {
    Ok(RecordBatch::new_empty(schema::logical_rollups()))
}
