//! One entry of the log: a commit as it is stored, and as it is read back.

use std::collections::BTreeMap;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use stele_model::{Digest, RowsHash};

use crate::action::{APP_ID, Add, Line, MANIFEST_KEY, MetaData, Protocol, Remove, Txn};
use crate::check::{self, sealed};
use crate::commit::{Commit, CommitKind, Conservation};
use crate::error::Damage;
use crate::expired::Expired;
use crate::fence::Fence;
use crate::file::FileEntry;
use crate::restored::Restored;
use crate::state::{LedgerObject, TableMeta, TableState};

/// The layout of `commitInfo.stele`.
const FORMAT: u32 = 1;
/// The layout of one with a fence: software that knows of none must not read on.
const FORMAT_FENCE: u32 = 2;
const ENGINE: &str = concat!("stele/", env!("CARGO_PKG_VERSION"));

/// What a commit consumed, in sums; the ledger file has the rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Consumed {
    /// L0 objects.
    pub objects: u64,
    /// Batches that became effective.
    pub batches: u64,
    /// Batches that were duplicates of an effective one.
    pub duplicate_batches: u64,
    /// Rows of the effective batches.
    pub rows: u64,
    /// The hash of those rows.
    pub hash: RowsHash,
}

impl Consumed {
    pub(crate) fn of<'a>(
        objects: impl IntoIterator<Item = &'a crate::commit::ConsumedObject>,
    ) -> Self {
        let mut sums = Self::default();
        for object in objects {
            sums.objects += 1;
            for batch in &object.batches {
                if batch.duplicate_of.is_some() {
                    sums.duplicate_batches += 1;
                } else {
                    sums.batches += 1;
                    sums.rows = sums.rows.saturating_add(batch.rows);
                    sums.hash = sums.hash.union(batch.hash);
                }
            }
        }
        sums
    }
}

/// `commitInfo.stele`: what Delta has no place for.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Facts {
    pub format: u32,
    /// The digest of the whole entry as it is with zeroes here. The entry after this one names
    /// this one's digest; the newest has none after it.
    check: Digest,
    pub operation_id: String,
    pub kind: CommitKind,
    pub timestamp_us: i64,
    /// The digest of the entry before; zero for version 0.
    pub previous: Digest,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ledger: Option<LedgerObject>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub manifest: Option<LedgerObject>,
    pub consumed: Consumed,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub gone: Vec<Digest>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub forget_removed: Vec<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expired: Option<Expired>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub restored: Option<Restored>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fence: Option<Fence>,
    pub conservation: Conservation,
}

impl Facts {
    fn with_fence(mut self, fence: Option<&Fence>) -> Self {
        if let Some(fence) = fence {
            self.format = FORMAT_FENCE;
            self.fence = Some(fence.clone());
        }
        self
    }
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct CommitInfo {
    timestamp: i64,
    operation: String,
    operation_parameters: BTreeMap<String, String>,
    engine_info: String,
    is_blind_append: bool,
    stele: Facts,
}

/// One entry of the log, decoded and checked on its own.
#[derive(Debug, Clone, PartialEq)]
pub struct LogEntry {
    /// The version it was written as.
    pub version: u64,
    /// Files that become live.
    pub add: Vec<FileEntry>,
    /// Paths that stop being live.
    pub remove: Vec<String>,
    pub(crate) facts: Facts,
    /// Present in version 0.
    pub(crate) meta: Option<TableMeta>,
}

impl LogEntry {
    /// The operation id.
    #[must_use]
    pub fn operation(&self) -> &str {
        &self.facts.operation_id
    }

    /// What the commit did.
    #[must_use]
    pub fn kind(&self) -> CommitKind {
        self.facts.kind
    }

    /// The committer's clock, µs.
    #[must_use]
    pub fn timestamp_us(&self) -> i64 {
        self.facts.timestamp_us
    }

    /// Where the rows went.
    #[must_use]
    pub fn conservation(&self) -> &Conservation {
        &self.facts.conservation
    }

    /// What has expired from this commit on; of an expire only.
    #[must_use]
    pub fn expired(&self) -> Option<Expired> {
        self.facts.expired
    }

    /// Whose compactors commit from here on; of a fence and of a table created after one only.
    #[must_use]
    pub fn fence(&self) -> Option<&Fence> {
        self.facts.fence.as_ref()
    }

