//! The store as one actor sees it.

use std::collections::VecDeque;
use std::fmt;

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::{self, BoxStream};
use futures::{StreamExt, TryStreamExt};
use object_store::path::Path;
use object_store::{
    CopyMode, CopyOptions, Error, GetOptions, GetResult, GetResultPayload, ListResult,
    MultipartUpload, ObjectMeta, ObjectStore, ObjectStoreExt, PutMode, PutMultipartOptions,
    PutOptions, PutPayload, PutResult, Result,
};

use super::plan::{Fault, Operation, relative};
use super::world::{FaultWorld, Injected};

/// One actor's view of the world's store.
#[derive(Clone)]
pub struct FaultStore {
    world: FaultWorld,
    actor: String,
}

impl fmt::Debug for FaultStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

impl fmt::Display for FaultStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "FaultStore({} over {})", self.actor, self.world.inner)
    }
}

impl FaultStore {
    pub(super) fn new(world: FaultWorld, actor: &str) -> Self {
        Self {
            world,
            actor: actor.to_owned(),
        }
    }

    async fn delete_one(&self, path: Path) -> Result<Path> {
        let fault = self.world.begin(&self.actor, Operation::Delete, &path);
        let fault = fault.await?;
        if let Some(Fault::Late { requests }) = fault {
            self.world.hold_delete(requests, &path);
            return Err(Injected::Fault(Fault::Late { requests }).into());
        }
        let done = self.world.inner.delete(&path).await;
        let end = self.world.end(&self.actor, Operation::Delete, fault);
        end.await?;
        done.map(|()| path)
    }
}

/// A LIST between two of its pages.
struct Listing {
    store: FaultStore,
    prefix: Option<Path>,
    offset: Option<Path>,
    fault: Option<Fault>,
    begun: bool,
    done: bool,
    page: VecDeque<ObjectMeta>,
}

impl Listing {
    fn page_keys(&self) -> usize {
        match self.fault {
            Some(Fault::TornList) => 1,
            Some(Fault::TornListHard { .. }) => usize::MAX,
            _ => self.store.world.page_keys(),
        }
    }

    async fn next(&mut self) -> Result<Option<ObjectMeta>> {
        loop {
            if let Some(meta) = self.page.pop_front() {
                return Ok(Some(meta));
            }
            if self.done {
                return Ok(None);
            }
            self.fetch().await?;
        }
    }

    async fn fetch(&mut self) -> Result<()> {
        let FaultStore { world, actor } = &self.store;
        if self.begun {
            let key = self.prefix.as_ref().map_or("", |p| relative(p.as_ref()));
            world.gate(actor, format!("next page of {key}")).await?;
        } else {
            let prefix = self.prefix.clone().unwrap_or_default();
            self.fault = world.begin(actor, Operation::List, &prefix).await?;
        }
        let keys = self.page_keys();
        let listed = match &self.offset {
            Some(offset) => world.inner.list_with_offset(self.prefix.as_ref(), offset),
            None => world.inner.list(self.prefix.as_ref()),
        };
        let mut page: Vec<ObjectMeta> = listed.take(keys).try_collect().await?;
        self.done = page.len() < keys;
        self.offset = page.last().map(|meta| meta.location.clone());
        if let Some(Fault::TornListHard { keys }) = self.fault {
            page.truncate(page.len().saturating_sub(keys as usize));
        }
        self.page = page.into();
        if !std::mem::replace(&mut self.begun, true) {
            world.end(actor, Operation::List, self.fault).await?;
        }
        Ok(())
    }
}

#[async_trait]
impl ObjectStore for FaultStore {
    async fn put_opts(
        &self,
        location: &Path,
        payload: PutPayload,
        opts: PutOptions,
    ) -> Result<PutResult> {
        let Self { world, actor } = self;
        let fault = world.begin(actor, Operation::Put, location).await?;
        let exists = || Error::AlreadyExists {
            path: location.to_string(),
            source: "injected".into(),
        };
        match fault {
            Some(fault @ Fault::Late { requests }) => {
                world.hold_put(requests, location, payload.into(), opts.mode);
                return Err(Injected::Fault(fault).into());
            }
            Some(Fault::ExistsBefore) if opts.mode == PutMode::Create => return Err(exists()),
            _ => {}
        }
        let create = opts.mode == PutMode::Create;
        let done = world.inner.put_opts(location, payload, opts).await;
        world.end(actor, Operation::Put, fault).await?;
        if create && fault == Some(Fault::ExistsAfter) {
            return Err(exists());
        }
        done
    }

    async fn put_multipart_opts(
        &self,
        _location: &Path,
        _opts: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        Err(Error::NotImplemented {
            operation: "put_multipart_opts".to_owned(),
            implementer: self.to_string(),
        })
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        let Self { world, actor } = self;
        let operation = if options.head {
            Operation::Head
        } else {
            Operation::Get
        };
        let fault = world.begin(actor, operation, location).await?;
        if fault == Some(Fault::Missing) {
            return Err(Error::NotFound {
                path: location.to_string(),
                source: Injected::Fault(Fault::Missing).into(),
            });
        }
        let done = world.inner.get_opts(location, options).await;
        if operation == Operation::Head {
            world.end(actor, operation, fault).await?;
            return done;
        }
        match (done, fault) {
            (Ok(mut got), Some(Fault::ErrorAfter)) => {
                let broken = Err(Injected::Fault(Fault::ErrorAfter).into());
                got.payload = GetResultPayload::Stream(stream::iter([broken]).boxed());
                world.end(actor, operation, None).await?;
                Ok(got)
            }
            (Ok(got), Some(Fault::BitFlip)) => flip(got).await,
            (done, fault) => {
                world.end(actor, operation, fault).await?;
                done
            }
        }
    }

    fn delete_stream(
        &self,
        locations: BoxStream<'static, Result<Path>>,
    ) -> BoxStream<'static, Result<Path>> {
        let this = self.clone();
        let deleted = locations.then(move |location| {
            let this = this.clone();
            async move { this.delete_one(location?).await }
        });
        deleted.boxed()
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        let listing = Listing {
            store: self.clone(),
            prefix: prefix.cloned(),
            offset: None,
            fault: None,
            begun: false,
            done: false,
            page: VecDeque::new(),
        };
        stream::try_unfold(listing, |mut listing| async move {
            let next = listing.next().await?;
            Ok(next.map(|meta| (meta, listing)))
        })
        .boxed()
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        let Self { world, actor } = self;
        let path = prefix.cloned().unwrap_or_default();
        let fault = world.begin(actor, Operation::List, &path).await?;
        let done = world.inner.list_with_delimiter(prefix).await;
        world.end(actor, Operation::List, fault).await?;
        done
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        let mode = match options.mode {
            CopyMode::Overwrite => PutMode::Overwrite,
            CopyMode::Create => PutMode::Create,
        };
        let bytes = self.get(from).await?.bytes().await?;
        self.put_opts(to, bytes.into(), mode.into()).await?;
        Ok(())
    }
}

/// The same answer with its middle bit turned over.
async fn flip(got: GetResult) -> Result<GetResult> {
    let (meta, range, attributes) = (got.meta.clone(), got.range.clone(), got.attributes.clone());
    let mut bytes = got.bytes().await?.to_vec();
    let middle = bytes.len() / 2;
    if let Some(byte) = bytes.get_mut(middle) {
        *byte ^= 0x10;
    }
    let bytes = Bytes::from(bytes);
    Ok(GetResult {
        payload: GetResultPayload::Stream(stream::iter([Ok(bytes)]).boxed()),
        meta,
        range,
        attributes,
    })
}
