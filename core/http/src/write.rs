//! `POST /write` (InfluxDB 1.x) and `POST /api/v2/write` (2.x).
//!
//! Of the parameters only `precision` matters; `db`, `rp`, `bucket` and `org` are accepted and
//! never choose the tenant. A success is a bare 204.

use axum::extract::{Request, State};
use axum::http::HeaderName;
use axum::response::Response;
use stele_ingest::Receipt;
use stele_wire::{Precision, influx};

use crate::error::Error;
use crate::reply::{
    RECEIPT_HEADER, failure, header_text, json_reply, no_content, with_retry_after,
};
use crate::state::{Accepted, IngestState};

const ERROR_HEADER: HeaderName = HeaderName::from_static("x-influxdb-error");
const VERSION_HEADER: HeaderName = HeaderName::from_static("x-influxdb-version");

/// The header repeats an error for clients that read no body; the body says all of it.
const ERROR_HEADER_BYTES_MAX: usize = 400;

/// The version that clients are told: the last 1.x line, whose write API this is.
pub(crate) const INFLUX_VERSION: &str = "1.8.10";

pub(crate) async fn v1(State(state): State<IngestState>, request: Request) -> Response {
    let mut response = match accept(&state, request).await {
        Ok(accepted) => {
            let body = influx::partial_v1(accepted.samples(), &accepted.rejections);
            answer(&accepted, 400, body)
        }
        Err(error) => {
            let text = error.to_string();
            let mut response = failure(error.kind(), influx::error_v1(&text));
            with_error(&mut response, &text);
            with_retry_after(&mut response, &error);
            response
        }
    };
    with_version(&mut response);
    response
}

pub(crate) async fn v2(State(state): State<IngestState>, request: Request) -> Response {
    let mut response = match accept(&state, request).await {
        Ok(accepted) => {
            let (status, body) = influx::partial_v2(accepted.samples(), &accepted.rejections);
            answer(&accepted, status, body)
        }
        Err(error) => {
            let (kind, text) = (error.kind(), error.to_string());
            let mut response = failure(kind, influx::error_v2(kind, &text));
            with_error(&mut response, &text);
            with_retry_after(&mut response, &error);
            response
        }
    };
    with_version(&mut response);
    response
}

async fn accept(state: &IngestState, request: Request) -> Result<Accepted, Error> {
    let query = request.uri().query().unwrap_or_default();
    let precision = precision(query)?;
    let decode = move |body: &[u8], now_us: i64, limits: &stele_model::Limits| {
        influx::decode(body, precision, now_us, limits)
    };
    state.accept(request, Box::new(decode)).await
}

fn precision(query: &str) -> Result<Precision, Error> {
    let mut pairs = url::form_urlencoded::parse(query.as_bytes());
    match pairs.find(|(name, _)| name == "precision") {
        Some((_, value)) if !value.is_empty() => Ok(value.parse()?),
        _ => Ok(Precision::default()),
    }
}

/// 204, or `status` and `body` when samples were refused; the receipt in both cases.
fn answer(accepted: &Accepted, status: u16, body: String) -> Response {
    let mut response = if accepted.rejections.is_empty() {
        no_content()
    } else {
        let total = accepted.rejections.total;
        let mut response = json_reply(status, body);
        let text = match accepted.receipt {
            Some(_) => format!("partial write: the body names what was refused dropped={total}"),
            None => format!("unable to parse: the body names what was refused dropped={total}"),
        };
        with_error(&mut response, &text);
        response
    };
    with_receipt(&mut response, accepted.receipt.as_ref());
    response
}

pub(crate) fn with_error(response: &mut Response, text: &str) {
    let value = header_text(text, ERROR_HEADER_BYTES_MAX);
    response.headers_mut().insert(ERROR_HEADER, value);
}

pub(crate) fn with_receipt(response: &mut Response, receipt: Option<&Receipt>) {
    if let Some(receipt) = receipt {
        let value = header_text(&receipt.id.to_string(), 64);
        response.headers_mut().insert(RECEIPT_HEADER, value);
    }
}

pub(crate) fn with_version(response: &mut Response) {
    let value = axum::http::HeaderValue::from_static(INFLUX_VERSION);
    response.headers_mut().insert(VERSION_HEADER, value);
}

#[cfg(test)]
mod tests {
    use stele_model::ErrorKind;

    use super::*;

    #[test]
    fn only_the_precision_parameter_is_read() {
        let read = |query| precision(query).map(Precision::as_str);
        assert_eq!(read("db=x&precision=s&rp=y").unwrap(), "s");
        assert_eq!(read("bucket=b&org=o").unwrap(), "ns");
        assert_eq!(read("precision=").unwrap(), "ns");
        assert_eq!(
            read("precision=d").unwrap_err().kind(),
            ErrorKind::Malformed
        );
    }
}
