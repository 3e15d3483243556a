//! Snapshots: taking one, dropping it, taking the drop back, listing them.
//!
//! A snapshot is one small create-only object, so it costs the same whatever the table holds.
//! Nothing here deletes a pin: sweep does, when it was dropped long enough ago. Whether a pin was
//! acknowledged is decided by the store's times alone, and comes out the same whoever asks.

use stele_model::{Clock, Digest, ErrorKind, sabotaged, time};
use stele_store::Put;
use stele_table::{Damage, Mark, Pin, PinName, PinState, Pins, StoredPin, TableLog, Verdict, Why};

/// What a snapshot is to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewSnapshot {
    /// Its name, which no other snapshot has.
    pub name: PinName,
    /// Why it is taken.
    pub why: Why,
    /// What it is for, at most 500 bytes; may be empty.
    pub note: String,
}

/// Why a snapshot could not be taken, dropped or brought back.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SnapshotError {
    /// The table, or a pin, cannot be read.
    #[error(transparent)]
    Table(#[from] stele_table::Error),
    /// The store failed.
    #[error("the object store failed")]
    Store(#[from] stele_store::Error),
    /// The name belongs to another snapshot.
    #[error(
        "snapshot {name} exists: version {version}, taken {}",
        time::rfc3339(*taken_us)
    )]
    Exists {
        /// The name.
        name: PinName,
        /// The version it pins.
        version: u64,
        /// When it was taken, µs.
        taken_us: i64,
    },
    /// The name belonged to a snapshot that was dropped.
    #[error(
        "the name {name} belongs to a snapshot that was dropped; it is free some time after {}",
        time::rfc3339(*until_us)
    )]
    NameDropped {
        /// The name.
        name: PinName,
        /// Until when the dropped snapshot is kept, µs.
        until_us: i64,
    },
    /// Taking it took so long that sweep may have been faster.
    #[error(
        "version {version} was superseded too long before snapshot {name} of it was stored: \
         nothing is promised; take another"
    )]
    TooLate {
        /// The name.
        name: PinName,
        /// The version.
        version: u64,
    },
    /// The snapshot is gone.
    #[error("snapshot {name} was deleted meanwhile")]
    Gone {
        /// The name.
        name: PinName,
    },
    /// It is not dropped.
    #[error("snapshot {name} is not dropped")]
    NotDropped {
        /// The name.
        name: PinName,
    },
    /// It was dropped too long ago, or was never acknowledged.
    #[error("snapshot {name} could be brought back until {}", time::rfc3339(*until_us))]
    OverSince {
        /// The name.
        name: PinName,
        /// Until when, µs by the store's clock.
        until_us: i64,
    },
    /// Whether it came back is not known: look at the list.
    #[error("bringing snapshot {name} back took too long: it may be deleted all the same")]
    Unproven {
        /// The name.
        name: PinName,
    },
}

impl SnapshotError {
    /// The kind a caller acts on.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Table(source) => source.kind(),
            Self::Store(source) => source.kind(),
            Self::Exists { .. } | Self::NameDropped { .. } | Self::NotDropped { .. } => {
                ErrorKind::Conflict
            }
            Self::Gone { .. } | Self::OverSince { .. } => ErrorKind::NotFound,
            Self::TooLate { .. } | Self::Unproven { .. } => ErrorKind::Unavailable,
        }
    }
}

type Result<T, E = SnapshotError> = std::result::Result<T, E>;

fn corrupt(key: String, damage: Damage) -> SnapshotError {
    SnapshotError::Table(stele_table::Error::Corrupt { key, damage })
}

/// Pins the newest version. The same snapshot again is the same, whoever took it first.
///
/// What is not absorbed is not in it: the caller absorbs first, until everything that its LIST
/// showed is in the ledger, so that a snapshot of noon holds every batch acknowledged before noon.
///
/// # Errors
/// [`SnapshotError::Exists`] and [`SnapshotError::NameDropped`] for a name that is taken;
/// [`SnapshotError::TooLate`] when the process stood still for half the history; else the
/// table's and the store's. After an error the pin may be there all the same; it then keeps its
/// version if it can, and is dropped like any other.
pub async fn create(log: &TableLog, new: &NewSnapshot, clock: &dyn Clock) -> Result<Pin> {
    let name = &new.name;
    let store = log.store();
    refuse_marked(log, name).await?;
    let state = log.load().await?.ok_or(stele_table::Error::NoTable)?;
    let pin = Pin::new(name.clone(), &state, clock.now_us(), new.why, &new.note)?;
    let bytes = pin.encode().map_err(|d| corrupt(name.key(), d))?;
    store.put_new(&name.key(), bytes).await?;
    if sabotaged!(PinUnread) {
        return Ok(pin);
    }
    let gone = || SnapshotError::Gone { name: name.clone() };
    let stored = Pins::read_one(store, name).await?.ok_or_else(gone)?;
    if stored.mark.is_some() {
        refuse_marked(log, name).await?;
    }
    let (digest, stored_us) = (stored.digest, stored.stored_us);
    let found = stored.whole()?;
    if !found.is_same(&pin) {
        return Err(SnapshotError::Exists {
            name: name.clone(),
            version: found.version,
            taken_us: found.taken_us,
        });
    }
    let verdict = log.index().await?.judge(pin.version, stored_us);
    if verdict == Verdict::Valid {
        return Ok(found);
    }
    if verdict == Verdict::Never {
        // A mark, and no deletion: the name may be another's by the time a delete lands.
        put_mark(log, name, digest, true, clock).await?;
    }
    Err(SnapshotError::TooLate {
        name: name.clone(),
        version: pin.version,
    })
}

