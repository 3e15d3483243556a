//! Librato's routes over a store in memory: what is acknowledged is stored, in the words that
//! Librato's clients understand.

#![allow(clippy::unwrap_used, clippy::panic)]

mod common;

use axum::body::Body;
use axum::http::Request;
use common::{PutFault, Reply, Server, gzip};
use stele_model::Limits;

const GAUGES: &str = r#"{"measure_time":1700000000,"source":"web-1","gauges":[{"name":"cpu","value":1.5}],"counters":{"bytes":{"value":7}}}"#;
const TAGGED: &str =
    r#"{"time":1700000000,"tags":{"Source":"WEB-1"},"measurements":[{"name":"cpu","value":1.5}]}"#;
const JSON: &str = "application/json";
const FORM: &str = "application/x-www-form-urlencoded";

fn server() -> Server {
    Server::new(Limits::default())
}

async fn post(server: &Server, uri: &str, media: &str, body: impl Into<Body>) -> Reply {
    let mut request = Request::post(uri);
    if !media.is_empty() {
        request = request.header("content-type", media);
    }
    server.send(request.body(body.into()).unwrap()).await
}

#[tokio::test]
async fn a_success_is_exactly_200_or_202_and_stored_under_its_receipt() {
    let form = "source=web-1&measure_time=1700000000&gauges[0][name]=cpu&gauges[0][value]=1.5";
    for (uri, media, body, status, samples) in [
        (
            "/v1/metrics",
            "application/json; charset=utf-8",
            GAUGES,
            200,
            2,
        ),
        ("/librato/v1/metrics", JSON, GAUGES, 200, 2),
        ("/v1/metrics", FORM, GAUGES, 200, 2),
        ("/v1/metrics", FORM, form, 200, 1),
        ("/librato/v1/metrics", "", form, 200, 1),
        ("/v1/measurements", JSON, TAGGED, 202, 1),
        ("/librato/v1/measurements", JSON, TAGGED, 202, 1),
    ] {
        let server = server();
        let reply = post(&server, uri, media, body).await;
        assert_eq!(
            (reply.status, reply.body.as_str()),
            (status, ""),
            "{uri} {media}"
        );
        let (stored, digests) = server.stored().await;
        assert_eq!(stored.len(), samples, "{uri} {media}");
        assert_eq!(reply.header("stele-receipt"), Some(digests[0].as_str()));
        let cpu = "cpu {\"source\":\"web-1\"} 1.5 2023-11-14T22:13:20.000000Z";
        assert!(stored.iter().any(|sample| sample == cpu), "{stored:?}");
        assert_eq!(server.store.take_requests()[0], "PUT");
    }
}

#[tokio::test]
async fn the_same_samples_in_another_form_are_the_same_batch() {
    let server = server();
    let map = r#"{"gauges":{"a":{"value":1,"source":"s","measure_time":1700000000}}}"#;
    let form = "gauges[0][name]=a&gauges[0][value]=1.0&source=s&measure_time=1700000000";
    let first = post(&server, "/v1/metrics", JSON, map).await;
    let second = post(&server, "/v1/metrics", FORM, form).await;
    let tagged = r#"{"time":1700000000,"measurements":[{"name":"a","sum":1,"count":1,"tags":{"source":"S"}}]}"#;
    let third = post(&server, "/v1/measurements", JSON, tagged).await;
    for reply in [&first, &second, &third] {
        assert_eq!(reply.header("stele-receipt"), first.header("stele-receipt"));
    }
    assert_eq!(server.keys().await.len(), 1);
}

#[tokio::test]
async fn a_partly_bad_request_is_a_success_that_names_what_was_refused() {
    let metrics =
        r#"{"gauges":[{"name":"a","value":1},{"name":"a b","value":1}],"counters":[{"name":"c"}]}"#;
    let form = "gauges[a][value]=1&gauges[b][value]=x&gauges[1][value]=2";
    let tagged =
        r#"{"measurements":[{"name":"a","value":1},{"name":"a","value":1,"tags":{"x":"&"}}]}"#;
    let mut shown = String::new();
    for (uri, media, body) in [
        ("/v1/metrics", JSON, metrics),
        ("/v1/metrics", FORM, form),
        ("/v1/measurements", JSON, tagged),
    ] {
        let server = server();
        let reply = post(&server, uri, media, body).await;
        assert_eq!(server.stored().await.0.len(), 1, "{uri}");
        assert!(reply.header("stele-receipt").is_some(), "{uri}");
        shown += &format!("{uri} {media}\n{}\n\n", reply.show());
    }
    insta::assert_snapshot!(shown);
}

