//! Why a request as a whole is refused. A single bad sample is a rejection, not an error.

use stele_model::ErrorKind;

/// A request that is refused as a whole.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// More samples than one request may hold.
    #[error("the request holds more than {limit} samples (samples_max); send it in parts")]
    Samples {
        /// The limit.
        limit: u64,
    },
    /// The distinct series of the request are too large together.
    #[error(
        "the distinct series of the request take more than {limit} bytes (series_bytes_max); \
         send it in parts"
    )]
    SeriesBytes {
        /// The limit.
        limit: u64,
    },
    /// A precision no client uses.
    #[error("precision {value:?} is not one of n, ns, u, us, ms, s, m, h")]
    Precision {
        /// What was asked for.
        value: String,
    },
    /// An import's body that is no object of samples.
    #[error("the body is no object of samples as `stele import` sends them")]
    Object,
    /// A body that is not the JSON it should be.
    #[error("the body is not {{\"samples\":[…]}}: {source}")]
    Json {
        /// What the parser says, with line and column.
        source: serde_json::Error,
    },
    /// A body that is not the JSON its route takes.
    #[error("the body is not {expected}: {source}")]
    Body {
        /// What the route takes.
        expected: &'static str,
        /// What the parser says, with line and column.
        source: serde_json::Error,
    },
    /// A body without anything that its route stores.
    #[error("the body holds no {expected}")]
    Nothing {
        /// What the route stores.
        expected: &'static str,
    },
    /// More items than one request of its form may hold.
    #[error("the request holds more than {limit} items; send it in parts")]
    Items {
        /// The limit.
        limit: u64,
    },
    /// OTLP metrics, which share a route with Librato's.
    #[error("OTLP is not supported yet: this route takes Librato's gauges and counters")]
    Otlp,
}

impl Error {
    /// What a caller needs to know of it.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Samples { .. } | Self::SeriesBytes { .. } | Self::Items { .. } => {
                ErrorKind::TooLarge
            }
            Self::Precision { .. }
            | Self::Object
            | Self::Json { .. }
            | Self::Body { .. }
            | Self::Nothing { .. } => ErrorKind::Malformed,
            Self::Otlp => ErrorKind::UnsupportedMedia,
        }
    }
}
