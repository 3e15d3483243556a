//! Restoring a snapshot to a new tenant or a new tier: a copy of exactly what one version needs.
//!
//! Every object is compared with the digest that the log names. Data files and the ledger go
//! first; then the log, from its last entry down to the first: nothing loads until the first entry
//! of the range is there, and then everything does. A restore that was interrupted is begun again
//! with the same plan, and finds what it copied before.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use futures::{StreamExt, TryStreamExt, stream};
use object_store::ObjectStoreExt;
use stele_format::content_digest;
use stele_model::{Digest, ErrorKind, sabotaged};
use stele_store::{ObjectInfo, Put, TenantStore, keys};
use stele_table::{Content, PinName, PinState, Pins, Reach, TableLog};

/// Objects copied at once; each is held in memory whole.
const COPIES: usize = 4;
/// What a tenant may have before anything was restored to it.
const SETTINGS: [&str; 2] = [keys::CONTROL, keys::IDEM];

/// Why a snapshot could not be restored.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RestoreError {
    /// The snapshot, or the table at the target, cannot be read.
    #[error(transparent)]
    Table(#[from] stele_table::Error),
    /// A store failed.
    #[error("an object store failed")]
    Store(#[from] stele_store::Error),
    /// The target holds something that is not part of this restore.
    #[error("the target holds {key}, which is not of this restore: restore to an empty tenant")]
    NotEmpty {
        /// Its key, relative to the tenant.
        key: String,
    },
    /// The plan is not the one that was confirmed.
    #[error("the plan is {plan}, not the confirmed {confirmed}: look at it again")]
    OtherPlan {
        /// The hash of the plan.
        plan: Digest,
        /// The hash that was confirmed.
        confirmed: Digest,
    },
    /// An object does not hold the bytes that the log names.
    #[error("{side} holds other bytes as {key}: digest {found}, the log names {expected}")]
    Differs {
        /// `the source` or `the target`.
        side: &'static str,
        /// Its key, relative to the tenant.
        key: String,
        /// The digest of its bytes.
        found: Digest,
        /// The digest it should have.
        expected: Digest,
    },
    /// What was copied does not load as what was pinned.
    #[error("the restored table is not the pinned version {version}")]
    OtherTable {
        /// The pinned version.
        version: u64,
    },
}

impl RestoreError {
    /// The kind a caller acts on.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Table(source) => source.kind(),
            Self::Store(source) => source.kind(),
            Self::NotEmpty { .. } | Self::OtherPlan { .. } => ErrorKind::Conflict,
            Self::Differs { .. } | Self::OtherTable { .. } => ErrorKind::Corrupt,
        }
    }
}

type Result<T, E = RestoreError> = std::result::Result<T, E>;

/// One object to copy.
#[derive(Debug, Clone)]
struct Planned {
    key: String,
    size_bytes: u64,
    digest: Digest,
}

/// What a restore would copy.
#[derive(Debug, Clone)]
pub struct RestorePlan {
    /// The snapshot.
    pub name: PinName,
    /// The version it pins.
    pub version: u64,
    /// What the version holds, by resolution.
    pub content: Content,
    /// Objects to copy, of all kinds.
    pub objects: u64,
    /// Their bytes.
    pub bytes: u64,
    /// What identifies this plan: the snapshot, the target, and every object with its digest.
    pub hash: Digest,
    reach: Reach,
    /// Data files and ledger objects.
    data: Vec<Planned>,
    /// The checkpoint, if any, and the entries, last first.
    log: Vec<Planned>,
}

/// How far a restore has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct CopyProgress {
    /// Objects done, those that were there already included.
    pub objects: u64,
    /// Of so many.
    pub objects_total: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Of so many.
    pub bytes_total: u64,
}

/// What a restore did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct RestoreReport {
    /// The restored version.
    pub version: u64,
    /// Objects copied.
    pub copied: u64,
    /// Their bytes.
    pub copied_bytes: u64,
    /// Objects that were there already, with the same bytes.
    pub skipped: u64,
}

