//! Comparison of one tenant in two tiers, by digest, in both directions.

use std::collections::BTreeSet;
use std::fmt;

use futures::{StreamExt, stream};
use serde::{Deserialize, Serialize};
use stele_format::{content_digest, l0};
use stele_model::{Batch, Day, Digest, L0Name};
use stele_store::keys;
use stele_table::{LedgerRow, TableLog, TableState};

use crate::holdings::{Held, Holdings, Need};
use crate::replicate::ReplicateError;

/// Differences kept; more are only counted.
const DIFFERENCES_MAX: usize = 1000;
/// Objects read at once.
const READS: usize = 8;

type Result<T, E = ReplicateError> = std::result::Result<T, E>;

/// Which of the two tiers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Side {
    /// The first.
    First,
    /// The second.
    Second,
}

/// What is wrong with an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Wrong {
    /// It is not there.
    Missing,
    /// It holds other bytes than the log or the pin names.
    Differs {
        /// The digest named.
        expected: Digest,
        /// The digest of its bytes.
        found: Digest,
    },
    /// It is no accepted batch as its name says.
    Damaged,
}

/// One object that is not as it must be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Difference {
    /// Where.
    pub side: Side,
    /// Its key, relative to the tenant.
    pub key: String,
    /// What is wrong.
    pub wrong: Wrong,
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let side = match self.side {
            Side::First => "first",
            Side::Second => "second",
        };
        write!(f, "{} ", self.key)?;
        match self.wrong {
            Wrong::Missing => write!(f, "is missing in the {side} tier"),
            Wrong::Differs { expected, found } => {
                write!(
                    f,
                    "has digest {found} in the {side} tier, expected {expected}"
                )
            }
            Wrong::Damaged => write!(f, "is damaged in the {side} tier"),
        }
    }
}

/// How two logs are related.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Relation {
    /// The same newest entry, or no table on either side.
    Same,
    /// The second goes on where the first ends.
    FirstIsPrefix,
    /// The first goes on where the second ends.
    SecondIsPrefix,
    /// At this version they hold different entries; or the one that is ahead has swept it, and its
    /// ledger does not know what the other consumed last.
    Diverged {
        /// The version.
        version: u64,
    },
}

/// How closely to look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Depth {
    /// Which objects are there, by their names: LISTs alone.
    Names,
    /// Every byte.
    Bytes,
}

/// What a comparison found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Comparison {
    /// The newest version of the first; `None` without a table.
    pub first_version: Option<u64>,
    /// The newest version of the second.
    pub second_version: Option<u64>,
    /// How the logs are related.
    pub relation: Relation,
    /// Objects looked at, on both sides.
    pub objects: u64,
    /// Bytes read.
    pub bytes: u64,
    /// What is not as it must be; the first thousand.
    pub differences: Vec<Difference>,
    /// How many there are.
    pub differences_total: u64,
}

impl Comparison {
    /// Whether both hold the same, to the last object looked at.
    #[must_use]
    pub fn is_equal(&self) -> bool {
        self.relation == Relation::Same && self.differences_total == 0
    }

    fn find(&mut self, side: Side, key: String, wrong: Wrong) {
        self.differences_total += 1;
        if self.differences.len() < DIFFERENCES_MAX {
            let difference = Difference { side, key, wrong };
            self.differences.push(difference);
        }
    }
}

