//! Protection of stored data. For now: [`verify`], the proof that a tenant's objects hold what
//! its log says.
//!
//! It reads everything and changes nothing, and it never stops at the first thing wrong: each is
//! a [`Finding`] that names the object. Snapshots, replication and restore are not here yet.

#![cfg_attr(test, allow(clippy::unwrap_used, clippy::panic))]

mod data;
mod history;
mod report;
mod text;
mod verify;

pub use report::{Check, Finding, Progress, Stage, VerifyReport};
pub use verify::verify;
