//! The ingest routes over a store in memory: what is acknowledged is stored, what is refused is
//! named, and a fault of the store is the sender's cue to try again.

#![allow(clippy::unwrap_used, clippy::panic)]

mod common;

use axum::body::Body;
use axum::http::{Method, Request};
use common::{PutFault, Server, gzip};
use stele_model::Limits;

const LINES: &str = "cpu,host=a value=1.5,idle=98i 1700000000000000000\ncpu,host=b value=2";
const NATIVE: &str =
    r#"{"samples":[{"metric":"cpu","tags":{"host":"a"},"ts":1700000000000000,"value":1.5}]}"#;

fn server() -> Server {
    Server::new(Limits::default())
}

#[tokio::test]
async fn what_is_acknowledged_is_stored_under_its_receipt() {
    for (uri, body, status, samples) in [
        ("/write?db=x&rp=y&u=a&p=b", LINES, 204, 3),
        ("/api/v2/write?bucket=b&org=o", LINES, 204, 3),
        ("/api/samples", NATIVE, 200, 1),
    ] {
        let server = server();
        let reply = server.post(uri, body).await;
        assert_eq!(reply.status, status, "{uri}: {}", reply.body);
        let (stored, digests) = server.stored().await;
        assert_eq!(stored.len(), samples, "{uri}");
        assert_eq!(
            reply.header("stele-receipt"),
            Some(digests[0].as_str()),
            "{uri}"
        );
        assert!(
            stored.contains(&"cpu {\"host\":\"a\"} 1.5 2023-11-14T22:13:20.000000Z".to_owned())
        );
    }
}

#[tokio::test]
async fn one_request_is_one_put_and_no_other_request() {
    let server = server();
    for uri in ["/write", "/api/v2/write", "/write"] {
        let reply = server
            .post(uri, format!("cpu,via={} value=1", uri.len()))
            .await;
        assert_eq!(reply.status, 204);
    }
    // The third request is the first one again: the store says so, and is asked what it holds.
    assert_eq!(server.store.take_requests(), ["PUT", "PUT", "PUT", "GET"]);
    assert_eq!(server.keys().await.len(), 2);
}

#[tokio::test]
async fn parameters_never_choose_the_tenant() {
    let server = server();
    for uri in ["/write?db=other", "/api/v2/write?bucket=other&org=other"] {
        server.post(uri, "cpu value=1").await;
    }
    let keys = server.keys().await;
    assert!(
        keys.iter()
            .all(|key| key.starts_with("tenants/default/l0/")),
        "{keys:?}"
    );
}

#[tokio::test]
async fn a_gzip_body_of_several_members_is_read_whole() {
    let server = server();
    let mut body = gzip(b"cpu value=1\n");
    body.extend(gzip(b"cpu value=2 1700000000\n"));
    let reply = server.post_as("/write?precision=s", "GZIP", body).await;
    assert_eq!(reply.status, 204, "{}", reply.body);
    assert_eq!(
        server.stored().await.0,
        [
            "cpu {} 1.0 2026-11-22T12:00:00.000000Z",
            "cpu {} 2.0 2023-11-14T22:13:20.000000Z",
        ]
    );
    assert_eq!(
        server
            .post_as("/write", "identity", b"cpu value=3".to_vec())
            .await
            .status,
        204
    );
}

#[tokio::test]
async fn large_bodies_are_accepted_whole() {
    let server = server();
    let lines: String = (0..20_000)
        .map(|i| format!("cpu,host=h{} value={i}i {i}\n", i % 50))
        .collect();
    let reply = server.post("/write?precision=m", lines).await;
    // Minutes since 1970: the years before 2000 are refused, and named.
    assert_eq!(reply.status, 400);
    assert!(
        reply.body.contains("dropped=20000"),
        "{}",
        &reply.body[..200]
    );
    let lines: String = (0..20_000)
        .map(|i| format!("cpu,host=h{} value={i}i {}\n", i % 50, 20_000_000 + i))
        .collect();
    assert_eq!(server.post("/write?precision=m", lines).await.status, 204);
    assert_eq!(server.stored().await.0.len(), 20_000);
}

