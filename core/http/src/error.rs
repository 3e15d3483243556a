//! Why a request was not answered with success.

use stele_model::{ErrorKind, chain};
use stele_wire::gzip::GzipError;

/// A cause that only an operator sees.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// A refused request. The message is for the sender; what only an operator may see is a source.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("the body has {bytes} bytes, over the limit of {limit} (body_bytes_max)")]
    Body { bytes: u64, limit: u64 },
    #[error(transparent)]
    Gzip(#[from] GzipError),
    #[error(
        "the requests being worked on would take more than {limit} bytes (in_flight_bytes_max)"
    )]
    Busy { limit: u64 },
    #[error("Content-Encoding {encoding:?} is not supported: use gzip or none")]
    Encoding { encoding: String },
    #[error("correct={text:?} is not a rank: a whole number from 1 on")]
    Rank { text: String },
    #[error("Content-Type {given:?} is not supported here: use {expected}")]
    Media {
        given: String,
        expected: &'static str,
    },
    #[error("the body did not arrive within {secs} s")]
    Slow { secs: u64 },
    #[error("the body could not be read to its end")]
    Interrupted {
        #[source]
        source: axum::Error,
    },
    #[error(transparent)]
    Decode(#[from] stele_wire::Error),
    #[error("the samples could not be stored; nothing is acknowledged, send them again")]
    Ingest(#[source] stele_ingest::Error),
    #[error(transparent)]
    Quota(#[from] stele_ingest::QuotaError),
    #[error("the tenant's retention cannot be read; nothing is acknowledged, send it again")]
    Retention(#[source] BoxError),
    /// What the sender did with its key.
    #[error(transparent)]
    Key(stele_ingest::Error),
    #[error("the request's work ended unexpectedly")]
    Worker(#[source] tokio::task::JoinError),
}

impl From<stele_ingest::Error> for Error {
    fn from(source: stele_ingest::Error) -> Self {
        match source {
            stele_ingest::Error::KeyText { .. }
            | stele_ingest::Error::KeyReused
            | stele_ingest::Error::KeyOld { .. } => Self::Key(source),
            source => Self::Ingest(source),
        }
    }
}

impl Error {
    pub(crate) fn kind(&self) -> ErrorKind {
        match self {
            Self::Body { .. } => ErrorKind::TooLarge,
            Self::Gzip(source) => source.kind(),
            Self::Busy { .. } | Self::Slow { .. } | Self::Retention(_) => ErrorKind::Unavailable,
            Self::Encoding { .. } | Self::Media { .. } => ErrorKind::UnsupportedMedia,
            Self::Rank { .. } | Self::Interrupted { .. } => ErrorKind::Malformed,
            Self::Decode(source) => source.kind(),
            Self::Ingest(source) | Self::Key(source) => source.kind(),
            Self::Quota(source) => source.kind(),
            Self::Worker(_) => ErrorKind::Internal,
        }
    }

    /// When the request is worth sending again, if that is known, s.
    pub(crate) fn retry_after_secs(&self) -> Option<u64> {
        match self {
            Self::Quota(source) => Some(source.retry_after_secs()),
            _ => None,
        }
    }

    /// Logs what the sender is not told.
    pub(crate) fn log(&self) {
        match self {
            Self::Ingest(source) => {
                let (kind, cause) = (self.kind(), chain(source));
                tracing::error!(%kind, cause, "a batch was not stored");
            }
            Self::Retention(source) => {
                let (kind, cause) = (self.kind(), chain(&**source));
                tracing::error!(%kind, cause, "a retention cannot be read");
            }
            Self::Worker(source) => {
                let (kind, cause) = (self.kind(), chain(source));
                tracing::error!(%kind, cause, "a worker failed");
            }
            _ => tracing::debug!(kind = %self.kind(), reason = %self, "a request was refused"),
        }
    }
}
