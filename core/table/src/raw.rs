//! The decoders of stored objects on their own, for the fuzz targets in `tests/fuzz`; no part of
//! the API. Types that stay private come back encoded again, so that a target can tell whether a
//! second reading says the same as the first.

use bytes::Bytes;
use stele_model::WindowSet;

use crate::apply::{Attached, apply};
use crate::check::sealed;
use crate::checkpoint;
use crate::codec;
use crate::entry::LogEntry;
use crate::error::Damage;
use crate::file::{FileEntry, windows_from_text, windows_to_text};
use crate::head::{Manifest, decode_head, encode_head};
use crate::ledger::LedgerFile;
use crate::state::TableState;

/// Decodes a log entry.
///
/// # Errors
/// The bytes are no entry.
pub fn entry(bytes: &[u8]) -> Result<LogEntry, Damage> {
    LogEntry::decode(bytes)
}

/// An entry with the check it should have, as far as there is room for one.
#[must_use]
pub fn checked(bytes: &[u8]) -> Bytes {
    sealed(bytes.to_vec())
}

/// The version after `state` by an entry that names no other object.
///
/// # Errors
/// The entry does not fit the state.
pub fn after(state: &TableState, entry: &LogEntry, bytes: &[u8]) -> Result<TableState, Damage> {
    apply(state, entry, codec::digest(bytes), &Attached::Nothing)
}

/// Decodes a head.
///
/// # Errors
/// The bytes are no head.
pub fn head(bytes: &[u8]) -> Result<TableState, Damage> {
    decode_head(bytes)
}

/// Encodes a head.
///
/// # Errors
/// As the encoder.
pub fn head_bytes(state: &TableState) -> Result<Bytes, Damage> {
    encode_head(state)
}

/// Decodes a manifest and encodes it again.
///
/// # Errors
/// The bytes are no manifest.
pub fn manifest(bytes: &[u8]) -> Result<Bytes, Damage> {
    Ok(Manifest::decode(bytes)?.encode()?.1)
}

/// Decodes a ledger file and encodes it again.
///
/// # Errors
/// The bytes are no ledger file.
pub fn ledger(bytes: &[u8]) -> Result<Bytes, Damage> {
    let file = LedgerFile::decode(bytes)?;
    Ok(LedgerFile::encode_day("", &file.operations)?.1)
}

/// Decodes a checkpoint: its files, the key of its manifest, and its version.
///
/// # Errors
/// The bytes are no checkpoint.
pub fn checkpoint(bytes: Bytes) -> Result<(Vec<FileEntry>, String, u64), Damage> {
    let decoded = checkpoint::decode(bytes)?;
    Ok((decoded.files, decoded.manifest, decoded.version))
}

/// Reads the text of a set of windows and writes it again.
///
/// # Errors
/// The text is none.
pub fn windows(text: &str) -> Result<(WindowSet, String), Damage> {
    let windows = windows_from_text(text)?;
    let again = windows_to_text(&windows);
    Ok((windows, again))
}
