//! The jobs of this function.

use serde::Deserialize;
use stele_compact::Budget;
use stele_lambda::emf::{self, Unit};
use stele_lambda::{Error, Room, Start};
use stele_node::{Job as Each, Tick, Work};

/// What an event may ask for.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Job {
    /// Delete what nothing needs.
    Sweep,
    /// Drop what is past its retention.
    Expire,
    /// Take and drop scheduled snapshots.
    Snapshots,
    /// Bring the other tiers to where the primary is.
    Sync,
    /// Read every object, and freeze deletion where anything is wrong.
    Verify,
}

impl Job {
    /// Runs it for all tenants.
    pub async fn run(self, work: &Work, room: Room) -> Result<Tick, Error> {
        let budget = Budget::within(room.deadline_us, room.memory_bytes);
        let each = match self {
            Self::Sweep => Each::Sweep,
            Self::Expire => Each::Expire,
            Self::Snapshots => Each::Snapshots,
            Self::Sync => return Ok(work.sync().await?),
            Self::Verify => return Ok(work.verify().await?),
        };
        Ok(work.each(each, &budget).await?)
    }
}

/// Writes the metrics of a run. One in which anything failed is a failed invocation.
pub fn told(start: &Start, tick: Tick) -> Result<Tick, Error> {
    let metrics = [
        ("Tenants", Unit::Count, tick.tenants),
        ("Commits", Unit::Count, tick.commits),
    ];
    emf::write(&*start.clock, ("Function", &start.function()), &metrics);
    Ok(tick.whole()?)
}
