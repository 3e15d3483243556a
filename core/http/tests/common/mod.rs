//! A router over a store in memory that can be told to fail, and the words to talk to it.
#![allow(dead_code)]

use std::fmt;
use std::io::Write as _;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU8, Ordering};

use async_trait::async_trait;
use axum::Router;
use axum::body::{Body, to_bytes};
use axum::http::{HeaderMap, Request};
use bytes::Bytes;
use futures::stream::BoxStream;
use object_store::path::Path;
use object_store::{
    CopyOptions, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore,
    PutMultipartOptions, PutOptions, PutPayload, PutResult,
};
use stele_http::{IngestState, ingest_router};
use stele_ingest::{Ingestor, Options};
use stele_model::{Day, Limits, ReceiptId, TenantId};
use stele_store::{TenantStore, Tier};
use stele_testkit::{ManualClock, MemoryStore};
use tower::ServiceExt;

/// 2026-11-22T12:00:00Z.
pub const NOW_US: i64 = 1_795_348_800_000_000;

/// What becomes of a PUT.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum PutFault {
    None = 0,
    /// It fails and nothing is stored.
    Before = 1,
    /// It is stored and its reply is lost.
    After = 2,
}

#[derive(Debug)]
pub struct TestStore {
    inner: MemoryStore,
    fault: AtomicU8,
    requests: Mutex<Vec<&'static str>>,
}

impl TestStore {
    fn new(clock: ManualClock) -> Self {
        Self {
            inner: MemoryStore::new(clock),
            fault: AtomicU8::default(),
            requests: Mutex::default(),
        }
    }

    fn note(&self, request: &'static str) {
        self.requests.lock().unwrap().push(request);
    }

    pub fn fail_puts(&self, fault: PutFault) {
        self.fault.store(fault as u8, Ordering::SeqCst);
    }

    /// The requests since the last call.
    pub fn take_requests(&self) -> Vec<&'static str> {
        std::mem::take(&mut *self.requests.lock().unwrap())
    }
}

impl fmt::Display for TestStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("test store")
    }
}

fn lost() -> object_store::Error {
    object_store::Error::Generic {
        store: "test",
        source: "secret-endpoint timed out".into(),
    }
}

#[async_trait]
impl ObjectStore for TestStore {
    async fn put_opts(
        &self,
        location: &Path,
        payload: PutPayload,
        opts: PutOptions,
    ) -> object_store::Result<PutResult> {
        self.note("PUT");
        let fault = self.fault.load(Ordering::SeqCst);
        if fault == PutFault::Before as u8 {
            return Err(lost());
        }
        let stored = self.inner.put_opts(location, payload, opts).await?;
        if fault == PutFault::After as u8 {
            return Err(lost());
        }
        Ok(stored)
    }

    async fn put_multipart_opts(
        &self,
        location: &Path,
        opts: PutMultipartOptions,
    ) -> object_store::Result<Box<dyn MultipartUpload>> {
        self.note("MULTIPART");
        self.inner.put_multipart_opts(location, opts).await
    }

    async fn get_opts(
        &self,
        location: &Path,
        options: GetOptions,
    ) -> object_store::Result<GetResult> {
        self.note("GET");
        self.inner.get_opts(location, options).await
    }

    fn delete_stream(
        &self,
        locations: BoxStream<'static, object_store::Result<Path>>,
    ) -> BoxStream<'static, object_store::Result<Path>> {
        self.note("DELETE");
        self.inner.delete_stream(locations)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, object_store::Result<ObjectMeta>> {
        self.note("LIST");
        self.inner.list(prefix)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> object_store::Result<ListResult> {
        self.note("LIST");
        self.inner.list_with_delimiter(prefix).await
    }

    async fn copy_opts(
        &self,
        from: &Path,
        to: &Path,
        options: CopyOptions,
    ) -> object_store::Result<()> {
        self.note("COPY");
        self.inner.copy_opts(from, to, options).await
    }
}

/// One server under test.
pub struct Server {
    pub store: Arc<TestStore>,
    pub clock: ManualClock,
    pub state: IngestState,
    pub tenant: TenantStore,
    router: Router,
}

/// A reply, with its body as text.
pub struct Reply {
    pub status: u16,
    pub headers: HeaderMap,
    pub body: String,
}

impl Reply {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().unwrap())
    }

    /// Status, the headers that clients act on, and body.
    pub fn show(&self) -> String {
        let mut out = format!("{}\n", self.status);
        for name in ["content-type", "retry-after", "x-influxdb-error"] {
            if let Some(value) = self.header(name) {
                out += &format!("{name}: {value}\n");
            }
        }
        out + &self.body
    }
}

