//! The protect function: `{"job":"…"}` on a schedule. Sweep and expiry are the only deletions there are,
//! and this is the only function that may delete.

mod job;

use serde::Deserialize;
use stele_lambda::{Error, Room, Start};
use stele_node::Work;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Event {
    job: job::Job,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Error> {
    let start = Start::from_env()?;
    let work = Work::open(start.tiers.clone(), &start.config).await?;
    let (start, work) = (&start, &work);
    stele_lambda::run(start, async move |event: Event, room: Room| {
        let tick = event.job.run(work, room).await?;
        job::told(start, tick)
    })
    .await
}
