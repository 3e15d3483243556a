//! The gate before the ingest routes and some others: who gets in, whose samples they are, and
//! what everyone else is told.

#![allow(clippy::unwrap_used, clippy::panic)]

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU8, Ordering};

use axum::Router;
use axum::body::{Body, Bytes, to_bytes};
use axum::http::{HeaderMap, Request, request};
use axum::routing::any;
use base64::Engine as _;
use futures::TryStreamExt;
use object_store::memory::InMemory;
use object_store::{ObjectMeta, ObjectStore};
use stele_auth::{NewToken, Principal, Scope, Tokens, create};
use stele_http::{Gate, IngestState, Needs, ROUTES, ingest_router};
use stele_ingest::{Ingestor, QuotaOptions, Quotas};
use stele_model::{Clock, Entropy, Limits, TenantId};
use stele_store::{Tier, Tiers};
use tower::ServiceExt;

/// 2026-11-22T12:00:00Z.
const NOW_US: i64 = 1_795_348_800_000_000;

struct TestClock(AtomicI64);

impl Clock for TestClock {
    fn now_us(&self) -> i64 {
        self.0.load(Ordering::SeqCst)
    }
}

struct TestEntropy(AtomicU8);

impl Entropy for TestEntropy {
    fn fill(&self, bytes: &mut [u8]) -> std::io::Result<()> {
        bytes.fill(self.0.fetch_add(1, Ordering::SeqCst));
        Ok(())
    }
}

/// A server with a token of tenant `a` and one of `b` for every set of scopes a test asks for.
struct World {
    store: Arc<InMemory>,
    tier: Tier,
    clock: Arc<TestClock>,
    entropy: TestEntropy,
    router: Router,
}

struct Reply {
    status: u16,
    headers: HeaderMap,
    body: String,
}

impl Reply {
    fn show(&self) -> String {
        let mut out = format!("{}\n", self.status);
        for name in ["www-authenticate", "retry-after", "x-influxdb-error"] {
            for value in self.headers.get_all(name) {
                out += &format!("{name}: {}\n", value.to_str().unwrap());
            }
        }
        out + &self.body + "\n"
    }
}

/// Answers with the tenant that the gate found, so that tests of routes need no engine.
async fn who(request: axum::extract::Request) -> String {
    let tenant = request.extensions().get::<TenantId>();
    let principal = request.extensions().get::<Principal>();
    let shown = tenant.map_or("nobody", TenantId::as_str);
    assert_eq!(tenant.is_some() && principal.is_none(), shown == "open");
    assert!(!request.headers().contains_key("authorization"));
    shown.to_owned()
}

impl World {
    /// A gate with tokens.
    fn new(quotas: QuotaOptions) -> Self {
        Self::build(quotas, |tier, clock| {
            Gate::tokens(Arc::new(Tokens::new(Tiers::fixed(tier.clone()), clock)))
        })
    }

    fn loopback() -> Self {
        let tenant: TenantId = "open".parse().unwrap();
        Self::build(QuotaOptions::default(), |_, _| Gate::loopback(tenant))
    }

    fn build(quotas: QuotaOptions, gate: impl FnOnce(&Tier, Arc<TestClock>) -> Gate) -> Self {
        let store = Arc::new(InMemory::new());
        let tier = Tier::from_store(Arc::clone(&store) as Arc<dyn ObjectStore>, "", "test:");
        let clock = Arc::new(TestClock(AtomicI64::new(NOW_US)));
        let of = tier.clone();
        let ingestors = move |tenant: &TenantId| Arc::new(Ingestor::new(of.tenant(tenant)));
        let state = IngestState::for_tenants(
            Box::new(ingestors),
            None,
            Some(Arc::new(Quotas::new(quotas))),
            Arc::clone(&clock) as Arc<dyn Clock>,
            Limits::default(),
        );
        let mut router = ingest_router(state);
        for path in ["/sql", "/status", "/metrics"] {
            router = router.route(path, any(who));
        }
        for path in [
            "/receipts/{id}",
            "/admin/{*rest}",
            "/librato/{*rest}",
            "/forgotten",
        ] {
            router = router.route(path, any(who));
        }
        let router = gate(&tier, Arc::clone(&clock)).guard(router);
        Self {
            store,
            tier,
            clock,
            entropy: TestEntropy(AtomicU8::new(1)),
            router,
        }
    }

    async fn token(&self, tenant: &str, scopes: &[Scope]) -> String {
        let new = NewToken {
            tenant: tenant.parse().unwrap(),
            scopes: scopes.iter().copied().collect(),
            note: String::new(),
        };
        let made = create(&self.tier.control(), new, &self.entropy, NOW_US).await;
        // A server looks for tokens it does not know every 5 s.
        self.clock.0.fetch_add(5_000_000, Ordering::SeqCst);
        made.unwrap().0.reveal().to_owned()
    }

    async fn send(&self, request: request::Builder, body: impl Into<Body>) -> Reply {
        let request = request.body(body.into()).unwrap();
        let response = self.router.clone().oneshot(request).await.unwrap();
        let (parts, body) = response.into_parts();
        let body = to_bytes(body, usize::MAX).await.unwrap();
        Reply {
            status: parts.status.as_u16(),
            headers: parts.headers,
            body: String::from_utf8(body.to_vec()).unwrap(),
        }
    }