/// A name with a mark is not used again until sweep has deleted both.
async fn refuse_marked(log: &TableLog, name: &PinName) -> Result<()> {
    match log.store().stored_opt(&name.mark_key()).await? {
        None => Ok(()),
        Some(mark) => Err(SnapshotError::NameDropped {
            name: name.clone(),
            until_us: mark.modified_us.saturating_add(log.options().history_us),
        }),
    }
}

async fn put_mark(
    log: &TableLog,
    name: &PinName,
    pin: Digest,
    withdrawn: bool,
    clock: &dyn Clock,
) -> Result<()> {
    let mark = Mark {
        pin,
        marked_us: clock.now_us(),
        withdrawn,
    };
    let bytes = mark.encode().map_err(|d| corrupt(name.mark_key(), d))?;
    match log.store().put_new(&name.mark_key(), bytes).await? {
        Put::Created | Put::Same => Ok(()),
        Put::Other(found) => match Mark::decode(&found) {
            // Dropped by somebody else, or by an earlier attempt.
            Ok(found) if found.pin == pin => Ok(()),
            Ok(_) => {
                let what = "the pin beside the mark of a dropped snapshot";
                Err(corrupt(name.mark_key(), Damage::Disagrees { what }))
            }
            Err(damage) => Err(corrupt(name.mark_key(), damage)),
        },
    }
}

/// Drops a snapshot: it goes on protecting its version for the history, in which
/// [`undelete`] brings it back; after that sweep deletes it. A damaged one can be dropped too.
/// Dropped again, it stays dropped as it was. Answers until when it can be brought back, µs by
/// the store's clock.
///
/// # Errors
/// [`stele_table::Error::NoSnapshot`]; else the store's, and damage of the mark.
pub async fn drop_snapshot(log: &TableLog, name: &PinName, clock: &dyn Clock) -> Result<i64> {
    let stored = find(log, name).await?;
    if stored.mark.is_none() {
        put_mark(log, name, stored.digest, false, clock).await?;
    }
    let gone = || SnapshotError::Gone { name: name.clone() };
    let mark = log.store().stored_opt(&name.mark_key()).await?;
    let mark = mark.ok_or_else(gone)?;
    Mark::decode(&mark.bytes).map_err(|d| corrupt(name.mark_key(), d))?;
    Ok(mark.modified_us.saturating_add(log.options().history_us))
}

/// Brings a dropped snapshot back, within the history of its drop by the store's clock.
///
/// Sweep waits for another quarter of the history, and this succeeds only when it is done before
/// that: so none of the sweeps that saw the mark deletes anything.
///
/// # Errors
/// [`SnapshotError::NotDropped`], [`SnapshotError::OverSince`], [`SnapshotError::Unproven`],
/// [`stele_table::Error::NoSnapshot`]; else the store's and the table's.
pub async fn undelete(log: &TableLog, name: &PinName) -> Result<()> {
    let store = log.store();
    let history_us = log.options().history_us;
    let stored = find(log, name).await?;
    let Some(mark) = &stored.mark else {
        return Err(SnapshotError::NotDropped { name: name.clone() });
    };
    let until_us = mark.stored_us.saturating_add(history_us);
    let withdrawn = mark.mark.as_ref().is_ok_and(|mark| mark.withdrawn);
    if withdrawn || store.tier().now_us().await? >= until_us {
        return Err(SnapshotError::OverSince {
            name: name.clone(),
            until_us,
        });
    }
    store.delete(&name.mark_key()).await?;
    let now = find(log, name).await?;
    let in_time = store.tier().now_us().await? < until_us.saturating_add(history_us / 4);
    match now.mark.is_none() && now.digest == stored.digest && in_time {
        true => Ok(()),
        false => Err(SnapshotError::Unproven { name: name.clone() }),
    }
}

async fn find(log: &TableLog, name: &PinName) -> Result<StoredPin> {
    if let Some(stored) = Pins::read_one(log.store(), name).await? {
        return Ok(stored);
    }
    Err(log.no_snapshot(name).await?.into())
}

/// A snapshot as a list shows it.
#[derive(Debug)]
pub struct Listed {
    /// Its name.
    pub name: PinName,
    /// Whether it protects its version.
    pub state: PinState,
    /// What it says; a damaged one says what is wrong with it.
    pub pin: Result<Pin, Damage>,
    /// The digest of its bytes.
    pub digest: Digest,
    /// When the store says it was written, µs.
    pub stored_us: i64,
}

/// All snapshots by name, dropped and damaged ones too. The store is asked for every one.
///
/// # Errors
/// The store's.
pub async fn list(log: &TableLog) -> Result<Vec<Listed>> {
    let history_us = log.options().history_us;
    let pins = Pins::read(log.store()).await?;
    let listed = pins.pins.into_values().map(|stored| Listed {
        state: stored.state(history_us),
        name: stored.name,
        pin: stored.pin,
        digest: stored.digest,
        stored_us: stored.stored_us,
    });
    Ok(listed.collect())
}
