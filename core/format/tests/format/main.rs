//! Properties of stored bytes, the merge and the fold, through the public API alone.

#![allow(clippy::unwrap_used, clippy::panic)]

mod arrow_batches;
mod damage;
mod foreign_reader;
mod gen_rows;
mod merge;
mod rollup;
mod round_trip;
mod sizes;
