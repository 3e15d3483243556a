//! Bringing the record of what is lost to what is: after a verify, after a restore in place, and on
//! a mirror.
//!
//! An error of the store is no loss: what does not answer is neither recorded nor taken back.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::Arc;

use futures::{StreamExt, stream};
use stele_format::{SampleOrRollup, check_file, l0};
use stele_model::{Day, Digest, L0Name, Window, WindowSet};
use stele_store::{TenantStore, keys};
use stele_table::{
    FileEntry, LedgerRow, Loss, LossKind, LossesChanged, LostObject, Result, TableLog, TableState,
    change_losses, losses,
};

use crate::report::VerifyReport;

/// Objects read at once; each is held in memory whole.
const READS: usize = 4;

/// What a second look at an object says.
enum Look {
    Whole,
    Lost(Loss),
    /// It is not there, which is no loss by itself.
    Absent,
    /// The store did not answer.
    Unknown,
}

/// Brings the record of losses of this store to what `report` found: each object that it names is
/// looked at again, and so is each that is recorded as lost. What is whole again, or not live any
/// more, is taken back. Nothing else is written.
///
/// # Errors
/// The table's and the store's; [`stele_table::Error::Corrupt`] for a damaged record.
pub async fn record_losses(
    log: &TableLog,
    report: &VerifyReport,
    now_us: i64,
) -> Result<LossesChanged> {
    let known = losses(log.store()).await?;
    let state = log.load().await?.unwrap_or_default();
    let mut found = Vec::new();
    let mut over: HashSet<LostObject> = HashSet::new();
    look_at_files(
        log.store(),
        &state,
        (&known, report),
        now_us,
        |object, look| match look {
            Look::Lost(loss) => found.push(loss),
            Look::Whole | Look::Absent => over.extend([object]),
            Look::Unknown => {}
        },
    )
    .await;
    let mut absent = Vec::new();
    for name in batches_of(&known, report) {
        match look_at_batch(log.store(), name, now_us).await {
            Look::Lost(loss) => found.push(loss),
            Look::Whole => over.extend([LostObject::L0(name)]),
            Look::Absent => absent.push(name),
            Look::Unknown => {}
        }
    }
    // One that is gone was absorbed after all, or is lost for good.
    if !absent.is_empty() {
        let rows = log.ledger_rows(&state).await?;
        let taken = rows.iter().filter(|row| !row.revoked).map(|row| row.object);
        let taken: HashSet<L0Name> = taken.collect();
        absent.retain(|name| taken.contains(name));
        over.extend(absent.into_iter().map(LostObject::L0));
    }
    found.extend(lost_batches(log, &state, now_us).await?);
    let is_judged = is_of_restores(&state);
    let is_over = |loss: &Loss| match &loss.object {
        LostObject::Restore { .. } => is_judged(loss),
        // All that is lost was just found.
        LostObject::Others => true,
        object => over.contains(object),
    };
    change_losses(log.store(), &found, is_over).await
}

/// Looks at every file that a verify named or that is recorded as lost.
async fn look_at_files(
    store: &TenantStore,
    state: &TableState,
    (known, report): (&[Loss], &VerifyReport),
    now_us: i64,
    mut tell: impl FnMut(LostObject, Look),
) {
    let table = keys::data_file("");
    let named = report.suspects.iter();
    let named = named.filter_map(|key| key.strip_prefix(table.as_str()));
    let recorded = known.iter().filter_map(|loss| match &loss.object {
        LostObject::File(path) => Some(path.as_str()),
        _ => None,
    });
    let recorded: BTreeSet<&str> = recorded.collect();
    let (mut live, mut left) = (Vec::new(), Vec::new());
    for path in named
        .chain(recorded.iter().copied())
        .collect::<BTreeSet<_>>()
    {
        match state.files.get(path) {
            Some(file) => live.push(Arc::clone(file)),
            None => left.push(path),
        }
    }
    for path in left {
        tell(LostObject::File(path.to_owned()), Look::Absent);
    }
    let looks = live.into_iter().map(|file| async move {
        let look = look_at_file(store, &file, now_us).await;
        (LostObject::File(file.path.clone()), look)
    });
    let mut looks = stream::iter(looks).buffered(READS);
    while let Some((object, look)) = looks.next().await {
        tell(object, look);
    }
}

async fn look_at_file(store: &TenantStore, file: &FileEntry, now_us: i64) -> Look {
    let lost = |kind| Look::Lost(Loss::of_file(kind, file, now_us));
    let rows = match file.kind.holds_samples() {
        true => SampleOrRollup::Sample,
        false => SampleOrRollup::Rollup,
    };
    match store.get_opt(&keys::data_file(&file.path)).await {
        Err(_) => Look::Unknown,
        Ok(None) => lost(LossKind::FileMissing),
        Ok(Some(bytes)) => match check_file(&bytes, &file.stats, rows) {
            Ok(()) => Look::Whole,
            Err(_) => lost(LossKind::FileDamaged),
        },
    }
}

