//! One process's view of the tenants of a store and of its tiers: what the server, the functions
//! and the commands with a store share.
//!
//! [`Tenants`] opens a [`Node`] per tenant as it is met and moves them all when the primary moves;
//! [`Work`] runs one job for one tenant, or for all in the time of an invocation. What
//! decides anything is below this crate; here the parts are only put together.

#![cfg_attr(test, allow(clippy::unwrap_used, clippy::panic))]

mod error;
pub mod fan_out;
mod http;
mod lag;
mod node;
mod options;
mod tenants;
mod tick;
mod tiers;
mod work;

pub use error::{Error, Result};
pub use http::with_lease;
pub use lag::{Backlog, Windows};
pub use node::Node;
pub use options::{budget, check, compact_options, ladder, quotas};
pub use tenants::{Met, Tenants};
pub use tick::{JobsFailed, Lag, Others, OthersError, Tick};
pub use tiers::{migration, open_tiers};
pub use work::{Job, Work, Worked};
