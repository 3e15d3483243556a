//! Tokens, tenants, receipts, keys and retention on the real binary.

#![allow(clippy::unwrap_used, clippy::panic)]

use std::path::Path;
use std::process::Output;
use std::time::Duration;

use stele_tests::server::{Server, run, stele};
use stele_tests::store::Store;

fn command(store: &Store, args: &[&str]) -> Output {
    run(store, Path::new("/"), args).unwrap()
}

fn token(store: &Store, tenant: &str, scopes: &str) -> String {
    let url = store.url();
    let args = [
        "token", "create", "--store", &url, "--tenant", tenant, "--scope", scopes,
    ];
    let made = command(store, &args);
    assert!(
        made.status.success(),
        "{}",
        String::from_utf8_lossy(&made.stderr)
    );
    String::from_utf8(made.stdout).unwrap().trim().to_owned()
}

/// Status and body.
fn send(server: &Server, path: &str, token: Option<&str>, body: &str) -> (u16, String) {
    let (status, _, body) = send_with(server, path, token, &[], body);
    (status, body)
}

fn send_with(
    server: &Server,
    path: &str,
    token: Option<&str>,
    headers: &[(&str, &str)],
    body: &str,
) -> (u16, Option<String>, String) {
    let config = ureq::Agent::config_builder()
        .http_status_as_error(false)
        .timeout_global(Some(Duration::from_secs(60)));
    let agent: ureq::Agent = config.build().into();
    let mut request = agent.post(format!("{}{path}", server.url()));
    if let Some(token) = token {
        request = request.header("Authorization", format!("Bearer {token}"));
    }
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let mut response = request
        .content_type("text/plain")
        .send(body.as_bytes())
        .unwrap();
    let receipt = response.headers().get("stele-receipt");
    let receipt = receipt.map(|value| value.to_str().unwrap().to_owned());
    let text = response.body_mut().read_to_string().unwrap();
    (response.status().as_u16(), receipt, text)
}

fn samples(server: &Server, token: &str) -> serde_json::Value {
    let (status, body) = send(
        server,
        "/sql",
        Some(token),
        "SELECT metric, value FROM samples",
    );
    assert_eq!(status, 200, "{body}");
    serde_json::from_str(&body).unwrap()
}

#[test]
fn a_token_alone_decides_the_tenant_and_a_revoked_one_opens_nothing_after_a_restart() {
    let store = Store::local().unwrap();
    let (a, b) = (
        token(&store, "a", "ingest,query"),
        token(&store, "b", "ingest,query"),
    );
    let reader = token(&store, "a", "query");
    let server = Server::start(&store, &[]).unwrap();
    let line = |value: u32| format!("cpu value={value} 1793491200000000000\n");
    assert_eq!(send(&server, "/write?db=b", Some(&a), &line(1)).0, 204);
    assert_eq!(send(&server, "/write?db=a", Some(&b), &line(2)).0, 204);
    assert_eq!(
        samples(&server, &a),
        serde_json::json!([{"metric":"cpu","value":1.0}])
    );
    assert_eq!(
        samples(&server, &b),
        serde_json::json!([{"metric":"cpu","value":2.0}])
    );
    assert_eq!(send(&server, "/write", Some(&reader), &line(3)).0, 403);
    assert_eq!(send(&server, "/admin/settle", Some(&a), "").0, 403);
    assert_eq!(send(&server, "/write", None, &line(3)).0, 401);
    assert_eq!(
        send(&server, "/write", Some("stele_wrong"), &line(3)).0,
        401
    );
    assert!(!server.log().contains(&a), "a token is in the log");
    // The operator's commands show the token of the environment.
    let url = server.url().to_owned();
    let mut sql = stele(&store).unwrap();
    let sql = sql.args(["sql", "SELECT value FROM samples", "--url", &url, "--json"]);
    let answer = sql.env("STELE_TOKEN", &b).output().unwrap();
    assert_eq!(
        String::from_utf8_lossy(&answer.stdout).trim(),
        "[{\"value\":2.0}]"
    );
    server.stop().unwrap();
    let listed = command(
        &store,
        &["token", "list", "--store", &store.url(), "--json"],
    );
    let listed: serde_json::Value = serde_json::from_slice(&listed.stdout).unwrap();
    let of_b = listed
        .as_array()
        .unwrap()
        .iter()
        .find(|t| t["tenant"] == "b");
    let id = of_b.unwrap()["id"].as_str().unwrap().to_owned();
    let revoked = command(&store, &["token", "revoke", &id, "--store", &store.url()]);
    assert!(revoked.status.success());
    let server = Server::start(&store, &[]).unwrap();
    assert_eq!(send(&server, "/write", Some(&b), &line(3)).0, 401);
    assert_eq!(
        samples(&server, &a),
        serde_json::json!([{"metric":"cpu","value":1.0}])
    );
}

