//! From accepted samples to a durable object and its receipt.
//!
//! Rows are brought into canonical form, encoded under the digest of their content, and created
//! by one PUT: of one batch, or with group commit of all batches that came while another PUT was
//! in flight. When [`Ingestor::put`] returns, the object is durable; nothing happens after it.
//! The same samples again are the same batch, so a request whose reply was lost may simply be
//! sent again; samples without timestamps need an [`IdempotencyKey`] for that.
//!
//! This crate reads no table and no ledger, lists nothing and deletes nothing.

#![cfg_attr(test, allow(clippy::unwrap_used, clippy::panic))]

mod durable;
mod error;
mod group;
mod idempotency;
mod ingestor;
mod object;
mod quota;

pub use error::{Error, Result};
pub use group::GroupLimits;
pub use idempotency::{IdempotencyKey, body_digest};
pub use ingestor::{Ingestor, Options, Prepared, Receipt};
pub use quota::{MostDistinct, QuotaError, QuotaOptions, Quotas};
