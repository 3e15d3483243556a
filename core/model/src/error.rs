//! The kinds of failure, and the one mapping from kind to HTTP status.
//!
//! Each crate has its own `Error` with sources kept and a `kind()`; only the kind decides what a
//! sender sees and whether it should retry.

use std::fmt;

/// What went wrong, as far as a caller must tell the cases apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ErrorKind {
    /// The request cannot be understood; sending it again cannot help.
    Malformed,
    /// The SQL text is wrong or not allowed.
    InvalidQuery,
    /// No valid credentials.
    Unauthenticated,
    /// Valid credentials without the needed scope.
    Forbidden,
    /// The thing named does not exist.
    NotFound,
    /// What is asked for was possible once and is no more; sending it again cannot help.
    Conflict,
    /// The request contradicts an earlier one that it claims to repeat.
    Contradiction,
    /// A body or a value is over its limit.
    TooLarge,
    /// Content type or encoding that no decoder takes.
    UnsupportedMedia,
    /// Some samples were kept and some refused.
    Partial,
    /// A query over one of its caps.
    Unexecutable,
    /// The tenant's own quota, or bytes in flight.
    Throttled,
    /// The store cannot be reached, or commits contend; try again.
    Unavailable,
    /// The query ran past its deadline.
    QueryTimeout,
    /// Stored bytes are not what was written.
    Corrupt,
    /// A defect of ours.
    Internal,
}

impl ErrorKind {
    /// The HTTP status a sender sees. Transient faults are 503, never 500: OpenTelemetry senders
    /// drop what a 500 answers.
    #[must_use]
    pub fn status(self) -> u16 {
        match self {
            Self::Malformed | Self::InvalidQuery | Self::Partial => 400,
            Self::Unauthenticated => 401,
            Self::Forbidden => 403,
            Self::NotFound => 404,
            Self::Conflict => 409,
            Self::TooLarge => 413,
            Self::UnsupportedMedia => 415,
            Self::Contradiction | Self::Unexecutable => 422,
            Self::Throttled => 429,
            Self::Unavailable | Self::QueryTimeout => 503,
            Self::Corrupt | Self::Internal => 500,
        }
    }

    /// Whether the same request may succeed later without any change.
    #[must_use]
    pub fn is_retryable(self) -> bool {
        match self {
            Self::Throttled | Self::Unavailable | Self::QueryTimeout => true,
            Self::Malformed
            | Self::InvalidQuery
            | Self::Partial
            | Self::Unauthenticated
            | Self::Forbidden
            | Self::NotFound
            | Self::Conflict
            | Self::Contradiction
            | Self::TooLarge
            | Self::UnsupportedMedia
            | Self::Unexecutable
            | Self::Corrupt
            | Self::Internal => false,
        }
    }

    /// The stable lower-case word for logs, metrics and error bodies.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Malformed => "malformed",
            Self::InvalidQuery => "invalid_query",
            Self::Unauthenticated => "unauthenticated",
            Self::Forbidden => "forbidden",
            Self::NotFound => "not_found",
            Self::Conflict => "conflict",
            Self::Contradiction => "contradiction",
            Self::TooLarge => "too_large",
            Self::UnsupportedMedia => "unsupported_media",
            Self::Partial => "partial",
            Self::Unexecutable => "unexecutable",
            Self::Throttled => "throttled",
            Self::Unavailable => "unavailable",
            Self::QueryTimeout => "query_timeout",
            Self::Corrupt => "corrupt",
            Self::Internal => "internal",
        }
    }
}

impl fmt::Display for ErrorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// An error and its causes in one line, each said once: for logs and findings.
#[must_use]
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.ends_with(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        source = cause.source();
    }
    text
}
