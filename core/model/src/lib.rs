//! The vocabulary of Stele: samples, series, batches, windows, resolutions, aggregates, limits
//! and error kinds.
//!
//! Everything here is a pure value: no I/O, no async, no Arrow, no clock, no environment. All
//! other crates speak in these types, so a rule that must hold everywhere (the merge, the fold of
//! a rollup, the arithmetic of windows) is written here once.

pub mod aggregate;
pub mod clock;
pub mod digest;
pub mod error;
pub mod file;
pub mod limits;
pub mod merge;
pub mod names;
pub mod receipt;
pub mod rejection;
pub mod resolution;
pub mod sabotage;
pub mod sample;
pub mod sketch;
pub mod tags;
pub mod time;
pub mod window;

pub use aggregate::Aggregate;
pub use clock::{Clock, Entropy, Ids};
pub use digest::{Digest, RowsHash};
pub use error::{ErrorKind, chain};
pub use file::FileStats;
pub use limits::{Limits, RawRetention};
pub use names::{L0Name, TenantId, TierId};
pub use receipt::ReceiptId;
pub use rejection::{Positions, Rejection, Rejections};
pub use resolution::Resolution;
pub use sample::{Batch, Extra, Kind, NO_EXTRA, Row, Rows, Series, Summary};
pub use sketch::Sketch;
pub use window::{Day, Month, Window, WindowSet};
