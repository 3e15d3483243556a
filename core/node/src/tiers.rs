//! Opening the tiers of a store, and working on them.

use std::sync::Arc;

use stele_compact::Options;
use stele_model::{Clock, Ids};
use stele_protect::{MigrateOptions, Migration};
use stele_runtime::{Config, RandomIds, SystemClock};
use stele_store::Tiers;

use crate::error::Result;

/// The tiers that the store `url` is one of; it may be the only one. Nothing is read yet.
///
/// # Errors
/// A URL that names no store.
pub fn open_tiers(url: &str, config: &Config) -> Result<Tiers> {
    Ok(Tiers::open(url, &config.aws, Arc::new(SystemClock))?)
}

/// Works on `tiers`, whose compactors run with `options`; `bytes_per_second` of history at most.
#[must_use]
pub fn migration(tiers: Tiers, options: &Options, bytes_per_second: Option<u64>) -> Migration {
    let options = MigrateOptions {
        table: stele_table::Options {
            history_us: options.history_us,
            ..Default::default()
        },
        marker_keep_us: options.marker_keep_us,
        bytes_per_second,
        copies: 4,
    };
    let (clock, ids): (Arc<dyn Clock>, Arc<dyn Ids>) = (Arc::new(SystemClock), Arc::new(RandomIds));
    Migration::new(tiers, options, clock, ids)
}
