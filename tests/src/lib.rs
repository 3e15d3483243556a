//! The harness of the end-to-end tests: the real `stele` binary over real HTTP, on a local
//! directory or on a real S3 server, against a model that shares no code with the product.
//!
//! - [`binary`] finds or builds the binary, [`server`] runs it, kills it and talks to it.
//! - [`store`] is where it keeps its data; [`localstack`] is an S3 server that a test starts and
//!   stops, [`python`] the virtual environments it and the second readers live in.
//! - [`oracle`] knows what must be answered; [`fleet`] is a crowd of writers that feeds both, and
//!   [`reader`] asks and compares.
//! - [`fake_s3`] is an S3 server that lies in one chosen way, for the probe to refuse; [`proxy`]
//!   breaks what a network and an honest store break.
//! - [`lambda`] is the stack of functions, deployed to LocalStack.
//!
//! Nothing here skips: a server or package that cannot be had fails the test that needs it.

pub mod binary;
pub mod csv;
pub mod fake_s3;
pub mod fleet;
pub mod lambda;
pub mod localstack;
pub mod oracle;
pub mod proxy;
pub mod python;
pub mod reader;
pub mod server;
pub mod store;

use std::path::{Path, PathBuf};

/// The root of the checkout.
#[must_use]
pub fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("the crate lies one folder below the root")
}

/// `target/<profile>`, told by where the running test lies.
///
/// # Errors
/// When the test does not lie in a cargo target directory.
pub fn profile_dir() -> anyhow::Result<PathBuf> {
    let exe = std::env::current_exe()?;
    let dir = exe.ancestors().nth(2);
    dir.map(Path::to_path_buf)
        .ok_or_else(|| anyhow::anyhow!("{} is in no target directory", exe.display()))
}

/// Seconds since the epoch.
#[must_use]
pub fn now_secs() -> i64 {
    let elapsed = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    elapsed.map_or(0, |d| i64::try_from(d.as_secs()).unwrap_or(i64::MAX))
}
