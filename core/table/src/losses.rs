//! What is known to be lost of a tenant on this tier: a chain of create-only objects under
//! `control/losses/`, the last of which counts.
//!
//! Each link names every loss there is then. One that is over is absent from the next link, and
//! nothing is deleted. A reader decides by the log whether a loss still counts: a file that is not
//! live any more is missed by nobody.
//!
//! Which objects a store has lost is a fact of that store, so the chain is never copied to another
//! tier as it is.

mod windows_text;

use std::collections::{HashMap, HashSet};
use std::fmt;

use serde::{Deserialize, Serialize};
use stele_model::{L0Name, Window, WindowSet};
use stele_store::{TenantStore, keys};

use crate::chain::{Chain, Link};
use crate::error::{Damage, Error, Result};
use crate::file::FileEntry;

const CHAIN: Chain = Chain("losses");
/// Losses that are named one by one; more are one loss of [`LostObject::Others`].
pub const LOSSES_MAX: usize = 2_000;
/// Bytes that the named losses may take, as stored.
const NAMED_BYTES_MAX: usize = 4 << 20;
/// Days that the windows of the named losses may lie in, together: what bounds their memory.
const NAMED_DAYS_MAX: usize = 500_000;

/// Why something is lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LossKind {
    /// A live data file is not in the store.
    FileMissing,
    /// A live data file holds other bytes than the log says.
    FileDamaged,
    /// An L0 object cannot be read, so that its batches cannot be absorbed.
    BatchDamaged,
    /// A restore in place revoked batches that were in no L0 object any more.
    BatchRevoked,
}

impl LossKind {
    /// One word, for headers.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::FileMissing => "file_missing",
            Self::FileDamaged => "file_damaged",
            Self::BatchDamaged => "batch_damaged",
            Self::BatchRevoked => "batch_revoked",
        }
    }
}

impl fmt::Display for LossKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::FileMissing => "file missing",
            Self::FileDamaged => "file damaged",
            Self::BatchDamaged => "batch damaged",
            Self::BatchRevoked => "batches lost in a restore in place",
        })
    }
}

/// What is lost.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum LostObject {
    /// A data file by its path, relative to `table/`.
    File(String),
    /// An L0 object.
    L0(#[serde(with = "crate::codec::text")] L0Name),
    /// Batches that the restore in place which became this version took back.
    Restore {
        /// The version of the restore.
        version: u64,
        /// How many batches.
        batches: u64,
    },
    /// Objects beyond those that are named one by one.
    Others,
}

/// The least and the greatest metric, both included.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MetricRange {
    /// The least, by bytes.
    pub min: String,
    /// The greatest, by bytes.
    pub max: String,
}

/// One object, or the batches of one restore in the same windows, and what is lost with it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Loss {
    /// Why.
    pub kind: LossKind,
    /// What.
    pub object: LostObject,
    /// The windows that it holds, or may hold, rows of.
    #[serde(with = "windows_text")]
    pub windows: WindowSet,
    /// The metrics that it may hold; `None` when any may be in it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metrics: Option<MetricRange>,
    /// Its rows, when known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rows: Option<u64>,
    /// When it was first noticed, µs by the clock of who noticed it.
    pub noticed_us: i64,
}

impl Loss {
    /// A live data file that is missing or damaged.
    #[must_use]
    pub fn of_file(kind: LossKind, file: &FileEntry, noticed_us: i64) -> Self {
        let stats = &file.stats;
        Self {
            kind,
            object: LostObject::File(file.path.clone()),
            windows: file.windows.clone(),
            metrics: Some(MetricRange {
                min: stats.metric_min.clone(),
                max: stats.metric_max.clone(),
            }),
            rows: Some(stats.rows),
            noticed_us,
        }
    }

    /// An L0 object that cannot be read: its name says its windows, and nothing else.
    #[must_use]
    pub fn of_l0(name: L0Name, noticed_us: i64) -> Self {
        Self {
            kind: LossKind::BatchDamaged,
            object: LostObject::L0(name),
            windows: name.windows(),
            metrics: None,
            rows: None,
            noticed_us,
        }
    }

    /// The one metric of it, when it holds one.
    #[must_use]
    pub fn metric(&self) -> Option<&str> {
        let metrics = self.metrics.as_ref()?;
        (metrics.min == metrics.max).then_some(metrics.min.as_str())
    }

    /// What identifies it in a record.
    fn key(&self) -> String {
        match &self.object {
            LostObject::File(path) => format!("file {path}"),
            LostObject::L0(name) => format!("l0 {name}"),
            LostObject::Restore { version, .. } => {
                format!("restore {version} {}", windows_text::to_text(&self.windows))
            }
            LostObject::Others => "others".to_owned(),
        }
    }

    fn others(kind: LossKind, noticed_us: i64) -> Self {
        Self {
            kind,
            object: LostObject::Others,
            windows: WindowSet::new(),
            metrics: None,
            rows: None,
            noticed_us,
        }
    }

    fn check(&self) -> Result<(), &'static str> {
        let is_of_kind = matches!(
            (&self.object, self.kind),
            (
                LostObject::File(_),
                LossKind::FileMissing | LossKind::FileDamaged
            ) | (LostObject::L0(_), LossKind::BatchDamaged)
                | (LostObject::Restore { .. }, LossKind::BatchRevoked)
                | (LostObject::Others, _)
        );
        let is_ordered = |metrics: &MetricRange| metrics.min <= metrics.max;
        match self {
            _ if !is_of_kind => Err("object and kind of a loss do not agree"),
            _ if self.windows.is_empty() => Err("a loss has no window"),
            _ if !self.metrics.as_ref().is_none_or(is_ordered) => Err("metrics of a loss descend"),
            _ => Ok(()),
        }
    }
}