/// What restoring a snapshot to `target` takes. Nothing is written.
///
/// # Errors
/// [`stele_table::Error::NoSnapshot`], [`RestoreError::NotEmpty`]; else the stores' and the
/// table's.
pub async fn restore_plan(
    source: &TableLog,
    name: &PinName,
    target: &TenantStore,
) -> Result<RestorePlan> {
    let stored = Pins::read_one(source.store(), name).await?;
    let is_there = |pin: &stele_table::StoredPin| {
        pin.state(source.options().history_us) != PinState::Withdrawn
    };
    let Some(stored) = stored.filter(is_there) else {
        return Err(source.no_snapshot(name).await?.into());
    };
    let pin = stored.whole()?;
    let listed = source.store().list(keys::LOG).await?;
    let index = stele_table::LogIndex::new(&listed, source.options().history_us);
    let reach = source.reach(&index, pin.version).await?;
    pin.check(&reach.state)
        .map_err(|damage| stele_table::Error::Corrupt {
            key: name.key(),
            damage,
        })?;
    let data = data_of(&reach);
    let log = log_of(source.store(), &reach, &listed).await?;
    let all = || data.iter().chain(&log);
    let mut plan = RestorePlan {
        name: name.clone(),
        version: pin.version,
        content: pin.content,
        objects: all().count() as u64,
        bytes: all().map(|object| object.size_bytes).sum(),
        hash: Digest::default(),
        reach,
        data,
        log,
    };
    plan.hash = plan.digest(target);
    plan.check_target(target).await?;
    Ok(plan)
}

fn data_of(reach: &Reach) -> Vec<Planned> {
    let files = reach.state.files.values().map(|file| Planned {
        key: keys::data_file(&file.path),
        size_bytes: file.stats.size_bytes,
        digest: file.stats.digest,
    });
    let ledger = reach.ledger.values().map(|object| Planned {
        key: object.key.clone(),
        size_bytes: object.size_bytes,
        digest: object.digest,
    });
    files.chain(ledger).collect()
}

async fn log_of(
    source: &TenantStore,
    reach: &Reach,
    listed: &[ObjectInfo],
) -> Result<Vec<Planned>> {
    let sizes: BTreeMap<&str, u64> = listed
        .iter()
        .map(|object| (object.key.as_str(), object.size_bytes))
        .collect();
    let mut log = Vec::new();
    if reach.has_checkpoint {
        // Nothing names its digest; that it loads as the base was proved.
        let key = keys::checkpoint(reach.base.version);
        let bytes = source.get(&key).await?;
        log.push(Planned {
            key,
            size_bytes: bytes.len() as u64,
            digest: content_digest(&bytes),
        });
    }
    for (version, digest) in reach.entries.iter().rev() {
        let key = keys::log_entry(*version);
        log.push(Planned {
            size_bytes: sizes.get(key.as_str()).copied().unwrap_or(0),
            key,
            digest: *digest,
        });
    }
    Ok(log)
}

impl RestorePlan {
    /// Digest of snapshot, target and every object.
    fn digest(&self, target: &TenantStore) -> Digest {
        let mut text = format!(
            "restore {} of version {} to {} in {}\n",
            self.name,
            self.version,
            target.tenant(),
            target.tier().url()
        );
        for object in self.data.iter().chain(&self.log) {
            let Planned {
                key,
                size_bytes,
                digest,
            } = object;
            text += &format!("{key} {size_bytes} {digest}\n");
        }
        content_digest(text.as_bytes())
    }

    /// What the target has of this restore; anything else there is refused.
    async fn check_target(&self, target: &TenantStore) -> Result<BTreeMap<String, u64>> {
        let shortcuts = [keys::head(self.version), keys::last_checkpoint()];
        let planned = self.data.iter().chain(&self.log);
        let mut ours: std::collections::HashSet<&str> =
            planned.map(|object| object.key.as_str()).collect();
        ours.extend(shortcuts.iter().map(String::as_str));
        let mut there = BTreeMap::new();
        for object in target.list("").await? {
            let folder = object.key.split('/').next().unwrap_or_default();
            if SETTINGS.contains(&folder) {
                continue;
            }
            if !ours.contains(object.key.as_str()) {
                return Err(RestoreError::NotEmpty { key: object.key });
            }
            there.insert(object.key, object.size_bytes);
        }
        Ok(there)
    }
}

