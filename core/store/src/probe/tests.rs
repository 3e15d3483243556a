//! Stores that only look healthy, each refused by the name of what it lacks.

use std::ops::Range;
use std::sync::Arc;

use async_trait::async_trait;
use futures::StreamExt;
use futures::stream::BoxStream;
use object_store::memory::InMemory;
use object_store::{
    CopyOptions, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore,
    PutMultipartOptions, PutOptions, PutPayload, PutResult, Result as StoreResult,
};
use stele_model::ErrorKind;

use super::*;

#[derive(Debug, Clone, Copy, PartialEq)]
enum Lie {
    None,
    IgnoresCreate,
    RefusesAll,
    HidesNewKeys,
    KeepsDeleted,
}

#[derive(Debug)]
struct Liar {
    inner: InMemory,
    lie: Lie,
}

impl fmt::Display for Liar {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Liar")
    }
}

#[async_trait]
impl ObjectStore for Liar {
    async fn put_opts(
        &self,
        location: &Path,
        payload: PutPayload,
        mut opts: PutOptions,
    ) -> StoreResult<PutResult> {
        if opts.mode == PutMode::Create && self.lie == Lie::RefusesAll {
            self.inner.put(location, payload).await?;
            let source = "a lost reply".into();
            let path = location.to_string();
            return Err(StoreError::AlreadyExists { path, source });
        }
        if self.lie == Lie::IgnoresCreate {
            opts.mode = PutMode::Overwrite;
        }
        tokio::task::yield_now().await;
        self.inner.put_opts(location, payload, opts).await
    }

    async fn put_multipart_opts(
        &self,
        location: &Path,
        opts: PutMultipartOptions,
    ) -> StoreResult<Box<dyn MultipartUpload>> {
        self.inner.put_multipart_opts(location, opts).await
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> StoreResult<GetResult> {
        self.inner.get_opts(location, options).await
    }

    async fn get_ranges(&self, location: &Path, ranges: &[Range<u64>]) -> StoreResult<Vec<Bytes>> {
        self.inner.get_ranges(location, ranges).await
    }

    fn delete_stream(
        &self,
        locations: BoxStream<'static, StoreResult<Path>>,
    ) -> BoxStream<'static, StoreResult<Path>> {
        match self.lie {
            Lie::KeepsDeleted => locations,
            _ => self.inner.delete_stream(locations),
        }
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, StoreResult<ObjectMeta>> {
        match self.lie {
            Lie::HidesNewKeys => futures::stream::empty().boxed(),
            _ => self.inner.list(prefix),
        }
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> StoreResult<ListResult> {
        self.inner.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> StoreResult<()> {
        self.inner.copy_opts(from, to, options).await
    }
}

async fn probe(lie: Lie, clock_ahead_us: i64) -> (Result<ProbeReport>, Vec<String>) {
    let inner = InMemory::new();
    let tier = Tier::from_store(Arc::new(Liar { inner, lie }), "deep", "test");
    let now_us = tier.now_us().await.unwrap();
    let report = tier.probe(now_us - clock_ahead_us, "n1").await;
    let left = tier.object_store();
    let left = left.list(None).map_ok(|meta| meta.location.to_string());
    (report, left.try_collect().await.unwrap())
}

#[tokio::test]
async fn an_honest_store_passes_and_is_left_clean() {
    let (report, left) = probe(Lie::None, 0).await;
    let report = report.unwrap();
    assert_eq!((report.writers, report.rounds), (16, 3));
    assert_eq!(left, ["deep/control/clock"]);
}

#[tokio::test]
async fn each_lie_is_refused_by_name() {
    for (lie, clock_ahead_us, want) in [
        (Lie::IgnoresCreate, 0, Capability::ConditionalCreate),
        (Lie::RefusesAll, 0, Capability::ConditionalCreate),
        (Lie::HidesNewKeys, 0, Capability::ListAfterPut),
        (Lie::KeepsDeleted, 0, Capability::ReadAfterDelete),
        (
            Lie::None,
            CLOCK_DIFFERENCE_US_MAX + 5_000_000,
            Capability::Clock,
        ),
        (
            Lie::None,
            -CLOCK_DIFFERENCE_US_MAX - 5_000_000,
            Capability::Clock,
        ),
    ] {
        let (report, left) = probe(lie, clock_ahead_us).await;
        let error = report.expect_err("a liar");
        assert!(
            matches!(&error, Error::Incapable { which, .. } if *which == want),
            "{lie:?}: {error}"
        );
        assert_eq!(error.kind(), ErrorKind::Internal);
        if !matches!(lie, Lie::KeepsDeleted | Lie::HidesNewKeys) {
            assert_eq!(left, ["deep/control/clock"], "{lie:?}");
        }
    }
}
