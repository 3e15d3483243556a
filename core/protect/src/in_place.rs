//! Restoring a snapshot in place: the tenant itself goes back to a pinned version.
//!
//! ```text
//! plan ──► hold (no deletion) ──► wait for the longest sweep ──► plan again ──► one commit ──► lift
//! ```
//!
//! Batches absorbed since the snapshot are revoked. Those whose L0 object still exists are absorbed
//! again, and nothing of them is lost; the others are listed in the plan as **lost**, and part of
//! its hash, so nobody restores without having seen them. The hold comes before the last look: what
//! L0 has then, it keeps. Every step can be begun again with the same plan.
//!
//! It deletes nothing: the files of the versions that are left stay for the history, and in
//! snapshots for good.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::Arc;

use futures::{StreamExt, TryStreamExt, stream};
use stele_format::content_digest;
use stele_model::{Clock, Day, Digest, ErrorKind, Ids, L0Name, WindowSet};
use stele_store::keys;
use stele_table::{
    Commit, CommitKind, Content, FileEntry, LedgerRow, OperationId, Outcome, PinName, PinState,
    Pins, Restored, TableLog, TableState, change_losses, deletion_frozen, set_deletion_frozen,
};

use crate::hold::{check_held, hold_of, lift};
use crate::losses::{is_of_restores, lost_batches};

/// Files read at once; each is held in memory whole.
const READS: usize = 4;
/// How often the commit is made again because the table moved.
const ATTEMPTS: u32 = 16;

/// Why a snapshot could not be restored in place.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum InPlaceError {
    /// The snapshot or the table cannot be read, or the commit failed.
    #[error(transparent)]
    Table(#[from] stele_table::Error),
    /// The store failed.
    #[error("the object store failed")]
    Store(#[from] stele_store::Error),
    /// The snapshot was dropped: sweep may be deleting what it kept.
    #[error("snapshot {name} is dropped: undelete it first")]
    Dropped {
        /// Its name.
        name: PinName,
    },
    /// The plan is not the one that was confirmed.
    #[error("the plan is {plan}, not the confirmed {confirmed}: look at it again")]
    OtherPlan {
        /// The hash of the plan.
        plan: Digest,
        /// The hash that was confirmed.
        confirmed: Digest,
    },
    /// Deletion is frozen for another reason, which comes first.
    #[error("deletion is frozen ({reason}): resolve that first")]
    Frozen {
        /// The reason.
        reason: String,
    },
    /// Somebody let deletion go on while it was held.
    #[error("deletion was resumed while it was held: begin again")]
    Lifted,
    /// A file of the snapshot does not hold what the log says.
    #[error("{key} does not hold what the log says: digest {found}, expected {expected}")]
    Differs {
        /// Its key, relative to the tenant.
        key: String,
        /// The digest of its bytes.
        found: Digest,
        /// The digest the log names.
        expected: Digest,
    },
    /// Others committed each time.
    #[error("the table moved during each of {attempts} attempts to commit")]
    Contended {
        /// Attempts made.
        attempts: u32,
    },
}

impl InPlaceError {
    /// The kind a caller acts on.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Table(source) => source.kind(),
            Self::Store(source) => source.kind(),
            Self::Dropped { .. } | Self::OtherPlan { .. } | Self::Frozen { .. } | Self::Lifted => {
                ErrorKind::Conflict
            }
            Self::Differs { .. } => ErrorKind::Corrupt,
            Self::Contended { .. } => ErrorKind::Unavailable,
        }
    }
}

pub(crate) type Result<T, E = InPlaceError> = std::result::Result<T, E>;

/// A batch that was absorbed after the snapshot and is nowhere else.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lost {
    /// Its digest.
    pub batch: Digest,
    /// The UTC day of its greatest timestamp.
    pub day: Day,
    /// Its rows.
    pub rows: u64,
}