    async fn post(&self, uri: &str, token: &str, body: impl Into<Body>) -> Reply {
        let request = Request::post(uri).header("authorization", format!("Bearer {token}"));
        self.send(request, body).await
    }

    /// The keys of all stored batches.
    async fn batches(&self) -> Vec<String> {
        let metas: Vec<ObjectMeta> = self.store.list(None).try_collect().await.unwrap();
        let keys = metas.into_iter().map(|meta| meta.location.to_string());
        keys.filter(|key| key.starts_with("tenants/")).collect()
    }
}

fn path_of(pattern: &str) -> String {
    pattern.replace('*', "x")
}

#[tokio::test]
async fn each_sample_lands_under_the_prefix_of_its_tokens_tenant() {
    let world = World::new(QuotaOptions::default());
    let a = world.token("team-a", &[Scope::Ingest]).await;
    let b = world.token("team-b", &[Scope::Ingest]).await;
    let basic = |pair: String| {
        let text = base64::engine::general_purpose::STANDARD.encode(pair);
        format!("Basic {text}")
    };
    // Parameters, paths and headers that name the other tenant change nothing.
    let with = |uri: &str, header: String| Request::post(uri).header("authorization", header);
    let sent = [
        (with("/write?db=team-b", format!("Bearer {a}")), 'a'),
        (
            with(
                "/api/v2/write?org=team-b&bucket=team-b",
                format!("Token {a}"),
            ),
            'a',
        ),
        (with("/write", basic(format!("team-b:{a}"))), 'a'),
        (
            Request::post(format!("/write?u=team-b&p={a}&db=team-b")),
            'a',
        ),
        (with("/write", basic(format!("{b}:team-a"))), 'b'),
        (
            Request::post(format!("/write?p={b}")).header("stele-tenant", "team-a"),
            'b',
        ),
    ];
    for (i, (request, tenant)) in sent.into_iter().enumerate() {
        let before = world.batches().await;
        let reply = world
            .send(request, format!("cpu,n={i} value=1 1795348800000000000"))
            .await;
        assert_eq!(reply.status, 204, "{i}: {}", reply.body);
        let mut new = world.batches().await;
        new.retain(|key| !before.contains(key));
        assert_eq!(new.len(), 1, "{i}");
        assert!(
            new[0].starts_with(&format!("tenants/team-{tenant}/l0/")),
            "{i}: {new:?}"
        );
    }
}

#[tokio::test]
async fn no_route_but_the_open_ones_answers_without_a_token() {
    let world = World::new(QuotaOptions::default());
    let mut shown = String::new();
    let unknown = ["/", "/forgotten", "/api/v2/query", "/v1/x", "/Write"];
    let known = ROUTES
        .iter()
        .map(|route| (path_of(route.pattern), route.needs));
    let unknown = unknown.map(|path| (path.to_owned(), Needs::AnyOf(&[])));
    for (path, needs) in known.chain(unknown) {
        let reply = world.send(Request::get(&path), "").await;
        if needs == Needs::Nothing {
            assert!(
                matches!(reply.status, 200 | 204),
                "{path}: {}",
                reply.status
            );
        } else {
            assert_eq!(reply.status, 401, "{path}");
            shown += &format!("{path}\n{}\n", reply.show());
        }
    }
    insta::assert_snapshot!(shown);
}

#[tokio::test]
async fn a_token_opens_exactly_the_routes_of_its_scopes() {
    let world = World::new(QuotaOptions::default());
    let scopes = [Scope::Ingest, Scope::Query, Scope::Admin];
    let mut shown = String::new();
    for scope in scopes {
        let token = world.token("t", &[scope]).await;
        for route in ROUTES {
            let Needs::AnyOf(needed) = route.needs else {
                continue;
            };
            let path = path_of(route.pattern);
            let reply = world.post(&path, &token, "").await;
            if needed.contains(&scope) {
                assert!(!matches!(reply.status, 401 | 403 | 404), "{scope} {path}");
            } else {
                assert_eq!(reply.status, 403, "{scope} {path}");
                shown += &format!("{scope} {path}\n{}\n", reply.show());
            }
        }
    }
    insta::assert_snapshot!(shown);
}

#[tokio::test]
async fn a_route_that_is_not_in_the_table_is_not_served() {
    let world = World::new(QuotaOptions::default());
    let all = [Scope::Ingest, Scope::Query, Scope::Admin];
    let token = world.token("t", &all).await;
    for path in ["/forgotten", "/nowhere"] {
        assert_eq!(world.post(path, &token, "").await.status, 404, "{path}");
    }
}