/// Copies what the plan says, and checks that the target then loads as the very version. It may be
/// interrupted and begun again; nothing else may write to the target meanwhile. `confirmed` is the
/// hash of the plan that somebody has seen.
///
/// The table keeps its id, its ledger and its history from the checkpoint on: a batch that is in it
/// is a duplicate at the target, too.
///
/// # Errors
/// [`RestoreError::OtherPlan`], [`RestoreError::NotEmpty`], [`RestoreError::Differs`],
/// [`RestoreError::OtherTable`]; else the stores' and the table's.
pub async fn restore(
    plan: &RestorePlan,
    confirmed: Digest,
    source: &TenantStore,
    target: &TableLog,
    progress: &(dyn Fn(CopyProgress) + Sync),
) -> Result<RestoreReport> {
    if plan.digest(target.store()) != confirmed {
        return Err(RestoreError::OtherPlan {
            plan: plan.digest(target.store()),
            confirmed,
        });
    }
    let there = plan.check_target(target.store()).await?;
    let copy = Copy {
        source,
        target: target.store(),
        is_fresh: !plan.log.last().is_some_and(|l| there.contains_key(&l.key)),
        there,
        done: Mutex::new((
            CopyProgress {
                objects_total: plan.objects,
                bytes_total: plan.bytes,
                ..CopyProgress::default()
            },
            progress,
        )),
        copied: AtomicU64::new(0),
        copied_bytes: AtomicU64::new(0),
    };
    copy.all(&plan.data).await?;
    // Whoever made a table here meanwhile would have it torn apart.
    plan.check_target(target.store()).await?;
    let (first, rest) = plan
        .log
        .split_last()
        .map_or((None, &[][..]), |(f, r)| (Some(f), r));
    copy.all(rest).await?;
    if let Some(first) = first {
        copy.one(first).await?;
    }
    let restored = target.load_from_log().await?;
    if restored.is_none_or(|state| state != plan.reach.state) {
        return Err(RestoreError::OtherTable {
            version: plan.version,
        });
    }
    target.write_shortcuts(&plan.reach).await?;
    let copied = copy.copied.into_inner();
    Ok(RestoreReport {
        version: plan.version,
        copied,
        copied_bytes: copy.copied_bytes.into_inner(),
        skipped: plan.objects - copied,
    })
}

type Told<'a> = (CopyProgress, &'a (dyn Fn(CopyProgress) + Sync));

struct Copy<'a> {
    source: &'a TenantStore,
    target: &'a TenantStore,
    /// What the target had when this run began, and its size.
    there: BTreeMap<String, u64>,
    /// The first entry is not there: nothing loads yet.
    is_fresh: bool,
    done: Mutex<Told<'a>>,
    copied: AtomicU64,
    copied_bytes: AtomicU64,
}

impl Copy<'_> {
    async fn all(&self, objects: &[Planned]) -> Result<()> {
        let copies: Vec<_> = objects.iter().map(|object| self.one(object)).collect();
        let copies = stream::iter(copies).buffer_unordered(COPIES);
        copies.try_collect().await
    }

    async fn one(&self, object: &Planned) -> Result<()> {
        if self.there.contains_key(&object.key) {
            let bytes = self.target.get(&object.key).await?;
            same("the target", object, &bytes)?;
            if self.is_fresh && keys::log_entry_version(&object.key).is_some() {
                // Entries must not seem to be much older than the ones before them.
                let path = self.target.path(&object.key);
                let put = self.target.tier().object_store();
                let put = put.put(&path, bytes.into()).await;
                put.map_err(|source| stele_store::Error::Request {
                    operation: "put",
                    key: object.key.clone(),
                    source: Box::new(source),
                })?;
            }
        } else {
            let bytes = self.source.get(&object.key).await?;
            same("the source", object, &bytes)?;
            let size_bytes = bytes.len() as u64;
            if let Put::Other(found) = self.target.put_new(&object.key, bytes).await? {
                same("the target", object, &found)?;
            }
            self.copied.fetch_add(1, Ordering::Relaxed);
            self.copied_bytes.fetch_add(size_bytes, Ordering::Relaxed);
        }
        let mut told = self
            .done
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        let (done, tell) = &mut *told;
        done.objects += 1;
        done.bytes += object.size_bytes;
        tell(*done);
        Ok(())
    }
}

fn same(side: &'static str, object: &Planned, bytes: &Bytes) -> Result<()> {
    let found = content_digest(bytes);
    match found == object.digest || sabotaged!(RestoreUnchecked) {
        true => Ok(()),
        false => Err(RestoreError::Differs {
            side,
            key: object.key.clone(),
            found,
            expected: object.digest,
        }),
    }
}
