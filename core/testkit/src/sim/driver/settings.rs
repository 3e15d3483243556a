//! The settings of a run.

use stele_ingest::GroupLimits;
use stele_model::TenantId;
use stele_model::time::{HOUR_US, MINUTE_US};
use stele_table::Retention;

use crate::clock::ManualClock;
use crate::rng::Rng;
use crate::sim::fleet::TierSettings;
use crate::sim::process::Settings;

/// Short times and small limits, so that everything happens within a run.
pub(super) fn settings(rng: &mut Rng, clock: &ManualClock) -> Settings {
    let history_us = rng.pick(&[40, 90]) * MINUTE_US;
    let key_age_us_max = rng.pick(&[1, 20]) * HOUR_US;
    let compact = stele_compact::Options {
        seal_delay_us: rng.between(1, 10) * MINUTE_US,
        reopen_ratio: rng.pick(&[0.0, 0.1, 5.0]),
        reopen_age_us: rng.pick(&[5, 60]) * MINUTE_US,
        sweep_grace_us: rng.pick(&[5, 15]) * MINUTE_US,
        history_us,
        marker_keep_us: 2 * key_age_us_max,
        target_file_bytes: rng.pick(&[8 << 10, 64 << 20]),
        heads_kept: rng.pick(&[2, 20]),
        ..stele_compact::Options::default()
    };
    let table = stele_table::Options {
        history_us,
        checkpoint_every: rng.pick(&[3, 5, 20]),
    };
    let ingest = stele_ingest::Options {
        group: Some(GroupLimits::default()),
        key_age_us_max,
    };
    Settings {
        tenant: TenantId::default(),
        clock: clock.clone(),
        compact,
        table,
        ingest,
        retention: Retention::default(),
        tiers: None,
    }
}

/// The tiers of a run: short leases, so that many sets come and go.
pub(super) fn tiers(rng: &mut Rng) -> TierSettings {
    TierSettings {
        lease_ms: rng.pick(&[2_000, 10_000, 60_000]),
        request_ms: rng.pick(&[1_000, 10_000]),
        seeds: ["a", "b", "c"].map(str::to_owned).to_vec(),
    }
}

/// One run in four keeps raw samples for a day or two, and some of those rollups little longer.
pub(super) fn forgets(rng: &mut Rng) -> Retention {
    if !rng.chance(25) {
        return Retention::default();
    }
    let raw_days = rng.pick(&[1, 2]);
    let rollup_days = rng.pick(&[None, Some(raw_days), Some(raw_days + 1)]);
    Retention {
        raw_days: Some(raw_days),
        s60_days: rollup_days,
        m15_days: rollup_days,
        m60_days: rollup_days,
    }
}
