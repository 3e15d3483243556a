//! The limits of one query, and the switches that every query of a process shares.

use std::time::Duration;

/// How queries are bounded. All limits are inclusive.
#[derive(Debug, Clone)]
pub struct QueryConfig {
    /// From the request to the last byte of its answer.
    pub deadline: Duration,
    /// Bytes that the operators of all running queries may hold together.
    pub memory_pool_bytes: usize,
    /// Rows of one answer.
    pub rows_max: u64,
    /// Bytes of one answer, as encoded.
    pub bytes_max: u64,
    /// Bytes of one SQL text.
    pub sql_bytes_max: usize,
    /// Queries that run at once in this process; more wait for their turn.
    pub queries_max: usize,
    /// Threads one query may use.
    pub target_partitions: usize,
    /// Bytes that cached footers, page indexes and tag lists may take.
    pub cache_bytes: usize,
    /// Whether rollups made on the fly carry a quantile sketch; must agree with the compactor's.
    pub sketch: bool,
}

impl Default for QueryConfig {
    fn default() -> Self {
        Self {
            deadline: Duration::from_secs(60),
            memory_pool_bytes: 256 << 20,
            rows_max: 5_000_000,
            bytes_max: 1 << 30,
            sql_bytes_max: 16 << 10,
            queries_max: 16,
            target_partitions: 2,
            cache_bytes: 64 << 20,
            sketch: true,
        }
    }
}
