//! Tokens over a store in memory that can be told to fail, on a clock that the test moves.

#![allow(clippy::unwrap_used, clippy::panic)]

use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use futures::stream::BoxStream;
use futures::{StreamExt, TryStreamExt};
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{
    CopyOptions, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore,
    ObjectStoreExt, PutMultipartOptions, PutOptions, PutPayload, PutResult,
};
use stele_auth::{Damage, Error, NewToken, Scope, TokenText, Tokens, create, list, revoke};
use stele_model::{Clock, Entropy, ErrorKind};
use stele_store::{ControlStore, Tier, Tiers, sealed};

const S: i64 = 1_000_000;

#[derive(Clone, Default)]
struct TestClock(Arc<AtomicI64>);

impl TestClock {
    fn advance(&self, secs: i64) {
        self.0.fetch_add(secs * S, Ordering::SeqCst);
    }
}

impl Clock for TestClock {
    fn now_us(&self) -> i64 {
        self.0.load(Ordering::SeqCst)
    }
}

/// Bytes that count up, so that every token differs.
#[derive(Default)]
struct TestEntropy(AtomicU64);

impl Entropy for TestEntropy {
    fn fill(&self, bytes: &mut [u8]) -> std::io::Result<()> {
        let n = self.0.fetch_add(1, Ordering::SeqCst).to_be_bytes();
        for (byte, n) in bytes.iter_mut().zip(n.iter().cycle()) {
            *byte = *n ^ 0xa5;
        }
        Ok(())
    }
}

struct NoEntropy;

impl Entropy for NoEntropy {
    fn fill(&self, _: &mut [u8]) -> std::io::Result<()> {
        Err(std::io::Error::other("the source is dry"))
    }
}

#[derive(Debug, Default)]
struct TestStore {
    inner: InMemory,
    down: AtomicBool,
    requests: Mutex<Vec<&'static str>>,
}

impl fmt::Display for TestStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("test store")
    }
}

impl TestStore {
    fn request(&self, what: &'static str) -> object_store::Result<()> {
        self.requests.lock().unwrap().push(what);
        if self.down.load(Ordering::SeqCst) {
            return Err(object_store::Error::Generic {
                store: "test",
                source: "down".into(),
            });
        }
        Ok(())
    }

    fn take_requests(&self) -> Vec<&'static str> {
        std::mem::take(&mut *self.requests.lock().unwrap())
    }
}

#[async_trait::async_trait]
impl ObjectStore for TestStore {
    async fn put_opts(
        &self,
        location: &Path,
        payload: PutPayload,
        opts: PutOptions,
    ) -> object_store::Result<PutResult> {
        self.request("PUT")?;
        self.inner.put_opts(location, payload, opts).await
    }

    async fn put_multipart_opts(
        &self,
        location: &Path,
        opts: PutMultipartOptions,
    ) -> object_store::Result<Box<dyn MultipartUpload>> {
        self.inner.put_multipart_opts(location, opts).await
    }

    async fn get_opts(&self, at: &Path, options: GetOptions) -> object_store::Result<GetResult> {
        self.request("GET")?;
        self.inner.get_opts(at, options).await
    }

    fn delete_stream(
        &self,
        locations: BoxStream<'static, object_store::Result<Path>>,
    ) -> BoxStream<'static, object_store::Result<Path>> {
        self.inner.delete_stream(locations)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, object_store::Result<ObjectMeta>> {
        match self.request("LIST") {
            Ok(()) => self.inner.list(prefix),
            Err(error) => futures::stream::once(async { Err(error) }).boxed(),
        }
    }

    async fn list_with_delimiter(&self, at: Option<&Path>) -> object_store::Result<ListResult> {
        self.inner.list_with_delimiter(at).await
    }

    async fn copy_opts(
        &self,
        from: &Path,
        to: &Path,
        options: CopyOptions,
    ) -> object_store::Result<()> {
        self.inner.copy_opts(from, to, options).await
    }
}

struct World {
    store: Arc<TestStore>,
    control: ControlStore,
    clock: TestClock,
    entropy: TestEntropy,
    tokens: Tokens,
}

impl World {
    fn new() -> Self {
        let store = Arc::new(TestStore::default());
        let tier = Tier::from_store(Arc::clone(&store) as Arc<dyn ObjectStore>, "pre", "test:");
        let clock = TestClock::default();
        clock.advance(1_000_000);
        Self {
            control: tier.control(),
            tokens: Tokens::new(Tiers::fixed(tier.clone()), Arc::new(clock.clone())),
            store,
            clock,
            entropy: TestEntropy::default(),
        }
    }

