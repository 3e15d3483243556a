//! The hold of a restore in place: deletion is frozen for it, until it is done or given up.

use stele_model::{Clock, Ids};
use stele_table::{
    Commit, CommitKind, Frozen, OperationId, PinName, TableLog, deletion_frozen,
    lift_deletion_freeze, replace_deletion_freeze,
};

use crate::in_place::{InPlaceError, Result};

/// What the reason of a hold begins with; the name of the snapshot follows.
const HOLD: &str = "restore in place of snapshot ";
/// What comes before that while the restore is given up.
const ENDING: &str = "end of the ";

/// That deletion has been held for `reason` since the hold of `since_us`, by the store's time.
pub(crate) async fn check_held(log: &TableLog, reason: &str, since_us: i64) -> Result<()> {
    match deletion_frozen(log.store()).await? {
        Some(frozen) if frozen.reason == reason && frozen.stored_us == since_us => Ok(()),
        Some(Frozen { reason, .. }) => Err(InPlaceError::Frozen { reason }),
        None => Err(InPlaceError::Lifted),
    }
}

/// Gives a restore up and lets deletion go on, if it is held for this one.
///
/// Somebody else may go on with it just now, and commit after this has ended: before deletion goes on,
/// the hold gets another reason, which no restore commits under, and the slot that such a commit was
/// planned for is taken.
///
/// # Errors
/// The table's and the store's. Deletion may still be held then: call it again.
pub async fn abandon_in_place(
    log: &TableLog,
    name: &PinName,
    clock: &dyn Clock,
    ids: &dyn Ids,
) -> Result<()> {
    let (store, ending) = (log.store(), ending_of(name));
    replace_deletion_freeze(store, &hold_of(name), &ending, clock.now_us()).await?;
    let frozen = deletion_frozen(store).await?;
    if frozen.is_none_or(|frozen| frozen.reason != ending) {
        return Ok(());
    }
    if let Some(newest) = log.load().await? {
        let operation = OperationId(ids.operation_id());
        let nothing = Commit::new(operation, CommitKind::Sweep, clock.now_us());
        // Whoever else took the slot has taken it from the restore, too.
        match log.commit(&newest, nothing).await {
            Ok(_) | Err(stele_table::Error::Fenced(_)) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(lift_deletion_freeze(store, &ending, clock.now_us()).await?)
}

/// Lets deletion go on after a restore, which somebody may have begun to give up meanwhile.
pub(crate) async fn lift(log: &TableLog, name: &PinName, clock: &dyn Clock) -> Result<()> {
    for reason in [hold_of(name), ending_of(name)] {
        lift_deletion_freeze(log.store(), &reason, clock.now_us()).await?;
    }
    Ok(())
}

/// The snapshot for whose restore in place deletion is frozen, if that is the `reason`.
#[must_use]
pub fn held_for_restore(reason: &str) -> Option<&str> {
    let reason = reason.strip_prefix(ENDING).unwrap_or(reason);
    reason.strip_prefix(HOLD)
}

/// The reason of the freeze that a restore holds.
pub(crate) fn hold_of(name: &PinName) -> String {
    format!("{HOLD}{name}")
}

/// The reason of the freeze while a restore is given up.
fn ending_of(name: &PinName) -> String {
    format!("{ENDING}{}", hold_of(name))
}
