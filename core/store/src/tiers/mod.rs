//! The tiers of one Stele: which stores there are, and what each is for.
//!
//! A [`TierSet`] is published under the next *epoch*, as a create-only object on every tier. Whoever
//! writes holds a lease on the set that was fetched ([`Tiers::current`]); a change of state waits until every
//! lease on the set before it has ended, so no two sets are acted on for longer than that.

mod epoch;
mod lease;
mod set;
mod unopened;

pub use epoch::{PublishedSet, newest_epoch, publish_epoch};
pub use lease::{Current, OpenTier, Opener, Tiers, Trouble};
pub use set::{Member, Role, TierSet, TierSetError, TierState, WritePolicy};
