//! Reply bodies of the InfluxDB 1.x and 2.x write APIs. Success has none: it is a bare 204.
//!
//! Telegraf reads these: its 1.x output looks for `partial write` and `unable to parse`, its 2.x
//! output for the status alone.

use serde_json::json;
use stele_model::{ErrorKind, Rejections};

/// The text of a write of which `accepted` samples were stored and the rest refused.
fn message(accepted: u64, rejections: &Rejections) -> String {
    let mut text = if accepted > 0 {
        String::from("partial write: ")
    } else {
        String::from("unable to parse: ")
    };
    for (i, rejection) in rejections.named.iter().enumerate() {
        if i > 0 {
            text.push_str("; ");
        }
        text.push_str(&format!(
            "line {}: {}",
            rejection.position, rejection.reason
        ));
    }
    text.push_str(&format!(" dropped={}", rejections.total));
    text
}

/// The 1.x body of a write with rejections; its status is 400. `rejections` is not empty.
#[must_use]
pub fn partial_v1(accepted: u64, rejections: &Rejections) -> String {
    error_v1(&message(accepted, rejections))
}

/// The 2.x status and body of a write with rejections: 422 when the rest was stored, 400 when
/// nothing was. `rejections` is not empty.
#[must_use]
pub fn partial_v2(accepted: u64, rejections: &Rejections) -> (u16, String) {
    let text = message(accepted, rejections);
    if accepted > 0 {
        let text = format!("failure writing points to database: {text}");
        (422, body_v2("unprocessable entity", &text))
    } else {
        (400, body_v2("invalid", &text))
    }
}

/// The 1.x body of any error.
#[must_use]
pub fn error_v1(message: &str) -> String {
    json!({ "error": message }).to_string()
}

/// The 2.x body of an error of `kind`.
#[must_use]
pub fn error_v2(kind: ErrorKind, message: &str) -> String {
    body_v2(code_v2(kind), message)
}

fn body_v2(code: &str, message: &str) -> String {
    json!({ "code": code, "message": message }).to_string()
}

/// The `code` of the 2.x API's error schema.
fn code_v2(kind: ErrorKind) -> &'static str {
    match kind {
        ErrorKind::Malformed | ErrorKind::InvalidQuery => "invalid",
        ErrorKind::Unauthenticated => "unauthorized",
        ErrorKind::Forbidden => "forbidden",
        ErrorKind::NotFound => "not found",
        ErrorKind::TooLarge => "request too large",
        ErrorKind::UnsupportedMedia => "unsupported media type",
        ErrorKind::Conflict => "conflict",
        ErrorKind::Partial | ErrorKind::Contradiction | ErrorKind::Unexecutable => {
            "unprocessable entity"
        }
        ErrorKind::Throttled => "too many requests",
        ErrorKind::Unavailable | ErrorKind::QueryTimeout => "unavailable",
        ErrorKind::Corrupt | ErrorKind::Internal => "internal error",
    }
}