/// What a restore in place would do.
#[derive(Debug, Clone)]
pub struct InPlacePlan {
    /// The snapshot.
    pub name: PinName,
    /// The version it pins.
    pub version: u64,
    /// The newest version, on which this was planned.
    pub newest: u64,
    /// What the table would hold.
    pub then: Content,
    /// What it holds.
    pub now: Content,
    /// Windows with samples now that would have none.
    pub windows_gone: WindowSet,
    /// Windows without samples now that would have some.
    pub windows_back: WindowSet,
    /// Windows whose samples would be in other files; the samples may be the same.
    pub windows_changed: WindowSet,
    /// Batches that would be revoked.
    pub revoked_batches: u64,
    /// Their rows.
    pub revoked_rows: u64,
    /// Of them, batches whose L0 object still exists: they are absorbed again.
    pub returning_batches: u64,
    /// Their rows.
    pub returning_rows: u64,
    /// All others, by day and digest. They must be sent again, or are gone.
    pub lost: Vec<Lost>,
    /// What identifies this plan: tenant, snapshot, the restore before it, and every lost batch.
    pub hash: Digest,
    add: Vec<Arc<FileEntry>>,
    remove: Vec<String>,
    back: Arc<TableState>,
}

/// How a restore in place went on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum InPlace {
    /// Deletion is held, and sweeps that began before may still run: call again then.
    Holding {
        /// When, µs by the store's clock.
        until_us: i64,
    },
    /// The table is the snapshot again.
    Restored {
        /// The version of the restore; the pinned one itself when nothing came after it.
        version: u64,
    },
}

/// What restoring `name` in place takes. Nothing is written.
///
/// # Errors
/// [`stele_table::Error::NoSnapshot`], [`InPlaceError::Dropped`]; else the table's and the store's.
pub async fn in_place_plan(log: &TableLog, name: &PinName) -> Result<InPlacePlan> {
    let newest = log.load().await?.ok_or(stele_table::Error::NoTable)?;
    plan_on(log, name, &newest).await
}

/// Goes on with restoring `name` in place, as far as it can now. `confirmed` is the hash of a plan
/// that somebody has seen; `wait_us` is longer than the longest sweep plus one request's timeout
/// (`SWEEP_US_MAX` of the compactor is the former).
///
/// # Errors
/// [`InPlaceError::OtherPlan`] when something was lost since: the hold stays, so that the next
/// plan is the last; [`InPlaceError::Frozen`], [`InPlaceError::Differs`],
/// [`InPlaceError::Contended`]; else as [`in_place_plan`]. What is held stays so until it is
/// restored or [`abandon_in_place`](crate::abandon_in_place) is called.
pub async fn restore_in_place(
    log: &TableLog,
    name: &PinName,
    confirmed: Digest,
    wait_us: i64,
    clock: &dyn Clock,
    ids: &dyn Ids,
) -> Result<InPlace> {
    let mut newest = log.load().await?.ok_or(stele_table::Error::NoTable)?;
    if let Some(version) = restored_by(&newest, confirmed) {
        return finish(log, name, &newest, version, clock).await;
    }
    let reason = hold_of(name);
    match deletion_frozen(log.store()).await? {
        Some(frozen) if frozen.reason != reason => {
            let reason = frozen.reason;
            return Err(InPlaceError::Frozen { reason });
        }
        Some(_) => {}
        None => {
            let plan = plan_on(log, name, &newest).await?;
            plan.confirm(confirmed)?;
            if plan.is_nothing() {
                let version = plan.version;
                return Ok(InPlace::Restored { version });
            }
            let now_us = clock.now_us();
            set_deletion_frozen(log.store(), Some(&reason), now_us).await?;
        }
    }
    let now_us = log.store().tier().now_us().await?;
    let held = deletion_frozen(log.store()).await?;
    let since_us = held.map_or(now_us, |frozen| frozen.stored_us);
    let until_us = since_us.saturating_add(wait_us);
    if now_us <= until_us {
        return Ok(InPlace::Holding { until_us });
    }
    let mut is_checked = false;
    for _ in 0..ATTEMPTS {
        if !is_checked {
            let plan = plan_on(log, name, &newest).await?;
            check_files(log, &plan.back).await?;
            is_checked = true;
        }
        let plan = plan_on(log, name, &newest).await?;
        plan.confirm(confirmed)?;
        if plan.is_nothing() {
            lift(log, name, clock).await?;
            let version = plan.version;
            return Ok(InPlace::Restored { version });
        }
        // The plan rests on what L0 has: nobody may have lifted the hold meanwhile.
        check_held(log, &reason, since_us).await?;
        match log.commit(&newest, plan.commit(clock, ids)).await? {
            Outcome::Committed(state) => {
                let version = restored_by(&state, confirmed).unwrap_or(state.version);
                return finish(log, name, &state, version, clock).await;
            }
            Outcome::Moved(state) => newest = state,
        }
        // An attempt of before can have landed.
        if let Some(version) = restored_by(&newest, confirmed) {
            return finish(log, name, &newest, version, clock).await;
        }
    }
    Err(InPlaceError::Contended { attempts: ATTEMPTS })
}

