//! Copying single objects: each compared with the digest by which the log names it.

use std::collections::{BTreeSet, HashSet};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use futures::{StreamExt, TryStreamExt, stream};
use object_store::ObjectStoreExt;
use stele_format::content_digest;
use stele_model::Digest;
use stele_store::{Put, TenantStore, keys};
use stele_table::TableLog;
use tokio::time::{Instant, sleep_until};

use super::{ReplicateError, ReplicateOptions, ReplicateReport, Result};
use crate::restore::CopyProgress;

/// One object to copy.
#[derive(Debug, Clone)]
pub(super) struct Wanted {
    pub key: String,
    pub size_bytes: u64,
    pub digest: Digest,
    /// Without it some version that has been superseded cannot be read, and no other.
    pub optional: bool,
}

#[derive(Default)]
struct Counts {
    copied: u64,
    copied_bytes: u64,
    skipped: u64,
    progress: CopyProgress,
}

/// Copies objects of one tenant.
pub(super) struct Copier<'a> {
    pub source: &'a TableLog,
    pub target: &'a TableLog,
    pub options: &'a ReplicateOptions,
    progress: &'a (dyn Fn(CopyProgress) + Sync),
    counts: Mutex<Counts>,
    /// Keys compared or put in this run.
    done: Mutex<HashSet<String>>,
    began: Instant,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl<'a> Copier<'a> {
    pub fn new(
        source: &'a TableLog,
        target: &'a TableLog,
        options: &'a ReplicateOptions,
        progress: &'a (dyn Fn(CopyProgress) + Sync),
    ) -> Self {
        Self {
            source,
            target,
            options,
            progress,
            counts: Mutex::default(),
            done: Mutex::default(),
            began: Instant::now(),
        }
    }

    pub fn from(&self) -> &'a TenantStore {
        self.source.store()
    }

    pub fn to(&self) -> &'a TenantStore {
        self.target.store()
    }

    pub fn tell_of(&self, report: &mut ReplicateReport) {
        let counts = lock(&self.counts);
        report.copied = counts.copied;
        report.copied_bytes = counts.copied_bytes;
        report.skipped = counts.skipped;
    }

    /// What was to be done and was not: the plan is made anew.
    pub fn forget_plan(&self) {
        let progress = &mut lock(&self.counts).progress;
        progress.objects_total = progress.objects;
        progress.bytes_total = progress.bytes;
    }

    /// Adds to what is to be done.
    pub fn plan(&self, objects: &[Wanted]) {
        let progress = &mut lock(&self.counts).progress;
        progress.objects_total += objects.len() as u64;
        progress.bytes_total += objects.iter().map(|o| o.size_bytes).sum::<u64>();
    }

    /// Copies `objects`, several at once. `there` are keys that the target is known to hold: they
    /// are compared and not copied.
    pub async fn all(&self, objects: &[Wanted], there: &BTreeSet<String>) -> Result<()> {
        let copies: Vec<_> = objects.iter().map(|one| self.one(one, there)).collect();
        let copies = stream::iter(copies).buffer_unordered(self.options.copies);
        copies.try_collect().await
    }

    async fn one(&self, object: &Wanted, there: &BTreeSet<String>) -> Result<()> {
        if lock(&self.done).contains(&object.key) {
            self.tell(object, None);
            return Ok(());
        }
        let copied_bytes = match there.contains(&object.key) {
            true => {
                let bytes = self.to().get(&object.key).await?;
                same("the target", object, &bytes)?;
                None
            }
            false => match self.from().get_opt(&object.key).await? {
                Some(bytes) => self.put(object, bytes).await?,
                None if object.optional => None,
                None => {
                    return Err(stele_store::Error::NotFound {
                        key: object.key.clone(),
                    }
                    .into());
                }
            },
        };
        lock(&self.done).insert(object.key.clone());
        self.tell(object, copied_bytes);
        Ok(())
    }

    /// Puts what was read of the source; its size, when it was not there.
    async fn put(&self, object: &Wanted, bytes: Bytes) -> Result<Option<u64>> {
        same("the source", object, &bytes)?;
        let size_bytes = bytes.len() as u64;
        let put = self.to().put_new(&object.key, bytes).await?;
        self.throttle(size_bytes).await;
        match put {
            Put::Created => Ok(Some(size_bytes)),
            Put::Same => Ok(None),
            Put::Other(found) => {
                same("the target", object, &found)?;
                Ok(None)
            }
        }
    }

    /// Puts an entry that the target holds again, so that it is not much older than those that are
    /// put now: by their times stray entries are told.
    pub async fn renew(&self, object: &Wanted) -> Result<()> {
        let bytes = self.to().get(&object.key).await?;
        same("the target", object, &bytes)?;
        let path = self.to().path(&object.key);
        let put = self.to().tier().object_store();
        let put = put.put(&path, bytes.into()).await;
        put.map_err(|source| stele_store::Error::Request {
            operation: "put",
            key: object.key.clone(),
            source: Box::new(source),
        })?;
        self.tell(object, None);
        Ok(())
    }

    /// Notes one object that was done, and the bytes copied for it.
    pub fn tell(&self, object: &Wanted, copied_bytes: Option<u64>) {
        let mut counts = lock(&self.counts);
        match copied_bytes {
            Some(bytes) => {
                counts.copied += 1;
                counts.copied_bytes += bytes;
            }
            None => counts.skipped += 1,
        }
        counts.progress.objects += 1;
        counts.progress.bytes += object.size_bytes;
        (self.progress)(counts.progress);
    }

    /// Waits until so many bytes are due.
    async fn throttle(&self, more_bytes: u64) {
        let Some(per_second) = self.options.bytes_per_second.filter(|rate| *rate > 0) else {
            return;
        };
        let bytes = lock(&self.counts).copied_bytes.saturating_add(more_bytes);
        let millis = u128::from(bytes) * 1000 / u128::from(per_second);
        let due = Duration::from_millis(u64::try_from(millis).unwrap_or(u64::MAX));
        if let Some(due) = self.began.checked_add(due) {
            sleep_until(due).await;
        }
    }

    /// The keys that the target holds under `prefix`.
    pub async fn there(&self, prefix: &str) -> Result<BTreeSet<String>> {
        let listed = self.to().list(prefix).await?;
        Ok(listed.into_iter().map(|object| object.key).collect())
    }
}

pub(super) fn same(side: &'static str, object: &Wanted, bytes: &Bytes) -> Result<()> {
    let found = content_digest(bytes);
    match found == object.digest {
        true => Ok(()),
        false => Err(ReplicateError::Differs {
            side,
            key: object.key.clone(),
            found,
            expected: object.digest,
        }),
    }
}

/// A data file.
pub(super) fn wanted_file(file: &stele_table::FileEntry, optional: bool) -> Wanted {
    Wanted {
        key: keys::data_file(&file.path),
        size_bytes: file.stats.size_bytes,
        digest: file.stats.digest,
        optional,
    }
}

/// A ledger object.
pub(super) fn wanted_ledger(object: &stele_table::LedgerObject, optional: bool) -> Wanted {
    Wanted {
        key: object.key.clone(),
        size_bytes: object.size_bytes,
        digest: object.digest,
        optional,
    }
}
