//! Reading a request body within its limits.

use std::time::Duration;

use axum::extract::Request;
use axum::http::header::CONTENT_LENGTH;
use bytes::{Bytes, BytesMut};
use futures::StreamExt;
use stele_model::Limits;

use crate::error::Error;
use crate::state::Flight;

/// How long a body may take to arrive: a stalled sender must not hold bytes in flight for ever.
const ARRIVAL: Duration = Duration::from_secs(60);

/// Reads the whole body. Its declared length is checked before anything is allocated, its true
/// length as it arrives.
pub(crate) async fn read(
    request: Request,
    limits: &Limits,
    flight: &mut Flight,
) -> Result<Bytes, Error> {
    let limit = limits.body_bytes_max;
    let declared = request
        .headers()
        .get(CONTENT_LENGTH)
        .and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
    if let Some(bytes) = declared.filter(|bytes| *bytes > limit) {
        return Err(Error::Body { bytes, limit });
    }
    let read = collect(request, declared.unwrap_or(0), limit, flight);
    tokio::time::timeout(ARRIVAL, read)
        .await
        .unwrap_or(Err(Error::Slow {
            secs: ARRIVAL.as_secs(),
        }))
}

async fn collect(
    request: Request,
    declared: u64,
    limit: u64,
    flight: &mut Flight,
) -> Result<Bytes, Error> {
    let mut chunks = request.into_body().into_data_stream();
    let mut first = Bytes::new();
    let mut body = BytesMut::new();
    let mut bytes = 0;
    while let Some(chunk) = chunks.next().await {
        let chunk = chunk.map_err(|source| Error::Interrupted { source })?;
        bytes += chunk.len() as u64;
        if bytes > limit {
            return Err(Error::Body { bytes, limit });
        }
        flight.take(chunk.len())?;
        if first.is_empty() {
            // The only chunk of a small body is used as it is.
            first = chunk;
            continue;
        }
        if body.is_empty() {
            // At most the limit, which `declared` was checked against.
            body.reserve(usize::try_from(declared).unwrap_or(0));
            body.extend_from_slice(&first);
        }
        body.extend_from_slice(&chunk);
    }
    Ok(if body.is_empty() {
        first
    } else {
        body.freeze()
    })
}