/// After the commit: what it lost is recorded, and the hold is lifted. A record that fails is the
/// error, and no reason to hold: what the table says is lost can be recorded later, too.
async fn finish(
    log: &TableLog,
    name: &PinName,
    state: &TableState,
    version: u64,
    clock: &dyn Clock,
) -> Result<InPlace> {
    let recorded = async {
        let found = lost_batches(log, state, clock.now_us()).await?;
        change_losses(log.store(), &found, is_of_restores(state)).await
    };
    let recorded = recorded.await;
    lift(log, name, clock).await?;
    recorded?;
    Ok(InPlace::Restored { version })
}

/// The version that restored this very plan.
fn restored_by(state: &TableState, plan: Digest) -> Option<u64> {
    let revoked = state.revoked.iter().find(|revoked| revoked.plan == plan);
    revoked.map(|revoked| revoked.before)
}

async fn plan_on(log: &TableLog, name: &PinName, newest: &Arc<TableState>) -> Result<InPlacePlan> {
    let store = log.store();
    let Some(stored) = Pins::read_one(store, name).await? else {
        return Err(log.no_snapshot(name).await?.into());
    };
    match stored.state(log.options().history_us) {
        PinState::Live | PinState::Damaged => {}
        PinState::Dropped { .. } => return Err(InPlaceError::Dropped { name: name.clone() }),
        PinState::Withdrawn => return Err(log.no_snapshot(name).await?.into()),
    }
    let pin = stored.whole()?;
    let damaged = |damage| stele_table::Error::Corrupt {
        key: name.key(),
        damage,
    };
    let index = log.index().await?;
    let back = log.reach(&index, pin.version).await?.state;
    pin.check(&back).map_err(damaged)?;
    // After the newest version was loaded: what is missing here was consumed, and is gone.
    let listed = store.l0_list().await?;
    let l0: HashSet<L0Name> = listed.iter().map(|object| object.name).collect();
    let rows = log.ledger_rows(newest).await?;
    let mut plan = InPlacePlan {
        name: name.clone(),
        version: pin.version,
        newest: newest.version,
        then: pin.content,
        now: Content::of(newest),
        windows_gone: WindowSet::new(),
        windows_back: WindowSet::new(),
        windows_changed: WindowSet::new(),
        revoked_batches: 0,
        revoked_rows: 0,
        returning_batches: 0,
        returning_rows: 0,
        lost: Vec::new(),
        hash: Digest::default(),
        add: missing_in(&back, newest).cloned().collect(),
        remove: missing_in(newest, &back).map(|f| f.path.clone()).collect(),
        back,
    };
    plan.compare_windows(newest);
    plan.account(&rows, &l0);
    plan.hash = plan.digest(log, newest);
    Ok(plan)
}

/// The live files of one version that the other does not have.
fn missing_in<'a>(
    of: &'a TableState,
    other: &'a TableState,
) -> impl Iterator<Item = &'a Arc<FileEntry>> {
    let files = of.files.iter();
    let missing = files.filter(|(path, _)| !other.files.contains_key(*path));
    missing.map(|(_, file)| file)
}

/// The windows of the sample files among some.
fn windows_of<'a>(files: impl Iterator<Item = &'a Arc<FileEntry>>) -> WindowSet {
    let mut windows = WindowSet::new();
    let samples = files.filter(|file| file.kind.holds_samples());
    samples.for_each(|file| windows.extend(&file.windows));
    windows
}