#[tokio::test]
async fn a_request_without_a_valid_item_stores_nothing() {
    let mut shown = String::new();
    for (uri, media, body) in [
        ("/v1/metrics", JSON, r#"{"gauges":[{"name":"a"}]}"#),
        ("/v1/metrics", FORM, "counters[0][value]=5"),
        ("/v1/measurements", JSON, r#"{"measurements":[7]}"#),
        ("/v1/metrics", JSON, r#"{"gauges":[]}"#),
        ("/v1/measurements", JSON, r#"{"measurements":[]}"#),
    ] {
        let server = server();
        let reply = post(&server, uri, media, body).await;
        assert!(server.keys().await.is_empty(), "{uri}");
        assert_eq!(reply.header("stele-receipt"), None, "{uri}");
        shown += &format!("{uri} {body:?}\n{}\n\n", reply.show());
    }
    insta::assert_snapshot!(shown);
}

#[tokio::test]
async fn every_refusal_of_a_whole_request_is_named_in_librato_s_words() {
    let limits = Limits {
        body_bytes_max: 40_000,
        samples_max: 2,
        series_bytes_max: 30,
        ..Limits::default()
    };
    let server = Server::new(limits);
    let mut shown = String::new();
    let otlp = r#"{"resourceMetrics":[{"scopeMetrics":[]}]}"#;
    let three = r#"{"gauges":{"a":{"value":1},"b":{"value":1},"c":{"value":1}}}"#;
    let name = "x".repeat(31);
    let long = format!(r#"{{"gauges":{{"{name}":{{"value":1}}}}}}"#);
    let many = vec![r#"{"name":"a","value":1}"#; 1_001].join(",");
    let many = format!("{{\"measurements\":[{many}]}}");
    let over = "x".repeat(40_001);
    for (uri, media, body) in [
        ("/v1/metrics", "application/x-protobuf", "\n"),
        ("/v1/metrics", JSON, otlp),
        ("/v1/metrics", FORM, otlp),
        ("/v1/metrics", "text/plain", GAUGES),
        ("/v1/metrics", JSON, "{}"),
        ("/v1/metrics", JSON, "gauges"),
        ("/v1/metrics", JSON, ""),
        ("/v1/metrics", FORM, ""),
        ("/v1/metrics", JSON, three),
        (
            "/v1/metrics",
            FORM,
            "gauges[a][x]=&gauges[b][x]=&gauges[c][x]=",
        ),
        ("/v1/metrics", JSON, &long),
        ("/v1/metrics", JSON, &over),
        ("/v1/measurements", "", TAGGED),
        ("/v1/measurements", FORM, TAGGED),
        ("/v1/measurements", "application/x-protobuf", ""),
        ("/v1/measurements", JSON, "{}"),
        ("/v1/measurements", JSON, "[]"),
        ("/v1/measurements", JSON, &many),
    ] {
        let reply = post(&server, uri, media, body.to_owned()).await;
        let start: String = body.chars().take(40).collect();
        shown += &format!("{uri} {media} {start:?}\n{}\n\n", reply.show());
    }
    assert!(server.keys().await.is_empty());
    insta::assert_snapshot!(shown);
}

#[tokio::test]
async fn a_store_that_fails_is_answered_503_so_that_clients_try_again() {
    let server = server();
    server.store.fail_puts(PutFault::Before);
    let mut shown = String::new();
    for (uri, body) in [("/v1/metrics", GAUGES), ("/v1/measurements", TAGGED)] {
        let reply = post(&server, uri, JSON, body).await;
        assert_eq!(reply.header("stele-receipt"), None, "{uri}");
        shown += &format!("{uri}\n{}\n\n", reply.show());
    }
    assert!(!shown.contains("secret-endpoint"));
    insta::assert_snapshot!(shown);
    server.store.fail_puts(PutFault::After);
    assert_eq!(post(&server, "/v1/metrics", JSON, GAUGES).await.status, 200);
    assert_eq!(server.stored().await.0.len(), 2);
}

#[tokio::test]
async fn gzip_bodies_and_counters_work_as_for_every_route() {
    use std::sync::atomic::Ordering::Relaxed;
    let server = server();
    let request = Request::post("/v1/metrics")
        .header("content-type", JSON)
        .header("content-encoding", "gzip");
    let body = gzip(br#"{"gauges":[{"name":"a","value":1},{"name":"a","value":2},7]}"#);
    let reply = server.send(request.body(body.into()).unwrap()).await;
    assert_eq!(reply.status, 200, "{}", reply.body);
    // Both gauges merged into one sample.
    let counters = server.state.counters();
    assert_eq!(counters.samples_accepted.load(Relaxed), 1);
    assert_eq!(counters.samples_rejected.load(Relaxed), 1);
    assert_eq!(server.stored().await.0.len(), 1);
}
