//! Prints a new token of a store that may write and read: `token STORE`. What measures the functions
//! needs one; people make theirs with `stele token create`.

use std::io::Write;

use stele_auth::{NewToken, Scope};
use stele_model::{Clock, TenantId};
use stele_runtime::{OsEntropy, SystemClock};
use stele_store::Tier;

type Failure = Box<dyn std::error::Error>;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Failure> {
    let url = std::env::args().nth(1).ok_or("expected a store")?;
    let new = NewToken {
        tenant: TenantId::default(),
        scopes: [Scope::Ingest, Scope::Query].into(),
        note: String::new(),
    };
    let control = Tier::open(&url, &[])?.control();
    let (text, _) = stele_auth::create(&control, new, &OsEntropy, SystemClock.now_us()).await?;
    writeln!(std::io::stdout(), "{}", text.reveal())?;
    Ok(())
}
