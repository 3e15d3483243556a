//! A store that can be cut off, as by a network: for drills and tests.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use async_trait::async_trait;
use futures::stream::{self, BoxStream, StreamExt};
use object_store::path::Path;
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta,
    ObjectStore, PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
};

use crate::tier::Tier;

/// A tier whose requests all fail while it is cut off. Clones share the switch.
#[derive(Debug, Clone)]
pub struct Cut {
    is_cut: Arc<AtomicBool>,
}

impl Cut {
    /// `tier` behind a switch, and the switch.
    #[must_use]
    pub fn over(tier: &Tier) -> (Tier, Self) {
        let cut = Self {
            is_cut: Arc::default(),
        };
        let store = CutStore {
            inner: tier.object_store(),
            is_cut: Arc::clone(&cut.is_cut),
        };
        (tier.over(Arc::new(store)), cut)
    }

    /// Cuts the tier off, or brings it back.
    pub fn set(&self, is_cut: bool) {
        self.is_cut.store(is_cut, Ordering::SeqCst);
    }
}

#[derive(Debug)]
struct CutStore {
    inner: Arc<dyn ObjectStore>,
    is_cut: Arc<AtomicBool>,
}

impl fmt::Display for CutStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} behind a switch", self.inner)
    }
}

impl CutStore {
    fn pass(&self) -> Result<&dyn ObjectStore> {
        match self.is_cut.load(Ordering::SeqCst) {
            false => Ok(self.inner.as_ref()),
            true => Err(Error::Generic {
                store: "cut",
                source: "the store is cut off".into(),
            }),
        }
    }

    fn stream<T: Send + 'static>(
        &self,
        make: impl FnOnce(&dyn ObjectStore) -> BoxStream<'static, Result<T>>,
    ) -> BoxStream<'static, Result<T>> {
        match self.pass() {
            Ok(store) => make(store),
            Err(error) => stream::once(async move { Err(error) }).boxed(),
        }
    }
}

#[async_trait]
impl ObjectStore for CutStore {
    async fn put_opts(
        &self,
        location: &Path,
        payload: PutPayload,
        opts: PutOptions,
    ) -> Result<PutResult> {
        self.pass()?.put_opts(location, payload, opts).await
    }

    async fn put_multipart_opts(
        &self,
        location: &Path,
        opts: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        self.pass()?.put_multipart_opts(location, opts).await
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        self.pass()?.get_opts(location, options).await
    }

    fn delete_stream(
        &self,
        locations: BoxStream<'static, Result<Path>>,
    ) -> BoxStream<'static, Result<Path>> {
        self.stream(|store| store.delete_stream(locations))
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.stream(|store| store.list(prefix))
    }

    fn list_with_offset(
        &self,
        prefix: Option<&Path>,
        offset: &Path,
    ) -> BoxStream<'static, Result<ObjectMeta>> {
        self.stream(|store| store.list_with_offset(prefix, offset))
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.pass()?.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.pass()?.copy_opts(from, to, options).await
    }
}
