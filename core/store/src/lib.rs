//! A tier by URL: keys and bytes, nothing about what the bytes mean.
//!
//! Ingest, table and compact reach objects only through [`Tier`] and [`TenantStore`]. What this
//! crate adds to `object_store` is what an acknowledgement needs: a conditional create whose
//! outcome is read back instead of believed ([`TenantStore::put_new`]), a local store that is
//! durable before it answers ([`DurableLocal`]), and a probe that refuses a store which only looks
//! like it keeps its promises ([`Tier::probe`]).
//!
//! It holds no Arrow, reads no clock and no environment, and never sleeps.

#![cfg_attr(test, allow(clippy::unwrap_used, clippy::panic))]

mod control;
mod cut;
mod disk;
mod error;
pub mod keys;
mod local;
mod objects;
mod open;
mod probe;
mod repair;
pub mod sealed;
mod tenant;
mod tier;
mod tiers;

pub use control::ControlStore;
pub use cut::Cut;
pub use error::{Error, Result};
pub use local::DurableLocal;
pub use probe::{Capability, ProbeReport};
pub use repair::RepairIntent;
pub use tenant::{L0Object, ObjectInfo, Put, Stored, TenantStore};
pub use tier::Tier;
pub use tiers::{
    Current, Member, OpenTier, Opener, PublishedSet, Role, TierSet, TierSetError, TierState, Tiers,
    Trouble, WritePolicy, newest_epoch, publish_epoch,
};
