//! What became of the batch that a receipt stands for.

use futures::{StreamExt, TryStreamExt, stream};
use stele_format::l0;
use stele_model::{ErrorKind, L0Name, ReceiptId, Resolution};
use stele_store::{TenantStore, keys};
use stele_table::{LedgerRow, TableLog, View};

/// L0 objects opened to find one batch: those that are not absorbed and cover its day.
const OPENED_MAX: usize = 256;
/// L0 objects fetched at the same time.
const FETCHES: usize = 8;
/// How often a search begins again because a sweep passed.
const ATTEMPTS: u32 = 3;

/// Where a batch is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BatchState {
    /// In an L0 object that is not absorbed, alone or with others.
    L0 {
        /// The object.
        object: L0Name,
    },
    /// In the table.
    Absorbed {
        /// What the ledger says of it.
        row: LedgerRow,
        /// The key of the ledger object that says so, relative to the tenant.
        ledger: String,
    },
    /// In the table once; its day's raw samples have expired since.
    Expired {
        /// What the ledger says of it.
        row: LedgerRow,
    },
    /// It was in the table until a restore in place took it back, and its L0 object is gone.
    Revoked {
        /// What the ledger says of it.
        row: LedgerRow,
    },
    /// Nowhere: no such batch was acknowledged.
    Unknown,
}

/// Why it is not known what became of a batch.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReceiptError {
    /// The table cannot be read.
    #[error("the table cannot be read")]
    Table(#[from] stele_table::Error),
    /// An L0 object cannot be read.
    #[error("an L0 object cannot be read")]
    Store(#[source] stele_store::Error),
    /// An L0 object that may hold the batch is damaged.
    #[error("l0/{object} may hold the batch and is damaged")]
    Damaged {
        /// The object.
        object: L0Name,
        /// What is wrong with it.
        #[source]
        source: stele_format::Error,
    },
    /// Too many objects may hold the batch.
    #[error("{objects} objects that are not absorbed may hold the batch, more than {objects_max}")]
    Many {
        /// How many.
        objects: usize,
        /// How many are opened at most.
        objects_max: usize,
    },
    /// Objects went away as often as they were looked for.
    #[error("objects were swept during each of {attempts} searches")]
    Moving {
        /// How often it was tried.
        attempts: u32,
    },
}

impl ReceiptError {
    /// The kind a caller acts on.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Table(source) => source.kind(),
            Self::Store(source) => source.kind(),
            Self::Damaged { .. } => ErrorKind::Corrupt,
            Self::Many { .. } | Self::Moving { .. } => ErrorKind::Unavailable,
        }
    }
}

/// Looks a batch up. L0 is listed before the log is read, so a batch that is just being absorbed
/// is seen in one or the other.
///
/// # Errors
/// When the store or the table cannot be read; [`ReceiptError::Many`] rather than a wrong
/// [`BatchState::Unknown`].
pub async fn find_batch(log: &TableLog, id: ReceiptId) -> Result<BatchState, ReceiptError> {
    for _ in 0..ATTEMPTS {
        let view = View::read_cached(log).await?;
        if let Some((row, ledger)) = log.ledger_find(&view.state, id.digest, id.day).await? {
            let is_expired = view.state.expired.holds(Resolution::Raw, id.day);
            return Ok(match is_expired {
                true => BatchState::Expired { row },
                false => BatchState::Absorbed { row, ledger },
            });
        }
        let found = search(log.store(), &view, id).await?;
        if found == Some(BatchState::Unknown) {
            let row = log.ledger_find_revoked(&view.state, id.digest, id.day);
            return Ok(match row.await? {
                Some(row) => BatchState::Revoked { row },
                None => BatchState::Unknown,
            });
        }
        if let Some(found) = found {
            return Ok(found);
        }
    }
    Err(ReceiptError::Moving { attempts: ATTEMPTS })
}

/// Looks for a batch in the unabsorbed objects; `None` when one of them is gone: it was absorbed
/// and swept since the view was read.
async fn search(
    store: &TenantStore,
    view: &View,
    id: ReceiptId,
) -> Result<Option<BatchState>, ReceiptError> {
    let covers = |name: &L0Name| (name.first.day()..=name.last.day()).contains(&id.day);
    let names = view.l0.iter().map(|object| object.name).filter(covers);
    let names: Vec<L0Name> = names.collect();
    // A batch alone in its object gives it its name.
    if let Some(object) = names.iter().find(|name| name.digest == id.digest) {
        return Ok(Some(BatchState::L0 { object: *object }));
    }
    if names.len() > OPENED_MAX {
        return Err(ReceiptError::Many {
            objects: names.len(),
            objects_max: OPENED_MAX,
        });
    }
    let opened = stream::iter(names).map(|name| async move { (name, store.l0_get(&name).await) });
    let opened = opened.buffered(FETCHES).map(|(name, bytes)| match bytes {
        Ok(bytes) => Ok(Some((name, l0::digests(bytes)))),
        Err(stele_store::Error::NotFound { .. }) => Ok(None),
        Err(error) => Err(ReceiptError::Store(error)),
    });
    let opened: Vec<_> = opened.try_collect().await?;
    let (mut gone, mut damaged) = (false, None);
    for object in opened {
        match object {
            None => gone = true,
            Some((object, Ok(digests))) if digests.contains(&id.digest) => {
                return Ok(Some(BatchState::L0 { object }));
            }
            Some((_, Ok(_))) => {}
            Some((object, Err(source))) => {
                damaged = Some(ReceiptError::Damaged { object, source });
            }
        }
    }
    match damaged {
        _ if gone => Ok(None),
        Some(damaged) => Err(damaged),
        None => Ok(Some(BatchState::Unknown)),
    }
}

/// The key of an L0 object, relative to the tenant.
pub(crate) fn l0_key(object: &L0Name) -> String {
    format!("{}/{object}", keys::L0)
}