#[tokio::test]
async fn valid_samples_of_a_partly_bad_request_are_stored_and_the_rest_is_named() {
    let lines = "cpu value=1\ncpu value=x\nmem s=\"text\",used=2\n";
    let native = r#"{"samples":[{"metric":"cpu","value":1},{"metric":"cpu"},{"metric":"mem.used","value":2}]}"#;
    let mut shown = String::new();
    for (uri, body) in [
        ("/write", lines),
        ("/api/v2/write", lines),
        ("/api/samples", native),
    ] {
        let server = server();
        let reply = server.post(uri, body).await;
        assert_eq!(server.stored().await.0.len(), 2, "{uri}");
        assert!(reply.header("stele-receipt").is_some(), "{uri}");
        shown += &format!("{uri}\n{}\n\n", reply.show());
    }
    insta::assert_snapshot!(shown);
}

#[tokio::test]
async fn a_request_without_a_valid_sample_stores_nothing() {
    let mut shown = String::new();
    for (uri, body) in [
        ("/write", "cpu value=x"),
        ("/api/v2/write", "cpu value=x"),
        ("/api/samples", "{\"samples\":[{}]}"),
        ("/write", ""),
        ("/api/v2/write", "\n# nothing\n"),
        ("/api/samples", "{\"samples\":[]}"),
    ] {
        let server = server();
        let reply = server.post(uri, body).await;
        assert!(server.keys().await.is_empty(), "{uri}");
        assert_eq!(reply.header("stele-receipt"), None, "{uri}");
        shown += &format!("{uri} {body:?}\n{}\n\n", reply.show());
    }
    insta::assert_snapshot!(shown);
}

#[tokio::test]
async fn every_refusal_of_a_whole_request_names_value_and_limit() {
    let limits = Limits {
        body_bytes_max: 2_000,
        unpacked_bytes_max: 3 << 20,
        samples_max: 3,
        series_bytes_max: 100,
        ..Limits::default()
    };
    let server = Server::new(limits);
    let mut shown = String::new();
    let mut note = |what: &str, reply: common::Reply| {
        shown += &format!("{what}\n{}\n\n", reply.show());
    };
    let long = "x".repeat(2_001);
    for uri in ["/write", "/api/v2/write", "/api/samples"] {
        let declared = Request::post(uri).header("content-length", "2001");
        let declared = declared.body(Body::from(long.clone())).unwrap();
        note(&format!("{uri} declared"), server.send(declared).await);
        note(
            &format!("{uri} deflate"),
            server.post_as(uri, "deflate", vec![1]).await,
        );
        note(
            &format!("{uri} broken gzip"),
            server.post_as(uri, "gzip", vec![1; 30]).await,
        );
    }
    let chunks = vec!["x = y\n"; 400];
    note("chunked body", server.post_chunked("/write", chunks).await);
    let bomb = gzip(&vec![b'\n'; 1 << 20 | 1]);
    // Two builds of one compressor need not agree on its length to the byte.
    let bomb_bytes = format!("its {} bytes", bomb.len());
    assert!(bomb.len() < 2_000);
    note("ratio", server.post_as("/write", "gzip", bomb).await);
    note("samples", server.post("/write", "a a=1,b=2,c=3,d=4").await);
    note(
        "series",
        server
            .post("/write", format!("a,t={} a=1,b=2", "x".repeat(60)))
            .await,
    );
    note(
        "precision",
        server.post("/api/v2/write?precision=d", "a a=1").await,
    );
    note("json", server.post("/api/samples", "{\"sample\":[]}").await);
    note("truncated gzip", {
        let whole = gzip(b"a a=1\n");
        server
            .post_as("/write", "gzip", whole[..whole.len() - 4].to_vec())
            .await
    });
    assert!(server.keys().await.is_empty());
    insta::assert_snapshot!(shown.replace(&bomb_bytes, "its N bytes"));
}

#[tokio::test]
async fn a_gzip_bomb_is_stopped_by_bytes_when_the_ratio_allows_it() {
    let limits = Limits {
        unpacked_bytes_max: 2 << 20,
        unpack_ratio_max: 1_000_000,
        ..Limits::default()
    };
    let server = Server::new(limits);
    let reply = server
        .post_as("/write", "gzip", gzip(&vec![b'\n'; 64 << 20]))
        .await;
    assert_eq!((reply.status, server.keys().await.len()), (413, 0));
    assert!(
        reply.body.contains("more than 2097152 bytes"),
        "{}",
        reply.body
    );
}

