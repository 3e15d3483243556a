//! A store that fails on purpose, and the world that decides when.
//!
//! Every actor (one ingestor, one compactor, one reader) gets its own [`FaultStore`] over the one
//! shared store, so a fault strikes one of them alone. All of them belong to one [`FaultWorld`],
//! which holds the plan, the puts that land late, and, in a scheduled world, the gates at which
//! actors wait for their turn: two per request, before its effect and before its answer. Whoever
//! drops an actor at a gate has crashed it there.

mod gate;
mod plan;
mod store;
mod world;

pub use gate::Ticket;
pub use plan::{Fault, FaultKey, KeyClass, Operation, Plan, Traffic, relative, root};
pub use store::FaultStore;
pub use world::{FaultWorld, Fired, Injected};
