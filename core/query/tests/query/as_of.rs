//! The tables as they were: at a version, a time and a snapshot.

use axum::body::Body;
use axum::http::{Request, StatusCode};
use stele_model::Clock;
use stele_table::{AsOf, Pin, PinName, Why};
use tower::ServiceExt;

use crate::fixture::{Fixture, hand_made};

const TABLES: [&str; 5] = [
    "SELECT metric, tags, ts, value FROM samples ORDER BY metric, tags, ts",
    "SELECT * FROM rollup_60s ORDER BY metric, tags, ts",
    "SELECT * FROM rollup_60m ORDER BY metric, tags, ts",
    "SELECT * FROM series ORDER BY metric, tags",
    "SELECT count(*) FROM ledger",
];

async fn all(fixture: &Fixture, as_of: Option<&str>) -> Vec<String> {
    let mut answers = Vec::new();
    for sql in TABLES {
        answers.push(fixture.text_as_of(sql, as_of).await.unwrap());
    }
    answers
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_old_version_answers_as_it_did() {
    let fixture = Fixture::new();
    let batches = hand_made();
    let (first, second) = batches.split_at(batches.len() / 2);
    fixture.put_all(first).await;
    fixture.settle().await;
    let then = all(&fixture, None).await;
    let state = fixture.log.load().await.unwrap().unwrap();
    let version = state.version;
    let name: PinName = "before".parse().unwrap();
    let pin = Pin::new(
        name.clone(),
        &state,
        fixture.clock.now_us(),
        Why::Manual,
        "",
    )
    .unwrap();
    let (key, bytes) = (name.key(), pin.encode().unwrap());
    fixture.store.put_new(&key, bytes).await.unwrap();
    fixture.clock.advance(60_000_000);
    let time = "2026-11-22T12:30:30Z";
    fixture.put_all(second).await;
    // Accepted and not absorbed: part of now, and of no version.
    let now = all(&fixture, None).await;
    assert_ne!(now, then);
    assert_eq!(all(&fixture, Some(&version.to_string())).await, then);
    fixture.settle().await;
    assert_eq!(all(&fixture, None).await[..4], now[..4]);
    for as_of in [version.to_string().as_str(), "before", time] {
        assert_eq!(all(&fixture, Some(as_of)).await, then, "as of {as_of}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_version_that_is_not_kept_is_an_error_that_says_what_is() {
    let fixture = Fixture::new();
    fixture.put_all(&hand_made()).await;
    fixture.settle().await;
    let app = stele_query::router(fixture.state());
    for (as_of, status, said) in [
        ("1000", StatusCode::NOT_FOUND, "version 1000 does not exist"),
        (
            "noon",
            StatusCode::NOT_FOUND,
            "no snapshot noon: there are none",
        ),
        ("2001-01-01T00:00:00Z", StatusCode::NOT_FOUND, "2001-01-01"),
        ("No%20on", StatusCode::BAD_REQUEST, "\\\"No on\\\""),
    ] {
        let uri = format!("/sql?q=SELECT+1&as_of={as_of}");
        let request = Request::get(uri).body(Body::empty()).unwrap();
        let response = app.clone().oneshot(request).await.unwrap();
        assert_eq!(response.status(), status, "{as_of}");
        let body = axum::body::to_bytes(response.into_body(), 1 << 20).await;
        let body = String::from_utf8(body.unwrap().to_vec()).unwrap();
        assert!(body.contains(said), "{as_of}: {body}");
    }
    let version = AsOf::Version(1);
    let stream = fixture
        .engine
        .query_as_of(&fixture.log, "SELECT 1", Some(&version));
    assert!(stream.await.unwrap().is_complete());
}
