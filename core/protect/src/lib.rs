//! Protection of stored data: [`verify`], the proof that a tenant's objects hold what its log
//! says, and [`find_batch`], what became of one acknowledged batch.
//!
//! Both change nothing. Verify never stops at the first thing wrong: each is a [`Finding`] that
//! names the object. Snapshots, replication and restore are not here yet.

#![cfg_attr(test, allow(clippy::unwrap_used, clippy::panic))]

mod data;
mod history;
mod receipt;
mod report;
mod routes;
mod text;
mod verify;

pub use receipt::{BatchState, ReceiptError, find_batch};
pub use report::{Check, Finding, Progress, Stage, VerifyReport};
pub use routes::{Logs, receipts_router};
pub use verify::{verify, verify_control};
