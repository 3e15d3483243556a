//! L0 objects: the accepted batches of one or several requests, as ingest stores them.

use bytes::Bytes;
use stele_model::{Batch, L0Name};

use crate::error::{Error, Result};

/// An L0 object ready to be stored.
#[derive(Debug, Clone)]
pub struct Encoded {
    /// Its name: a function of its batches.
    pub name: L0Name,
    /// Its bytes: a function of its rows alone.
    pub bytes: Bytes,
}

/// Encodes one or several batches; a batch given twice is stored once.
///
/// # Errors
/// [`Error::Empty`] when there is no batch or one has no row.
pub fn encode(_batches: &[Batch]) -> Result<Encoded> {
    Err(Error::Empty)
}

/// Reads the batches of an L0 object, in the order of their digests, and checks each digest.
///
/// # Errors
/// [`Error::Corrupt`] or [`Error::DigestMismatch`] when the bytes are not what was written.
pub fn decode(_bytes: Bytes) -> Result<Vec<Batch>> {
    Err(Error::Empty)
}
