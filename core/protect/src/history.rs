//! The history: entries of the log, heads, and the ledger.

use std::collections::BTreeMap;

use stele_model::{Digest, RowsHash, chain};
use stele_store::{TenantStore, keys};
use stele_table::{Error, Ledger, LedgerRow, LogEntry, LogIndex, TableLog, TableState};

use crate::report::{Check, Progress, Stage, VerifyReport};
use crate::text::object_of;
use crate::verify::Tell;

/// Rows and hash of sample files by path, as entries added them.
type Samples = BTreeMap<String, (u64, RowsHash)>;

/// Every entry since the last sweep, in order and without a gap; and every head.
pub(crate) async fn check_entries(
    store: &TenantStore,
    log: &TableLog,
    state: &TableState,
    report: &mut VerifyReport,
    tell: Tell<'_>,
) {
    let listed = match store.list(keys::LOG).await {
        Ok(listed) => listed,
        Err(error) => return report.find(Check::Conservation, keys::LOG, chain(&error)),
    };
    let index = LogIndex::new(&listed, log.options().history_us);
    report.ghosts += index.ghosts().count() as u64;
    let Some(first) = first_to_check(&index, log.now_us()) else {
        return report.find(Check::Conservation, keys::LOG, "holds no entry");
    };
    let mut samples = Samples::new();
    for version in first..=state.version {
        tell(Progress {
            stage: Stage::History,
            done: version - first,
            total: state.version - first + 1,
        });
        report.entries += 1;
        let key = keys::log_entry(version);
        match log.entry(version).await {
            Ok(Some(entry)) => check_entry(&entry, &key, &mut samples, report),
            Ok(None) => report.find(Check::Conservation, key, "is missing"),
            Err(error) => report.find(Check::Conservation, key, chain(&error)),
        }
    }
    let newest = listed
        .iter()
        .filter_map(|o| keys::checkpoint_version(&o.key));
    if let Some(newest) = newest.max() {
        check_checkpoint(log, newest, report).await;
    }
    check_heads(store, log, first, state.version, report).await;
}

/// The first version from which on every entry must be there. Sweep leaves gaps before the newest
/// checkpoint that is older than the history: below one, there is what pins keep, which is
/// checked with them, and what they kept until they were dropped. Any other gap is a loss. Ghosts,
/// which a writer re-created that slept through the sweep of their version, are read by nobody.
///
/// In a copy from another tier nothing is older than the history yet: there, what pins keep was
/// stored after the checkpoint above it, and in no log that was written in order is it so.
fn first_to_check(index: &LogIndex, now_us: i64) -> Option<u64> {
    let old = index.at(now_us.saturating_sub(index.history_us()));
    let swept_below = old.and_then(|old| index.bases(old).first().copied());
    let mut entries = index.entries().rev().map(|(version, _)| version);
    let mut first = entries.next()?;
    for version in entries {
        let is_gap = version + 1 < first;
        let is_swept = swept_below.is_some_and(|below| first <= below);
        if is_gap && (is_swept || is_copied(index, version, first)) {
            break;
        }
        first = version;
    }
    Some(first)
}

/// Whether the entry below a gap is no older than a checkpoint that the entries above lead to.
fn is_copied(index: &LogIndex, below: u64, above: u64) -> bool {
    let stored_us = index.stored_us(below);
    let mut bases = index.checkpoints().filter(|base| *base >= above);
    bases.any(|base| index.has_all(above, base) && stored_us >= index.stored_us(base))
}

/// The newest checkpoint must load: without it a table whose old entries are swept does not. The
/// hint may be at an older one, while a newer is being written.
async fn check_checkpoint(log: &TableLog, newest: u64, report: &mut VerifyReport) {
    for checked in [
        log.check_checkpoint(newest).await,
        log.hinted_version().await.map(drop),
    ] {
        match checked {
            Ok(()) => {}
            Err(Error::Corrupt { key, damage }) => {
                let what = format!("cannot be loaded: {}", chain(&damage));
                report.find(Check::Table, key, what);
            }
            Err(error) => {
                let key = keys::checkpoint(newest);
                report.find(Check::Table, key, chain(&error));
            }
        }
    }
}

