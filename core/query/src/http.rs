//! `POST /sql` (the body is the SQL text) and `GET /sql?q=`, with `format=`, `as_of=` and
//! `coverage=`.
//!
//! Errors are `{"error":{"kind","message"}}` with the status of their kind, as long as no byte of
//! the answer was sent. After that a failure breaks the connection: the body's stream yields an
//! error, so that hyper never writes the end of a chunked body.

use std::sync::Arc;

use axum::body::{Body, Bytes};
use axum::extract::{DefaultBodyLimit, Query, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Extension, Router};
use futures::StreamExt;
use serde::Deserialize;
use serde_json::json;
use stele_model::{ErrorKind, TenantId, TierId, chain};
use stele_table::{AsOf, Readable, Tables};

use crate::engine::QueryEngine;
use crate::error::{Error, Result};
use crate::output::{self, Encoded, Format};

/// Seconds after which a sender may try again.
const RETRY_AFTER_SECS: &str = "2";

/// The tier that answered, when it was not the primary.
const MIRROR: HeaderName = HeaderName::from_static("stele-mirror");

/// What is known to be lost of what a query read, when it was asked.
const COVERAGE: HeaderName = HeaderName::from_static("stele-coverage");

/// What is asked of the tables.
struct Asked<'a> {
    sql: &'a str,
    as_of: Option<AsOf>,
    format: Format,
    is_covered: bool,
}

/// What `/sql` answers from.
///
/// The tenant of a request is the [`TenantId`] among its extensions, which only a middleware can
/// put there, or else `tenant`. Nothing that a sender writes chooses it.
#[derive(Clone)]
pub struct QueryState {
    /// Runs the queries.
    pub engine: Arc<QueryEngine>,
    /// The tenants' tables.
    pub tables: Arc<dyn Tables>,
    /// The tenant of requests that no middleware gave one.
    pub tenant: TenantId,
}

/// The route `/sql`.
pub fn router(state: QueryState) -> Router {
    // The engine checks the text's length; this bounds what is buffered to do so.
    let body_max = state.engine.config().sql_bytes_max + 1;
    Router::new()
        .route("/sql", get(by_query).post(by_body))
        .layer(DefaultBodyLimit::max(body_max))
        .with_state(state)
}

#[derive(Debug, Deserialize)]
struct Parameters {
    q: Option<String>,
    format: Option<String>,
    as_of: Option<String>,
    coverage: Option<String>,
}

async fn by_query(
    State(state): State<QueryState>,
    tenant: Option<Extension<TenantId>>,
    Query(parameters): Query<Parameters>,
    headers: HeaderMap,
) -> Response {
    let sql = parameters.q.as_deref().unwrap_or_default();
    answer(&state, tenant, sql, &parameters, &headers).await
}

async fn by_body(
    State(state): State<QueryState>,
    tenant: Option<Extension<TenantId>>,
    Query(parameters): Query<Parameters>,
    headers: HeaderMap,
    body: Result<Bytes, axum::extract::rejection::BytesRejection>,
) -> Response {
    let limit = state.engine.config().sql_bytes_max;
    let body = match body {
        Ok(body) => body,
        Err(rejected) if rejected.status() == StatusCode::PAYLOAD_TOO_LARGE => {
            let bytes = headers
                .get(header::CONTENT_LENGTH)
                .and_then(|length| length.to_str().ok()?.parse().ok())
                .unwrap_or(limit + 1);
            return error_response(&stele_guard::Error::TooLong { bytes, limit }.into());
        }
        Err(_) => return error_response(&Error::NotText),
    };
    match std::str::from_utf8(&body) {
        Ok(sql) => answer(&state, tenant, sql, &parameters, &headers).await,
        Err(_) => error_response(&Error::NotText),
    }
}

