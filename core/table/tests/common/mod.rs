//! A store that notes requests and can fail them, and planned commits with made-up files.
#![allow(dead_code)]

use std::fmt;
use std::ops::Range;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use futures::TryStreamExt;
use futures::stream::BoxStream;
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{
    CopyOptions, Error as StoreError, GetOptions, GetResult, ListResult, MultipartUpload,
    ObjectMeta, ObjectStore, ObjectStoreExt, PutMultipartOptions, PutOptions, PutPayload,
    PutResult, Result as StoreResult,
};
use stele_model::{
    Clock, Day, Digest, FileStats, L0Name, Resolution, RowsHash, TenantId, Window, WindowSet,
};
use stele_store::{TenantStore, Tier, keys};
use stele_table::{
    Commit, CommitKind, ConsumedBatch, ConsumedObject, FileEntry, FileKind, OperationId, Options,
    TableLog, TableState,
};

/// What happens to the next PUT whose path contains a text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// It fails and leaves nothing.
    BeforeEffect,
    /// It takes effect and fails.
    AfterEffect,
}

#[derive(Debug, Default)]
struct Watch {
    requests: Vec<String>,
    faults: Vec<(String, Fault)>,
    sleeps: Vec<Sleep>,
    adopted: Option<(Watched, u64)>,
}

/// The process stands still just before a request; others delete meanwhile.
#[derive(Debug)]
struct Sleep {
    request: String,
    us: i64,
    deleted: Vec<String>,
}

/// A clock that only a sleep moves.
#[derive(Debug, Clone)]
pub struct TestClock(Arc<AtomicI64>);

impl TestClock {
    pub fn advance(&self, us: i64) {
        self.0.fetch_add(us, Ordering::SeqCst);
    }
}

impl Clock for TestClock {
    fn now_us(&self) -> i64 {
        self.0.load(Ordering::SeqCst)
    }
}

/// An object store that notes its requests and fails the PUTs it is told to.
#[derive(Debug, Clone)]
pub struct Watched {
    pub clock: TestClock,
    inner: Arc<dyn ObjectStore>,
    watch: Arc<Mutex<Watch>>,
}

impl fmt::Display for Watched {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("watched")
    }
}

fn lost(location: &Path) -> StoreError {
    StoreError::Generic {
        store: "watched",
        source: format!("{location}: connection reset").into(),
    }
}

impl Watched {
    pub fn new() -> Self {
        Self::over(Arc::new(InMemory::new()))
    }

    pub fn over(inner: Arc<dyn ObjectStore>) -> Self {
        let clock = TestClock(Arc::new(AtomicI64::new(T0)));
        let watch = Arc::default();
        Self {
            clock,
            inner,
            watch,
        }
    }

    /// The tenant's part of this store.
    pub fn tenant(&self) -> TenantStore {
        let tier = Tier::from_store(Arc::new(self.clone()), "", "memory://");
        tier.tenant(&TenantId::default())
    }

    /// A log that shares nothing but the store with other logs.
    pub fn log(&self) -> TableLog {
        let clock = Arc::new(self.clock.clone());
        TableLog::new(self.tenant(), Options::default(), clock)
    }

    /// Fails the next PUTs of a path that contains `text`, one per fault.
    pub fn fail(&self, text: &str, faults: &[Fault]) {
        let mut watch = self.watch.lock().unwrap();
        let faults = faults.iter().map(|fault| (text.to_owned(), *fault));
        watch.faults.extend(faults);
    }

    /// Before the next `request` (as [`Watched::requests`] shows it) the process sleeps for `us`,
    /// and others delete `deleted`.
    pub fn sleep_before(&self, request: String, us: i64, deleted: Vec<String>) {
        let mut watch = self.watch.lock().unwrap();
        watch.sleeps.push(Sleep {
            request,
            us,
            deleted,
        });
    }

    /// During the next sleep everything in `other` appears here, but for log entries below `base`.
    pub fn adopt_in_sleep(&self, other: &Self, base: u64) {
        self.watch.lock().unwrap().adopted = Some((other.clone(), base));
    }

    async fn adopt(&self, other: &Self, base: u64) {
        let objects: Vec<_> = other.inner.list(None).try_collect().await.unwrap();
        for object in objects {
            let bytes = other.inner.get(&object.location).await.unwrap();
            let bytes = bytes.bytes().await.unwrap();
            self.inner
                .put(&object.location, bytes.into())
                .await
                .unwrap();
        }
        for version in 0..base {
            self.remove(&keys::log_entry(version)).await;
        }
    }

    /// The requests since the last call, without the tenant's prefix.
    pub fn requests(&self) -> Vec<String> {
        std::mem::take(&mut self.watch.lock().unwrap().requests)
    }