    /// The version that it brought back; of a restore only.
    #[must_use]
    pub fn restored(&self) -> Option<&Restored> {
        self.facts.restored.as_ref()
    }

    /// What it consumed, in sums.
    #[must_use]
    pub fn consumed(&self) -> &Consumed {
        &self.facts.consumed
    }

    /// Decodes an entry. Any byte of another writer or another layout is an error: the table is
    /// written by this crate alone.
    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, Damage> {
        let mut found = Found::default();
        for line in bytes.split(|b| *b == b'\n').filter(|line| !line.is_empty()) {
            found.take(serde_json::from_slice(line)?)?;
        }
        let entry = found.entry()?;
        check::verify(bytes, entry.facts.check)?;
        Ok(entry)
    }
}

#[derive(Default)]
struct Found {
    info: Option<CommitInfo>,
    txn: Option<Txn>,
    protocol: Option<Protocol>,
    meta: Option<MetaData>,
    add: Vec<FileEntry>,
    remove: Vec<String>,
}

fn once<T>(slot: &mut Option<T>, value: T, field: &'static str) -> Result<(), Damage> {
    match slot.replace(value) {
        None => Ok(()),
        Some(_) => Err(Damage::value(field, "twice")),
    }
}

impl Found {
    fn take(&mut self, line: Line) -> Result<(), Damage> {
        match line {
            Line::CommitInfo(info) => once(&mut self.info, *info, "commitInfo"),
            Line::Protocol(protocol) => once(&mut self.protocol, protocol, "protocol"),
            Line::MetaData(meta) => once(&mut self.meta, meta, "metaData"),
            Line::Txn(txn) => once(&mut self.txn, txn, "txn"),
            Line::Remove(remove) => {
                self.remove.push(remove.path);
                Ok(())
            }
            Line::Add(add) => {
                self.add.push(add.to_file()?);
                Ok(())
            }
        }
    }

    fn entry(self) -> Result<LogEntry, Damage> {
        let facts = self
            .info
            .ok_or_else(|| Damage::value("commitInfo", ""))?
            .stele;
        let format = facts.fence.as_ref().map_or(FORMAT, |_| FORMAT_FENCE);
        if facts.format != format {
            return Err(Damage::value("format", &facts.format.to_string()));
        }
        let txn = self.txn.filter(|txn| txn.app_id == APP_ID);
        let version = txn.ok_or_else(|| Damage::value("txn", ""))?.version;
        if self.protocol.is_some_and(|p| p != Protocol::OURS) {
            return Err(Damage::value("protocol", "another"));
        }
        let manifest = self
            .meta
            .as_ref()
            .and_then(|meta| meta.configuration.get(MANIFEST_KEY));
        if manifest != facts.manifest.as_ref().map(|object| &object.key) {
            return Err(Damage::Disagrees { what: MANIFEST_KEY });
        }
        let created = facts.kind == CommitKind::Create;
        if created != (version == 0) || created != self.protocol.is_some() {
            return Err(Damage::value("kind", facts.kind.as_str()));
        }
        if (facts.kind == CommitKind::Ledger) != facts.manifest.is_some() {
            return Err(Damage::value("manifest", facts.kind.as_str()));
        }
        if (facts.kind == CommitKind::Restore) != facts.restored.is_some() {
            return Err(Damage::value("restored", facts.kind.as_str()));
        }
        let fences = facts.kind == CommitKind::Fence;
        if fences && facts.fence.is_none() || facts.fence.is_some() && !(fences || created) {
            return Err(Damage::value("fence", facts.kind.as_str()));
        }
        let consumed = facts.consumed.objects > 0;
        if (consumed || facts.conservation.overridden > 0) != facts.ledger.is_some() {
            return Err(Damage::value("ledger", facts.kind.as_str()));
        }
        let meta = self.meta.filter(|_| created).map(|meta| TableMeta {
            id: meta.id,
            created_us: meta.created_time.saturating_mul(1000),
        });
        if created && meta.is_none() {
            return Err(Damage::value("metaData", ""));
        }
        Ok(LogEntry {
            version,
            add: self.add,
            remove: self.remove,
            facts,
            meta,
        })
    }
}

/// The bytes of an entry, line by line.
struct Lines {
    bytes: Vec<u8>,
}

impl Lines {
    fn new(version: u64, facts: Facts) -> Result<Self, Damage> {
        let timestamp = facts.timestamp_us.div_euclid(1000);
        let mut lines = Self { bytes: Vec::new() };
        lines.push(&Line::CommitInfo(Box::new(CommitInfo {
            timestamp,
            operation: facts.kind.as_str().to_uppercase(),
            operation_parameters: BTreeMap::new(),
            engine_info: ENGINE.to_owned(),
            is_blind_append: false,
            stele: facts,
        })))?;
        lines.push(&Line::Txn(Txn {
            app_id: APP_ID.to_owned(),
            version,
            last_updated: timestamp,
        }))?;
        Ok(lines)
    }

