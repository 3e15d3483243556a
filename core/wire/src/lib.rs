//! Protocol bytes to samples, and each protocol's reply bodies.
//!
//! A decoder takes the unpacked body of one request and gives [`Decoded`]: every sample it could
//! accept, and the position and reason of every one it could not. It is pure: no I/O, no clock
//! (the receive time is an argument), no HTTP types. It fails as a whole ([`Error`]) only when
//! the request as a whole is over a limit or cannot be read at all.
//!
//! - [`influx`]: line protocol, InfluxDB 1.x and 2.x replies, and the little of `/query` that
//!   clients need to connect.
//! - [`assemble`]: samples that were split already (files, other stores).
//! - [`librato`]: gauges and counters, tagged measurements, replies.
//! - [`gzip`]: what comes before all of them.
//! - [`json`]: the native `{"samples":[…]}`.

#![cfg_attr(test, allow(clippy::unwrap_used, clippy::panic))]

pub mod assemble;
mod check;
mod error;
pub mod gzip;
pub mod influx;
pub mod json;
pub mod librato;
mod pairs;
mod precision;

use stele_model::{Positions, Rejections, Rows};

pub use error::Error;
pub use precision::Precision;

/// What one request body held.
#[derive(Debug, Clone, Default)]
pub struct Decoded {
    /// The accepted samples, in the order they stood; not canonical yet.
    pub rows: Rows,
    /// What was refused. `total` counts samples where the item could be read that far, and one
    /// for an item that could not.
    pub rejections: Rejections,
    /// Where the accepted samples stood, as in a rejection.
    pub positions: Positions,
}
