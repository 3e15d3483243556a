//! Function URLs: a router behind the gate, its metrics, and the service's limit on answers.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use axum::Router;
use axum::body::{Body, HttpBody};
use axum::extract::{Request, State};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::Response;
use bytes::Bytes;
use futures::StreamExt;
use lambda_http::Error;
use stele_http::{Counters, error_response};
use stele_model::{Clock, ErrorKind};

use crate::emf::{self, Unit};
use crate::start::Start;

/// What the service takes of a streamed answer, and what it takes of another one, as of 2026
/// (the quotas of AWS Lambda).
const STREAMED_MAX: u64 = 200_000_000;
const BUFFERED_MAX: u64 = 6_000_000;

/// Serves `router`; each answer is handed over whole. `counters` are the router's own.
///
/// # Errors
/// When the service's runtime interface fails.
pub async fn serve(
    start: &Start,
    router: Router,
    counters: Option<Arc<Counters>>,
) -> Result<(), Error> {
    let router = around(start, router, counters, BUFFERED_MAX);
    lambda_http::run(router).await
}

/// Serves `router`; answers are handed over as they come.
///
/// # Errors
/// When the service's runtime interface fails.
pub async fn stream(start: &Start, router: Router) -> Result<(), Error> {
    let max = start.config.response_bytes_max.unwrap_or(STREAMED_MAX);
    let router = around(start, router, None, max);
    lambda_http::run_with_streaming_response(router).await
}

fn around(start: &Start, router: Router, counters: Option<Arc<Counters>>, max: u64) -> Router {
    let around = Around {
        function: start.function().into(),
        clock: Arc::clone(&start.clock),
        counters,
        max,
    };
    let router = start.gate().guard(router);
    router.layer(from_fn_with_state(around, metered))
}

#[derive(Clone)]
struct Around {
    function: Arc<str>,
    clock: Arc<dyn Clock>,
    counters: Option<Arc<Counters>>,
    /// Bytes of an answer.
    max: u64,
}

impl Around {
    fn samples(&self) -> (u64, u64) {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let counters = self.counters.as_ref();
        counters.map_or((0, 0), |counters| {
            let accepted = read(&counters.samples_accepted);
            (accepted, read(&counters.samples_rejected))
        })
    }
}

async fn metered(State(around): State<Around>, request: Request, next: Next) -> Response {
    let (begun_us, before) = (around.clock.steady_us(), around.samples());
    let response = limited(next.run(request).await, around.max);
    let (now_us, after) = (around.clock.steady_us(), around.samples());
    let status = response.status();
    let mut metrics = vec![
        ("Requests", Unit::Count, 1),
        ("Errors", Unit::Count, u64::from(status.is_server_error())),
        ("Refused", Unit::Count, u64::from(status.is_client_error())),
        (
            "FirstByte",
            Unit::Milliseconds,
            (now_us - begun_us).max(0).unsigned_abs() / 1000,
        ),
    ];
    if around.counters.is_some() {
        metrics.push(("Samples", Unit::Count, after.0.saturating_sub(before.0)));
        metrics.push(("Rejected", Unit::Count, after.1.saturating_sub(before.1)));
    }
    emf::write(&*around.clock, ("Function", &around.function), &metrics);
    response
}

/// An answer that is too long.
#[derive(Debug, thiserror::Error)]
#[error(
    "the answer is longer than {max} bytes, the most that this function may answer with: ask for \
     less time, for fewer columns or for aggregates, or for several parts"
)]
struct TooLong {
    max: u64,
}

/// Holds a response to `max` bytes. One whose length is known is refused as a whole. Of another one
/// the first bytes may have been sent: it ends with the error's text, and broken off, so that no
/// client takes it for all of the answer.
fn limited(response: Response, max: u64) -> Response {
    let too_long = TooLong { max };
    match response.body().size_hint().exact() {
        Some(length) if length > max => {
            return error_response(ErrorKind::Unexecutable, &too_long.to_string());
        }
        Some(_) => return response,
        None => {}
    }
    let text = Bytes::from(format!("\n{too_long}\n"));
    let (parts, body) = response.into_parts();
    let state = Some((body.into_data_stream(), 0_u64, Vec::new()));
    let chunks = futures::stream::unfold(state, move |state| {
        let text = text.clone();
        async move {
            let (mut body, sent, mut ending) = state?;
            if let Some(last) = ending.pop() {
                // The error comes after its text, and then nothing.
                let rest = (!ending.is_empty()).then_some((body, sent, ending));
                return Some((last, rest));
            }
            let chunk = match body.next().await? {
                Ok(chunk) => chunk,
                Err(error) => return Some((Err(Error::from(error)), None)),
            };
            let length = chunk.len() as u64;
            if sent + length + text.len() as u64 <= max {
                return Some((Ok(chunk), Some((body, sent + length, ending))));
            }
            ending = vec![Err(Error::from(TooLong { max }))];
            Some((Ok(text), Some((body, sent, ending))))
        }
    });
    Response::from_parts(parts, Body::from_stream(chunks))
}

#[cfg(test)]
mod tests {
    use axum::body::to_bytes;

    use super::*;

    fn chunked(chunks: &[&'static str]) -> Response {
        let chunks: Vec<Result<&str, Error>> = chunks.iter().map(|chunk| Ok(*chunk)).collect();
        Response::new(Body::from_stream(futures::stream::iter(chunks)))
    }

    #[tokio::test]
    async fn an_answer_within_the_limit_is_untouched() {
        for response in [
            Response::new(Body::from("abcdef")),
            chunked(&["abc", "def"]),
        ] {
            let response = limited(response, 1000);
            let body = to_bytes(response.into_body(), usize::MAX).await.unwrap();
            assert_eq!(body, "abcdef");
        }
    }

    #[tokio::test]
    async fn a_long_answer_of_known_length_is_refused_and_the_limit_named() {
        let response = limited(Response::new(Body::from("x".repeat(1001))), 1000);
        assert_eq!(response.status(), 422);
        let body = to_bytes(response.into_body(), usize::MAX).await.unwrap();
        let text = String::from_utf8(body.to_vec()).unwrap();
        assert!(text.contains("longer than 1000 bytes"), "{text}");
    }

    #[tokio::test]
    async fn a_long_answer_that_has_begun_ends_with_the_reason_and_broken() {
        let response = limited(chunked(&["1234567890"; 100]), 400);
        let mut chunks = response.into_body().into_data_stream();
        let (mut text, mut error) = (String::new(), None);
        while let Some(chunk) = chunks.next().await {
            match chunk {
                Ok(chunk) => text.push_str(std::str::from_utf8(&chunk).unwrap()),
                Err(broken) => error = Some(broken.to_string()),
            }
        }
        assert!(
            text.len() <= 400 && text.starts_with("1234567890"),
            "{text}"
        );
        assert!(text.contains("longer than 400 bytes"), "{text}");
        assert!(error.unwrap().contains("longer than 400 bytes"));
    }

    #[tokio::test]
    async fn an_answer_that_breaks_stays_broken() {
        let chunks: Vec<Result<&str, Error>> = vec![Ok("abc"), Err("lost".into())];
        let response = Response::new(Body::from_stream(futures::stream::iter(chunks)));
        let read = to_bytes(limited(response, 1000).into_body(), usize::MAX).await;
        assert!(read.is_err());
    }
}
