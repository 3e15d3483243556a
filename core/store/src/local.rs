//! A local directory as an object store that is durable before it answers.
//!
//! `object_store`'s own local store never syncs, so an acknowledged object may be gone or torn
//! after a power loss. Here a PUT writes `<root>/.stage/<unique>`, syncs that file, gives it its
//! final name (a hard link for create, a rename for overwrite), and syncs every directory whose
//! entries changed. A final key therefore never holds half an object, and an answer means it
//! stays. "Already exists" is an answer too: it is given only after the directories are synced,
//! because whoever created the object may have died before it did so.
//!
//! Reads, listings and deletes are `object_store`'s. Deletes are not synced: an object that comes
//! back is a ghost, which every caller tolerates.

use std::collections::HashSet;
use std::fmt;
use std::io;
use std::path::{Path as FsPath, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::BoxStream;
use futures::{StreamExt, TryStreamExt};
use object_store::local::LocalFileSystem;
use object_store::path::Path;
use object_store::{
    CopyMode, CopyOptions, Error as StoreError, GetOptions, GetResult, ListResult, MultipartUpload,
    ObjectMeta, ObjectStore, ObjectStoreExt, PutMode, PutMultipartOptions, PutOptions, PutPayload,
    PutResult, Result as StoreResult,
};

use crate::disk::{Disk, SystemDisk};
use crate::error::{Error, Result};

const STAGE: &str = ".stage";
/// Leftovers of dead writers are removed at open when older than this by the directory's clock.
const STAGE_AGE_MAX: Duration = Duration::from_secs(24 * 3600);
/// Names tried for one staged file; each taken one belongs to an earlier process.
const STAGE_NAMES_MAX: u32 = 1000;
const STORE: &str = "DurableLocal";

/// Makes staged names unique within this process; `create_new` does so across processes.
static STAGED: AtomicU64 = AtomicU64::new(0);

/// A directory as a durable object store.
#[derive(Clone)]
pub struct DurableLocal {
    reads: LocalFileSystem,
    writer: Arc<Writer>,
}

struct Writer {
    root: PathBuf,
    stage: PathBuf,
    disk: Box<dyn Disk>,
    /// Directories whose own entry in their parent is known to be synced.
    durable: Mutex<HashSet<PathBuf>>,
}

impl fmt::Debug for DurableLocal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

impl fmt::Display for DurableLocal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{STORE}({})", self.writer.root.display())
    }
}

impl DurableLocal {
    /// Opens the directory `root`, creating it durably when absent, and removes staged leftovers
    /// that are older than a day by the directory's own clock.
    ///
    /// # Errors
    /// [`Error::Directory`] when it cannot be created, read or written.
    pub fn open(root: &FsPath) -> Result<Self> {
        Self::open_on(root, Box::new(SystemDisk))
    }

    fn open_on(root: &FsPath, disk: Box<dyn Disk>) -> Result<Self> {
        let fail = |source| Error::Directory {
            path: root.to_owned(),
            source,
        };
        create_root(root, disk.as_ref()).map_err(fail)?;
        let root = std::fs::canonicalize(root).map_err(fail)?;
        let stage = root.join(STAGE);
        disk.make_dir(&stage).map_err(fail)?;
        let reads =
            LocalFileSystem::new_with_prefix(&root).map_err(|e| fail(io::Error::other(e)))?;
        let writer = Writer {
            durable: Mutex::new(HashSet::from([root.clone()])),
            root,
            stage,
            disk,
        };
        writer.clean_stage().map_err(fail)?;
        Ok(Self {
            reads,
            writer: Arc::new(writer),
        })
    }
}

/// Creates `root` and its missing ancestors, each synced into its parent.
fn create_root(root: &FsPath, disk: &dyn Disk) -> io::Result<()> {
    if root.is_dir() {
        return Ok(());
    }
    let parent = match root.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => FsPath::new("."),
    };
    create_root(parent, disk)?;
    disk.make_dir(root)?;
    disk.sync_dir(parent)
}

impl Writer {
    /// Writes and syncs a staged file; returns its path.
    fn stage(&self, chunks: &[Bytes]) -> io::Result<PathBuf> {
        for _ in 0..STAGE_NAMES_MAX {
            let n = STAGED.fetch_add(1, Ordering::Relaxed);
            let path = self.stage.join(format!("{}-{n}", std::process::id()));
            match self.disk.write_new(&path, chunks) {
                Ok(()) => return Ok(path),
                Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {}
                Err(e) if e.kind() == io::ErrorKind::NotFound => self.disk.make_dir(&self.stage)?,
                Err(e) => {
                    self.drop_staged(&path);
                    return Err(e);
                }
            }
        }
        Err(io::Error::other(format!(
            "{STAGE_NAMES_MAX} names in {} are taken",
            self.stage.display()
        )))
    }

    /// A leftover is harmless: it has no key, and a later open removes it.
    fn drop_staged(&self, path: &FsPath) {
        if let Err(error) = self.disk.remove(path) {
            tracing::debug!(%error, path = %path.display(), "a staged file stays behind");
        }
    }

    fn put(&self, path: &FsPath, chunks: &[Bytes], create: bool) -> io::Result<()> {
        let staged = self.stage(chunks)?;
        let placed = self.place(&staged, path, create);
        if create || placed.is_err() {
            self.drop_staged(&staged);
        }
        placed
    }

