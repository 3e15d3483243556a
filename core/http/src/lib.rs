//! The HTTP surface of ingest, and what every router of Stele shares: the mapping of error kinds
//! to replies, and the [`Gate`] that lets in only who may.
//!
//! A request's body is read within its limits, unpacked and decoded, stored by one PUT, and
//! answered in its protocol's words; 2xx only after the samples are durable. This crate knows no
//! table and no SQL, so that the ingest function stays small; the all-in-one server merges
//! [`ingest_router`] with its other routers.

#![cfg_attr(test, allow(clippy::unwrap_used, clippy::panic))]

mod auth;
mod body;
mod clients;
mod error;
mod idempotency;
mod import;
mod librato;
mod native;
mod reply;
mod state;
mod unpack;
mod write;

pub use auth::{Gate, Needs, ROUTES, Route};
pub use error::BoxError;
pub use reply::{RECEIPT_HEADER, error_response};
pub use state::{Counters, IngestState, Ingestors, Retentions, ingest_router};