    fn push(&mut self, line: &Line) -> Result<(), Damage> {
        serde_json::to_writer(&mut self.bytes, line)?;
        self.bytes.push(b'\n');
        Ok(())
    }
}

fn facts_on(on: &TableState, operation: &str, kind: CommitKind, timestamp_us: i64) -> Facts {
    Facts {
        format: FORMAT,
        check: Digest::default(),
        operation_id: operation.to_owned(),
        kind,
        timestamp_us,
        previous: on.entry_digest,
        ledger: None,
        manifest: None,
        consumed: Consumed::default(),
        gone: Vec::new(),
        forget_removed: Vec::new(),
        expired: None,
        restored: None,
        fence: None,
        conservation: Conservation::default(),
    }
}

/// The entry that creates the table.
pub(crate) fn encode_create(
    operation: &str,
    meta: &TableMeta,
    fence: Option<&Fence>,
) -> Result<Bytes, Damage> {
    let empty = TableState::default();
    let facts = facts_on(&empty, operation, CommitKind::Create, meta.created_us);
    let mut lines = Lines::new(0, facts.with_fence(fence))?;
    lines.push(&Line::Protocol(Protocol::OURS))?;
    lines.push(&Line::MetaData(MetaData::new(meta, None)))?;
    Ok(sealed(lines.bytes))
}

/// The entry of a ledger commit after `on`.
pub(crate) fn encode_ledger(
    on: &TableState,
    operation: &str,
    manifest: &LedgerObject,
    timestamp_us: i64,
) -> Result<Bytes, Damage> {
    let mut facts = facts_on(on, operation, CommitKind::Ledger, timestamp_us);
    facts.manifest = Some(manifest.clone());
    let mut lines = Lines::new(on.version + 1, facts)?;
    lines.push(&Line::MetaData(MetaData::new(
        &on.meta,
        Some(&manifest.key),
    )))?;
    Ok(sealed(lines.bytes))
}

/// The entry of a fence after `on`.
pub(crate) fn encode_fence(
    on: &TableState,
    operation: &str,
    fence: &Fence,
    timestamp_us: i64,
) -> Result<Bytes, Damage> {
    let facts = facts_on(on, operation, CommitKind::Fence, timestamp_us);
    let lines = Lines::new(on.version + 1, facts.with_fence(Some(fence)))?;
    Ok(sealed(lines.bytes))
}

/// The entry of `commit` after `on`; `ledger` names what it consumed and its conflicts.
pub(crate) fn encode(
    on: &TableState,
    commit: &Commit,
    ledger: Option<&LedgerObject>,
) -> Result<Bytes, Damage> {
    let time = commit.timestamp_us;
    let mut facts = facts_on(on, &commit.operation.0, commit.kind, time);
    facts.ledger = ledger.cloned();
    facts.consumed = Consumed::of(&commit.consumed);
    facts.gone = commit.gone.clone();
    facts.forget_removed = commit.forget_removed.clone();
    facts.expired = commit.expired;
    facts.restored.clone_from(&commit.restored);
    facts.conservation = commit.conservation;
    let mut lines = Lines::new(on.version + 1, facts)?;
    for path in &commit.remove {
        let file = on.files.get(path).ok_or_else(|| Damage::File {
            path: path.clone(),
            what: "removed, but not live",
        })?;
        lines.push(&Line::Remove(Remove::of_file(file, time)))?;
    }
    for file in &commit.add {
        lines.push(&Line::Add(Add::of_file(file, time)?))?;
    }
    Ok(sealed(lines.bytes))
}