    /// Deletes one object behind everyone's back.
    pub async fn remove(&self, key: &str) {
        let path = self.tenant().path(key);
        self.inner.delete(&path).await.unwrap();
    }

    /// Replaces one object behind everyone's back.
    pub async fn replace(&self, key: &str, bytes: impl Into<Bytes>) {
        let path = self.tenant().path(key);
        self.inner.put(&path, bytes.into().into()).await.unwrap();
    }

    fn note(&self, verb: &str, location: &str) -> Option<Sleep> {
        let key = location.trim_start_matches("tenants/default/");
        let request = format!("{verb} {key}");
        let mut watch = self.watch.lock().unwrap();
        let at = watch.sleeps.iter().position(|s| s.request == request);
        watch.requests.push(request);
        at.map(|at| watch.sleeps.remove(at))
    }

    /// Notes a request, and lets other tasks run before it.
    async fn begin(&self, verb: &str, location: &Path) {
        let sleep = self.note(verb, location.as_ref());
        tokio::task::yield_now().await;
        if let Some(sleep) = sleep {
            self.clock.advance(sleep.us);
            let adopted = self.watch.lock().unwrap().adopted.take();
            if let Some((other, base)) = adopted {
                self.adopt(&other, base).await;
            }
            for key in sleep.deleted {
                self.remove(&key).await;
            }
        }
    }

    fn fault(&self, location: &Path) -> Option<Fault> {
        let mut watch = self.watch.lock().unwrap();
        let matches = |(text, _): &(String, Fault)| location.as_ref().contains(text.as_str());
        let at = watch.faults.iter().position(matches)?;
        Some(watch.faults.remove(at).1)
    }
}

#[async_trait::async_trait]
impl ObjectStore for Watched {
    async fn put_opts(
        &self,
        location: &Path,
        payload: PutPayload,
        opts: PutOptions,
    ) -> StoreResult<PutResult> {
        self.begin("PUT", location).await;
        match self.fault(location) {
            None => self.inner.put_opts(location, payload, opts).await,
            Some(Fault::BeforeEffect) => Err(lost(location)),
            Some(Fault::AfterEffect) => {
                self.inner.put_opts(location, payload, opts).await?;
                Err(lost(location))
            }
        }
    }

