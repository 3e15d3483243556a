//! `GET /receipts/<receipt>`: what became of an acknowledged batch.

use std::sync::Arc;

use axum::extract::{Path, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Extension, Router};
use serde_json::{Value, json};
use stele_model::{ErrorKind, ReceiptId, TenantId, chain, time};
use stele_table::TableLog;

use crate::receipt::{BatchState, find_batch, l0_key};

/// Seconds after which a sender may try again.
const RETRY_AFTER: HeaderValue = HeaderValue::from_static("1");

/// The table of each tenant.
pub type Logs = dyn Fn(&TenantId) -> Arc<TableLog> + Send + Sync;

/// The route `/receipts/{receipt}`. A request's tenant is the [`TenantId`] among its extensions,
/// where whoever authenticates it puts it, or the default one.
pub fn receipts_router(logs: Arc<Logs>) -> Router {
    Router::new()
        .route("/receipts/{receipt}", get(receipt))
        .with_state(logs)
}

async fn receipt(
    State(logs): State<Arc<Logs>>,
    tenant: Option<Extension<TenantId>>,
    Path(text): Path<String>,
) -> Response {
    let id: ReceiptId = match text.parse() {
        Ok(id) => id,
        Err(error) => return refusal(ErrorKind::Malformed, &error.to_string()),
    };
    let tenant = tenant.map(|Extension(tenant)| tenant).unwrap_or_default();
    match find_batch(&logs(&tenant), id).await {
        Ok(state) => answer(id, &state),
        Err(error) => {
            let (kind, cause) = (error.kind(), chain(&error));
            tracing::error!(%kind, cause, receipt = %id, "a receipt cannot be looked up");
            refusal(kind, &error.to_string())
        }
    }
}

fn answer(id: ReceiptId, state: &BatchState) -> Response {
    match state {
        BatchState::L0 { object } => reply(
            StatusCode::OK,
            &json!({"receipt": id, "state": "l0", "object": l0_key(object)}),
        ),
        BatchState::Absorbed { row, ledger } => reply(
            StatusCode::OK,
            &json!({
                "receipt": id,
                "state": "absorbed",
                "version": row.version,
                "operation": row.operation,
                "committed": time::rfc3339(row.committed_us),
                "rows": row.rows,
                "ledger": ledger,
            }),
        ),
        BatchState::Expired { row } => reply(
            StatusCode::OK,
            &json!({
                "receipt": id,
                "state": "expired",
                "version": row.version,
                "operation": row.operation,
                "committed": time::rfc3339(row.committed_us),
                "rows": row.rows,
            }),
        ),
        BatchState::Revoked { row } => {
            let kind = ErrorKind::NotFound;
            let error = "a restore in place took the batch back: send it again".to_owned();
            let body = json!({
                "receipt": id,
                "state": "revoked",
                "version": row.version,
                "operation": row.operation,
                "committed": time::rfc3339(row.committed_us),
                "rows": row.rows,
                "error": error,
                "kind": kind.as_str(),
            });
            reply(status(kind), &body)
        }
        BatchState::Unknown => {
            let kind = ErrorKind::NotFound;
            let error = format!("no batch has the receipt {id}");
            let body =
                json!({"receipt": id, "state": "unknown", "error": error, "kind": kind.as_str()});
            reply(status(kind), &body)
        }
    }
}

fn status(kind: ErrorKind) -> StatusCode {
    StatusCode::from_u16(kind.status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
}

fn refusal(kind: ErrorKind, message: &str) -> Response {
    let body = json!({"error": message, "kind": kind.as_str()});
    let mut response = reply(status(kind), &body);
    if kind.is_retryable() {
        response
            .headers_mut()
            .insert(header::RETRY_AFTER, RETRY_AFTER);
    }
    response
}

fn reply(status: StatusCode, body: &Value) -> Response {
    let json = [(header::CONTENT_TYPE, "application/json")];
    (status, json, body.to_string()).into_response()
}
