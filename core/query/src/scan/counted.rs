//! A store that only reads, and counts what it reads.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::BoxStream;
use object_store::path::Path;
use object_store::{
    CopyOptions, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore,
    PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
};
use stele_store::TenantStore;

/// A tenant's store whose reads are counted.
pub(crate) struct Counted {
    pub(crate) store: TenantStore,
    counts: Arc<Counts>,
}

#[derive(Debug, Default)]
struct Counts {
    requests: AtomicUsize,
    bytes: AtomicUsize,
}

impl Counted {
    pub(crate) fn requests(&self) -> usize {
        self.counts.requests.load(Ordering::Relaxed)
    }

    pub(crate) fn bytes(&self) -> usize {
        self.counts.bytes.load(Ordering::Relaxed)
    }
}

/// `store`, counted from now on.
pub(crate) fn counted(store: &TenantStore) -> Counted {
    let counts = Arc::new(Counts::default());
    let reading = Reading {
        inner: store.tier().object_store(),
        counts: Arc::clone(&counts),
    };
    Counted {
        store: store.tier().over(Arc::new(reading)).tenant(store.tenant()),
        counts,
    }
}

#[derive(Debug)]
struct Reading {
    inner: Arc<dyn ObjectStore>,
    counts: Arc<Counts>,
}

impl Reading {
    fn count(&self, bytes: u64) {
        self.counts.requests.fetch_add(1, Ordering::Relaxed);
        let bytes = usize::try_from(bytes).unwrap_or(usize::MAX);
        self.counts.bytes.fetch_add(bytes, Ordering::Relaxed);
    }
}

impl fmt::Display for Reading {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "reading {}", self.inner)
    }
}

fn refused<T>() -> Result<T> {
    Err(object_store::Error::NotSupported {
        source: "a query only reads".into(),
    })
}

#[async_trait]
impl ObjectStore for Reading {
    async fn put_opts(&self, _: &Path, _: PutPayload, _: PutOptions) -> Result<PutResult> {
        refused()
    }

    async fn put_multipart_opts(
        &self,
        _: &Path,
        _: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        refused()
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        let answer = self.inner.get_opts(location, options).await;
        self.count(answer.as_ref().map_or(0, |a| a.range.end - a.range.start));
        answer
    }

    async fn get_ranges(&self, location: &Path, ranges: &[Range<u64>]) -> Result<Vec<Bytes>> {
        let answer = self.inner.get_ranges(location, ranges).await;
        let bytes = |parts: &Vec<Bytes>| parts.iter().map(|part| part.len() as u64).sum();
        self.count(answer.as_ref().map_or(0, bytes));
        answer
    }

    fn delete_stream(
        &self,
        _: BoxStream<'static, Result<Path>>,
    ) -> BoxStream<'static, Result<Path>> {
        Box::pin(futures::stream::once(async { refused() }))
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.count(0);
        self.inner.list(prefix)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.count(0);
        self.inner.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, _: &Path, _: &Path, _: CopyOptions) -> Result<()> {
        refused()
    }
}