/// The L0 objects that a verify named or that are recorded as lost.
fn batches_of(known: &[Loss], report: &VerifyReport) -> BTreeSet<L0Name> {
    let named = report.suspects.iter().filter_map(|key| {
        let name = key.strip_prefix(keys::L0)?.strip_prefix('/')?;
        name.parse().ok()
    });
    let recorded = known.iter().filter_map(|loss| match &loss.object {
        LostObject::L0(name) => Some(*name),
        _ => None,
    });
    named.chain(recorded).collect()
}

async fn look_at_batch(store: &TenantStore, name: L0Name, now_us: i64) -> Look {
    match store.l0_get(&name).await {
        Err(stele_store::Error::NotFound { .. }) => Look::Absent,
        Err(_) => Look::Unknown,
        Ok(bytes) => match l0::decode(bytes) {
            Ok(_) => Look::Whole,
            Err(_) => Look::Lost(Loss::of_l0(name, now_us)),
        },
    }
}

/// Whether a loss is of a restore in place that `state` knows of, or had and gave up: then
/// [`lost_batches`] of it says whether it is over.
pub(crate) fn is_of_restores(state: &TableState) -> impl Fn(&Loss) -> bool + use<> {
    let newest = state.version;
    move |loss| match loss.object {
        LostObject::Restore { version, .. } => version <= newest,
        _ => false,
    }
}

/// The batches that restores in place took back and that are nowhere else: neither in the table by
/// another row of the ledger, nor in L0. One loss for each restore and run of windows.
pub(crate) async fn lost_batches(
    log: &TableLog,
    state: &TableState,
    now_us: i64,
) -> Result<Vec<Loss>> {
    if state.revoked.is_empty() {
        return Ok(Vec::new());
    }
    // After the newest version was loaded: what is missing here was consumed, and is gone.
    let objects: HashSet<L0Name> = {
        let listed = log.store().l0_list().await?;
        listed.iter().map(|object| object.name).collect()
    };
    let rows = log.ledger_rows(state).await?;
    let there = |row: &&LedgerRow| row.is_effective() || objects.contains(&row.object);
    let there: HashSet<Digest> = rows.iter().filter(there).map(|row| row.batch).collect();
    let mut lost: BTreeMap<Digest, &LedgerRow> = BTreeMap::new();
    for row in rows
        .iter()
        .filter(|row| row.revoked && !there.contains(&row.batch))
    {
        lost.entry(row.batch).or_insert(row);
    }
    if !lost.is_empty() {
        // Sent again, one may lie in an object of another name.
        let waiting = objects.iter();
        let waiting = waiting.filter(|name| !state.unswept.contains_key(&name.digest));
        for name in waiting {
            match log.store().l0_get(name).await {
                Ok(bytes) => {
                    let batches = l0::decode(bytes).unwrap_or_default();
                    for batch in batches {
                        lost.remove(&batch.digest);
                    }
                }
                Err(stele_store::Error::NotFound { .. }) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
    Ok(by_restore(state, lost.into_values(), now_us))
}

fn by_restore<'a>(
    state: &TableState,
    lost: impl Iterator<Item = &'a LedgerRow>,
    now_us: i64,
) -> Vec<Loss> {
    let mut groups: BTreeMap<(u64, Window, Window), (u64, u64)> = BTreeMap::new();
    for row in lost {
        let mut ranges = state.revoked.iter();
        let range = ranges.find(|range| range.after < row.version && row.version < range.before);
        let Some(range) = range else { continue };
        // The object's windows as far as the batch may reach.
        let last = row.object.last.min(last_of(row.day)).max(row.object.first);
        let group = groups.entry((range.before, row.object.first, last));
        let (batches, rows) = group.or_default();
        *batches += 1;
        *rows = rows.saturating_add(row.rows);
    }
    let losses = groups.into_iter();
    let losses = losses.map(|((version, first, last), (batches, rows))| Loss {
        kind: LossKind::BatchRevoked,
        object: LostObject::Restore { version, batches },
        windows: WindowSet::range(first, last),
        metrics: None,
        rows: Some(rows),
        noticed_us: now_us,
    });
    losses.collect()
}

fn last_of(day: Day) -> Window {
    Window::of(day.end_us() - 1)
}

/// Brings what restores in place have lost from the primary's record to a mirror's: the table is
/// the same on both. What the stores themselves have lost stays where it is.
///
/// # Errors
/// The stores', and [`stele_table::Error::Corrupt`] for a damaged record.
pub(crate) async fn copy_lost_batches(from: &TenantStore, to: &TenantStore) -> Result<()> {
    let is_batch = |loss: &Loss| matches!(loss.object, LostObject::Restore { .. });
    let mut found = losses(from).await?;
    found.retain(is_batch);
    change_losses(to, &found, is_batch).await.map(drop)
}
