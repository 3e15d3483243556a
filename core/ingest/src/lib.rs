//! From accepted samples to a durable object and its receipt.
//!
//! One batch is one object is one PUT: rows are brought into canonical form, encoded under the
//! digest of their content, and created. When [`Ingestor::accept`] returns, the object is durable;
//! nothing happens after it, and nothing is kept in memory between requests but what
//! [`Quotas`] count. The same samples
//! again make the same object, so a request whose reply was lost may simply be sent again.
//!
//! This crate reads no table and no ledger, and deletes nothing.

#![cfg_attr(test, allow(clippy::unwrap_used, clippy::panic))]

mod error;
mod ingestor;
mod quota;

pub use error::{Error, Result};
pub use ingestor::{Ingestor, Prepared, Receipt};
pub use quota::{MostDistinct, QuotaError, QuotaOptions, Quotas};