    async fn put_multipart_opts(
        &self,
        location: &Path,
        opts: PutMultipartOptions,
    ) -> StoreResult<Box<dyn MultipartUpload>> {
        self.inner.put_multipart_opts(location, opts).await
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> StoreResult<GetResult> {
        self.begin("GET", location).await;
        self.inner.get_opts(location, options).await
    }

    async fn get_ranges(&self, location: &Path, ranges: &[Range<u64>]) -> StoreResult<Vec<Bytes>> {
        self.inner.get_ranges(location, ranges).await
    }

    fn delete_stream(
        &self,
        locations: BoxStream<'static, StoreResult<Path>>,
    ) -> BoxStream<'static, StoreResult<Path>> {
        self.inner.delete_stream(locations)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, StoreResult<ObjectMeta>> {
        self.note("LIST", prefix.map_or("", AsRef::as_ref));
        self.inner.list(prefix)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> StoreResult<ListResult> {
        self.inner.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> StoreResult<()> {
        self.inner.copy_opts(from, to, options).await
    }
}

/// 2026-11-22T00:00:00Z.
pub const T0: i64 = 1_795_305_600_000_000;
pub const MINUTE: i64 = 60_000_000;

/// A digest of a number, so that tests need no randomness.
pub fn digest(n: u64) -> Digest {
    let mut bytes = [0; 16];
    bytes[..8].copy_from_slice(&n.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_be_bytes());
    bytes[8..].copy_from_slice(&n.to_be_bytes());
    Digest(bytes)
}

/// The operation id of a number.
pub fn operation(n: u64) -> OperationId {
    OperationId(digest(n).to_string())
}

pub fn day() -> Day {
    Day::of(T0)
}

/// A batch of `rows` rows called `n`.
pub fn batch(n: u64, rows: u64) -> ConsumedBatch {
    ConsumedBatch {
        digest: digest(n),
        day: day(),
        rows,
        hash: RowsHash(u128::from(n).wrapping_mul(0x1234_5678_9abc_def1)),
        duplicate_of: None,
    }
}

/// An L0 object called `n` with one batch.
pub fn object(n: u64, batch: ConsumedBatch) -> ConsumedObject {
    let window = Window::of(T0);
    ConsumedObject {
        name: L0Name {
            digest: digest(n),
            first: window,
            last: Window(window.0 + 47),
        },
        stored_us: T0,
        batches: vec![batch],
    }
}

/// A file called `name` of the first window of the test day.
pub fn file(kind: FileKind, name: &str, rows: u64, rows_hash: RowsHash) -> FileEntry {
    let window = Window::of(T0);
    let period = kind.period_of(window);
    FileEntry {
        path: FileEntry::path_of(kind, &period, name),
        kind,
        period,
        windows: WindowSet::range(window, window),
        stats: FileStats {
            size_bytes: 1000 + rows,
            digest: digest(rows),
            footer_digest: digest(rows + 1),
            footer_bytes: 100,
            rows,
            rows_hash,
            ts_min_us: T0,
            ts_max_us: T0 + MINUTE,
            metric_min: "cpu \"quoted\"\n".to_owned(),
            metric_max: "mem,ü".to_owned(),
            series: 2,
        },
    }
}

/// Absorbs `batches` into one open file named after the operation.
pub fn absorb(n: u64, objects: Vec<ConsumedObject>) -> Commit {
    let mut commit = Commit::new(operation(n), CommitKind::Absorb, T0 + n as i64);
    let batches = objects.iter().flat_map(|object| &object.batches);
    let effective: Vec<_> = batches.filter(|b| b.duplicate_of.is_none()).collect();
    let rows = effective.iter().map(|batch| batch.rows).sum();
    let hash = effective
        .iter()
        .fold(RowsHash::default(), |hash, batch| hash.union(batch.hash));
    if rows > 0 {
        let open = file(FileKind::Open, &digest(n).to_string(), rows, hash);
        commit.add.push(open);
    }
    commit.consumed = objects;
    let moved = &mut commit.conservation;
    (moved.rows_in, moved.rows_out) = (rows, rows);
    (moved.hash_in, moved.hash_out) = (hash, hash);
    commit
}

/// Absorbs one new object with one batch of ten rows.
pub fn simple(n: u64) -> Commit {
    absorb(n, vec![object(n, batch(n, 10))])
}

/// Seals every open and raw file into one raw file and its rollups.
pub fn seal(n: u64, on: &TableState) -> Commit {
    let raw = FileKind::Sealed(Resolution::Raw);
    let mut commit = Commit::new(operation(n), CommitKind::Seal, T0 + n as i64);
    let (mut rows, mut hash) = (0, RowsHash::default());
    for old in on.files.values() {
        commit.remove.push(old.path.clone());
        if old.kind == FileKind::Open || old.kind == raw {
            rows += old.stats.rows;
            hash = hash.union(old.stats.rows_hash);
        }
    }
    for kind in FileKind::ALL
        .into_iter()
        .filter(|kind| *kind != FileKind::Open)
    {
        let rows_hash = if kind == raw {
            hash
        } else {
            RowsHash(n.into())
        };
        let name = digest(n).to_string();
        commit.add.push(file(kind, &name, rows, rows_hash));
    }
    let moved = &mut commit.conservation;
    (moved.rows_in, moved.rows_out) = (rows, rows);
    (moved.hash_in, moved.hash_out) = (hash, hash);
    commit
}

/// Notes everything that may be forgotten as gone.
pub fn sweep(n: u64, on: &TableState) -> Commit {
    let mut commit = Commit::new(operation(n), CommitKind::Sweep, T0 + n as i64);
    commit.gone = on.unswept.keys().copied().collect();
    let removed = on.removed.iter().map(|file| file.path.clone());
    let retired = on.ledger.retired.iter().map(|object| object.key.clone());
    commit.forget_removed = removed.chain(retired).collect();
    commit
}

/// Commits on `state`, which nobody else changes.
pub async fn committed(log: &TableLog, state: &Arc<TableState>, commit: Commit) -> Arc<TableState> {
    match log.commit(state, commit).await.unwrap() {
        stele_table::Outcome::Committed(state) => state,
        stele_table::Outcome::Moved(state) => panic!("moved to {}", state.version),
    }
}

/// A table with `commits` absorbs, numbered from 1.
pub async fn table(log: &TableLog, commits: u64) -> Arc<TableState> {
    let mut state = log.load_or_create(T0).await.unwrap();
    for n in 1..=commits {
        state = committed(log, &state, simple(n)).await;
    }
    state
}

/// A table of more than one checkpoint, and a state of its beginning.
pub async fn outgrown(store: &Watched) -> (Arc<TableState>, Arc<TableState>) {
    let log = store.log();
    let old = table(&log, 5).await;
    let mut state = old.clone();
    for n in 6..=25 {
        state = committed(&log, &state, simple(n)).await;
    }
    (old, state)
}

/// The keys that a sweep of `state` may delete.
pub fn swept(state: &TableState) -> Vec<String> {
    let entries = (0..state.ledger.manifest_version).map(keys::log_entry);
    entries.chain((0..state.version).map(keys::head)).collect()
}
