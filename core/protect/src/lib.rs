//! Protection of stored data: [`verify`], the proof that a tenant's objects hold what its log
//! says; [`find_batch`], what became of one acknowledged batch; and snapshots, which sweep keeps.
//!
//! Verify changes nothing and never stops at the first thing wrong: each is a [`Finding`] that
//! names the object. Nothing here deletes what a table or a snapshot needs: only sweep deletes.
//! [`replicate()`] copies a table to another tier, as a prefix of its log.

#![cfg_attr(test, allow(clippy::unwrap_used, clippy::panic))]

mod data;
mod drilled;
mod equal;
mod history;
mod hold;
mod holdings;
mod in_place;
mod ladder;
mod losses;
mod migrate;
mod pinned;
mod prove;
mod receipt;
mod replicate;
mod report;
mod restore;
mod routes;
mod snapshot;
mod text;
mod verify;

pub use drilled::{Drilled, PROVEN_US, last_drills, record_drill};
pub use equal::{Comparison, Depth, Difference, Relation, Side, Wrong, compare};
pub use hold::{abandon_in_place, held_for_restore};
pub use in_place::{InPlace, InPlaceError, InPlacePlan, Lost, in_place_plan, restore_in_place};
pub use ladder::{Existing, Ladder, LadderPlan, follow_ladder, ladder_plan, name_of};
pub use losses::record_losses;
pub use migrate::{
    Lag, MigrateError, MigrateOptions, Migration, Missing, Promoted, RetirePlan, Step, SyncReport,
    TierSynced, init,
};
pub use pinned::verify_snapshot;
pub use prove::{Lacking, Proof, ProofOptions, Proven, TenantProof, prove};
pub use receipt::{BatchState, ReceiptError, find_batch};
pub use replicate::{
    L0Report, ReplicateError, ReplicateOptions, ReplicateReport, SettingsReport, TenantCopied,
    TierOptions, TierProgress, TierReport, copy_control, copy_l0, copy_settings, replicate,
    replicate_tier, return_l0,
};
pub use report::{Check, Finding, Progress, Stage, VerifyReport};
pub use restore::{CopyProgress, RestoreError, RestorePlan, RestoreReport, restore, restore_plan};
pub use routes::{Logs, receipts_router};
pub use snapshot::{Listed, NewSnapshot, SnapshotError, create, drop_snapshot, list, undelete};
pub use verify::{verify, verify_control};
