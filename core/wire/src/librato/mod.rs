//! Librato's writing API: `POST /v1/metrics` (gauges and counters, JSON or a form) and
//! `POST /v1/measurements` (tagged, JSON only).
//!
//! Source of the rules: Librato's public API documentation (`librato/api-docs`, and the archive
//! of the source-based API) and what python-librato 3.1.0 and Telegraf send. Times are seconds,
//! a fraction is kept to the µs; an item without one gets the receive time. `source` becomes the
//! tag `source`. A measurement's own tags replace the top-level ones; tag names and values of
//! `/v1/measurements` are lower-cased, metric names and `source` are kept as sent. `null` is the
//! same as absent, a number may also be a text that holds one, `period`, `attributes`, `last`,
//! `stddev_m2` and unknown keys are ignored.
//!
//! - **Summaries.** `count` and `sum` (with `min`, `max`, `sum_squares` or a population `stddev`)
//!   make a pre-aggregated sample whose value is the mean. A summary of one observation that says
//!   nothing else is that observation.
//! - **Merging.** Gauges and measurements of one request with equal name, tags and time merge into
//!   one summary, a plain value as one observation. Counters are absolute, a mean of two readings
//!   would be neither: of two at one instant the store's merge keeps the greater.
//! - **Faults.** A bad item is a rejection that names it, `gauges[3]: …`, and its neighbours are
//!   kept. A rejection's position counts items from 0, gauges before counters.

mod form;
mod gather;
mod item;
mod json;
mod reading;
mod reply;

pub use form::metrics as metrics_form;
pub use json::{measurements, metrics};
pub use reply::{error, partial};

/// Items of one `POST /v1/measurements`.
pub const MEASUREMENTS_MAX: u64 = 1_000;

/// Items of one form: they stand scattered over the body and are all held until its end.
pub const FORM_ITEMS_MAX: u64 = 10_000;

#[cfg(test)]
mod tests;
