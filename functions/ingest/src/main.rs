//! The ingest function: the routes of `stele-http` behind a Lambda function URL. One request is
//! one PUT to each tier; between requests only the tier set, the tokens and the retention are kept,
//! each for its minute.

mod tenants;

use stele_http::ingest_router;
use stele_lambda::{Error, Start};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Error> {
    let start = Start::from_env()?;
    let state = tenants::state(&start);
    let counters = state.counters().clone();
    stele_lambda::serve(&start, ingest_router(state), Some(counters)).await
}
