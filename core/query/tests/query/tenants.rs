//! Many tenants, one engine: each sees its own rows and nothing of another's.

use std::collections::HashMap;
use std::sync::Arc;

use axum::body::Body;
use axum::http::{Request, StatusCode};
use axum::response::Response;
use stele_model::TenantId;
use stele_query::{Format, QueryState, router};
use stele_table::TableLog;
use tower::ServiceExt;

use crate::fixture::{A, Fixture, Made, us};

/// Every table, with what tells one tenant's rows from another's.
const TEXTS: [&str; 9] = [
    "SELECT metric, tags, ts, value FROM samples ORDER BY metric, ts",
    "SELECT * FROM rollup_60s ORDER BY metric, ts",
    "SELECT * FROM rollup_15m ORDER BY metric, ts",
    "SELECT * FROM rollup_60m ORDER BY metric, ts",
    "SELECT * FROM series ORDER BY metric",
    "SELECT batch, rows FROM ledger ORDER BY batch",
    "SELECT * FROM tags ORDER BY tag",
    "SELECT * FROM coverage ORDER BY ts",
    "SELECT count(*) AS n FROM samples WHERE tags->>'host' = 'a' AND metric = 'cpu'",
];

/// The same series at the same times, with values and a tag of the tenant's own.
fn rows(offset: f64, tag: &str) -> stele_model::Rows {
    let mut made = Made::default();
    let start = us("2026-11-22T08:00:00Z");
    let own = format!(r#"{{"host":"a","{tag}":"1"}}"#);
    for (metric, tags) in [("cpu", A), (tag, own.as_str())] {
        let s = made.series(metric, tags);
        for i in 0..200 {
            made.push(s, start + i * 30_000_000, offset + i as f64);
        }
    }
    made.0
}

async fn answers(tenant: &Fixture) -> Vec<String> {
    let mut all = Vec::new();
    for sql in TEXTS {
        all.push(tenant.text(sql, Format::Csv).await);
    }
    all
}

/// What a tenant answers that has an engine and a store of its own.
async fn alone(name: &str, offset: f64, tag: &str) -> Vec<String> {
    let only = Fixture::new().tenant(name);
    only.put(rows(offset, tag)).await;
    only.settle().await;
    answers(&only).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tenant_answers_as_if_it_were_alone_with_warm_caches_of_others() {
    let expected = [
        alone("red", 1.0, "crimson").await,
        alone("redder", 5_000.0, "scarlet").await,
    ];
    let root = Fixture::new();
    let (red, redder) = (root.tenant("red"), root.tenant("redder"));
    red.put(rows(1.0, "crimson")).await;
    redder.put(rows(5_000.0, "scarlet")).await;
    red.settle().await;
    redder.settle().await;
    // The second round finds the footers, tags and states of both in memory.
    for round in 0..2 {
        for (tenant, want) in [(&red, &expected[0]), (&redder, &expected[1])] {
            for ((sql, want), got) in TEXTS.iter().zip(want).zip(answers(tenant).await) {
                assert_eq!(&got, want, "round {round}: {sql}");
            }
        }
    }
    for (tenant, foreign) in [(&red, "scarlet"), (&redder, "crimson")] {
        let all = answers(tenant).await.concat();
        assert!(!all.contains(foreign), "{foreign}");
    }
    // One that has nothing sees nothing, however much is in memory.
    let blue = root.tenant("blue");
    for sql in &TEXTS[..8] {
        assert_eq!(blue.text(sql, Format::Json).await, "[]\n", "{sql}");
    }
}

async fn send(state: &QueryState, tenant: Option<&str>, uri: &str) -> Response {
    let mut request = Request::get(uri).body(Body::empty()).expect("a request");
    if let Some(tenant) = tenant {
        let tenant: TenantId = tenant.parse().expect("a tenant's name");
        request.extensions_mut().insert(tenant);
    }
    let router = router(state.clone());
    router.oneshot(request).await.expect("infallible")
}

async fn text(response: Response) -> String {
    let bytes = axum::body::to_bytes(response.into_body(), usize::MAX).await;
    String::from_utf8(bytes.expect("a whole body").to_vec()).expect("text")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_tenant_comes_from_the_middleware_alone() {
    let root = Fixture::new();
    let (red, blue) = (root.tenant("red"), root.tenant("blue"));
    red.put(rows(1.0, "crimson")).await;
    blue.put(rows(2.0, "azure")).await;
    let logs: HashMap<String, Arc<TableLog>> = [("red", &red), ("blue", &blue)]
        .into_iter()
        .map(|(name, tenant)| (name.to_owned(), Arc::clone(&tenant.log)))
        .collect();
    let state = QueryState {
        engine: Arc::clone(&root.engine),
        tables: Arc::new(move |tenant: &TenantId| Arc::clone(&logs[&tenant.to_string()])),
        tenant: "red".parse().expect("a tenant's name"),
    };
    let uri = "/sql?format=csv&q=SELECT%20min(value)%20AS%20v%20FROM%20samples";
    for (tenant, want) in [(None, "v\n1.0\n"), (Some("blue"), "v\n2.0\n")] {
        let response = send(&state, tenant, uri).await;
        assert_eq!(text(response).await, want, "{tenant:?}");
    }
    // Parameters that name a tenant change nothing.
    let response = send(&state, None, &format!("{uri}&tenant=blue")).await;
    assert_eq!(text(response).await, "v\n1.0\n");
}

#[tokio::test]
async fn a_table_of_another_tenant_is_never_read() {
    let root = Fixture::new();
    let red = root.tenant("red");
    red.put(rows(1.0, "crimson")).await;
    let log = Arc::clone(&red.log);
    let state = QueryState {
        engine: Arc::clone(&root.engine),
        tables: Arc::new(move |_: &TenantId| Arc::clone(&log)),
        tenant: TenantId::default(),
    };
    let response = send(&state, Some("blue"), "/sql?q=SELECT%201").await;
    assert_eq!(response.status(), StatusCode::INTERNAL_SERVER_ERROR);
    let body = text(response).await;
    assert!(!body.contains("red") && !body.contains("blue"), "{body}");
}