    /// Gives the staged file its final name and makes the name durable.
    fn place(&self, staged: &FsPath, path: &FsPath, create: bool) -> io::Result<()> {
        let dir = path.parent().unwrap_or(&self.root);
        self.ensure_dir(dir)?;
        let mut named = self.name(staged, path, create);
        if matches!(&named, Err(e) if e.kind() == io::ErrorKind::NotFound) {
            // Someone removed a directory behind our back.
            self.known().clear();
            self.ensure_dir(dir)?;
            named = self.name(staged, path, create);
        }
        match named {
            Ok(()) => self.disk.sync_dir(dir),
            Err(e) if create && e.kind() == io::ErrorKind::AlreadyExists => {
                self.disk.sync_dir(dir)?;
                Err(e)
            }
            Err(e) => Err(e),
        }
    }

    fn name(&self, staged: &FsPath, path: &FsPath, create: bool) -> io::Result<()> {
        if create {
            self.disk.link(staged, path)
        } else {
            self.disk.rename(staged, path)
        }
    }

    /// Makes `dir` exist, with every directory above it synced up to the root.
    fn ensure_dir(&self, dir: &FsPath) -> io::Result<()> {
        if dir == self.root || self.known().contains(dir) {
            return Ok(());
        }
        let parent = dir.parent().unwrap_or(&self.root);
        self.ensure_dir(parent)?;
        self.disk.make_dir(dir)?;
        self.disk.sync_dir(parent)?;
        self.known().insert(dir.to_owned());
        Ok(())
    }

    fn known(&self) -> std::sync::MutexGuard<'_, HashSet<PathBuf>> {
        self.durable.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Removes staged files older than a day, measured by the time the directory itself gives a
    /// new file.
    fn clean_stage(&self) -> io::Result<()> {
        let mark = self.stage(&[])?;
        let now = std::fs::metadata(&mark).and_then(|m| m.modified());
        self.drop_staged(&mark);
        let now = now?;
        for entry in std::fs::read_dir(&self.stage)? {
            let entry = entry?;
            let modified = entry.metadata().and_then(|m| m.modified());
            if modified.is_ok_and(|at| is_old(now, at)) {
                self.drop_staged(&entry.path());
            }
        }
        Ok(())
    }
}

fn is_old(now: SystemTime, at: SystemTime) -> bool {
    now.duration_since(at).is_ok_and(|age| age > STAGE_AGE_MAX)
}

fn is_staged(path: &Path) -> bool {
    path.parts()
        .next()
        .is_some_and(|part| part.as_ref() == STAGE)
}

#[async_trait]
impl ObjectStore for DurableLocal {
    async fn put_opts(
        &self,
        location: &Path,
        payload: PutPayload,
        opts: PutOptions,
    ) -> StoreResult<PutResult> {
        let create = match opts.mode {
            PutMode::Create => true,
            PutMode::Overwrite => false,
            PutMode::Update(_) => return Err(missing("put_opts with PutMode::Update")),
        };
        if !opts.attributes.is_empty() {
            return Err(missing("put_opts with attributes"));
        }
        if is_staged(location) {
            return Err(missing("keys below .stage"));
        }
        let path = self.reads.path_to_filesystem(location)?;
        let chunks: Vec<Bytes> = payload.into_iter().collect();
        let writer = Arc::clone(&self.writer);
        let put = tokio::task::spawn_blocking(move || writer.put(&path, &chunks, create)).await?;
        put.map_err(|source| put_error(location, create, source))?;
        Ok(PutResult {
            e_tag: None,
            version: None,
        })
    }

    async fn put_multipart_opts(
        &self,
        _location: &Path,
        _opts: PutMultipartOptions,
    ) -> StoreResult<Box<dyn MultipartUpload>> {
        Err(missing("put_multipart_opts"))
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> StoreResult<GetResult> {
        self.reads.get_opts(location, options).await
    }

    async fn get_ranges(
        &self,
        location: &Path,
        ranges: &[std::ops::Range<u64>],
    ) -> StoreResult<Vec<Bytes>> {
        self.reads.get_ranges(location, ranges).await
    }

    fn delete_stream(
        &self,
        locations: BoxStream<'static, StoreResult<Path>>,
    ) -> BoxStream<'static, StoreResult<Path>> {
        self.reads.delete_stream(locations)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, StoreResult<ObjectMeta>> {
        let listed = self.reads.list(prefix);
        listed
            .try_filter(|meta| std::future::ready(!is_staged(&meta.location)))
            .boxed()
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> StoreResult<ListResult> {
        let mut listed = self.reads.list_with_delimiter(prefix).await?;
        listed.common_prefixes.retain(|path| !is_staged(path));
        Ok(listed)
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> StoreResult<()> {
        let mode = match options.mode {
            CopyMode::Overwrite => PutMode::Overwrite,
            CopyMode::Create => PutMode::Create,
        };
        let bytes = self.get(from).await?.bytes().await?;
        self.put_opts(to, bytes.into(), mode.into()).await?;
        Ok(())
    }
}

fn missing(operation: &str) -> StoreError {
    StoreError::NotImplemented {
        operation: operation.to_owned(),
        implementer: STORE.to_owned(),
    }
}

fn put_error(location: &Path, create: bool, source: io::Error) -> StoreError {
    if create && source.kind() == io::ErrorKind::AlreadyExists {
        return StoreError::AlreadyExists {
            path: location.to_string(),
            source: source.into(),
        };
    }
    StoreError::Generic {
        store: STORE,
        source: source.into(),
    }
}

#[cfg(test)]
mod tests;
