//! Exact answers in SQL: DataFusion over one tenant's table, at every moment.
//!
//! [`QueryEngine::query`] checks the text, reads a view of the table (files of one version, and
//! the L0 objects it has not absorbed), plans scans that prune to pages, and streams batches;
//! [`router`] puts it behind `/sql` and [`output`] writes JSON, NDJSON, CSV or Arrow.
//!
//! **Invariant** an answer is complete or an error: never fewer rows, never a clean end half-way.
//! **Invariant** a window's rows come from sealed files or through the merge, never from both.
//! **Invariant** SQL text names no tenant, no path and no store; what it may call is listed.
//!
//! This is the only crate that names DataFusion. It writes nothing.

#![cfg_attr(test, allow(clippy::unwrap_used, clippy::panic))]

mod bins;
mod carry;
mod config;
mod counters;
mod coverage;
mod engine;
mod error;
mod functions;
mod guard;
mod http;
mod losses;
mod nearest;
pub mod output;
mod pauses;
mod runs;
mod scan;
mod session;
mod sketches;
mod stream;
mod tables;
mod tag_list;
mod text;

pub use config::QueryConfig;
pub use engine::QueryEngine;
pub use error::{Error, Result};
pub use http::{QueryState, error_response, router};
pub use losses::Coverage;
pub use output::Format;
pub use stream::QueryStream;