    async fn create(&self, tenant: &str, scopes: &[Scope]) -> TokenText {
        let new = NewToken {
            tenant: tenant.parse().unwrap(),
            scopes: scopes.iter().copied().collect(),
            note: String::new(),
        };
        let made = create(&self.control, new, &self.entropy, self.clock.now_us()).await;
        let (text, _) = made.unwrap();
        self.store.take_requests();
        text
    }

    async fn keys(&self) -> Vec<String> {
        let metas: Vec<ObjectMeta> = self.store.inner.list(None).try_collect().await.unwrap();
        metas.into_iter().map(|m| m.location.to_string()).collect()
    }

    async fn write(&self, id: &stele_auth::TokenId, text: &str) {
        let at = Path::from(format!("pre/control/tokens/{id}.json"));
        let bytes = bytes::Bytes::copy_from_slice(text.as_bytes());
        self.store.inner.put(&at, bytes.into()).await.unwrap();
    }
}

fn id(token: &TokenText) -> stele_auth::TokenId {
    token.reveal().split('_').nth(1).unwrap().parse().unwrap()
}

fn secret(token: &TokenText) -> &str {
    token.reveal().split('_').nth(2).unwrap()
}

#[tokio::test]
async fn a_token_is_its_tenants_and_its_scopes() {
    let world = World::new();
    let a = world.create("a", &[Scope::Ingest, Scope::Query]).await;
    let b = world.create("b", &[Scope::Admin]).await;
    let principal = world.tokens.authenticate(a.reveal()).await.unwrap();
    assert_eq!(
        (principal.tenant.as_str(), &principal.token),
        ("a", &id(&a))
    );
    assert_eq!(principal.scopes, [Scope::Ingest, Scope::Query].into());
    let principal = world.tokens.authenticate(b.reveal()).await.unwrap();
    assert_eq!(principal.tenant.as_str(), "b");
    assert_eq!(world.tokens.active().await.unwrap(), 2);
    // One LIST, one GET each, and nothing more while they are fresh.
    assert_eq!(world.store.take_requests(), ["LIST", "GET", "GET"]);
}

#[tokio::test]
async fn the_store_holds_no_secret_and_nothing_is_overwritten() {
    let world = World::new();
    let token = world.create("a", &[Scope::Ingest]).await;
    let first = revoke(&world.control, &id(&token), 7).await.unwrap();
    let second = revoke(&world.control, &id(&token), 8).await.unwrap();
    assert_eq!((first.revoked_us, second.revoked_us), (7, 7));
    let id = id(&token);
    assert_eq!(
        world.keys().await,
        [
            format!("pre/control/tokens/{id}.json"),
            format!("pre/control/tokens/{id}.revoked.json"),
        ]
    );
    for key in world.keys().await {
        let got = world.store.inner.get(&Path::from(key)).await.unwrap();
        let text = String::from_utf8(got.bytes().await.unwrap().to_vec()).unwrap();
        assert!(!text.contains(secret(&token)), "{text}");
    }
}

#[tokio::test]
async fn a_wrong_secret_and_an_unknown_id_get_the_same_answer() {
    let world = World::new();
    let a = world.create("a", &[Scope::Ingest]).await;
    let b = world.create("b", &[Scope::Ingest]).await;
    let forged = format!("stele_{}_{}", id(&a), secret(&b));
    let unknown = format!("stele_{}_{}", "0".repeat(16), secret(&a));
    for text in [
        forged.as_str(),
        &unknown,
        "",
        "stele_",
        secret(&a),
        id(&a).as_str(),
    ] {
        let error = world.tokens.authenticate(text).await.unwrap_err();
        assert!(matches!(error, Error::Invalid), "{error}");
        assert_eq!(error.kind(), ErrorKind::Unauthenticated);
    }
}

#[tokio::test]
async fn a_revoked_token_stops_within_60_s() {
    let world = World::new();
    let token = world.create("a", &[Scope::Ingest]).await;
    world.tokens.authenticate(token.reveal()).await.unwrap();
    revoke(&world.control, &id(&token), 0).await.unwrap();
    world.clock.advance(60);
    let error = world.tokens.authenticate(token.reveal()).await.unwrap_err();
    assert!(matches!(error, Error::Revoked { .. }), "{error}");
    assert_eq!(world.tokens.active().await.unwrap(), 0);
    // Only who holds the secret learns that.
    let guess = format!("stele_{}_{}", id(&token), "0".repeat(64));
    let error = world.tokens.authenticate(&guess).await.unwrap_err();
    assert!(matches!(error, Error::Invalid), "{error}");
}