/// Compares what two tiers hold of a tenant: everything live, pinned or not absorbed on either side
/// must be on both. What the side that is ahead has superseded may be missing there. Both may be
/// written meanwhile; what moves shows as a difference, so compare again.
///
/// # Errors
/// The stores' and the tables': a log or a pin that cannot be read cannot be compared.
pub async fn compare(first: &TableLog, second: &TableLog, depth: Depth) -> Result<Comparison> {
    let (a, b) = (Holdings::of(first).await?, Holdings::of(second).await?);
    let version = |held: &Holdings| held.state.exists().then_some(held.state.version);
    let mut found = Comparison {
        first_version: version(&a),
        second_version: version(&b),
        relation: relation(first, &a.state, second, &b.state).await?,
        objects: 0,
        bytes: 0,
        differences: Vec::new(),
        differences_total: 0,
    };
    let relation = found.relation;
    let a_is_behind = relation == Relation::FirstIsPrefix;
    let b_is_behind = relation == Relation::SecondIsPrefix;
    let (one, two) = (Side::First, Side::Second);
    let (mut only_a, mut only_b) = (None, None);
    if depth == Depth::Bytes {
        check((&a, first), first, one, &a, false, depth, &mut found).await?;
        check((&b, second), second, two, &b, false, depth, &mut found).await?;
        // What both name was just read on both.
        (only_a, only_b) = (Some(a.beyond(&b)), Some(b.beyond(&a)));
    }
    let ours = (only_a.as_ref().unwrap_or(&a), first);
    let theirs = (only_b.as_ref().unwrap_or(&b), second);
    check(ours, second, two, &b, a_is_behind, depth, &mut found).await?;
    check(theirs, first, one, &a, b_is_behind, depth, &mut found).await?;
    Ok(found)
}

/// How the logs of two states are related.
pub(crate) async fn relation(
    first: &TableLog,
    a: &TableState,
    second: &TableLog,
    b: &TableState,
) -> Result<Relation> {
    match (a.exists(), b.exists()) {
        (false, false) => return Ok(Relation::Same),
        (false, true) => return Ok(Relation::FirstIsPrefix),
        (true, false) => return Ok(Relation::SecondIsPrefix),
        (true, true) => {}
    }
    let version = a.version.min(b.version);
    let at = async |log: &TableLog, state: &TableState| match state.version == version {
        true => Ok(Some(state.entry_digest)),
        false => {
            let entry = log.store().get_opt(&keys::log_entry(version)).await;
            entry.map(|bytes| bytes.map(|bytes| content_digest(&bytes)))
        }
    };
    let (a_entry, b_entry) = (at(first, a).await?, at(second, b).await?);
    Ok(match (a_entry, b_entry) {
        (Some(a_entry), Some(b_entry)) if a_entry == b_entry => match a.version.cmp(&b.version) {
            std::cmp::Ordering::Equal => Relation::Same,
            std::cmp::Ordering::Less => Relation::FirstIsPrefix,
            std::cmp::Ordering::Greater => Relation::SecondIsPrefix,
        },
        (Some(_), None) if a.version == version && continues(first, a, second, b).await? => {
            Relation::FirstIsPrefix
        }
        (None, Some(_)) if b.version == version && continues(second, b, first, a).await? => {
            Relation::SecondIsPrefix
        }
        _ => Relation::Diverged { version },
    })
}

/// Whether the log `ahead` goes on where `behind` ends, though it has swept the entry that says so:
/// by the ledger. An operation id names one exact list of actions, on one version; so when the last
/// operation that consumed anything is in both, both have the same rows up to it.
pub(crate) async fn continues(
    behind: &TableLog,
    a: &TableState,
    ahead: &TableLog,
    b: &TableState,
) -> Result<bool> {
    if a.meta != b.meta || a.version > b.version {
        return Ok(false);
    }
    let rows = behind.ledger_rows(a).await?;
    let Some(last) = rows.last() else {
        return Ok(false);
    };
    let same = |row: &LedgerRow| {
        (&row.operation, row.version, row.batch) == (&last.operation, last.version, last.batch)
    };
    Ok(ahead.ledger_rows(b).await?.iter().any(same))
}

