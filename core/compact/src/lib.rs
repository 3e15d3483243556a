//! Compaction: what turns accepted objects into sorted files and rollups, and the merge reader
//! that answers exactly before, during and after.
//!
//! ```text
//! L0 ──absorb──► open files (by day) ──seal──► raw + 60 s + 15 min + 60 min ──consolidate──► fewer
//!                                                                      sweep ◄── superseded objects
//! ```
//!
//! [`plan`] decides what to do and is pure. [`Compactor`] does it: every job reads its inputs,
//! writes its outputs, reads them back, and publishes both in one strict commit of
//! `stele-table`; a job that finds the table moved plans again. Any number of compactors may work
//! on one table: a commit of one makes the others plan again, and nothing else. [`reader`] is the
//! one place that merges raw, open and L0 rows, so what a query says of an open window is what a
//! seal will write.
//!
//! It deliberately reads no clock, makes no random names and never deletes what its own failed
//! attempt wrote: only [`Compactor::sweep`] deletes, and only what the log names as superseded.

#![cfg_attr(test, allow(clippy::unwrap_used, clippy::panic))]

mod absorb;
mod commit;
mod compactor;
mod confirm;
mod consolidate;
mod days;
mod error;
mod expire;
mod files;
mod freeze;
mod memory;
mod options;
pub mod plan;
pub mod reader;
mod report;
mod seal;
mod settle;
mod split;
mod sweep;
mod tier_witnesses;
mod witness;

pub use compactor::Compactor;
pub use error::{Error, Result};
pub use options::{Budget, Options, Part};
pub use report::{
    DeletionRefused, ExpireReport, ExpireWaits, Left, Progress, Report, SettleReport, Stage,
    SweepReport,
};
pub use sweep::{Planned, SWEEP_US_MAX, SweepPlan};
pub use tier_witnesses::TierWitnesses;
pub use witness::{Standing, Witness, WitnessError, Witnesses};