#[tokio::test]
async fn without_a_refresh_for_60_s_nothing_is_allowed() {
    let world = World::new();
    let token = world.create("a", &[Scope::Ingest]).await;
    world.tokens.authenticate(token.reveal()).await.unwrap();
    world.store.down.store(true, Ordering::SeqCst);
    world.clock.advance(59);
    world.tokens.authenticate(token.reveal()).await.unwrap();
    world.clock.advance(1);
    let error = world.tokens.authenticate(token.reveal()).await.unwrap_err();
    assert!(matches!(error, Error::Stale { .. }), "{error}");
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    world.store.down.store(false, Ordering::SeqCst);
    world.clock.advance(1);
    world.tokens.authenticate(token.reveal()).await.unwrap();
    // A clock that goes back makes the age unknown: asked again, not believed.
    world.store.down.store(true, Ordering::SeqCst);
    world.clock.advance(-3600);
    let error = world.tokens.authenticate(token.reveal()).await.unwrap_err();
    assert!(matches!(error, Error::Stale { .. }), "{error}");
}

#[tokio::test]
async fn a_store_that_is_down_is_asked_once_a_second() {
    let world = World::new();
    world.store.down.store(true, Ordering::SeqCst);
    let token = format!("stele_{}_{}", "0".repeat(16), "0".repeat(64));
    for _ in 0..20 {
        let error = world.tokens.authenticate(&token).await.unwrap_err();
        assert!(matches!(error, Error::Stale { .. }), "{error}");
    }
    assert_eq!(world.store.take_requests(), ["LIST"]);
}

#[tokio::test]
async fn a_new_token_works_within_5_s_and_a_stranger_costs_no_list_per_request() {
    let world = World::new();
    let first = world.create("a", &[Scope::Ingest]).await;
    world.tokens.authenticate(first.reveal()).await.unwrap();
    let second = world.create("b", &[Scope::Ingest]).await;
    for _ in 0..50 {
        world
            .tokens
            .authenticate(second.reveal())
            .await
            .unwrap_err();
    }
    assert!(world.store.take_requests().is_empty());
    world.clock.advance(5);
    world.tokens.authenticate(second.reveal()).await.unwrap();
    // A record that was read is not read again.
    assert_eq!(world.store.take_requests(), ["LIST", "GET"]);
}

#[tokio::test]
async fn a_damaged_token_is_named_and_refused_and_harms_no_other() {
    let world = World::new();
    let good = world.create("a", &[Scope::Ingest]).await;
    let bad = world.create("a", &[Scope::Ingest]).await;
    world.write(&id(&bad), "{\"version\":1,\"torn").await;
    world.tokens.authenticate(good.reveal()).await.unwrap();
    let error = world.tokens.authenticate(bad.reveal()).await.unwrap_err();
    assert!(matches!(error, Error::Invalid), "{error}");
    let listed = list(&world.control).await.unwrap();
    let of = |token: &TokenText| listed.iter().find(|l| l.id == id(token)).unwrap();
    assert!(of(&good).is_active() && !of(&bad).is_active());
    match &of(&bad).record {
        Err(Error::Damaged { id: named, source }) => {
            assert_eq!(named, &id(&bad));
            assert_eq!(*source, Damage::Check);
        }
        other => panic!("{other:?}"),
    }
    // A damaged one can be revoked, and a damaged revocation revokes.
    revoke(&world.control, &id(&bad), 5).await.unwrap();
    let at = Path::from(format!("pre/control/tokens/{}.revoked.json", id(&good)));
    world.store.inner.put(&at, "x".into()).await.unwrap();
    let listed = list(&world.control).await.unwrap();
    assert!(listed.iter().all(|l| l.revoked.is_some()));
    world.clock.advance(60);
    world.tokens.authenticate(good.reveal()).await.unwrap_err();
    insta::assert_snapshot!(serde_json::to_string_pretty(&listed).unwrap());
}

