//! The table of one tenant: its Delta log, its ledger, its heads, and the read protocol.
//!
//! ```text
//! planned on v ──► ledger/<operation> ──► _delta_log/<v + 1>.json ──► read back ──► heads/<v + 1>
//!                  (create-only)          (create-only: the commit)                 (a shortcut)
//! every 20 commits: ledger days + manifest ──► a Ledger commit ──► checkpoint ──► _last_checkpoint
//! ```
//!
//! **Invariant** the log is the only truth about which files are live and which batches are
//! consumed; heads, checkpoints and `_last_checkpoint` are shortcuts that are checked against it.
//! **Invariant** a commit planned on version v becomes exactly entry v + 1 or is not a commit.
//! **Invariant** anything missing or damaged is [`Error::Corrupt`], never fewer rows.
//!
//! This crate never reads data files, never deletes an object, and reads no clock: the caller
//! passes times and operation ids in. `core/notes/commit-protocol.md` describes the stored bytes.
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::panic))]

mod action;
mod apply;
mod as_of;
mod chain;
mod check;
mod checkpoint;
mod codec;
mod commit;
mod copy;
mod entry;
mod error;
mod expired;
mod fence;
mod file;
mod freeze;
mod head;
mod index;
mod ledger;
mod load;
mod log;
mod losses;
mod pause;
mod pin;
mod pins;
#[doc(hidden)]
pub mod raw;
mod reach;
mod restored;
mod retention;
mod retention_cache;
mod schema;
mod state;
mod tables;
mod view;
mod write;

pub use as_of::AsOf;
pub use commit::{
    Commit, CommitKind, Conservation, ConsumedBatch, ConsumedObject, OperationId, Outcome,
};
pub use copy::CopyStep;
pub use entry::{Consumed, LogEntry};
pub use error::{Damage, Error, Refusal, Result};
pub use expired::Expired;
pub use fence::{Fence, Fenced, Owner};
pub use file::{FileEntry, FileKind};
pub use freeze::{
    Frozen, deletion_frozen, lift_deletion_freeze, replace_deletion_freeze, set_deletion_frozen,
};
pub use index::{LogIndex, Verdict};
pub use ledger::{Conflicts, Ledger, LedgerRow};
pub use log::{Options, TableLog};
pub use losses::{
    LOSSES_MAX, Loss, LossKind, LossesChanged, LostObject, MetricRange, change_losses, losses,
    note_losses,
};
pub use pause::{Paused, rollups_paused, set_rollups_paused};
pub use pin::{Content, Mark, Pin, PinName, Sums, Why};
pub use pins::{PinState, Pins, StoredMark, StoredPin};
pub use reach::Reach;
pub use restored::{Restored, Revoked};
pub use retention::{Kept, Retention, RetentionInForce, retention, set_retention};
pub use retention_cache::RetentionCache;
pub use state::{
    LedgerObject, LedgerOperation, LedgerSegment, LedgerState, RemovedFile, Retired, TableMeta,
    TableState, Totals, Unswept,
};
pub use tables::{Readable, Tables};
pub use view::View;

#[cfg(test)]
mod tests;
