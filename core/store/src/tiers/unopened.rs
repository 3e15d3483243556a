//! A member that could not even be opened: every request of it fails, and says why.

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use futures::stream::{self, BoxStream, StreamExt};
use object_store::path::Path;
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta,
    ObjectStore, PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
};

use crate::tier::Tier;

/// A tier at `url` that answers nothing but `why`.
pub(super) fn unopened(url: &str, why: String) -> Tier {
    Tier::from_store(Arc::new(Unopened { why }), "", url)
}

#[derive(Debug)]
struct Unopened {
    why: String,
}

impl fmt::Display for Unopened {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a store that could not be opened")
    }
}

impl Unopened {
    fn refusal(&self) -> Error {
        Error::Generic {
            store: "unopened",
            source: self.why.clone().into(),
        }
    }

    fn none<T: Send + 'static>(&self) -> BoxStream<'static, Result<T>> {
        let refusal = self.refusal();
        stream::once(async move { Err(refusal) }).boxed()
    }
}

#[async_trait]
impl ObjectStore for Unopened {
    async fn put_opts(&self, _: &Path, _: PutPayload, _: PutOptions) -> Result<PutResult> {
        Err(self.refusal())
    }

    async fn put_multipart_opts(
        &self,
        _: &Path,
        _: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        Err(self.refusal())
    }

    async fn get_opts(&self, _: &Path, _: GetOptions) -> Result<GetResult> {
        Err(self.refusal())
    }

    fn delete_stream(
        &self,
        _: BoxStream<'static, Result<Path>>,
    ) -> BoxStream<'static, Result<Path>> {
        self.none()
    }

    fn list(&self, _: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.none()
    }

    async fn list_with_delimiter(&self, _: Option<&Path>) -> Result<ListResult> {
        Err(self.refusal())
    }

    async fn copy_opts(&self, _: &Path, _: &Path, _: CopyOptions) -> Result<()> {
        Err(self.refusal())
    }
}