/// Whether the commit's own account adds up, and is that of the files it names.
fn check_entry(entry: &LogEntry, key: &str, samples: &mut Samples, report: &mut VerifyReport) {
    let claim = entry.conservation();
    if entry.restored().is_some() {
        // Its sums are checked wherever it is applied; from here on, its files are known.
        for path in &entry.remove {
            samples.remove(path);
        }
        let added = entry.add.iter().filter(|file| file.kind.holds_samples());
        let sums = added.map(|f| (f.path.clone(), (f.stats.rows, f.stats.rows_hash)));
        samples.extend(sums);
        return;
    }
    if let Err(refusal) = claim.check() {
        report.find(Check::Conservation, key, refusal);
    }
    let mut rows_in = entry.consumed().rows;
    let mut hash_in = entry.consumed().hash;
    let mut all_known = true;
    for path in &entry.remove {
        let is_sample = path.starts_with("resolution=open/") || path.starts_with("resolution=raw/");
        match samples.remove(path) {
            Some((rows, hash)) => {
                rows_in += rows;
                hash_in = hash_in.union(hash);
            }
            // Added by an entry that has been swept.
            None => all_known &= !is_sample,
        }
    }
    if all_known && (rows_in, hash_in) != (claim.rows_in, claim.hash_in) {
        let what = format!("claims {} rows in, names {rows_in}", claim.rows_in);
        report.find(Check::Conservation, key, what);
    }
    let (mut rows_out, mut hash_out) = (0, RowsHash::default());
    for file in entry.add.iter().filter(|file| file.kind.holds_samples()) {
        rows_out += file.stats.rows;
        hash_out = hash_out.union(file.stats.rows_hash);
        samples.insert(file.path.clone(), (file.stats.rows, file.stats.rows_hash));
    }
    if (rows_out, hash_out) != (claim.rows_out, claim.hash_out) {
        let what = format!("claims {} rows out, names {rows_out}", claim.rows_out);
        report.find(Check::Conservation, key, what);
    }
}

/// Every head whose entry still exists must name that very entry. A head is written after its
/// entry, so one above the `newest` version that was read, and without an entry, means a loss.
async fn check_heads(
    store: &TenantStore,
    log: &TableLog,
    first: u64,
    newest: u64,
    report: &mut VerifyReport,
) {
    let listed = match store.list(keys::HEADS).await {
        Ok(listed) => listed,
        Err(error) => return report.find(Check::Heads, keys::HEADS, chain(&error)),
    };
    for object in listed {
        let Some(version) = keys::head_version(&object.key) else {
            report.find(Check::Heads, object.key, "is not the name of a head");
            continue;
        };
        if version < first {
            continue;
        }
        report.heads += 1;
        match log.head(version).await {
            Ok(None) if version > newest => {
                if let Ok(None) = log.entry(version).await {
                    let what = "is missing, but its head is there";
                    report.find(Check::Conservation, keys::log_entry(version), what);
                }
            }
            Ok(_) => {}
            Err(error) => report.find(Check::Heads, object.key, chain(&error)),
        }
    }
}

/// All commits together: what was consumed, without what was dropped, is what is live.
pub(crate) fn check_totals(state: &TableState, report: &mut VerifyReport) {
    let (mut rows, mut hash) = (0u64, RowsHash::default());
    for file in state
        .files
        .values()
        .filter(|file| file.kind.holds_samples())
    {
        rows += file.stats.rows;
        hash = hash.union(file.stats.rows_hash);
    }
    report.sample_rows = rows;
    let totals = &state.totals;
    let dropped = totals.duplicates + totals.overridden + totals.expired;
    if rows + dropped != totals.rows {
        let what = format!(
            "{} rows were consumed and {dropped} dropped, but {rows} are live",
            totals.rows
        );
        report.find(Check::Conservation, keys::LOG, what);
    }
    if hash.union(totals.hash_dropped) != totals.hash {
        let what = "the hash of the live rows is not that of the consumed ones without the dropped";
        report.find(Check::Conservation, keys::LOG, what);
    }
}

/// Single consumption over the whole ledger.
pub(crate) async fn check_ledger(log: &TableLog, state: &TableState, report: &mut VerifyReport) {
    let Ledger { rows, conflicts } = match log.ledger(state).await {
        Ok(ledger) => ledger,
        Err(error) => {
            let object = object_of(&error, keys::LEDGER);
            return report.find(Check::Consumption, object, chain(&error));
        }
    };
    report.batches = rows.len() as u64;
    let listed: u64 = conflicts.iter().map(|conflict| conflict.overridden).sum();
    if listed != state.totals.overridden {
        let what = format!(
            "it lists {listed} overridden samples, the log {}",
            state.totals.overridden
        );
        report.find(Check::Consumption, keys::LEDGER, what);
    }
    let mut effective: BTreeMap<Digest, &LedgerRow> = BTreeMap::new();
    let (mut count, mut hash) = (0u64, RowsHash::default());
    for row in rows.iter().filter(|row| row.is_effective()) {
        count += row.rows;
        hash = hash.union(row.hash);
        if let Some(other) = effective.insert(row.batch, row) {
            let what = format!(
                "batch {} is effective in {} and in {}",
                row.batch, other.operation, row.operation
            );
            report.find(Check::Consumption, keys::LEDGER, what);
        }
    }
    let duplicates = rows.iter();
    let duplicates = duplicates.filter(|row| row.duplicate_of.is_some() && !row.revoked);
    for row in duplicates {
        let origin = effective.get(&row.batch).map(|row| &row.operation);
        if origin != row.duplicate_of.as_ref() {
            let what = format!(
                "batch {} of {} is a duplicate of {:?}, but effective in {origin:?}",
                row.batch, row.operation, row.duplicate_of
            );
            report.find(Check::Consumption, keys::LEDGER, what);
        }
    }
    if (count, hash) != (state.totals.rows, state.totals.hash) {
        let what = format!(
            "its batches have {count} rows, the log consumed {}",
            state.totals.rows
        );
        report.find(Check::Consumption, keys::LEDGER, what);
    }
}