#[tokio::test]
async fn bytes_in_flight_are_bounded_and_given_back() {
    let limits = Limits {
        in_flight_bytes_max: 60,
        ..Limits::default()
    };
    let server = Server::new(limits);
    let packed = gzip(&b"cpu value=1\n".repeat(6));
    for _ in 0..3 {
        assert_eq!(server.post("/write", "cpu value=1").await.status, 204);
        let reply = server.post("/write", "cpu value=1\n".repeat(6)).await;
        assert_eq!(
            (reply.status, reply.header("retry-after")),
            (503, Some("1"))
        );
        // Small as sent, over the bound once unpacked.
        assert!(packed.len() <= 60, "{}", packed.len());
        assert_eq!(
            server
                .post_as("/write", "gzip", packed.clone())
                .await
                .status,
            503
        );
    }
    let reply = server.post("/api/samples", "x".repeat(61)).await;
    insta::assert_snapshot!(reply.show());
}

#[tokio::test]
async fn a_store_that_fails_is_answered_503_without_its_cause() {
    let server = server();
    server.store.fail_puts(PutFault::Before);
    let mut shown = String::new();
    for (uri, body) in [
        ("/write", LINES),
        ("/api/v2/write", LINES),
        ("/api/samples", NATIVE),
    ] {
        let reply = server.post(uri, body).await;
        assert_eq!(reply.header("stele-receipt"), None, "{uri}");
        shown += &format!("{uri}\n{}\n\n", reply.show());
    }
    assert!(!shown.contains("secret-endpoint"));
    insta::assert_snapshot!(shown);
    server.store.fail_puts(PutFault::None);
    assert_eq!(server.post("/write", LINES).await.status, 204);
    assert_eq!(server.stored().await.0.len(), 3);
}

#[tokio::test]
async fn a_lost_reply_of_a_put_that_landed_is_an_acknowledgement() {
    let server = server();
    server.store.fail_puts(PutFault::After);
    let reply = server.post("/write", LINES).await;
    assert_eq!(reply.status, 204, "{}", reply.body);
    let (stored, digests) = server.stored().await;
    assert_eq!((stored.len(), digests.len()), (3, 1));
    assert_eq!(reply.header("stele-receipt"), Some(digests[0].as_str()));
}

#[tokio::test]
async fn the_same_samples_in_another_order_are_the_same_batch() {
    let server = server();
    let receipts = [
        "a,x=1,y=2 value=1,w=2 1700000000\nb v=1 1700000001",
        "b v=1 1700000001\na,y=2,x=1 w=2,value=1 1700000000",
    ];
    let first = server.post("/write?precision=s", receipts[0]).await;
    let second = server.post("/write?precision=s", receipts[1]).await;
    assert_eq!(
        first.header("stele-receipt"),
        second.header("stele-receipt")
    );
    assert_eq!(server.keys().await.len(), 1);
}

#[tokio::test]
async fn clients_can_connect() {
    let server = server();
    for method in [Method::GET, Method::HEAD] {
        let request = Request::builder()
            .method(method)
            .uri("/ping")
            .body(Body::empty());
        let reply = server.send(request.unwrap()).await;
        assert_eq!(
            (reply.status, reply.header("x-influxdb-version")),
            (204, Some("1.8.10"))
        );
    }
    let health = server.get("/health").await;
    assert_eq!(health.status, 200);
    assert!(
        health.body.contains("\"status\":\"pass\""),
        "{}",
        health.body
    );
    let form = "q=CREATE+DATABASE+%22telegraf%22";
    for reply in [
        server.get("/query?q=SHOW%20DATABASES&db=x").await,
        server.post("/query", form).await,
        server.post(&format!("/query?{form}"), "").await,
    ] {
        assert_eq!(reply.status, 200, "{}", reply.body);
        assert!(reply.body.starts_with("{\"results\":["), "{}", reply.body);
    }
    assert_eq!(server.get("/query?q=SELECT+1").await.status, 400);
    assert!(server.store.take_requests().is_empty());
}

#[tokio::test]
async fn counters_tell_what_was_done() {
    use std::sync::atomic::Ordering::Relaxed;
    let server = server();
    server.post("/write", "a v=1,w=x").await;
    server.post("/api/samples", "no").await;
    let counters = server.state.counters();
    let counts = [
        &counters.requests,
        &counters.failures,
        &counters.samples_accepted,
        &counters.samples_rejected,
        &counters.body_bytes,
    ];
    assert_eq!(counts.map(|count| count.load(Relaxed)), [2, 1, 1, 1, 11]);
}
