//! Why a request is not let in, in the words of its protocol.

use axum::http::HeaderValue;
use axum::http::header::WWW_AUTHENTICATE;
use axum::response::Response;
use serde_json::json;
use stele_auth::Scope;
use stele_model::ErrorKind;
use stele_wire::influx;

use super::routes::Dialect;
use crate::reply::{error_response, failure};
use crate::write::{with_error, with_version};

/// A request that is not let in. No text of it ever holds a token.
#[derive(Debug, thiserror::Error)]
pub(super) enum Refusal {
    #[error("no token: send one as \"Authorization: Bearer <token>\"")]
    NoToken,
    #[error("the credentials are neither Bearer nor Token nor Basic with a token")]
    Unreadable,
    #[error(transparent)]
    Token(#[from] stele_auth::Error),
    #[error("the token lacks the scope {}", Words(needed))]
    Scope { needed: &'static [Scope] },
    #[error("there is no such route")]
    NoRoute,
    #[error("the request has no Host: without tokens, it must name a loopback address")]
    NoHost,
    #[error(
        "{header} {value:?} is not loopback: without tokens, only localhost, 127.0.0.0/8 and \
         [::1] are answered"
    )]
    NotLoopback { header: &'static str, value: String },
}

/// Scopes of which one is enough.
struct Words<'a>(&'a [Scope]);

impl std::fmt::Display for Words<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (i, scope) in self.0.iter().enumerate() {
            let or = if i > 0 { " or " } else { "" };
            write!(f, "{or}{scope}")?;
        }
        Ok(())
    }
}

impl Refusal {
    pub(super) fn kind(&self) -> ErrorKind {
        match self {
            Self::NoToken | Self::Unreadable => ErrorKind::Unauthenticated,
            Self::Token(error) => error.kind(),
            Self::Scope { .. } | Self::NoHost | Self::NotLoopback { .. } => ErrorKind::Forbidden,
            Self::NoRoute => ErrorKind::NotFound,
        }
    }

    pub(super) fn reply(&self, dialect: Dialect) -> Response {
        let (kind, text) = (self.kind(), self.to_string());
        let mut response = match dialect {
            Dialect::InfluxV1 | Dialect::InfluxV2 => {
                let body = match dialect {
                    Dialect::InfluxV1 => influx::error_v1(&text),
                    _ => influx::error_v2(kind, &text),
                };
                let mut response = failure(kind, body);
                with_error(&mut response, &text);
                with_version(&mut response);
                response
            }
            Dialect::Librato => {
                // What its clients know.
                let text = match kind {
                    ErrorKind::Unauthenticated => "Authorization Required",
                    _ => &text,
                };
                failure(kind, json!({"errors": {"request": [text]}}).to_string())
            }
            Dialect::Native => error_response(kind, &text),
        };
        if kind == ErrorKind::Unauthenticated {
            for challenge in ["Bearer realm=\"stele\"", "Basic realm=\"stele\""] {
                let value = HeaderValue::from_static(challenge);
                response.headers_mut().append(WWW_AUTHENTICATE, value);
            }
        }
        response
    }
}
