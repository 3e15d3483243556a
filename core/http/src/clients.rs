//! What Influx clients ask before they write: `/ping`, `/health` and a little of `/query`.

use axum::extract::{Request, State};
use axum::http::Method;
use axum::response::Response;
use serde_json::json;
use stele_wire::influx;

use crate::body;
use crate::reply::{error_response, json_reply, no_content};
use crate::state::IngestState;
use crate::write::with_version;

/// 204, as InfluxDB answers.
pub(crate) async fn ping() -> Response {
    let mut response = no_content();
    with_version(&mut response);
    response
}

/// 200 while the process serves requests, in the form of the 2.x API.
pub(crate) async fn health() -> Response {
    let body = json!({
        "name": "stele",
        "message": "ready for writes and queries",
        "status": "pass",
        "checks": [],
        "version": env!("CARGO_PKG_VERSION"),
    });
    json_reply(200, body.to_string())
}

/// Answers the statement `q`, from the query string or a form.
pub(crate) async fn query(State(state): State<IngestState>, request: Request) -> Response {
    let mut q = statement(request.uri().query().unwrap_or_default().as_bytes());
    if q.is_none() && request.method() == Method::POST {
        let mut flight = state.flight();
        match body::read(request, state.limits(), &mut flight).await {
            Ok(form) => q = statement(&form),
            Err(error) => return error_response(error.kind(), &error.to_string()),
        }
    }
    let (status, body) = influx::query_reply(&q.unwrap_or_default());
    let mut response = json_reply(status, body);
    with_version(&mut response);
    response
}

fn statement(form: &[u8]) -> Option<String> {
    let mut pairs = url::form_urlencoded::parse(form);
    let found = pairs.find(|(name, _)| name == "q")?;
    Some(found.1.into_owned())
}
