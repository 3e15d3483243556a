//! The query crate from its text to its bytes, over a store in memory.
//!
//! One binary, because each links DataFusion.

#![allow(clippy::unwrap_used, clippy::panic)]

mod as_of;
mod bench;
mod covered;
mod damaged;
mod exact;
mod fixture;
mod guarded;
mod hostile;
mod lost;
mod plans;
mod requests;
mod simulated;
mod slt;
mod tenants;
mod web;
