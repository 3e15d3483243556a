//! Requests with an `Idempotency-Key`: every attempt is the same batch, or is refused by name.

#![allow(clippy::unwrap_used, clippy::panic)]

mod common;

use axum::body::Body;
use axum::http::Request;
use common::{PutFault, Server, gzip};
use stele_ingest::{GroupLimits, Options};
use stele_model::Limits;
use stele_model::time::{DAY_US, SECOND_US};

const LINE: &str = "cpu,host=a value=1.5";

fn server() -> Server {
    Server::new(Limits::default())
}

#[tokio::test]
async fn attempts_without_timestamps_are_one_batch_with_a_key_and_several_without() {
    let grouping = Options {
        group: Some(GroupLimits::default()),
        ..Options::default()
    };
    for options in [Options::default(), grouping] {
        let server = Server::with(Limits::default(), options);
        let mut receipts = Vec::new();
        for _ in 0..3 {
            let reply = server.post_keyed("/write", "one", LINE).await;
            assert_eq!(reply.status, 204, "{}", reply.body);
            receipts.push(reply.header("stele-receipt").unwrap().to_owned());
            server.clock.advance(DAY_US / 3);
        }
        receipts.dedup();
        let (stored, batches) = server.stored().await;
        assert_eq!(receipts, batches);
        assert_eq!(
            stored,
            ["cpu {\"host\":\"a\"} 1.5 2026-11-22T12:00:00.000000Z"]
        );
        server.post("/write", LINE).await;
        server.clock.advance(SECOND_US);
        server.post("/write", LINE).await;
        assert_eq!(server.stored().await.0.len(), 3);
    }
}

#[tokio::test]
async fn a_keyed_request_is_two_puts() {
    let server = server();
    server.post_keyed("/write", "one", LINE).await;
    assert_eq!(server.store.take_requests(), ["PUT", "PUT"]);
    server.clock.advance(SECOND_US);
    server.post_keyed("/write", "one", LINE).await;
    assert_eq!(
        server.store.take_requests(),
        ["PUT", "GET", "PUT", "GET"],
        "marker and object are both there"
    );
}

#[tokio::test]
async fn the_body_counts_as_it_is_after_unpacking() {
    let server = server();
    let first = server.post_keyed("/write", "one", LINE).await;
    server.clock.advance(SECOND_US);
    let packed = Request::post("/write")
        .header("idempotency-key", "one")
        .header("content-encoding", "gzip")
        .body(Body::from(gzip(LINE.as_bytes())));
    let packed = server.send(packed.unwrap()).await;
    assert_eq!(packed.status, 204, "{}", packed.body);
    assert_eq!(
        packed.header("stele-receipt"),
        first.header("stele-receipt")
    );
}

#[tokio::test]
async fn what_a_key_cannot_do_is_said() {
    let server = server();
    let native = r#"{"samples":[{"metric":"cpu","value":1}]}"#;
    let mut shown = String::new();
    let mut note = |what: &str, reply: common::Reply| {
        assert_eq!(reply.header("stele-receipt"), None, "{what}");
        shown += &format!("{what}\n{}\n\n", reply.show());
    };
    server.post_keyed("/write?precision=s", "k", LINE).await;
    for (uri, body) in [
        ("/write?precision=s", "cpu,host=a value=2"),
        ("/write?precision=ms", LINE),
        ("/api/v2/write?precision=s", LINE),
        ("/api/samples", native),
    ] {
        note(uri, server.post_keyed(uri, "k", body).await);
    }
    let long = "k".repeat(256);
    for key in ["", "two words", "é", &long] {
        let text: String = key.chars().take(12).collect();
        let reply = server.post_keyed("/write", key, LINE).await;
        note(&format!("key {text:?}"), reply);
    }
    let twice = Request::post("/api/samples")
        .header("idempotency-key", "k")
        .header("idempotency-key", "l")
        .body(Body::from(native));
    note("two keys", server.send(twice.unwrap()).await);
    server.clock.advance(DAY_US + 3_600 * SECOND_US);
    for (uri, body) in [("/write?precision=s", LINE), ("/api/v2/write", LINE)] {
        note("a day later", server.post_keyed(uri, "k", body).await);
    }
    assert_eq!(server.stored().await.0.len(), 1);
    insta::assert_snapshot!(shown);
}

#[tokio::test]
async fn a_store_that_fails_a_marker_is_answered_503_and_the_attempt_after_it_counts_once() {
    for (fault, status) in [(PutFault::Before, 503), (PutFault::After, 204)] {
        let server = server();
        server.store.fail_puts(fault);
        let reply = server.post_keyed("/write", "k", LINE).await;
        assert_eq!(reply.status, status, "{}", reply.body);
        server.store.fail_puts(PutFault::None);
        server.clock.advance(SECOND_US);
        let reply = server.post_keyed("/write", "k", LINE).await;
        assert_eq!(reply.status, 204, "{}", reply.body);
        assert_eq!(server.stored().await.0.len(), 1);
    }
}