async fn answer(
    state: &QueryState,
    tenant: Option<Extension<TenantId>>,
    sql: &str,
    parameters: &Parameters,
    headers: &HeaderMap,
) -> Response {
    let answered = async {
        let as_of = parameters.as_of.as_deref().map(str::parse::<AsOf>);
        let asked = Asked {
            sql,
            as_of: as_of.transpose().map_err(Error::as_of)?,
            format: chosen(parameters.format.as_deref(), headers)?,
            is_covered: switch("coverage", parameters.coverage.as_deref())?,
        };
        if sql.trim().is_empty() {
            return Err(Error::NoQuery);
        }
        let tenant = tenant.as_ref().map_or(&state.tenant, |given| &given.0);
        let (encoded, mirror) = ask(state, tenant, &asked).await?;
        Ok::<_, Error>((asked.format, encoded, mirror))
    };
    match answered.await {
        Err(error) => error_response(&error),
        Ok((format, encoded, mirror)) => {
            let length = encoded.complete_bytes();
            let coverage = encoded.coverage().map(ToString::to_string);
            let chunks = encoded.map(|chunk| {
                chunk.inspect_err(|e| {
                    tracing::warn!(cause = %chain(e), "an answer broke off after its first byte");
                })
            });
            let mut response = Response::new(Body::from_stream(chunks));
            let headers = response.headers_mut();
            let content_type = HeaderValue::from_static(format.content_type());
            headers.insert(header::CONTENT_TYPE, content_type);
            if let Some(length) = length {
                headers.insert(header::CONTENT_LENGTH, HeaderValue::from(length));
            }
            if let Some(Ok(mirror)) = mirror.map(|tier| HeaderValue::from_str(tier.as_str())) {
                headers.insert(MIRROR, mirror);
            }
            if let Some(Ok(coverage)) = coverage.map(HeaderValue::try_from) {
                headers.insert(COVERAGE, coverage);
            }
            response
        }
    }
}

/// Asks the tenant's tables in turn, until one can be read; and says which mirror it was.
async fn ask(
    state: &QueryState,
    tenant: &TenantId,
    asked: &Asked<'_>,
) -> Result<(Encoded, Option<TierId>)> {
    let mut tables = state.tables.tables_of(tenant).into_iter().peekable();
    while let Some(Readable { log, mirror }) = tables.next() {
        if log.store().tenant() != tenant {
            return Err(Error::OtherTenant);
        }
        let answered = async {
            let (engine, as_of) = (&state.engine, asked.as_of.as_ref());
            let batches = match asked.is_covered {
                true => engine.query_covered(&log, asked.sql, as_of).await?,
                false => engine.query_as_of(&log, asked.sql, as_of).await?,
            };
            output::encode(batches, asked.format).await
        };
        match answered.await {
            Err(error) if is_of_tier(&error) && tables.peek().is_some() => {
                let store = log.store().tier().url();
                tracing::warn!(store, cause = %chain(&error), "reading from another tier");
                state.tables.failed(store);
            }
            answered => return Ok((answered?, mirror)),
        }
    }
    Err(Error::OtherTenant)
}

/// Whether another tier may answer what this one cannot.
fn is_of_tier(error: &Error) -> bool {
    matches!(error.kind(), ErrorKind::Unavailable | ErrorKind::Corrupt)
}

fn switch(name: &'static str, value: Option<&str>) -> Result<bool> {
    match value {
        None | Some("0") => Ok(false),
        Some("1") => Ok(true),
        Some(other) => Err(Error::NoSwitch {
            name,
            value: other.chars().take(40).collect(),
        }),
    }
}

fn chosen(format: Option<&str>, headers: &HeaderMap) -> Result<Format> {
    if let Some(name) = format {
        return Format::of_name(name);
    }
    let accept = headers.get(header::ACCEPT).and_then(|a| a.to_str().ok());
    Ok(accept.map(Format::of_accept).unwrap_or_default())
}

/// An error as every route of this crate answers it.
#[must_use]
pub fn error_response(error: &Error) -> Response {
    let kind = error.kind();
    let status = StatusCode::from_u16(kind.status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    match kind {
        ErrorKind::Internal | ErrorKind::Corrupt => {
            tracing::error!(%kind, cause = %chain(error), "a query failed");
        }
        ErrorKind::Unavailable => tracing::warn!(%kind, cause = %chain(error), "a query failed"),
        _ => tracing::debug!(%kind, cause = %chain(error), "a query was refused"),
    }
    let body = json!({"error": {"kind": kind.as_str(), "message": error.to_string()}});
    let mut response = (status, body.to_string()).into_response();
    let json = HeaderValue::from_static("application/json");
    response.headers_mut().insert(header::CONTENT_TYPE, json);
    if kind.is_retryable() {
        let after = HeaderValue::from_static(RETRY_AFTER_SECS);
        response.headers_mut().insert(header::RETRY_AFTER, after);
    }
    response
}
