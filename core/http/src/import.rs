//! `POST /admin/import`: samples that `stele import` took from files, encoded as an L0 object.
//!
//! The object is taken apart and encoded anew: its samples meet the limits of every request, and
//! none keeps a rank of its own. With `?correct=N` all of them get rank N, so that they win over
//! the values that are there; that is what makes this a route for administrators.

use axum::extract::{Request, State};
use axum::response::Response;
use bytes::Bytes;
use stele_format::l0;
use stele_model::Limits;
use stele_wire::assemble::recheck;
use stele_wire::{Decoded, Error as WireError};

use crate::error::Error;
use crate::native::answer;
use crate::reply::{error_response, with_retry_after};
use crate::state::{Accepted, IngestState};

pub(crate) async fn import(State(state): State<IngestState>, request: Request) -> Response {
    match accept(&state, request).await {
        Ok(accepted) => answer(&accepted),
        Err(error) => {
            let mut response = error_response(error.kind(), &error.to_string());
            with_retry_after(&mut response, &error);
            response
        }
    }
}

async fn accept(state: &IngestState, request: Request) -> Result<Accepted, Error> {
    let rank = rank(request.uri().query().unwrap_or_default())?;
    let decode =
        move |body: &[u8], now_us: i64, limits: &Limits| decode(body, rank, now_us, limits);
    state.accept(request, Box::new(decode)).await
}

/// The rank that `correct` asks for.
fn rank(query: &str) -> Result<Option<i32>, Error> {
    let mut pairs = url::form_urlencoded::parse(query.as_bytes());
    match pairs.find(|(name, _)| name == "correct") {
        None => Ok(None),
        Some((_, text)) => match text.parse() {
            Ok(rank) if rank > 0 => Ok(Some(rank)),
            _ => Err(Error::Rank {
                text: text.chars().take(20).collect(),
            }),
        },
    }
}

fn decode(
    body: &[u8],
    rank: Option<i32>,
    now_us: i64,
    limits: &Limits,
) -> Result<Decoded, WireError> {
    let bytes = Bytes::copy_from_slice(body);
    let claimed = l0::rows_claimed(bytes.clone()).map_err(|_| WireError::Object)?;
    if claimed > limits.samples_max {
        let limit = limits.samples_max;
        return Err(WireError::Samples { limit });
    }
    let batches = l0::decode(bytes).map_err(|_| WireError::Object)?;
    match batches.as_slice() {
        [batch] => recheck(&batch.rows, rank, now_us, limits),
        _ => Err(WireError::Object),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rank_is_a_positive_number() {
        assert_eq!(rank("").unwrap(), None);
        assert_eq!(rank("correct=2").unwrap(), Some(2));
        for bad in ["correct=0", "correct=-1", "correct=", "correct=high"] {
            assert_eq!(rank(bad).unwrap_err().kind().status(), 400, "{bad}");
        }
    }

    #[test]
    fn bytes_of_any_other_kind_are_refused() {
        for body in [&b""[..], b"PAR1", b"cpu value=1", &[0; 4096]] {
            let error = decode(body, None, 0, &Limits::default()).unwrap_err();
            assert_eq!(error.kind().status(), 400);
        }
    }
}
