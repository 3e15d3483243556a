//! `stele drill`: what must never be lost, tried out.

mod check;
mod february;
mod load;
mod machines;
mod reader;
mod report;
mod restore;

use std::process::ExitCode;

use stele_runtime::Config;

use crate::cli::{DrillAction, DrillArgs};

/// Runs a drill.
///
/// # Errors
/// When it cannot be run at all; a drill that fails says so in its report, and the exit code is 1.
pub async fn run(args: DrillArgs, config: Config) -> anyhow::Result<ExitCode> {
    match args.action {
        DrillAction::Restore(wanted) => restore::run(wanted, args.json, config).await,
        DrillAction::February(february) => february::run(february, args.json, config).await,
    }
}
