//! The digest of its own bytes that an object of the log carries, for objects that no other
//! object names.

use std::ops::Range;

use bytes::Bytes;
use stele_model::Digest;

use crate::codec;
use crate::error::Damage;

/// What stands before the check in compact JSON; no text in it can hold these bytes, because JSON
/// escapes quotes.
const CHECK: &[u8] = b"\"check\":\"";

/// What the check of `bytes` should be, and where it stands; `bytes` has zeroes there afterwards.
fn check_of(bytes: &mut [u8]) -> Option<(Digest, Range<usize>)> {
    let before = bytes.windows(CHECK.len()).position(|at| at == CHECK)?;
    let start = before + CHECK.len();
    let place = start..start + 2 * size_of::<Digest>();
    bytes.get_mut(place.clone())?.fill(b'0');
    Some((codec::digest(bytes), place))
}

/// Puts the check into an object.
pub(crate) fn sealed(mut bytes: Vec<u8>) -> Bytes {
    if let Some((check, place)) = check_of(&mut bytes) {
        bytes[place].copy_from_slice(check.to_string().as_bytes());
    }
    bytes.into()
}

/// Whether `expected`, which the object says its check is, is that of its bytes.
pub(crate) fn verify(bytes: &[u8], expected: Digest) -> Result<(), Damage> {
    match check_of(&mut bytes.to_vec()) {
        Some((got, _)) if got == expected => Ok(()),
        Some((got, _)) => Err(Damage::Digest { got, expected }),
        None => Err(Damage::value("check", "")),
    }
}