/// Whether everything that the log `from` holds, `needed`, is at `side`, which holds `there`. `is_ahead`: its log goes on where
/// that of `needed` ends.
pub(crate) async fn check(
    (needed, from): (&Holdings, &TableLog),
    log: &TableLog,
    side: Side,
    there: &Holdings,
    is_ahead: bool,
    depth: Depth,
    found: &mut Comparison,
) -> Result<()> {
    let listed = match depth {
        Depth::Bytes => None,
        Depth::Names => {
            let all = log.store().list("").await?;
            Some(all.into_iter().map(|o| o.key).collect::<BTreeSet<_>>())
        }
    };
    let looks = needed.objects.iter().map(|(key, held)| {
        let listed = &listed;
        async move {
            let looked = match listed {
                Some(listed) => Ok((listed.contains(key).then_some(held.digest), 0)),
                None => digest_of(log, key).await,
            };
            looked.map(|(digest, bytes)| (key, held, digest, bytes))
        }
    });
    let mut looks = stream::iter(looks).buffered(READS);
    while let Some(looked) = looks.next().await {
        let (key, held, digest, bytes) = looked?;
        found.objects += 1;
        found.bytes += bytes;
        match digest {
            Some(digest) if digest == held.digest => {}
            Some(digest) => {
                let (expected, wrong) = (held.digest, digest);
                let wrong = Wrong::Differs {
                    expected,
                    found: wrong,
                };
                found.find(side, key.clone(), wrong);
            }
            None if is_ahead && is_superseded(held, key, there) => {}
            None => found.find(side, key.clone(), Wrong::Missing),
        }
    }
    check_l0((needed, from), log, side, there, found).await
}

/// Whether the log there, which goes on beyond the one that needs it, needs it no more.
fn is_superseded(held: &Held, key: &str, there: &Holdings) -> bool {
    held.need == Need::Newest && !there.objects.contains_key(key)
}

async fn digest_of(log: &TableLog, key: &str) -> Result<(Option<Digest>, u64)> {
    let bytes = log.store().get_opt(key).await?;
    Ok(match bytes {
        None => (None, 0),
        Some(bytes) => (Some(content_digest(&bytes)), bytes.len() as u64),
    })
}

/// Accepted batches are there, or consumed there.
async fn check_l0(
    (needed, from): (&Holdings, &TableLog),
    log: &TableLog,
    side: Side,
    there: &Holdings,
    found: &mut Comparison,
) -> Result<()> {
    for name in &needed.l0 {
        found.objects += 1;
        if there.state.unswept.contains_key(&name.digest) {
            continue;
        }
        let key = format!("{}/{name}", keys::L0);
        match log.store().get_opt(&key).await? {
            Some(bytes) => {
                found.bytes += bytes.len() as u64;
                if !is_whole(name, bytes) {
                    found.find(side, key, Wrong::Damaged);
                }
            }
            None if is_known(from, name, log, &there.state).await? => {}
            None => found.find(side, key, Wrong::Missing),
        }
    }
    Ok(())
}

/// Whether an L0 object decodes, to the batches that its name is the digest of.
fn is_whole(name: &L0Name, bytes: bytes::Bytes) -> bool {
    let named = l0::decode(bytes).and_then(|batches| l0::encode(&batches));
    named.is_ok_and(|encoded| encoded.name == *name)
}

/// Whether every batch of an object, read where it is, was consumed elsewhere.
async fn is_known(
    from: &TableLog,
    name: &L0Name,
    log: &TableLog,
    state: &TableState,
) -> Result<bool> {
    let key = format!("{}/{name}", keys::L0);
    let Some(bytes) = from.store().get_opt(&key).await? else {
        return Ok(false);
    };
    let Ok(batches) = l0::decode(bytes) else {
        return Ok(false);
    };
    let day = |batch: &Batch| Day::of(batch.rows.ts_range_us().map_or(0, |(_, last)| last));
    let asked: Vec<(Digest, Day)> = batches.iter().map(|b| (b.digest, day(b))).collect();
    let known = log.ledger_lookup(state, &asked).await?;
    Ok(asked.iter().all(|(digest, _)| known.contains_key(digest)))
}
