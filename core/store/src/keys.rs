//! The names of a tenant's objects, relative to `<tier>/tenants/<tenant>/`.

use stele_model::{Digest, TierId};

/// Accepted batches, as ingest wrote them.
pub const L0: &str = "l0";
/// The Delta log.
pub const LOG: &str = "table/_delta_log";
/// The live file list per version, newest first by name.
pub const HEADS: &str = "table/heads";
/// What each commit consumed.
pub const LEDGER: &str = "ledger";
/// Snapshots.
pub const PINS: &str = "pins";
/// Markers of idempotency keys.
pub const IDEM: &str = "idem";
/// Switches and probes.
pub const CONTROL: &str = "control";

const HEAD_SUFFIX: &str = ".json.zst";

/// The log entry of version `v`.
#[must_use]
pub fn log_entry(v: u64) -> String {
    format!("{LOG}/{v:020}.json")
}

/// The version a log entry's key names; `None` for any other key.
#[must_use]
pub fn log_entry_version(key: &str) -> Option<u64> {
    let name = key.strip_prefix(LOG)?.strip_prefix('/')?;
    let version = name.strip_suffix(".json")?.parse().ok()?;
    (log_entry(version) == key).then_some(version)
}

/// The checkpoint of version `v`.
#[must_use]
pub fn checkpoint(v: u64) -> String {
    format!("{LOG}/{v:020}.checkpoint.parquet")
}

/// The version a checkpoint's key names; `None` for any other key.
#[must_use]
pub fn checkpoint_version(key: &str) -> Option<u64> {
    let name = key.strip_prefix(LOG)?.strip_prefix('/')?;
    let version = name.strip_suffix(".checkpoint.parquet")?.parse().ok()?;
    (checkpoint(version) == key).then_some(version)
}

/// The hint at the newest checkpoint.
#[must_use]
pub fn last_checkpoint() -> String {
    format!("{LOG}/_last_checkpoint")
}

/// The snapshot called `name`.
#[must_use]
pub fn pin(name: &str) -> String {
    format!("{PINS}/{name}.json")
}

/// The mark that the snapshot called `name` is dropped.
#[must_use]
pub fn pin_mark(name: &str) -> String {
    format!("{PINS}/{name}.dropped.json")
}

/// The head of version `v` (at most `i64::MAX`); a newer version has a smaller name.
#[must_use]
pub fn head(v: u64) -> String {
    let reversed = (i64::MAX as u64).saturating_sub(v);
    format!("{HEADS}/{reversed:020}{HEAD_SUFFIX}")
}

/// The version a head's key names; `None` for any other key.
#[must_use]
pub fn head_version(key: &str) -> Option<u64> {
    let name = key.strip_prefix(HEADS)?.strip_prefix('/')?;
    let reversed: u64 = name.strip_suffix(HEAD_SUFFIX)?.parse().ok()?;
    let version = (i64::MAX as u64).checked_sub(reversed)?;
    (head(version) == key).then_some(version)
}

/// The marker of an idempotency key with this digest.
#[must_use]
pub fn marker(key: &Digest) -> String {
    format!("{IDEM}/{key}")
}

/// Where the primary keeps the intents to bring to `tier` what it lacks.
#[must_use]
pub fn repairs(tier: &TierId) -> String {
    format!("{CONTROL}/repair/{tier}")
}

/// A data file by its path in the table.
#[must_use]
pub fn data_file(rel: &str) -> String {
    format!("table/{rel}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_newer_head_sorts_first_and_names_its_version() {
        for v in [0, 1, 9, 10, 4_000_000_000, i64::MAX as u64] {
            assert_eq!(head_version(&head(v)), Some(v));
        }
        assert!(head(10) < head(9));
        assert_eq!(log_entry_version(&log_entry(41)), Some(41));
        assert_eq!(log_entry_version("table/_delta_log/41.json"), None);
        assert_eq!(checkpoint_version(&checkpoint(40)), Some(40));
        for other in [log_entry(7), last_checkpoint()] {
            assert_eq!(checkpoint_version(&other), None, "{other}");
        }
        assert_eq!(log_entry_version(&checkpoint(40)), None);
        let elsewhere = "l0/00000000000000000040.checkpoint.parquet";
        assert_eq!(checkpoint_version(elsewhere), None);
        for other in ["table/heads/1.json.zst", "table/heads/x", "l0/x"] {
            assert_eq!(head_version(other), None, "{other}");
        }
    }
}
