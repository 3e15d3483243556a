//! What the Lambda functions share: the cold start, the HTTP and the job handlers, embedded metrics.
//!
//! One invocation at a time runs in a process, and nothing goes on after its answer: the process is
//! suspended then. What a process keeps between two is only what it may trust after any pause, by
//! both clocks. Configuration comes from `STELE_*` variables and is checked before the first
//! request is taken.

#![cfg_attr(test, allow(clippy::unwrap_used, clippy::panic))]

pub mod emf;
mod http;
mod invoke;
mod jobs;
mod start;

pub use http::{serve, stream};
pub use invoke::{InvokeError, Invoker};
pub use jobs::{Room, run};
pub use lambda_http::Error;
pub use start::{Start, StartError};