#[tokio::test]
async fn what_cannot_be_made_or_revoked_is_refused() {
    let world = World::new();
    let new = |scopes: &[Scope], note: String| NewToken {
        tenant: "a".parse().unwrap(),
        scopes: scopes.iter().copied().collect(),
        note,
    };
    let long = "x".repeat(201);
    let mut shown = Vec::new();
    for (new, entropy) in [
        (new(&[], String::new()), &world.entropy as &dyn Entropy),
        (new(&[Scope::Query], long), &world.entropy),
        (new(&[Scope::Query], String::new()), &NoEntropy),
    ] {
        let error = create(&world.control, new, entropy, 0).await.unwrap_err();
        shown.push(error.to_string());
    }
    let unknown = "00000000000000ff".parse().unwrap();
    shown.push(
        revoke(&world.control, &unknown, 0)
            .await
            .unwrap_err()
            .to_string(),
    );
    shown.push("write".parse::<Scope>().unwrap_err().to_string());
    assert!(world.keys().await.is_empty());
    insta::assert_snapshot!(shown.join("\n"));
}

#[tokio::test]
async fn two_tokens_never_share_an_id() {
    let world = World::new();
    let new = NewToken {
        tenant: "a".parse().unwrap(),
        scopes: [Scope::Query].into(),
        note: String::new(),
    };
    create(&world.control, new.clone(), &TestEntropy::default(), 0)
        .await
        .unwrap();
    let again = create(&world.control, new, &TestEntropy::default(), 1).await;
    assert!(matches!(again, Err(Error::Taken { .. })), "{again:?}");
}

/// Writes down every field of every event.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<String>>);

impl tracing::Subscriber for Log {
    fn enabled(&self, _: &tracing::Metadata<'_>) -> bool {
        true
    }

    fn new_span(&self, _: &tracing::span::Attributes<'_>) -> tracing::span::Id {
        tracing::span::Id::from_u64(1)
    }

    fn record(&self, _: &tracing::span::Id, _: &tracing::span::Record<'_>) {}

    fn record_follows_from(&self, _: &tracing::span::Id, _: &tracing::span::Id) {}

    fn event(&self, event: &tracing::Event<'_>) {
        event.record(&mut Fields(&mut self.0.lock().unwrap()));
    }

    fn enter(&self, _: &tracing::span::Id) {}

    fn exit(&self, _: &tracing::span::Id) {}
}

struct Fields<'a>(&'a mut String);

impl tracing::field::Visit for Fields<'_> {
    fn record_debug(&mut self, field: &tracing::field::Field, value: &dyn fmt::Debug) {
        *self.0 += &format!("{field}={value:?}\n");
    }
}

#[tokio::test]
async fn a_planted_secret_is_in_no_error_no_debug_text_and_no_log() {
    let log = Log::default();
    // With a single subscriber, a thread that has none switches an event off for all threads.
    let _second = tracing::Dispatch::new(Log::default());
    let _guard = tracing::subscriber::set_default(log.clone());
    let world = World::new();
    let token = world.create("a", &[Scope::Ingest]).await;
    let planted = secret(&token).to_owned();
    let mut said = format!("{token:?} {:?}", world.tokens);
    said += &format!(
        "{:?}",
        world.tokens.authenticate(token.reveal()).await.unwrap()
    );
    // The whole token where an id belongs, and a damaged record that holds the secret.
    let pasted = token.reveal().parse::<stele_auth::TokenId>().unwrap_err();
    said += &format!("{pasted} {pasted:?}");
    let bad = world.create("a", &[Scope::Ingest]).await;
    let holds = sealed::seal(format!("{{\"version\":\"{planted}\"}}").as_bytes());
    let holds = String::from_utf8(holds.to_vec()).unwrap();
    world.write(&id(&bad), &holds).await;
    world.clock.advance(60);
    let forged = format!("stele_{}_{planted}", id(&bad));
    for text in [forged.as_str(), &planted] {
        let error = world.tokens.authenticate(text).await.unwrap_err();
        said += &format!("{error} {error:?}");
    }
    let listed = list(&world.control).await.unwrap();
    said += &format!("{listed:?} {}", serde_json::to_string(&listed).unwrap());
    revoke(&world.control, &id(&token), 0).await.unwrap();
    world.clock.advance(60);
    let error = world.tokens.authenticate(token.reveal()).await.unwrap_err();
    said += &format!("{error} {error:?}");
    world.store.down.store(true, Ordering::SeqCst);
    world.clock.advance(60);
    let error = world.tokens.authenticate(token.reveal()).await.unwrap_err();
    said += &format!("{error} {error:?}");
    let logged = log.0.lock().unwrap().clone();
    assert!(logged.contains("is damaged and not accepted"), "{logged}");
    assert!(logged.contains("could not be refreshed"), "{logged}");
    assert!(!logged.contains(&planted), "{logged}");
    assert!(!said.contains(&planted), "{said}");
}
