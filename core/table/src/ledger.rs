//! Ledger files: what each operation consumed, per operation and merged by day.
//!
//! A file counts only when an entry of the reader's version, or a manifest such an entry names,
//! names it with its digest; `ledger/` is never listed. Both kinds of file have one shape.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use stele_model::{Day, Digest, L0Name, RowsHash};
use stele_store::keys;

use crate::codec;
use crate::commit::{ConsumedBatch, ConsumedObject};
use crate::error::Damage;
use crate::restored::{Revoked, is_revoked};
use crate::state::LedgerObject;

/// The layout of a ledger file.
const FORMAT: u32 = 1;
/// A day's last segment grows by rewriting until it holds this many batches; then a new one
/// starts, so that a merge rewrites at most this much of a day.
pub(crate) const SEGMENT_BATCHES_MAX: u64 = 32_768;
/// Batches held decoded in memory, about 200 bytes each.
const CACHE_BATCHES_MAX: usize = 131_072;

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
    /// Whether a restore in place took the row back; it is then not effective.
    pub revoked: bool,
}

impl LedgerRow {
    /// Whether the rows of the batch are in the table by this row.
    #[must_use]
    pub fn is_effective(&self) -> bool {
        self.duplicate_of.is_none() && !self.revoked
    }
}

/// An operation that met two values at one series and time: conflicts, each decided by the merge.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Conflicts {
    /// The operation.
    pub operation: String,
    /// Its version.
    pub version: u64,
    /// The time of its commit, µs.
    pub committed_us: i64,
    /// Samples that lost against another value.
    pub overridden: u64,
}

/// The ledger of one version.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Ledger {
    /// Every consumed batch, by version and then by position.
    pub rows: Vec<LedgerRow>,
    /// Every operation that met conflicts, by version; none that was revoked.
    pub conflicts: Vec<Conflicts>,
}

/// What one operation consumed; in a day's file, only its batches of that day.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct OperationRows {
    pub operation: String,
    pub version: u64,
    pub committed_us: i64,
    pub objects: Vec<ConsumedObject>,
    /// Samples that lost against another value; of an operation in the files of several days, in
    /// the first.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub overridden: u64,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks by reference")]
fn is_zero(n: &u64) -> bool {
    *n == 0
}

#[derive(Debug, Serialize, Deserialize)]
struct Stored {
    format: u32,
    operations: Vec<OperationRows>,
}

/// A ledger file in memory, with an index of its effective batches.
#[derive(Debug)]
pub(crate) struct LedgerFile {
    pub operations: Vec<OperationRows>,
    pub batches: usize,
    /// Effective batch and the position of its operation, sorted by digest.
    index: Vec<(Digest, u32)>,
}

impl LedgerFile {
    pub fn new(operations: Vec<OperationRows>) -> Self {
        let mut index = Vec::new();
        let mut batches = 0;
        for (position, operation) in (0u32..).zip(&operations) {
            for batch in operation.objects.iter().flat_map(|object| &object.batches) {
                batches += 1;
                if batch.duplicate_of.is_none() {
                    index.push((batch.digest, position));
                }
            }
        }
        index.sort_unstable();
        Self {
            operations,
            batches,
            index,
        }
    }

    pub fn decode(bytes: &[u8]) -> Result<Self, Damage> {
        let stored: Stored = codec::unpack(bytes)?;
        if stored.format != FORMAT {
            return Err(Damage::value("format", &stored.format.to_string()));
        }
        let mut objects = stored.operations.iter().flat_map(|rows| &rows.objects);
        match objects.try_for_each(ConsumedObject::check) {
            Ok(()) => Ok(Self::new(stored.operations)),
            Err(what) => Err(Damage::Disagrees { what }),
        }
    }

    /// The stored form, named for one operation.
    pub fn encode_operation(
        operation: &str,
        rows: OperationRows,
    ) -> Result<(LedgerObject, Bytes), Damage> {
        encode(&[rows], |_| {
            format!("{}/{operation}.json.zst", keys::LEDGER)
        })
    }

    /// The stored form of a day's segment, named by its content.
    pub fn encode_day(
        period: &str,
        rows: &[OperationRows],
    ) -> Result<(LedgerObject, Bytes), Damage> {
        encode(rows, |digest| {
            format!("{}/day-{period}-{digest}.json.zst", keys::LEDGER)
        })
    }

    /// The operation a batch is effective in, as far as this file knows.
    /// A revoked row is not effective.
    pub fn find(&self, batch: Digest, revoked: &[Revoked]) -> Option<&str> {
        let at = self.index.partition_point(|(digest, _)| *digest < batch);
        let of_batch = self.index[at..].iter().take_while(|(d, _)| *d == batch);
        let mut operations = of_batch.filter_map(|(_, at)| self.operations.get(*at as usize));
        let effective = operations.find(|operation| !is_revoked(revoked, operation.version));
        effective.map(|operation| operation.operation.as_str())
    }

    /// The row in which a batch is effective, as far as this file knows.
    pub fn row(&self, batch: Digest, revoked: &[Revoked]) -> Option<LedgerRow> {
        let effective = |row: &LedgerRow| row.batch == batch && row.is_effective();
        self.rows(revoked).find(effective)
    }

