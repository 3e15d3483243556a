//! What to do next, decided by pure functions of what the log and the LIST say.

mod absorb;
mod consolidate;
mod expire;
#[cfg(test)]
pub(crate) mod fixtures;
mod interlock;
mod seal;
mod tier;

pub use absorb::{decoded_bytes_at_least, round};
pub use consolidate::{ConsolidatePlan, ConsolidateRules, consolidations};
pub use expire::{ExpirePlan, ExpireRules, ExpireStep, expire};
pub use interlock::{Due, ExpireAsks, due_in_all};
pub(crate) use seal::of_period;
pub use seal::{SealPlan, SealRules, Step, close, reopened_windows, seals, step};
pub use tier::{merge_with, tier_of};
