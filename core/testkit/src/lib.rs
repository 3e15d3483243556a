//! What tests need to be unkind: faults, counts, manual time, random batches, an oracle.
//!
//! - [`MemoryStore`]: a store in memory with the time of a [`ManualClock`]
//! - [`FaultWorld`], [`FaultStore`]: faults per actor, key class, operation and occurrence, and
//!   the gates at which a driver interleaves actors
//! - [`CountingStore`]: the list of requests
//! - [`gen_rows`]: random batches around the edges that matter
//! - [`oracle`]: what must be stored, computed without any of the code under test
//! - [`contract`]: what every store must do
//! - [`sim`]: the seeded simulation of the whole engine
//!
//! Nothing here is linked into a shipped binary.

#![cfg_attr(test, allow(clippy::unwrap_used, clippy::panic))]

// No crate of the workspace may turn the deliberate defects on for another: then this is no constant
// any more, and nothing that is tested compiles.
#[cfg(not(feature = "sabotage"))]
const _: () = assert!(!stele_model::sabotaged!(AckBeforePut));

mod clock;
pub mod contract;
mod counting;
mod fault;
pub mod gen_rows;
mod memory;
pub mod oracle;
mod rng;
pub mod sim;

pub use clock::{ManualClock, SeededIds};
pub use counting::{CountingStore, Request};
pub use fault::{
    Fault, FaultKey, FaultStore, FaultWorld, Fired, Injected, KeyClass, Operation, Plan, Ticket,
    Traffic, relative, root,
};
pub use memory::{MemoryStore, Mutation};
pub use rng::Rng;
