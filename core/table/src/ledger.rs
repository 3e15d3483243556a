//! Ledger files.

use stele_model::{Day, Digest, L0Name, RowsHash};

/// One consumed batch, as the SQL table `ledger` shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LedgerRow {
    /// The batch's digest.
    pub batch: Digest,
    /// The UTC day of its greatest timestamp.
    pub day: Day,
    /// Its rows.
    pub rows: u64,
    /// The multiset hash of its rows.
    pub hash: RowsHash,
    /// The L0 object that held it.
    pub object: L0Name,
    /// The store's time of that object, µs: the receive time.
    pub stored_us: i64,
    /// The operation that consumed it.
    pub operation: String,
    /// The version of that operation.
    pub version: u64,
    /// The time of that commit, µs.
    pub committed_us: i64,
    /// The operation that had consumed the batch before; the row is then not effective.
    pub duplicate_of: Option<String>,
}
