//! `POST /v1/metrics` and `POST /v1/measurements`, as Librato's clients send them.
//!
//! A success is exactly 200 for the one and 202 for the other, also when some items were refused:
//! what was accepted is durable and the body names the rest. A 4xx would make python-librato
//! leave the rest of its queue unsent, and anything but 200 makes Telegraf send the same batch for
//! ever. 400 says that nothing was accepted.
//!
//! OTLP over HTTP uses `/v1/metrics` too; it is told apart by its content type, or by its top-level
//! key, and refused with 415.

use axum::extract::{Request, State};
use axum::http::HeaderMap;
use axum::http::header::CONTENT_TYPE;
use axum::response::Response;
use stele_model::Limits;
use stele_wire::{Decoded, librato};

use crate::error::Error;
use crate::reply::{empty, failure, json_reply, with_retry_after};
use crate::state::{Accepted, IngestState};
use crate::write::with_receipt;

const JSON: &str = "application/json";
const FORM: &str = "application/x-www-form-urlencoded";
const PROTOBUF: &str = "application/x-protobuf";

/// 200 when anything was accepted, or nothing was sent.
pub(crate) async fn metrics(State(state): State<IngestState>, request: Request) -> Response {
    let accepted = match media_type(request.headers()).as_str() {
        PROTOBUF => Err(stele_wire::Error::Otlp.into()),
        JSON => state.accept(request, Box::new(librato::metrics)).await,
        // A form is what curl and Librato assume when nothing is said.
        "" | FORM => state.accept(request, Box::new(json_or_form)).await,
        given => Err(media(given, "application/json or a form")),
    };
    answer(accepted, 200)
}

/// 202 when anything was accepted, or nothing was sent.
pub(crate) async fn measurements(State(state): State<IngestState>, request: Request) -> Response {
    let accepted = match media_type(request.headers()).as_str() {
        JSON => state.accept(request, Box::new(librato::measurements)).await,
        given => Err(media(given, JSON)),
    };
    answer(accepted, 202)
}

fn json_or_form(body: &[u8], now_us: i64, limits: &Limits) -> Result<Decoded, stele_wire::Error> {
    match body.iter().find(|b| !b.is_ascii_whitespace()) {
        Some(b'{') => librato::metrics(body, now_us, limits),
        _ => librato::metrics_form(body, now_us, limits),
    }
}

/// The media type without its parameters, in lower case; empty when there is none.
fn media_type(headers: &HeaderMap) -> String {
    let value = headers.get(CONTENT_TYPE).map(|value| value.as_bytes());
    let text = String::from_utf8_lossy(value.unwrap_or_default());
    let (essence, _) = text.split_once(';').unwrap_or((&text, ""));
    essence.trim().to_ascii_lowercase()
}

fn media(given: &str, expected: &'static str) -> Error {
    let given = given.chars().take(80).collect();
    Error::Media { given, expected }
}

fn answer(accepted: Result<Accepted, Error>, status: u16) -> Response {
    let accepted = match accepted {
        Ok(accepted) => accepted,
        Err(error) => {
            let kind = error.kind();
            let mut response = failure(kind, librato::error(kind, &error.to_string()));
            with_retry_after(&mut response, &error);
            return response;
        }
    };
    let rejections = &accepted.rejections;
    let mut response = if rejections.is_empty() {
        empty(status)
    } else {
        let status = if accepted.receipt.is_some() {
            status
        } else {
            400
        };
        json_reply(status, librato::partial(accepted.samples(), rejections))
    };
    with_receipt(&mut response, accepted.receipt.as_ref());
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_media_type_is_read_without_parameters_and_case() {
        let read = |value: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert(CONTENT_TYPE, value.parse().unwrap());
            media_type(&headers)
        };
        assert_eq!(read("Application/JSON; charset=utf-8"), JSON);
        assert_eq!(read(" application/x-protobuf"), PROTOBUF);
        assert_eq!(media_type(&HeaderMap::new()), "");
    }
}
