//! `stele deletion`: what is deleted, and whether anything may be.

use clap::{Args, Subcommand};

/// `stele deletion`.
#[derive(Debug, Args)]
#[command(after_help = "\
Sweep deletes what the log has given up, every tier can do without and no snapshot keeps. Anything wrong
freezes deletion for the tenant; ingest, compaction and queries go on. An expiry of more than 5 % of the
live bytes, that is not the daily one, waits until its plan is confirmed.")]
pub struct DeletionArgs {
    /// What to do.
    #[command(subcommand)]
    pub action: DeletionAction,
    /// Where.
    #[command(flatten)]
    pub on: super::OnStore,
}

/// What to do about deletion.
#[derive(Debug, Subcommand)]
pub enum DeletionAction {
    /// Whether it is frozen, what a sweep would delete now, and what waits to be confirmed.
    Status,
    /// Let nothing be deleted.
    Freeze {
        /// Why.
        reason: String,
    },
    /// Let deletion go on.
    Resume,
    /// Confirm an expiry that asks.
    Confirm {
        /// The hash that `status` prints.
        plan: String,
    },
}
