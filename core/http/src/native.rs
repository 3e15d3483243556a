//! `POST /api/samples`: the native JSON.

use axum::extract::{Request, State};
use axum::response::Response;
use serde_json::json;
use stele_wire::json::decode;

use crate::reply::{error_response, json_reply, with_retry_after};
use crate::state::{Accepted, IngestState};
use crate::write::with_receipt;

/// 200 with what became of every sample; 400 with the same body when none was accepted.
pub(crate) async fn samples(State(state): State<IngestState>, request: Request) -> Response {
    match state.accept(request, Box::new(decode)).await {
        Ok(accepted) => answer(&accepted),
        Err(error) => {
            let mut response = error_response(error.kind(), &error.to_string());
            with_retry_after(&mut response, &error);
            response
        }
    }
}

pub(crate) fn answer(accepted: &Accepted) -> Response {
    let nothing_kept = accepted.receipt.is_none() && !accepted.rejections.is_empty();
    let receipt = accepted.receipt.as_ref();
    let body = json!({
        "accepted": accepted.samples(),
        "rejected": accepted.rejections.total,
        "rejections": accepted.rejections.named,
        "receipt": receipt.map(|receipt| receipt.id),
    });
    let status = if nothing_kept { 400 } else { 200 };
    let mut response = json_reply(status, body.to_string());
    with_receipt(&mut response, receipt);
    response
}