/// For people: why, what, and how much.
impl fmt::Display for Loss {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.kind)?;
        match &self.object {
            LostObject::File(path) => f.write_str(&keys::data_file(path))?,
            LostObject::L0(name) => write!(f, "{}/{name}", keys::L0)?,
            LostObject::Restore { version, batches } => {
                write!(f, "version {version}, batches {batches}")?;
            }
            LostObject::Others => f.write_str("more objects than are named")?,
        }
        match self.rows {
            Some(1) => f.write_str(", 1 row"),
            Some(rows) => write!(f, ", {rows} rows"),
            None => Ok(()),
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Record {
    losses: Vec<Loss>,
}

impl Record {
    fn check(&self) -> Result<(), &'static str> {
        if self.losses.len() > LOSSES_MAX + 1 {
            return Err("more losses than are named");
        }
        self.losses.iter().try_for_each(Loss::check)
    }

    fn keys(&self) -> HashSet<String> {
        self.losses.iter().map(Loss::key).collect()
    }

    /// The record as it should be next: what was found, and what was known and is not over. What is
    /// known keeps its place and the time it was noticed.
    fn next(&self, found: &[Loss], is_over: impl Fn(&Loss) -> bool) -> Self {
        let mut new: HashMap<String, Loss> = HashMap::new();
        for loss in found {
            new.insert(loss.key(), loss.clone());
        }
        let mut others = None;
        let mut all = Vec::new();
        for known in &self.losses {
            match new.remove(&known.key()) {
                Some(again) => all.push(Loss {
                    noticed_us: known.noticed_us,
                    ..again
                }),
                None if is_over(known) => {}
                None if known.object == LostObject::Others => others = Some(known.clone()),
                None => all.push(known.clone()),
            }
        }
        let order = found.iter().filter_map(|loss| new.remove(&loss.key()));
        all.extend(order);
        Self {
            losses: named(all, others),
        }
    }
}

/// As many as are named one by one, and one loss for the others.
fn named(all: Vec<Loss>, mut others: Option<Loss>) -> Vec<Loss> {
    let (mut bytes, mut days) = (0, 0);
    let mut kept = Vec::new();
    for loss in all {
        bytes += serde_json::to_vec(&loss).map_or(NAMED_BYTES_MAX, |json| json.len());
        days += loss.windows.days().count();
        if kept.len() < LOSSES_MAX && bytes <= NAMED_BYTES_MAX && days <= NAMED_DAYS_MAX {
            kept.push(loss);
        } else {
            let rest = others.get_or_insert_with(|| Loss::others(loss.kind, loss.noticed_us));
            rest.windows.extend(&loss.windows);
        }
    }
    if let Some(rest) = &mut others
        && windows_text::to_text(&rest.windows).len() > NAMED_BYTES_MAX / 4
    {
        let all: Vec<Window> = rest.windows.iter().collect();
        if let (Some(first), Some(last)) = (all.first(), all.last()) {
            rest.windows = WindowSet::range(*first, *last);
        }
    }
    kept.extend(others);
    kept
}

/// What became of a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct LossesChanged {
    /// Losses that were not recorded before.
    pub noted: u64,
    /// Losses that are over.
    pub withdrawn: u64,
    /// Losses that are recorded now.
    pub losses: u64,
}

fn checked(link: &Link<Record>) -> Result<()> {
    let damaged = |what| Error::corrupt(CHAIN.key(link.number), Damage::value("losses", what));
    link.value.check().map_err(damaged)
}

/// What is known to be lost, in the order it was noticed. One LIST, and a GET if there ever was
/// anything.
///
/// # Errors
/// The store's, and [`Error::Corrupt`] for a damaged record: then nobody knows what is lost.
pub async fn losses(store: &TenantStore) -> Result<Vec<Loss>> {
    let Some(link) = CHAIN.last::<Record>(store).await? else {
        return Ok(Vec::new());
    };
    checked(&link)?;
    Ok(link.value.losses)
}

/// Records what was `found`, and takes back of the others those for which `is_over`. Nothing is
/// written when that changes nothing.
///
/// # Errors
/// The store's, [`Error::Corrupt`] for a damaged record, [`Error::Contended`] when others kept
/// taking the next link.
pub async fn change_losses(
    store: &TenantStore,
    found: &[Loss],
    is_over: impl Fn(&Loss) -> bool,
) -> Result<LossesChanged> {
    CHAIN
        .decide(store, |last: Option<&Link<Record>>| {
            last.map_or(Ok(()), checked)?;
            let none = Record::default();
            let known = last.map_or(&none, |link| &link.value);
            let next = known.next(found, &is_over);
            let [before, after] = [known, &next].map(Record::keys);
            let changed = LossesChanged {
                noted: after.difference(&before).count() as u64,
                withdrawn: before.difference(&after).count() as u64,
                losses: after.len() as u64,
            };
            Ok(((next != *known).then_some(next), changed))
        })
        .await
}

/// Records what was `found` beside what is known.
///
/// # Errors
/// As [`change_losses`].
pub async fn note_losses(store: &TenantStore, found: &[Loss]) -> Result<LossesChanged> {
    change_losses(store, found, |_| false).await
}

#[cfg(test)]
mod tests;
