//! Replies that every router shares.

use axum::body::Body;
use axum::http::header::{CONTENT_TYPE, RETRY_AFTER};
use axum::http::{HeaderName, HeaderValue, StatusCode};
use axum::response::Response;
use serde_json::json;
use stele_model::ErrorKind;

use crate::error::Error;

/// Names the batch that holds a request's accepted samples: a [`stele_model::ReceiptId`].
pub const RECEIPT_HEADER: HeaderName = HeaderName::from_static("stele-receipt");

/// After how many seconds a request that may succeed later is worth sending again.
const RETRY_AFTER_SECS: u32 = 1;

/// The reply to a failed request: the status of `kind`, `{"error":"<message>","kind":"<kind>"}`,
/// and `Retry-After` when the same request may succeed later. `message` is for the sender: it
/// names values and limits, never internal causes.
#[must_use]
pub fn error_response(kind: ErrorKind, message: &str) -> Response {
    failure(
        kind,
        json!({ "error": message, "kind": kind.as_str() }).to_string(),
    )
}

/// A failure whose body a protocol prescribes.
pub(crate) fn failure(kind: ErrorKind, body: String) -> Response {
    let mut response = json_reply(kind.status(), body);
    if kind.is_retryable() {
        let value = HeaderValue::from(RETRY_AFTER_SECS);
        response.headers_mut().insert(RETRY_AFTER, value);
    }
    response
}

/// Says when the request that failed with `error` is worth sending again, if that is known.
pub(crate) fn with_retry_after(response: &mut Response, error: &Error) {
    if let Some(secs) = error.retry_after_secs() {
        let value = HeaderValue::from(secs);
        response.headers_mut().insert(RETRY_AFTER, value);
    }
}

/// `body` is JSON text.
pub(crate) fn json_reply(status: u16, body: String) -> Response {
    let mut response = Response::new(Body::from(body));
    let internal = StatusCode::INTERNAL_SERVER_ERROR;
    *response.status_mut() = StatusCode::from_u16(status).unwrap_or(internal);
    let json = HeaderValue::from_static("application/json");
    response.headers_mut().insert(CONTENT_TYPE, json);
    response
}

pub(crate) fn no_content() -> Response {
    empty(204)
}

/// A reply without a body.
pub(crate) fn empty(status: u16) -> Response {
    let mut response = Response::new(Body::empty());
    let internal = StatusCode::INTERNAL_SERVER_ERROR;
    *response.status_mut() = StatusCode::from_u16(status).unwrap_or(internal);
    response
}

/// `text` as a header value: one line of printable ASCII, at most `bytes_max` bytes.
pub(crate) fn header_text(text: &str, bytes_max: usize) -> HeaderValue {
    let printable = |c: char| if (' '..='~').contains(&c) { c } else { '?' };
    let line: String = text.chars().map(printable).take(bytes_max).collect();
    HeaderValue::from_str(&line).unwrap_or(HeaderValue::from_static("?"))
}