    /// The last row in which a batch was effective until it was revoked.
    pub fn revoked_row(&self, batch: Digest, revoked: &[Revoked]) -> Option<LedgerRow> {
        let was = |row: &LedgerRow| row.batch == batch && row.revoked && row.duplicate_of.is_none();
        self.rows(revoked).filter(was).last()
    }

    /// Its effective batches.
    pub fn effective(&self) -> impl Iterator<Item = &ConsumedBatch> {
        let objects = self.operations.iter().flat_map(|rows| &rows.objects);
        let batches = objects.flat_map(|object| &object.batches);
        batches.filter(|batch| batch.duplicate_of.is_none())
    }

    /// The conflicts of its operations.
    pub fn conflicts(&self, revoked: &[Revoked]) -> impl Iterator<Item = Conflicts> {
        let operations = self.operations.iter();
        let counts = |o: &&OperationRows| o.overridden > 0 && !is_revoked(revoked, o.version);
        let operations = operations.filter(counts);
        operations.map(|operation| Conflicts {
            operation: operation.operation.clone(),
            version: operation.version,
            committed_us: operation.committed_us,
            overridden: operation.overridden,
        })
    }

    /// The file's rows in its order.
    pub fn rows(&self, revoked: &[Revoked]) -> impl Iterator<Item = LedgerRow> {
        self.operations.iter().flat_map(move |operation| {
            let revoked = is_revoked(revoked, operation.version);
            operation.objects.iter().flat_map(move |object| {
                object.batches.iter().map(move |batch| LedgerRow {
                    batch: batch.digest,
                    day: batch.day,
                    rows: batch.rows,
                    hash: batch.hash,
                    object: object.name,
                    stored_us: object.stored_us,
                    operation: operation.operation.clone(),
                    version: operation.version,
                    committed_us: operation.committed_us,
                    duplicate_of: batch.duplicate_of.clone(),
                    revoked,
                })
            })
        })
    }
}

fn encode(
    operations: &[OperationRows],
    key: impl FnOnce(Digest) -> String,
) -> Result<(LedgerObject, Bytes), Damage> {
    #[derive(Serialize)]
    struct Borrowed<'a> {
        format: u32,
        operations: &'a [OperationRows],
    }
    let bytes = codec::pack(&Borrowed {
        format: FORMAT,
        operations,
    })?;
    let digest = codec::digest(&bytes);
    let object = LedgerObject {
        key: key(digest),
        digest,
        size_bytes: bytes.len() as u64,
    };
    Ok((object, bytes))
}

/// The rows of operation files by the period of each batch's day.
pub(crate) fn by_day(files: &[Arc<LedgerFile>]) -> BTreeMap<String, Vec<OperationRows>> {
    let mut days: BTreeMap<Day, Vec<OperationRows>> = BTreeMap::new();
    for operation in files.iter().flat_map(|file| &file.operations) {
        let mut parts: BTreeMap<Day, Vec<ConsumedObject>> = BTreeMap::new();
        for object in &operation.objects {
            let mut batches = BTreeMap::<Day, Vec<_>>::new();
            for batch in &object.batches {
                batches.entry(batch.day).or_default().push(batch.clone());
            }
            for (day, batches) in batches {
                let (name, stored_us) = (object.name, object.stored_us);
                parts.entry(day).or_default().push(ConsumedObject {
                    name,
                    stored_us,
                    batches,
                });
            }
        }
        if parts.is_empty() {
            // It consumed nothing, and is here for its conflicts.
            parts.insert(Day::of(operation.committed_us), Vec::new());
        }
        let mut overridden = operation.overridden;
        for (day, objects) in parts {
            days.entry(day).or_default().push(OperationRows {
                operation: operation.operation.clone(),
                version: operation.version,
                committed_us: operation.committed_us,
                objects,
                overridden: std::mem::take(&mut overridden),
            });
        }
    }
    days.into_iter()
        .map(|(day, rows)| (day.period(), rows))
        .collect()
}

/// Decoded ledger files by digest, the oldest dropped first.
#[derive(Debug, Default)]
pub(crate) struct LedgerCache {
    files: HashMap<Digest, Arc<LedgerFile>>,
    order: VecDeque<Digest>,
    batches: usize,
}

impl LedgerCache {
    pub fn get(&self, digest: Digest) -> Option<Arc<LedgerFile>> {
        self.files.get(&digest).cloned()
    }

    pub fn insert(&mut self, digest: Digest, file: &Arc<LedgerFile>) {
        if self.files.insert(digest, Arc::clone(file)).is_some() {
            return;
        }
        self.order.push_back(digest);
        self.batches += file.batches;
        while self.batches > CACHE_BATCHES_MAX && self.order.len() > 1 {
            let Some(oldest) = self.order.pop_front() else {
                return;
            };
            if let Some(dropped) = self.files.remove(&oldest) {
                self.batches = self.batches.saturating_sub(dropped.batches);
            }
        }
    }
}
