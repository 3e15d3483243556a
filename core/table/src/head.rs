//! Heads and manifests: a version of the table as one object.
//!
//! A head is a shortcut: the whole state, believed only when it carries the operation id and the
//! digest of the log entry of its version. A manifest is part of the log: a ledger commit names
//! it with its digest, and it carries on what does not survive a Delta checkpoint.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use stele_model::Digest;
use stele_store::keys;

use crate::codec;
use crate::error::Damage;
use crate::expired::Expired;
use crate::fence::Fence;
use crate::file::FileEntry;
use crate::restored::Revoked;
use crate::state::{
    LedgerObject, LedgerState, RemovedFile, TableMeta, TableState, Totals, Unswept,
};

/// The layout of heads and manifests while nothing has expired.
const FORMAT: u32 = 1;
/// The layout once something has: software that knows nothing of it must not read on.
const FORMAT_EXPIRED: u32 = 2;
/// The layout once the table is fenced, for the same reason.
const FORMAT_FENCED: u32 = 3;

/// The layout once something was restored in place, for the same reason.
const FORMAT_REVOKED: u32 = 4;

fn format_of(expired: &Expired, fence: Option<&Fence>, revoked: &[Revoked]) -> u32 {
    if !revoked.is_empty() {
        return FORMAT_REVOKED;
    }
    match (expired.is_nothing(), fence) {
        (_, Some(_)) => FORMAT_FENCED,
        (true, None) => FORMAT,
        (false, None) => FORMAT_EXPIRED,
    }
}

#[derive(Serialize)]
struct HeadRef<'a> {
    format: u32,
    version: u64,
    timestamp_us: i64,
    entry_digest: Digest,
    operation: &'a str,
    meta: &'a TableMeta,
    files: Vec<&'a FileEntry>,
    unswept: Vec<&'a Unswept>,
    ledger: &'a LedgerState,
    totals: &'a Totals,
    removed: &'a [RemovedFile],
    #[serde(skip_serializing_if = "Expired::is_nothing")]
    expired: Expired,
    #[serde(skip_serializing_if = "<[Revoked]>::is_empty")]
    revoked: &'a [Revoked],
    #[serde(skip_serializing_if = "Option::is_none")]
    fence: Option<&'a Fence>,
}

#[derive(Deserialize)]
struct Head {
    format: u32,
    version: u64,
    timestamp_us: i64,
    entry_digest: Digest,
    operation: String,
    meta: TableMeta,
    files: Vec<FileEntry>,
    unswept: Vec<Unswept>,
    ledger: LedgerState,
    totals: Totals,
    removed: Vec<RemovedFile>,
    #[serde(default)]
    expired: Expired,
    #[serde(default)]
    revoked: Vec<Revoked>,
    #[serde(default)]
    fence: Option<Fence>,
}

fn check_format(
    format: u32,
    expired: &Expired,
    fence: Option<&Fence>,
    revoked: &[Revoked],
) -> Result<(), Damage> {
    match format == format_of(expired, fence, revoked) {
        true => Ok(()),
        false => Err(Damage::value("format", &format.to_string())),
    }
}

fn unswept_by_digest(unswept: Vec<Unswept>) -> BTreeMap<Digest, Unswept> {
    unswept.into_iter().map(|u| (u.name.digest, u)).collect()
}

/// Files by path, each checked, none twice.
pub(crate) fn files_by_path(
    files: Vec<FileEntry>,
) -> Result<BTreeMap<String, Arc<FileEntry>>, Damage> {
    let mut by_path = BTreeMap::new();
    for file in files {
        let path = file.path.clone();
        if let Err(what) = file.check() {
            return Err(Damage::File { path, what });
        }
        if by_path.insert(path, Arc::new(file)).is_some() {
            return Err(Damage::Disagrees {
                what: "a file listed twice",
            });
        }
    }
    Ok(by_path)
}

