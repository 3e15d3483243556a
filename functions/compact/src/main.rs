//! The compact function: `{"job":"compact"}` on a schedule. It works in rounds until there is nothing
//! to do or its time is nearly over, and asks further invocations for help with a large backlog.

mod others;
mod told;

use serde::{Deserialize, Serialize};
use stele_compact::Budget;
use stele_lambda::{Error, Room, Start};
use stele_node::{Tick, Work, fan_out::Piece};

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Job {
    Compact,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Event {
    job: Job,
    /// Given to an invocation that was asked for help; it asks nobody.
    pieces: Option<Vec<Piece>>,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Error> {
    let start = Start::from_env()?;
    let work = Work::open(start.tiers.clone(), &start.config).await?;
    let others = others::Others::new(&start)?;
    let (start, work, others) = (&start, &work, &others);
    stele_lambda::run(start, async move |event: Event, room: Room| {
        let budget = Budget::within(room.deadline_us, room.memory_bytes);
        let tick: Tick = work.compact(event.pieces, &budget, others).await?;
        told::told(start, tick)
    })
    .await
}
