//! What a run says of itself.

use stele_lambda::emf::{self, Unit};
use stele_lambda::{Error, Start};
use stele_node::{Lag, Tick};

/// Writes the metrics of a run: what waited for each tenant and, for the alarms, the worst of them. A
/// run in which anything failed is a failed invocation.
pub fn told(start: &Start, tick: Tick) -> Result<Tick, Error> {
    for (tenant, lag) in &tick.lags {
        let metrics = [
            ("BacklogObjects", Unit::Count, lag.backlog.l0_objects),
            ("BacklogBytes", Unit::Bytes, lag.backlog.l0_bytes),
            ("LagSeconds", Unit::Seconds, lag.secs().unsigned_abs()),
            ("OpenWindows", Unit::Count, lag.windows.open as u64),
        ];
        emf::write(&*start.clock, ("Tenant", tenant.as_str()), &metrics);
    }
    let mut metrics = vec![
        ("Rounds", Unit::Count, tick.rounds),
        ("Commits", Unit::Count, tick.commits),
        ("Asked", Unit::Count, tick.asked),
    ];
    // Whoever was asked for help did not look at all tenants.
    if let Some(worst) = tick.lags.values().map(Lag::secs).max() {
        metrics.push(("LagSeconds", Unit::Seconds, worst.unsigned_abs()));
    }
    emf::write(&*start.clock, ("Function", &start.function()), &metrics);
    Ok(tick.whole()?)
}