/// The head of a version.
pub(crate) fn encode_head(state: &TableState) -> Result<Bytes, Damage> {
    codec::pack(&HeadRef {
        format: format_of(&state.expired, state.fence.as_ref(), &state.revoked),
        version: state.version,
        timestamp_us: state.timestamp_us,
        entry_digest: state.entry_digest,
        operation: &state.operation,
        meta: &state.meta,
        files: state.files.values().map(AsRef::as_ref).collect(),
        unswept: state.unswept.values().collect(),
        ledger: &state.ledger,
        totals: &state.totals,
        removed: &state.removed,
        expired: state.expired,
        revoked: &state.revoked,
        fence: state.fence.as_ref(),
    })
}

/// The state a head holds; whether it is true is for the log to say.
pub(crate) fn decode_head(bytes: &[u8]) -> Result<TableState, Damage> {
    let head: Head = codec::unpack(bytes)?;
    check_format(
        head.format,
        &head.expired,
        head.fence.as_ref(),
        &head.revoked,
    )?;
    Ok(TableState {
        version: head.version,
        timestamp_us: head.timestamp_us,
        entry_digest: head.entry_digest,
        operation: head.operation,
        meta: head.meta,
        files: files_by_path(head.files)?,
        unswept: unswept_by_digest(head.unswept),
        ledger: head.ledger,
        totals: head.totals,
        removed: head.removed,
        expired: head.expired,
        revoked: head.revoked,
        fence: head.fence,
    })
}

/// What a ledger commit carries on.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Manifest {
    format: u32,
    /// The version of the ledger commit.
    pub version: u64,
    pub meta: TableMeta,
    /// The merged ledger; what this commit retires is in it.
    pub ledger: LedgerState,
    pub unswept: Vec<Unswept>,
    pub totals: Totals,
    pub removed: Vec<RemovedFile>,
    #[serde(default, skip_serializing_if = "Expired::is_nothing")]
    pub expired: Expired,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub revoked: Vec<Revoked>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fence: Option<Fence>,
    /// The number of live files, which the checkpoint lists.
    pub files: u64,
    /// The digest of their list.
    pub files_digest: Digest,
}

impl Manifest {
    /// The manifest of the ledger commit after `on`.
    pub fn new(on: &TableState, ledger: LedgerState) -> Result<Self, Damage> {
        Ok(Self {
            format: format_of(&on.expired, on.fence.as_ref(), &on.revoked),
            version: on.version + 1,
            meta: on.meta.clone(),
            ledger,
            unswept: on.unswept.values().cloned().collect(),
            totals: on.totals,
            removed: on.removed.clone(),
            expired: on.expired,
            revoked: on.revoked.clone(),
            fence: on.fence.clone(),
            files: on.files.len() as u64,
            files_digest: files_digest(&on.files)?,
        })
    }

    /// The stored form, named by its content.
    pub fn encode(&self) -> Result<(LedgerObject, Bytes), Damage> {
        let bytes = codec::pack(self)?;
        let digest = codec::digest(&bytes);
        let object = LedgerObject {
            key: format!("{}/manifest-{digest}.json.zst", keys::LEDGER),
            digest,
            size_bytes: bytes.len() as u64,
        };
        Ok((object, bytes))
    }

    /// The reverse of [`Manifest::encode`].
    pub fn decode(bytes: &[u8]) -> Result<Self, Damage> {
        let manifest: Self = codec::unpack(bytes)?;
        let (fence, revoked) = (manifest.fence.as_ref(), &manifest.revoked);
        check_format(manifest.format, &manifest.expired, fence, revoked)?;
        Ok(manifest)
    }

    /// The ledger of the version it belongs to, given where the manifest itself is.
    pub fn ledger_at(&self, object: &LedgerObject) -> LedgerState {
        LedgerState {
            manifest: Some(object.clone()),
            manifest_version: self.version,
            ..self.ledger.clone()
        }
    }

    /// The unswept objects by digest.
    pub fn unswept_by_digest(&self) -> BTreeMap<Digest, Unswept> {
        unswept_by_digest(self.unswept.clone())
    }
}

/// The digest of a list of live files.
pub(crate) fn files_digest(files: &BTreeMap<String, Arc<FileEntry>>) -> Result<Digest, Damage> {
    let mut lines = Vec::new();
    for file in files.values() {
        serde_json::to_writer(&mut lines, file.as_ref())?;
        lines.push(b'\n');
    }
    Ok(codec::digest(&lines))
}
