//! A process that dies at its n-th mutation: before or after that takes effect.
#![allow(dead_code)]

use std::fmt;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use async_trait::async_trait;
use bytes::Bytes;
use futures::StreamExt;
use futures::stream::{self, BoxStream};
use object_store::path::Path;
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta,
    ObjectStore, PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
};

/// A store that works for so many mutations.
#[derive(Debug)]
pub struct Fuse {
    inner: Arc<dyn ObjectStore>,
    left: AtomicI64,
    /// The last mutation takes effect, and its reply is lost.
    lands: bool,
}

impl Fuse {
    pub fn new(inner: Arc<dyn ObjectStore>, mutations: i64, lands: bool) -> Arc<Self> {
        let left = AtomicI64::new(mutations);
        Arc::new(Self { inner, left, lands })
    }

    pub fn has_blown(&self) -> bool {
        self.left.load(Ordering::SeqCst) < 0
    }

    fn alive(&self) -> Result<()> {
        match self.has_blown() {
            false => Ok(()),
            true => Err(Error::PermissionDenied {
                path: String::new(),
                source: "the process is dead".into(),
            }),
        }
    }

    /// Whether this mutation takes effect, and whether its reply arrives.
    fn mutate(&self) -> (bool, bool) {
        match self.left.fetch_sub(1, Ordering::SeqCst) {
            left if left > 0 => (true, true),
            0 => (self.lands, false),
            _ => (false, false),
        }
    }
}

impl fmt::Display for Fuse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("fuse")
    }
}

#[async_trait]
impl ObjectStore for Fuse {
    async fn put_opts(
        &self,
        at: &Path,
        payload: PutPayload,
        opts: PutOptions,
    ) -> Result<PutResult> {
        let (lands, answered) = self.mutate();
        let put = match lands {
            true => self.inner.put_opts(at, payload, opts).await,
            false => self
                .alive()
                .map(|()| unreachable!("a mutation that is lost")),
        };
        match answered {
            true => put,
            false => self
                .alive()
                .map(|()| unreachable!("an answer that is lost")),
        }
    }

    async fn put_multipart_opts(
        &self,
        at: &Path,
        opts: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        self.inner.put_multipart_opts(at, opts).await
    }

    async fn get_opts(&self, at: &Path, options: GetOptions) -> Result<GetResult> {
        self.alive()?;
        self.inner.get_opts(at, options).await
    }

    async fn get_ranges(&self, at: &Path, ranges: &[Range<u64>]) -> Result<Vec<Bytes>> {
        self.alive()?;
        self.inner.get_ranges(at, ranges).await
    }

    fn delete_stream(
        &self,
        at: BoxStream<'static, Result<Path>>,
    ) -> BoxStream<'static, Result<Path>> {
        match self.mutate() {
            (_, true) => self.inner.delete_stream(at),
            _ => stream::once(async {
                Err(Error::NotImplemented {
                    operation: "delete".to_owned(),
                    implementer: "the process is dead".to_owned(),
                })
            })
            .boxed(),
        }
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        match self.alive() {
            Ok(()) => self.inner.list(prefix),
            Err(error) => stream::once(async { Err(error) }).boxed(),
        }
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.alive()?;
        self.inner.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.inner.copy_opts(from, to, options).await
    }
}
