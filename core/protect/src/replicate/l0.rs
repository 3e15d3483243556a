//! Accepted batches that one side has and the other neither holds nor has consumed.

use std::collections::BTreeSet;

use futures::{StreamExt, TryStreamExt, stream};
use stele_format::{content_digest, l0};
use stele_model::{Batch, Day, Digest, L0Name};
use stele_store::{L0Object, Put, keys};
use stele_table::{TableLog, TableState, View};

use super::{ReplicateError, Result};

/// Objects copied at once.
const COPIES: usize = 8;

/// What copying L0 objects did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct L0Report {
    /// Objects listed.
    pub listed: u64,
    /// Of them, those that the other side held or had consumed by name.
    pub there: u64,
    /// Objects whose every batch the other side's ledger knew under another name.
    pub known: u64,
    /// Objects that were swept while this ran: the side they came from has consumed them.
    pub swept: u64,
    /// Objects copied.
    pub copied: u64,
    /// Their bytes.
    pub copied_bytes: u64,
}

enum One {
    Known,
    Swept,
    Copied(u64),
}

/// Copies the L0 objects at `from` that `to` neither holds nor has consumed. Each is decoded before
/// it is put. One that `from` has consumed, and sweeps meanwhile, comes with the log.
///
/// Called in both directions, it makes the union.
///
/// # Errors
/// [`ReplicateError::L0`] for an object that is damaged (the others are copied);
/// [`ReplicateError::Other`] when `to` holds other bytes under a name; else the stores' and the
/// table's.
pub async fn copy_l0(from: &TableLog, to: &TableLog) -> Result<L0Report> {
    union(from, to, false).await
}

/// Copies the L0 objects at `mirror` that `primary` lacks, as [`copy_l0`] does; also those of which
/// the primary knows every batch under another name, such as one that only the mirror got. Sweep
/// deletes what a log has consumed by its name, and the primary's log alone consumes anything: what
/// is not brought there stays at the mirror for ever.
///
/// # Errors
/// As there.
pub async fn return_l0(mirror: &TableLog, primary: &TableLog) -> Result<L0Report> {
    union(mirror, primary, true).await
}

async fn union(from: &TableLog, to: &TableLog, with_known: bool) -> Result<L0Report> {
    let listed = from.store().l0_list().await?;
    let mut report = L0Report {
        listed: listed.len() as u64,
        ..L0Report::default()
    };
    if listed.is_empty() {
        return Ok(report);
    }
    // The LIST before the log: what is then in neither is missing there.
    let held = to.store().l0_list().await?;
    let held: BTreeSet<L0Name> = held.into_iter().map(|object| object.name).collect();
    let state = View::read_cached(to).await?.state;
    let consumed = |object: &L0Object| state.unswept.contains_key(&object.name.digest);
    let missing = listed.into_iter();
    let missing = missing.filter(|object| !held.contains(&object.name) && !consumed(object));
    let missing: Vec<L0Object> = missing.collect();
    report.there = report.listed - missing.len() as u64;
    let copies = missing
        .into_iter()
        .map(|object| copy(from, to, &state, object, with_known));
    let mut copies = stream::iter(copies).buffer_unordered(COPIES);
    let mut damaged = None;
    loop {
        match copies.try_next().await {
            Ok(None) => break,
            Ok(Some(One::Known)) => report.known += 1,
            Ok(Some(One::Swept)) => report.swept += 1,
            Ok(Some(One::Copied(bytes))) => {
                report.copied += 1;
                report.copied_bytes += bytes;
            }
            Err(error @ (ReplicateError::L0 { .. } | ReplicateError::Misnamed { .. })) => {
                damaged = damaged.or(Some(error));
            }
            Err(error) => return Err(error),
        }
    }
    damaged.map_or(Ok(report), Err)
}

async fn copy(
    from: &TableLog,
    to: &TableLog,
    state: &TableState,
    object: L0Object,
    with_known: bool,
) -> Result<One> {
    let key = format!("{}/{}", keys::L0, object.name);
    let Some(bytes) = from.store().get_opt(&key).await? else {
        return Ok(One::Swept);
    };
    let damaged = |source| ReplicateError::L0 {
        key: key.clone(),
        source: Box::new(source),
    };
    let batches = l0::decode(bytes.clone()).map_err(damaged)?;
    // The name is a function of the batches.
    let encoded = l0::encode(&batches).map_err(damaged)?;
    if encoded.name != object.name {
        return Err(ReplicateError::Misnamed {
            key,
            name: encoded.name,
        });
    }
    if !with_known {
        let asked: Vec<(Digest, Day)> = batches.iter().map(|b| (b.digest, day_of(b))).collect();
        let known = to.ledger_lookup(state, &asked).await?;
        if asked.iter().all(|(digest, _)| known.contains_key(digest)) {
            return Ok(One::Known);
        }
    }
    let size_bytes = bytes.len() as u64;
    match to.store().put_new(&key, bytes.clone()).await? {
        Put::Created | Put::Same => Ok(One::Copied(size_bytes)),
        // Another encoder wrote the same batches meanwhile; anything else is no such object.
        Put::Other(found) => match l0::decode(found.clone()) {
            Ok(theirs)
                if theirs
                    .iter()
                    .map(|b| b.digest)
                    .eq(batches.iter().map(|b| b.digest)) =>
            {
                Ok(One::Known)
            }
            _ => Err(ReplicateError::Other {
                key,
                source_digest: content_digest(&bytes),
                target_digest: content_digest(&found),
            }),
        },
    }
}

/// The day of a batch's greatest timestamp: where the ledger files it.
fn day_of(batch: &Batch) -> Day {
    Day::of(batch.rows.ts_range_us().map_or(0, |(_, last)| last))
}