impl InPlacePlan {
    fn compare_windows(&mut self, newest: &TableState) {
        let (now, then) = (
            windows_of(newest.files.values()),
            windows_of(self.back.files.values()),
        );
        self.windows_gone = now.difference(&then);
        self.windows_back = then.difference(&now);
        let mut changed = windows_of(missing_in(newest, &self.back));
        changed.extend(&windows_of(missing_in(&self.back, newest)));
        self.windows_changed = changed.intersection(&now).intersection(&then);
    }

    /// Sorts the batches that would be revoked into those that L0 still has, and the lost. A batch
    /// returns when any object that was consumed with it since then is still there.
    fn account(&mut self, rows: &[LedgerRow], l0: &HashSet<L0Name>) {
        let later = |row: &&LedgerRow| row.version > self.version && !row.revoked;
        let later: Vec<&LedgerRow> = rows.iter().filter(later).collect();
        let there = later.iter().filter(|row| l0.contains(&row.object));
        let returning: BTreeSet<Digest> = there.map(|row| row.batch).collect();
        let mut lost = BTreeMap::new();
        for row in later.iter().filter(|row| row.is_effective()) {
            self.revoked_batches += 1;
            self.revoked_rows += row.rows;
            if returning.contains(&row.batch) {
                self.returning_batches += 1;
                self.returning_rows += row.rows;
            } else {
                lost.insert((row.day, row.batch), row.rows);
            }
        }
        let lost = lost.into_iter();
        let lost = lost.map(|((day, batch), rows)| Lost { batch, day, rows });
        self.lost = lost.collect();
    }

    fn digest(&self, log: &TableLog, newest: &TableState) -> Digest {
        let mut text = format!(
            "restore {} in place: version {} entry {} of {} in {} after restore {}\n",
            self.name,
            self.version,
            self.back.entry_digest,
            log.store().tenant(),
            log.store().tier().url(),
            newest.revoked.last().map_or(0, |last| last.before)
        );
        for Lost { batch, day, rows } in &self.lost {
            text += &format!("lost {batch} {} {rows}\n", day.period());
        }
        content_digest(text.as_bytes())
    }

    /// Whether the snapshot is of the newest version.
    fn is_nothing(&self) -> bool {
        self.version == self.newest
    }

    fn confirm(&self, confirmed: Digest) -> Result<()> {
        match self.hash == confirmed {
            true => Ok(()),
            false => Err(InPlaceError::OtherPlan {
                plan: self.hash,
                confirmed,
            }),
        }
    }

    fn commit(&self, clock: &dyn Clock, ids: &dyn Ids) -> Commit {
        let operation = OperationId(ids.operation_id());
        let mut commit = Commit::new(operation, CommitKind::Restore, clock.now_us());
        commit.add = self.add.iter().map(|file| file.as_ref().clone()).collect();
        commit.remove.clone_from(&self.remove);
        commit.restored = Some(Restored::of(&self.back, self.hash));
        commit
    }

    /// Rows that would be lost.
    #[must_use]
    pub fn lost_rows(&self) -> u64 {
        self.lost.iter().map(|lost| lost.rows).sum()
    }

    /// Files that would become live again, and their bytes.
    #[must_use]
    pub fn files_back(&self) -> (u64, u64) {
        let bytes = self.add.iter().map(|file| file.stats.size_bytes).sum();
        (self.add.len() as u64, bytes)
    }

    /// Files that would stop being live.
    #[must_use]
    pub fn files_left(&self) -> u64 {
        self.remove.len() as u64
    }
}

/// Reads every file of the version that comes back: it must hold what the log says.
async fn check_files(log: &TableLog, back: &TableState) -> Result<()> {
    let reads: Vec<_> = back
        .files
        .values()
        .map(|file| check_file(log, file))
        .collect();
    stream::iter(reads)
        .buffer_unordered(READS)
        .try_collect()
        .await
}

async fn check_file(log: &TableLog, file: &FileEntry) -> Result<()> {
    let key = keys::data_file(&file.path);
    let bytes = log.store().get(&key).await?;
    let (found, expected) = (content_digest(&bytes), file.stats.digest);
    match found == expected {
        true => Ok(()),
        false => Err(InPlaceError::Differs {
            key,
            found,
            expected,
        }),
    }
}