impl Server {
    pub fn new(limits: Limits) -> Self {
        Self::with(limits, Options::default())
    }

    pub fn with(limits: Limits, options: Options) -> Self {
        let clock = ManualClock::new(NOW_US);
        let store = Arc::new(TestStore::new(clock.clone()));
        let tier = Tier::from_store(Arc::clone(&store) as Arc<dyn ObjectStore>, "", "test://");
        let tenant = tier.tenant(&TenantId::default());
        let ingestor = Arc::new(Ingestor::with_options(tenant.clone(), options));
        let state = IngestState::new(ingestor, Arc::new(clock.clone()), limits);
        let router = ingest_router(state.clone());
        Self {
            store,
            clock,
            state,
            tenant,
            router,
        }
    }

    pub async fn send(&self, request: Request<Body>) -> Reply {
        let response = self.router.clone().oneshot(request).await.unwrap();
        let (parts, body) = response.into_parts();
        let body = to_bytes(body, usize::MAX).await.unwrap();
        Reply {
            status: parts.status.as_u16(),
            headers: parts.headers,
            body: String::from_utf8(body.to_vec()).unwrap(),
        }
    }

    pub async fn get(&self, uri: &str) -> Reply {
        self.send(Request::get(uri).body(Body::empty()).unwrap())
            .await
    }

    pub async fn post(&self, uri: &str, body: impl Into<Body>) -> Reply {
        self.send(Request::post(uri).body(body.into()).unwrap())
            .await
    }

    pub async fn post_as(&self, uri: &str, encoding: &str, body: Vec<u8>) -> Reply {
        let request = Request::post(uri).header("content-encoding", encoding);
        self.send(request.body(body.into()).unwrap()).await
    }

    /// A body under an idempotency key.
    pub async fn post_keyed(&self, uri: &str, key: &str, body: impl Into<Body>) -> Reply {
        let request = Request::post(uri).header("idempotency-key", key);
        self.send(request.body(body.into()).unwrap()).await
    }

    /// A body of unknown length, in chunks.
    pub async fn post_chunked(&self, uri: &str, chunks: Vec<&'static str>) -> Reply {
        let chunks = chunks
            .into_iter()
            .map(|c| Ok::<_, std::io::Error>(Bytes::from(c)));
        let body = Body::from_stream(futures::stream::iter(chunks));
        self.send(Request::post(uri).body(body).unwrap()).await
    }

    /// Every stored sample as text, sorted, and the receipts of their batches.
    pub async fn stored(&self) -> (Vec<String>, Vec<String>) {
        let (mut samples, mut receipts) = (Vec::new(), Vec::new());
        for object in self.tenant.l0_list().await.unwrap() {
            let bytes = self.tenant.l0_get(&object.name).await.unwrap();
            for batch in stele_format::l0::decode(bytes).unwrap() {
                let id = ReceiptId {
                    digest: batch.digest,
                    day: Day::of(batch.rows.ts_range_us().unwrap().1),
                };
                receipts.push(id.to_string());
                samples.extend(batch.rows.rows.iter().map(|row| {
                    let series = &batch.rows.series[row.series as usize];
                    let ts = stele_model::time::rfc3339(row.ts_us);
                    format!("{} {} {:?} {ts}", series.metric, series.tags, row.value)
                }));
            }
        }
        samples.sort();
        (samples, receipts)
    }

    /// All keys of the store.
    pub async fn keys(&self) -> Vec<String> {
        use futures::TryStreamExt;
        let metas: Vec<ObjectMeta> = self.store.inner.list(None).try_collect().await.unwrap();
        metas
            .into_iter()
            .map(|meta| meta.location.to_string())
            .collect()
    }
}

pub fn gzip(body: &[u8]) -> Vec<u8> {
    let mut writer = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    writer.write_all(body).unwrap();
    writer.finish().unwrap()
}