#[test]
fn off_loopback_nothing_starts_without_a_token() {
    let store = Store::local().unwrap();
    let url = store.url();
    let refused = command(&store, &["serve", "--listen", "0.0.0.0:0", "--store", &url]);
    assert_eq!(refused.status.code(), Some(1));
    let text = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(text.contains("is not loopback"), "{text}");
    assert!(text.contains("stele token create"), "{text}");
}

#[test]
fn without_tokens_a_page_of_another_site_cannot_reach_the_server() {
    let server = Server::start(&Store::local().unwrap(), &[]).unwrap();
    let line = "cpu value=1\n";
    for (name, value) in [("Host", "evil.example"), ("Origin", "https://evil.example")] {
        let (status, _, body) = send_with(&server, "/write", None, &[(name, value)], line);
        assert_eq!(status, 403, "{body}");
        assert!(body.contains("evil.example"), "{body}");
    }
    assert_eq!(send(&server, "/write", None, line).0, 204);
}

#[test]
fn a_keyed_request_counts_once_and_its_receipt_follows_it_into_the_table() {
    let server = Server::start(&Store::local().unwrap(), &[]).unwrap();
    let key = [("Idempotency-Key", "order-17")];
    let write = |body: &str| send_with(&server, "/write", None, &key, body);
    let (status, receipt, _) = write("orders value=3\n");
    assert_eq!(status, 204);
    let receipt = receipt.unwrap();
    let state = || {
        let reply = stele_tests::server::get(server.url(), &format!("/receipts/{receipt}"));
        let reply = reply.unwrap();
        assert_eq!(reply.status, 200, "{}", reply.body);
        let reply: serde_json::Value = serde_json::from_str(&reply.body).unwrap();
        reply["state"].as_str().unwrap().to_owned()
    };
    assert_eq!(state(), "l0");
    // No timestamp: only the key makes it the same batch.
    assert_eq!(
        write("orders value=3\n").1.as_deref(),
        Some(receipt.as_str())
    );
    server.settle().unwrap();
    assert_eq!(state(), "absorbed");
    assert_eq!(
        write("orders value=3\n").1.as_deref(),
        Some(receipt.as_str())
    );
    assert_eq!(write("orders value=4\n").0, 422);
    server.settle().unwrap();
    assert_eq!(
        server
            .sql_number("SELECT count(*) AS n FROM samples")
            .unwrap(),
        1
    );
    let unknown = format!("/receipts/{}-20260101", "0".repeat(32));
    assert_eq!(
        stele_tests::server::get(server.url(), &unknown)
            .unwrap()
            .status,
        404
    );
}

#[test]
fn samples_past_the_retention_are_refused_by_name() {
    let server = Server::start(&Store::local().unwrap(), &[]).unwrap();
    let url = server.url().to_owned();
    let retention = |args: &[&str]| {
        let args = [&["retention", "--url", &url, "--json"], args].concat();
        let output = command(server.store(), &args);
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        (output.status.success(), text, output.stdout)
    };
    let (is_refused, text, _) = retention(&["--raw", "30d", "--60s", "7d"]);
    assert!(!is_refused && text.contains("7 days"), "{text}");
    let (is_set, text, shown) = retention(&["--raw", "30d"]);
    assert!(is_set, "{text}");
    let shown: serde_json::Value = serde_json::from_slice(&shown).unwrap();
    assert_eq!(shown["raw_days"], 30);
    assert_eq!(shown["s60_days"], serde_json::Value::Null);
    let old = "{\"samples\":[{\"metric\":\"m\",\"value\":1,\"ts\":\"2020-01-01T00:00:00Z\"},\
               {\"metric\":\"m\",\"value\":2}]}";
    let (status, body) = send(&server, "/api/samples", None, old);
    assert_eq!(status, 200, "{body}");
    assert!(body.contains("2020-01-01T00:00:00"), "{body}");
    assert!(body.contains("retention"), "{body}");
    assert_eq!(
        server
            .sql_number("SELECT count(*) AS n FROM samples")
            .unwrap(),
        1
    );
}
