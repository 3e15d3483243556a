//! Undoing gzip within byte and ratio limits, before any decoder sees a body.

use std::io::Read;

use flate2::bufread::MultiGzDecoder;
use stele_model::{ErrorKind, Limits};

/// Below this the ratio is not looked at: a short body of repeats packs very well.
const RATIO_FROM_BYTES: u64 = 1 << 20;

/// How much is unpacked between two looks at the limits.
const STEP_BYTES: usize = 64 << 10;

/// A body that is not unpacked.
#[derive(Debug, thiserror::Error)]
pub enum GzipError {
    /// It is too large.
    #[error("the unpacked body has more than {limit} bytes (unpacked_bytes_max)")]
    Unpacked {
        /// Bytes allowed.
        limit: u64,
    },
    /// It is packed too well.
    #[error("the body unpacks to more than {limit} times its {packed} bytes (unpack_ratio_max)")]
    Ratio {
        /// Bytes as sent.
        packed: u64,
        /// How many times as many are allowed.
        limit: u64,
    },
    /// It is not gzip to its end.
    #[error("the body is not gzip: {source}")]
    Gzip {
        /// What the unpacker says.
        source: std::io::Error,
    },
}

impl GzipError {
    /// How the sender is answered.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Unpacked { .. } | Self::Ratio { .. } => ErrorKind::TooLarge,
            Self::Gzip { .. } => ErrorKind::Malformed,
        }
    }
}

/// The body in one or several gzip members. Each step is checked against the limits, and `take` is
/// asked for its bytes, before it is kept and the next one is unpacked: what is allocated beyond a
/// limit is less than a step.
///
/// # Errors
/// [`GzipError`], and those of `take`.
pub fn unpack<E: From<GzipError>>(
    packed: &[u8],
    limits: &Limits,
    mut take: impl FnMut(usize) -> Result<(), E>,
) -> Result<Vec<u8>, E> {
    let mut reader = MultiGzDecoder::new(packed);
    let mut out = Vec::new();
    let mut step = vec![0; STEP_BYTES];
    loop {
        let read = reader
            .read(&mut step)
            .map_err(|source| GzipError::Gzip { source })?;
        if read == 0 {
            return Ok(out);
        }
        let bytes = (out.len() + read) as u64;
        if bytes > limits.unpacked_bytes_max {
            let limit = limits.unpacked_bytes_max;
            return Err(GzipError::Unpacked { limit }.into());
        }
        let (packed, limit) = (packed.len() as u64, limits.unpack_ratio_max);
        if bytes > RATIO_FROM_BYTES && bytes > packed.saturating_mul(limit) {
            return Err(GzipError::Ratio { packed, limit }.into());
        }
        take(read)?;
        out.extend_from_slice(&step[..read]);
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use flate2::Compression;
    use flate2::write::GzEncoder;

    use super::*;

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    #[test]
    fn no_more_than_a_step_is_unpacked_beyond_a_limit() {
        let bomb = gzip(&vec![b'x'; 32 << 20]);
        let limits = |unpacked_bytes_max, unpack_ratio_max| Limits {
            unpacked_bytes_max,
            unpack_ratio_max,
            ..Limits::default()
        };
        for (limits, most) in [
            (limits(3 << 20, 1_000_000), 3 << 20),
            (limits(64 << 20, 50), bomb.len() * 50),
        ] {
            let mut taken = 0;
            let unpacked = unpack(&bomb, &limits, |bytes| {
                taken += bytes;
                Ok::<_, GzipError>(())
            });
            assert_eq!(unpacked.unwrap_err().kind(), ErrorKind::TooLarge);
            assert!((most - STEP_BYTES..=most).contains(&taken), "{taken}");
        }
    }

    #[test]
    fn a_body_whose_bytes_are_not_granted_is_not_unpacked() {
        let packed = gzip(&vec![b'x'; 1 << 20]);
        let mut asked = 0;
        let refused = unpack(&packed, &Limits::default(), |_| {
            asked += 1;
            Err(GzipError::Unpacked { limit: 0 })
        });
        assert!(refused.is_err());
        assert_eq!(asked, 1);
    }
}
