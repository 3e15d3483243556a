//! What verify found.

use std::collections::BTreeSet;
use std::fmt;

use serde::{Deserialize, Serialize};

/// Findings kept in a report; more are only counted.
const FINDINGS_MAX: usize = 1000;

/// What was checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Check {
    /// The table can be loaded at all.
    Table,
    /// Heads say what the log says.
    Heads,
    /// Rows in = rows out + dropped, for every commit in the log and for all of them together.
    Conservation,
    /// Every batch is effective once.
    Consumption,
    /// Objects hold the bytes and rows that were written.
    Objects,
    /// Rollups are what their raw samples fold to, and cover what raw covers.
    Rollups,
    /// Pinned versions load, hold what they held when they were pinned, and have all their files.
    Snapshots,
}

impl fmt::Display for Check {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Table => "table",
            Self::Heads => "heads",
            Self::Conservation => "conservation",
            Self::Consumption => "consumption",
            Self::Objects => "objects",
            Self::Rollups => "rollups",
            Self::Snapshots => "snapshots",
        })
    }
}

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    /// The check that found it.
    pub check: Check,
    /// The object it is about, relative to the tenant.
    pub object: String,
    /// What is wrong with it.
    pub what: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}: {}", self.check, self.object, self.what)
    }
}

/// What was read and what is wrong.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct VerifyReport {
    /// The version that was verified; `None` when the tenant has no table.
    pub version: Option<u64>,
    /// Log entries checked.
    pub entries: u64,
    /// Log entries that a writer re-created after their sweep: nobody reads them.
    pub ghosts: u64,
    /// Heads checked.
    pub heads: u64,
    /// Ledger rows checked.
    pub batches: u64,
    /// Live data files read whole.
    pub files: u64,
    /// Their bytes.
    pub files_bytes: u64,
    /// Unabsorbed L0 objects read whole.
    pub objects: u64,
    /// Sample rows of live files.
    pub sample_rows: u64,
    /// Rollup rows compared with their samples, bit for bit.
    pub rollup_rows: u64,
    /// Days whose raw samples have expired: their rollups are read, and there is nothing left to
    /// recompute them from.
    #[serde(default)]
    pub frozen_days: u64,
    /// Snapshots checked.
    #[serde(default)]
    pub snapshots: u64,
    /// Data files read whole that only snapshots keep.
    #[serde(default)]
    pub snapshot_files: u64,
    /// Their bytes.
    #[serde(default)]
    pub snapshot_files_bytes: u64,
    /// What is wrong, in the order found; at most 1,000.
    pub findings: Vec<Finding>,
    /// How many things are wrong.
    pub findings_total: u64,
    /// The objects among them, also those beyond the findings that are kept.
    #[serde(skip)]
    pub(crate) suspects: BTreeSet<String>,
}

impl VerifyReport {
    /// Whether nothing is wrong.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.findings_total == 0
    }

    /// The first finding that a second verify has, too: no passing fault of a read, and a reason
    /// to freeze deletion.
    #[must_use]
    pub fn confirmed_by(&self, again: &Self) -> Option<&Finding> {
        let mut findings = self.findings.iter();
        findings.find(|finding| again.findings.contains(finding))
    }

    pub(crate) fn find(
        &mut self,
        check: Check,
        object: impl Into<String>,
        what: impl fmt::Display,
    ) {
        let object = object.into();
        self.findings_total += 1;
        if check == Check::Objects {
            self.suspects.insert(object.clone());
        }
        if self.findings.len() < FINDINGS_MAX {
            self.findings.push(Finding {
                check,
                object,
                what: what.to_string(),
            });
        }
    }
}

/// The part of a verify that is running.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Stage {
    /// Log entries, heads and ledger.
    History,
    /// Data files and rollups.
    Files,
    /// L0 objects.
    Objects,
    /// Snapshots.
    Snapshots,
}

/// How far a verify has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Progress {
    /// What is running.
    pub stage: Stage,
    /// Entries, files or objects done.
    pub done: u64,
    /// Of so many.
    pub total: u64,
}
