//! `stele drill`: what must never be lost, tried out.

use clap::{Args, Subcommand};
use stele_model::TierId;
use stele_table::PinName;

/// `stele drill`.
#[derive(Debug, Args)]
pub struct DrillArgs {
    /// Which one.
    #[command(subcommand)]
    pub action: DrillAction,
    /// Print the report as JSON, and nothing before it.
    #[arg(long, global = true)]
    pub json: bool,
}

/// The drills.
#[derive(Debug, Subcommand)]
pub enum DrillAction {
    /// Move a store as badly as in February 2012, and count what is lost: nothing may be.
    February(FebruaryArgs),
    /// Restore a snapshot from some tier into a scratch store, and compare; the result is recorded.
    Restore(RestoreDrillArgs),
}

/// `stele drill restore`.
#[derive(Debug, Args)]
#[command(after_help = "\
Run it once a day: a snapshot that was not drilled for 7 days is listed as unproven.")]
pub struct RestoreDrillArgs {
    /// Only this snapshot [default: any].
    #[arg(long, value_name = "NAME")]
    pub snapshot: Option<PinName>,
    /// Only from this tier [default: any].
    #[arg(long, value_name = "NAME")]
    pub tier: Option<TierId>,
    /// Only of this tenant [default: any].
    #[arg(long, value_name = "NAME")]
    pub tenant: Option<String>,
    /// The store, or any of its tiers [default: ./stele-data].
    #[arg(long, value_name = "STORE")]
    pub store: Option<String>,
}

/// `stele drill february`.
#[derive(Debug, Args)]
#[command(after_help = "\
While samples keep coming and queries are compared: rollups are paused, a second store is added,
compactors are killed, the old store is to be retired too early, loses what is most recent, the new one
is cut off and comes back, is promoted, a snapshot is restored and merged, the old store is retired.
It works on stores of its own and touches no other; it takes about a minute.")]
pub struct FebruaryArgs {
    /// Make its stores below this one, such as s3://bucket/drills, and leave them there
    /// [default: temporary directories].
    #[arg(long, value_name = "STORE")]
    pub at: Option<String>,
    /// Where compactors are killed depends on it.
    #[arg(long, default_value_t = 2012)]
    pub seed: u64,
}
