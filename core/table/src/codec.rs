//! Compressed JSON with a bound on what it may unpack to, and digests of stored bytes.

use std::io::{Read, Write};

use bytes::Bytes;
use serde::Serialize;
use serde::de::DeserializeOwned;
use stele_model::Digest;

use crate::error::Damage;

/// The most a head, manifest or ledger file may unpack to.
const UNPACKED_BYTES_MAX: u64 = 512 << 20;
const ZSTD_LEVEL: i32 = 3;

/// The digest by which the log names an object.
pub(crate) fn digest(bytes: &[u8]) -> Digest {
    let mut out = [0; 16];
    out.copy_from_slice(&blake3::hash(bytes).as_bytes()[..16]);
    Digest(out)
}

/// JSON, zstd compressed with its checksum: a head is named by no digest, and a flipped bit in one
/// could still be JSON. The same value gives the same bytes.
pub(crate) fn pack<T: Serialize>(value: &T) -> Result<Bytes, Damage> {
    let json = serde_json::to_vec(value)?;
    let mut encoder = zstd::stream::Encoder::new(Vec::new(), ZSTD_LEVEL)?;
    encoder.include_checksum(true)?;
    encoder.write_all(&json)?;
    Ok(encoder.finish()?.into())
}

/// The reverse of [`pack`].
pub(crate) fn unpack<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Damage> {
    let mut json = Vec::new();
    let limit_bytes = UNPACKED_BYTES_MAX;
    let unpacked = zstd::stream::read::Decoder::new(bytes)?
        .take(limit_bytes + 1)
        .read_to_end(&mut json)?;
    if unpacked as u64 > limit_bytes {
        return Err(Damage::TooLarge { limit_bytes });
    }
    Ok(serde_json::from_slice(&json)?)
}

/// Serde for values that have a text form.
pub(crate) mod text {
    use std::fmt::Display;
    use std::str::FromStr;

    use serde::{Deserialize, Deserializer, Serializer};

    pub fn serialize<T: Display, S: Serializer>(value: &T, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(value)
    }

    pub fn deserialize<'de, T, D>(from: D) -> Result<T, D::Error>
    where
        T: FromStr<Err: Display>,
        D: Deserializer<'de>,
    {
        String::deserialize(from)?
            .parse()
            .map_err(serde::de::Error::custom)
    }
}
