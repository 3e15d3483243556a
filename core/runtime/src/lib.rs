//! The only crate that reads the environment, the wall clock and the machine's randomness.
//!
//! A `main` calls [`Config::from_env`] once, [`telemetry::init`] once, and hands [`SystemClock`],
//! [`RandomIds`] and [`OsEntropy`](clock::OsEntropy) to everything else, so that a simulation can
//! own time and chance instead. This crate starts no task and opens no store.

#![cfg_attr(test, allow(clippy::unwrap_used, clippy::panic))]

pub mod clock;
pub mod config;
pub mod telemetry;

pub use clock::{OsEntropy, RandomIds, SystemClock};
pub use config::{Budgets, Config, Error, Variable};
pub use telemetry::LogFormat;
