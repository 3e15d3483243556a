//! What the log says of a data file: enough to prune it, and to prove its bytes.

use serde::{Deserialize, Serialize};

use crate::digest::{Digest, RowsHash};

/// Facts about one Parquet data file, taken by its writer from what it wrote.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileStats {
    /// The object's size.
    pub size_bytes: u64,
    /// The digest of the whole object.
    pub digest: Digest,
    /// The digest of the last `footer_bytes` bytes.
    pub footer_digest: Digest,
    /// The length of the Parquet metadata with its 8-byte tail.
    pub footer_bytes: u64,
    /// The number of rows.
    pub rows: u64,
    /// The multiset hash of the rows.
    pub rows_hash: RowsHash,
    /// The least timestamp (bin start for rollups), µs.
    pub ts_min_us: i64,
    /// The greatest timestamp (bin start for rollups), µs.
    pub ts_max_us: i64,
    /// The least metric name.
    pub metric_min: String,
    /// The greatest metric name.
    pub metric_max: String,
    /// The number of series.
    pub series: u64,
}
