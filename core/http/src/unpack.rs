//! Undoing a content encoding within byte and ratio limits.

use std::io::Read;

use axum::http::HeaderMap;
use axum::http::header::CONTENT_ENCODING;
use bytes::Bytes;
use flate2::bufread::MultiGzDecoder;
use stele_model::Limits;

use crate::error::Error;
use crate::state::Flight;

/// Below this the ratio is not looked at: a short body of repeats packs very well.
const RATIO_FROM_BYTES: u64 = 1 << 20;

/// How much is unpacked between two looks at the limits.
const STEP_BYTES: usize = 64 << 10;

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

/// The body without its encoding. Each step is checked against the limits before the next one is
/// unpacked, so what is allocated beyond a limit is less than a step.
pub(crate) fn unpack(
    packed: Bytes,
    encoding: Encoding,
    limits: &Limits,
    flight: &mut Flight,
) -> Result<Bytes, Error> {
    if encoding == Encoding::Identity || packed.is_empty() {
        return Ok(packed);
    }
    let mut reader = MultiGzDecoder::new(&packed[..]);
    let mut out = Vec::new();
    let mut step = vec![0; STEP_BYTES];
    loop {
        let read = reader
            .read(&mut step)
            .map_err(|source| Error::Gzip { source })?;
        if read == 0 {
            return Ok(Bytes::from(out));
        }
        let bytes = (out.len() + read) as u64;
        if bytes > limits.unpacked_bytes_max {
            let limit = limits.unpacked_bytes_max;
            return Err(Error::Unpacked { limit });
        }
        let (packed, limit) = (packed.len() as u64, limits.unpack_ratio_max);
        if bytes > RATIO_FROM_BYTES && bytes > packed.saturating_mul(limit) {
            return Err(Error::Ratio { packed, limit });
        }
        flight.take(read)?;
        out.extend_from_slice(&step[..read]);
    }
}
