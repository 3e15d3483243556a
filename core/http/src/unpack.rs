//! Undoing a content encoding within byte and ratio limits.

use axum::http::HeaderMap;
use axum::http::header::CONTENT_ENCODING;
use bytes::Bytes;
use stele_model::Limits;
use stele_wire::gzip;

use crate::error::Error;
use crate::state::Flight;

/// The encodings a body may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Encoding {
    Identity,
    Gzip,
}

impl Encoding {
    pub(crate) fn of(headers: &HeaderMap) -> Result<Self, Error> {
        let Some(value) = headers.get(CONTENT_ENCODING) else {
            return Ok(Self::Identity);
        };
        match value.to_str().map(str::trim) {
            Ok("" | "identity") => Ok(Self::Identity),
            Ok(text) if text.eq_ignore_ascii_case("gzip") => Ok(Self::Gzip),
            _ => {
                let text = String::from_utf8_lossy(value.as_bytes());
                let encoding = text.chars().take(40).collect();
                Err(Error::Encoding { encoding })
            }
        }
    }
}

/// The body without its encoding.
pub(crate) fn unpack(
    packed: Bytes,
    encoding: Encoding,
    limits: &Limits,
    flight: &mut Flight,
) -> Result<Bytes, Error> {
    if encoding == Encoding::Identity || packed.is_empty() {
        return Ok(packed);
    }
    gzip::unpack(&packed, limits, |bytes| flight.take(bytes)).map(Bytes::from)
}