#[tokio::test]
async fn refused_credentials_are_worded_as_each_protocol_does() {
    let world = World::new(QuotaOptions::default());
    let token = world.token("t", &[Scope::Ingest]).await;
    let wrong = format!("{}0", &token[..token.len() - 1]);
    let mut shown = String::new();
    for uri in ["/write", "/api/v2/write", "/v1/metrics", "/sql"] {
        for (what, header) in [
            ("wrong token", format!("Bearer {wrong}")),
            ("other scheme", "Digest x".to_owned()),
        ] {
            let request = Request::post(uri).header("authorization", header);
            let reply = world.send(request, "cpu value=1").await;
            assert_eq!(reply.status, 401);
            shown += &format!("{uri} {what}\n{}\n", reply.show());
        }
    }
    assert!(world.batches().await.is_empty());
    let secret = token.rsplit('_').next().unwrap();
    assert!(!shown.contains(&secret[..60]));
    insta::assert_snapshot!(shown);
}

#[tokio::test]
async fn no_byte_of_a_body_is_read_before_the_gate() {
    let world = World::new(QuotaOptions::default());
    let query = world.token("t", &[Scope::Query]).await;
    let requests = [
        Request::post("/write"),
        Request::post("/api/samples").header("authorization", format!("Bearer {query}")),
        Request::post("/query?q=x&p=wrong"),
    ];
    for request in requests {
        let read = Arc::new(AtomicBool::new(false));
        let seen = Arc::clone(&read);
        let chunks = futures::stream::poll_fn(move |_| {
            seen.store(true, Ordering::SeqCst);
            std::task::Poll::Ready(None::<Result<Bytes, std::io::Error>>)
        });
        let reply = world.send(request, Body::from_stream(chunks)).await;
        assert!(matches!(reply.status, 401 | 403), "{}", reply.status);
        // The reader of the reply is gone: had anyone polled the body, it would be known.
        assert!(!read.load(Ordering::SeqCst));
    }
}

#[tokio::test]
async fn without_tokens_only_loopback_is_answered() {
    let world = World::loopback();
    let good = Request::get("/status").header("host", "localhost:8686");
    assert_eq!(world.send(good, "").await.body, "open");
    let good = Request::post("/write").header("host", "[::1]:8686");
    let good = good.header("origin", "http://127.0.0.1:3000");
    assert_eq!(world.send(good, "cpu value=1").await.status, 204);
    let batches = world.batches().await;
    assert!(batches[0].starts_with("tenants/open/l0/"), "{batches:?}");
    let post = |uri: &str| Request::post(uri).header("host", "127.0.0.1:8686");
    let mut shown = String::new();
    for request in [
        Request::post("/write"),
        Request::get("/ping").header("host", "rebound.example:8686"),
        Request::post("/api/v2/write").header("host", "127.0.0.1.nip.io"),
        Request::post("/v1/metrics").header("host", "10.0.0.7:8686"),
        post("/write").header("origin", "https://evil.example"),
        post("/sql").header("origin", "null"),
        post("/sql").header("host", "evil.example"),
        post("http://evil.example/sql"),
    ] {
        let uri = request.uri_ref().unwrap().to_string();
        let reply = world.send(request, "cpu value=2").await;
        assert_eq!(reply.status, 403, "{uri}");
        shown += &format!("{uri}\n{}\n", reply.show());
    }
    assert_eq!(world.batches().await.len(), 1);
    insta::assert_snapshot!(shown);
}

#[tokio::test]
async fn over_a_quota_each_protocol_answers_429_or_names_what_it_refused() {
    let mut shown = String::new();
    let native = |n: i32| {
        let sample =
            |i: i32| format!("{{\"metric\":\"m\",\"tags\":{{\"id\":\"{i}\"}},\"value\":1}}");
        let samples: Vec<String> = (0..n).map(sample).collect();
        format!("{{\"samples\":[{}]}}", samples.join(","))
    };
    let lines = |n: i32| {
        (0..n)
            .map(|i| format!("m,id={i} value=1\n"))
            .collect::<String>()
    };
    let bodies: [(&str, &dyn Fn(i32) -> String); 3] = [
        ("/write", &lines),
        ("/api/v2/write", &lines),
        ("/api/samples", &native),
    ];
    for (uri, body) in bodies {
        let world = World::new(QuotaOptions {
            samples_per_sec: Some(3),
            series_active_max: Some(2),
            ..QuotaOptions::default()
        });
        let a = world.token("a", &[Scope::Ingest]).await;
        let b = world.token("b", &[Scope::Ingest]).await;
        let partial = world.post(uri, &a, body(3)).await;
        shown += &format!("{uri}: a new series too many\n{}\n", partial.show());
        let rate = world.post(uri, &a, body(2)).await;
        assert_eq!(rate.status, 429);
        shown += &format!("{uri}: too fast\n{}\n", rate.show());
        world.clock.0.fetch_add(1_000_000, Ordering::SeqCst);
        let only_new = body(1).replace("id=0", "id=9").replace("\"0\"", "\"9\"");
        let series = world.post(uri, &a, only_new).await;
        assert_eq!(series.status, 429);
        shown += &format!("{uri}: only new series\n{}\n", series.show());
        assert_eq!(world.batches().await.len(), 1, "{uri}");
        // The other tenant has quotas of its own.
        let other = world.post(uri, &b, body(2)).await;
        assert!(other.status < 300, "{uri}: {}", other.body);
    }
    insta::assert_snapshot!(shown);
}
