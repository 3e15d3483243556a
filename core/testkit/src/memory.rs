//! An object store in memory with the semantics of S3 and the time of a [`ManualClock`].
//!
//! It remembers what every create-only key has ever held, so that a test can assert that no key
//! was used twice for two contents, even with a delete in between.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Bound;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use bytes::Bytes;
use chrono::DateTime;
use futures::stream::{self, BoxStream};
use futures::{StreamExt, TryStreamExt};
use object_store::path::Path;
use object_store::{
    Attributes, CopyMode, CopyOptions, Error, GetOptions, GetResult, GetResultPayload, ListResult,
    MultipartUpload, ObjectMeta, ObjectStore, ObjectStoreExt, PutMode, PutMultipartOptions,
    PutOptions, PutPayload, PutResult, Result,
};
use stele_model::{Clock, Digest};

use crate::clock::ManualClock;

/// The store. Clones share the objects.
#[derive(Clone)]
pub struct MemoryStore {
    clock: ManualClock,
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    objects: BTreeMap<Path, Object>,
    /// The first content of every key that was ever created with a conditional PUT.
    created: BTreeMap<Path, Digest>,
    /// Keys that were created with two contents.
    reused: Vec<Path>,
    /// Every successful mutation, in order.
    log: Vec<Mutation>,
}

#[derive(Clone)]
struct Object {
    bytes: Bytes,
    modified_us: i64,
    tag: u64,
}

/// One change of the store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Mutation {
    /// A key holds new bytes.
    Put(Path),
    /// A key that existed is gone.
    Deleted(Path),
}

fn digest(bytes: &Bytes) -> Digest {
    let mut out = [0; 16];
    out.copy_from_slice(&blake3::hash(bytes).as_bytes()[..16]);
    Digest(out)
}

impl fmt::Debug for MemoryStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self} of {} objects", self.state().objects.len())
    }
}

impl fmt::Display for MemoryStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("MemoryStore")
    }
}

impl MemoryStore {
    /// An empty store whose LastModified times come from `clock`.
    #[must_use]
    pub fn new(clock: ManualClock) -> Self {
        Self {
            clock,
            state: Arc::default(),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The clock that its times come from.
    #[must_use]
    pub fn clock(&self) -> ManualClock {
        self.clock.clone()
    }

    /// Keys that were ever created with two different contents (I7). Empty when all is well.
    #[must_use]
    pub fn reused_keys(&self) -> Vec<Path> {
        self.state().reused.clone()
    }

    /// Every mutation from the `from`th on, in order.
    #[must_use]
    pub fn mutations(&self, from: usize) -> Vec<Mutation> {
        self.state().log.get(from..).unwrap_or_default().to_vec()
    }

    /// The keys below `prefix` (as text), in order.
    #[must_use]
    pub fn keys(&self, prefix: &str) -> Vec<Path> {
        let state = self.state();
        let keys = state.objects.keys();
        keys.filter(|key| key.as_ref().starts_with(prefix))
            .cloned()
            .collect()
    }

    /// The bytes of a key.
    #[must_use]
    pub fn bytes(&self, key: &Path) -> Option<Bytes> {
        self.state().objects.get(key).map(|o| o.bytes.clone())
    }

    /// Replaces the bytes of a key without any check: bit rot, or an operator's mistake.
    pub fn damage(&self, key: &Path, bytes: Bytes) {
        if let Some(object) = self.state().objects.get_mut(key) {
            object.bytes = bytes;
        }
    }

    /// Removes a key behind everyone's back.
    pub fn lose(&self, key: &Path) {
        self.state().objects.remove(key);
    }

    fn put_now(&self, location: &Path, bytes: Bytes, mode: &PutMode) -> Result<PutResult> {
        let modified_us = self.clock.now_us();
        let mut state = self.state();
        let State {
            objects,
            created,
            reused,
            log,
        } = &mut *state;
        match mode {
            PutMode::Overwrite => {}
            PutMode::Create if !objects.contains_key(location) => {
                let now = digest(&bytes);
                let first = *created.entry(location.clone()).or_insert(now);
                if first != now {
                    reused.push(location.clone());
                }
            }
            PutMode::Create => {
                return Err(Error::AlreadyExists {
                    path: location.to_string(),
                    source: "412".into(),
                });
            }
            PutMode::Update(_) => {
                return Err(Error::NotImplemented {
                    operation: "PutMode::Update".to_owned(),
                    implementer: self.to_string(),
                });
            }
        }
        let tag = log.len() as u64;
        log.push(Mutation::Put(location.clone()));
        let object = Object {
            bytes,
            modified_us,
            tag,
        };
        objects.insert(location.clone(), object);
        Ok(PutResult {
            e_tag: Some(tag.to_string()),
            version: None,
        })
    }

    fn list_now(&self, prefix: Option<&Path>, after: Option<&Path>) -> Vec<ObjectMeta> {
        let state = self.state();
        let start = after.or(prefix).cloned().unwrap_or_default();
        let bound = match after {
            Some(_) => Bound::Excluded(start),
            None => Bound::Included(start),
        };
        let text = prefix.map_or("", |p| p.as_ref());
        let inside = |key: &Path| {
            let rest = key.as_ref().strip_prefix(text);
            rest.is_some_and(|rest| text.is_empty() || rest.starts_with('/'))
        };
        let range = state.objects.range((bound, Bound::Unbounded));
        range
            .skip_while(|(key, _)| key.as_ref() < text)
            .take_while(|(key, _)| key.as_ref().starts_with(text))
            .filter(|(key, _)| inside(key))
            .map(|(key, object)| meta(key, object))
            .collect()
    }
}

fn meta(key: &Path, object: &Object) -> ObjectMeta {
    ObjectMeta {
        location: key.clone(),
        last_modified: DateTime::from_timestamp_micros(object.modified_us).unwrap_or_default(),
        size: object.bytes.len() as u64,
        e_tag: Some(object.tag.to_string()),
        version: None,
    }
}

#[async_trait]
impl ObjectStore for MemoryStore {
    async fn put_opts(
        &self,
        location: &Path,
        payload: PutPayload,
        opts: PutOptions,
    ) -> Result<PutResult> {
        self.put_now(location, payload.into(), &opts.mode)
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
        let object = self.state().objects.get(location).cloned();
        let object = object.ok_or_else(|| Error::NotFound {
            path: location.to_string(),
            source: "404".into(),
        })?;
        let meta = meta(location, &object);
        options.check_preconditions(&meta)?;
        let range = match options.range {
            None => 0..meta.size,
            Some(range) => range.as_range(meta.size).map_err(|source| Error::Generic {
                store: "MemoryStore",
                source: source.into(),
            })?,
        };
        let index = |n: u64| usize::try_from(n).expect("objects are in memory");
        let bytes = object.bytes.slice(index(range.start)..index(range.end));
        Ok(GetResult {
            payload: GetResultPayload::Stream(stream::iter([Ok(bytes)]).boxed()),
            meta,
            range,
            attributes: Attributes::default(),
        })
    }

    fn delete_stream(
        &self,
        locations: BoxStream<'static, Result<Path>>,
    ) -> BoxStream<'static, Result<Path>> {
        let this = self.clone();
        let deleted = locations.map_ok(move |location| {
            let mut state = this.state();
            if state.objects.remove(&location).is_some() {
                state.log.push(Mutation::Deleted(location.clone()));
            }
            location
        });
        deleted.boxed()
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        let listed = self.list_now(prefix, None);
        stream::iter(listed.into_iter().map(Ok)).boxed()
    }

    fn list_with_offset(
        &self,
        prefix: Option<&Path>,
        offset: &Path,
    ) -> BoxStream<'static, Result<ObjectMeta>> {
        let listed = self.list_now(prefix, Some(offset));
        stream::iter(listed.into_iter().map(Ok)).boxed()
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        let mut common_prefixes = Vec::new();
        let mut objects = Vec::new();
        let root = prefix.cloned().unwrap_or_default();
        for meta in self.list_now(prefix, None) {
            let mut parts = meta.location.prefix_match(&root).into_iter().flatten();
            let (first, more) = (parts.next(), parts.next());
            drop(parts);
            match (first, more) {
                (Some(first), Some(_)) => {
                    let child = root.clone().join(first);
                    if common_prefixes.last() != Some(&child) {
                        common_prefixes.push(child);
                    }
                }
                _ => objects.push(meta),
            }
        }
        Ok(ListResult {
            common_prefixes,
            objects,
        })
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        let mode = match options.mode {
            CopyMode::Overwrite => PutMode::Overwrite,
            CopyMode::Create => PutMode::Create,
        };
        let bytes = self.get(from).await?.bytes().await?;
        self.put_now(to, bytes, &mode).map(|_| ())
    }
}
