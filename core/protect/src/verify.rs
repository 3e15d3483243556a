//! The order of a verify: the table, its history, its files day by day, its L0.

use std::sync::Arc;

use bytes::Bytes;
use futures::{StreamExt, stream};
use stele_format::l0;
use stele_model::chain;
use stele_store::{ControlStore, ObjectInfo, TenantStore, keys, sealed};
use stele_table::{TableLog, TableState};

use crate::data;
use crate::history;
use crate::pinned;
use crate::report::{Check, Finding, Progress, Stage, VerifyReport};
use crate::text::object_of;

/// Where a verify tells how far it is.
pub(crate) type Tell<'a> = &'a (dyn Fn(Progress) + Sync);

/// Attempts to read the table by heads and by log at one version, while it is being written.
const ATTEMPTS: usize = 5;
/// Small objects read at the same time.
const READS: usize = 16;
const UNSEALED: &str = "its check is not that of its text";
/// Where a tier keeps its tokens.
const TOKENS: &str = "tokens";

/// Reads everything the newest version names and proves what can be proved about it:
///
/// - the state by heads and the state by the log are the same, and every head is its version's;
/// - rows are conserved by every commit still in the log, and by all commits together;
/// - every batch of the ledger is effective exactly once;
/// - every live file and every unabsorbed L0 object holds the bytes and rows it should, and the
///   settings and markers are as they were written;
/// - the rollups of every sealed window are, bit for bit, what its raw samples fold to, while it
///   has them: a day whose raw samples have expired is counted, and no period that has expired
///   holds a file;
/// - every pinned version loads by the log, holds what was recorded when it was pinned, and each of
///   its files and ledger objects holds the bytes and rows it should.
///
/// Holds one day's files and one month's 60 min files in memory. Compaction may run meanwhile: a
/// file superseded since is kept for the history.
pub async fn verify(
    store: &TenantStore,
    log: &TableLog,
    progress: &(dyn Fn(Progress) + Sync),
) -> VerifyReport {
    let mut report = VerifyReport::default();
    let listed = store.l0_list().await;
    let state = load(log, &mut report).await;
    if let Some(state) = &state {
        report.version = Some(state.version);
        history::check_entries(store, log, state, &mut report, progress).await;
        history::check_totals(state, &mut report);
        history::check_ledger(log, state, &mut report).await;
        data::check_files(store, state, &mut report, progress).await;
    }
    pinned::check_pins(log, state.as_deref(), &mut report, progress).await;
    for prefix in [keys::CONTROL, keys::IDEM] {
        check_sealed(store, prefix, &mut report).await;
    }
    let listed = match listed {
        Ok(listed) => listed,
        Err(error) => {
            report.find(Check::Objects, keys::L0, chain(&error));
            return report;
        }
    };
    let unswept = |digest| {
        state
            .as_ref()
            .is_some_and(|s| s.unswept.contains_key(&digest))
    };
    let objects: Vec<_> = listed
        .into_iter()
        .filter(|o| !unswept(o.name.digest))
        .collect();
    for (done, object) in (0..).zip(&objects) {
        progress(Progress {
            stage: Stage::Objects,
            done,
            total: objects.len() as u64,
        });
        report.objects += 1;
        let found = match store.l0_get(&object.name).await {
            // Absorbed and swept since the LIST: not ours to judge.
            Err(stele_store::Error::NotFound { .. }) => Ok(()),
            Err(error) => Err(chain(&error)),
            Ok(bytes) => l0::decode(bytes).map(drop).map_err(|error| chain(&error)),
        };
        if let Err(what) = found {
            report.find(
                Check::Objects,
                format!("{}/{}", keys::L0, object.name),
                what,
            );
        }
    }
    report
}

/// What is wrong with the objects that a tier keeps for all its tenants: its tokens.
pub async fn verify_control(control: &ControlStore) -> Vec<Finding> {
    let finding = |object: &str, what: &str| Finding {
        check: Check::Objects,
        object: format!("{}/{object}", keys::CONTROL),
        what: what.to_owned(),
    };
    let listed = match control.list(TOKENS).await {
        Ok(listed) => listed,
        Err(error) => return vec![finding(TOKENS, &chain(&error))],
    };
    let read = async |key: &str| control.get_opt(key).await;
    let damaged = unsealed(listed, read, Some("was listed and is gone")).await;
    let damaged = damaged.into_iter();
    damaged.map(|(key, what)| finding(&key, &what)).collect()
}

/// Settings and markers, which carry digests of themselves.
async fn check_sealed(store: &TenantStore, prefix: &str, report: &mut VerifyReport) {
    let listed = match store.list(prefix).await {
        Ok(listed) => listed,
        Err(error) => return report.find(Check::Objects, prefix, chain(&error)),
    };
    // Markers are swept.
    let read = async |key: &str| store.get_opt(key).await;
    for (key, what) in unsealed(listed, read, None).await {
        report.find(Check::Objects, key, what);
    }
}

/// What is wrong with listed objects that carry digests of themselves, by key; `gone` is what to
/// say of one that is not there any more, if anything.
async fn unsealed(
    listed: Vec<ObjectInfo>,
    read: impl AsyncFn(&str) -> stele_store::Result<Option<Bytes>>,
    gone: Option<&str>,
) -> Vec<(String, String)> {
    let reads = listed.into_iter().map(|object| async {
        let bytes = read(&object.key).await;
        (object.key, bytes)
    });
    let wrong = |(key, bytes): (String, stele_store::Result<Option<Bytes>>)| {
        let what = match bytes {
            Ok(Some(bytes)) if sealed::unseal(&bytes).is_some() => None,
            Ok(Some(_)) => Some(UNSEALED.to_owned()),
            Ok(None) => gone.map(str::to_owned),
            Err(error) => Some(chain(&error)),
        };
        std::future::ready(what.map(|what| (key, what)))
    };
    let reads = stream::iter(reads).buffered(READS);
    reads.filter_map(wrong).collect().await
}

/// The newest state, read by heads and by the log alone; both must agree.
async fn load(log: &TableLog, report: &mut VerifyReport) -> Option<Arc<TableState>> {
    for _ in 0..ATTEMPTS {
        let by_heads = log.load().await;
        let by_log = match log.load_from_log().await {
            Ok(by_log) => by_log,
            Err(error) => {
                report.find(Check::Table, object_of(&error, keys::LOG), chain(&error));
                return by_heads.ok().flatten();
            }
        };
        let by_heads = match by_heads {
            Ok(by_heads) => by_heads,
            Err(error) => {
                report.find(Check::Heads, object_of(&error, keys::HEADS), chain(&error));
                return by_log;
            }
        };
        let version = |state: &Option<Arc<TableState>>| state.as_ref().map(|s| s.version);
        if version(&by_heads) != version(&by_log) {
            continue; // Committed between the two.
        }
        if let (Some(by_heads), Some(by_log)) = (&by_heads, &by_log) {
            compare(by_heads, by_log, report);
        }
        return by_log;
    }
    report.find(
        Check::Table,
        keys::LOG,
        format!("the table moved between two reads {ATTEMPTS} times"),
    );
    None
}

fn compare(by_heads: &TableState, by_log: &TableState, report: &mut VerifyReport) {
    let differing = [
        ("files", by_heads.files != by_log.files),
        ("consumed objects", by_heads.unswept != by_log.unswept),
        ("ledger", by_heads.ledger != by_log.ledger),
        ("totals", by_heads.totals != by_log.totals),
        ("removed files", by_heads.removed != by_log.removed),
        ("entry", by_heads.entry_digest != by_log.entry_digest),
        ("metadata", by_heads.meta != by_log.meta),
        ("revoked versions", by_heads.revoked != by_log.revoked),
        ("expired periods", by_heads.expired != by_log.expired),
    ];
    for (what, _) in differing.into_iter().filter(|(_, differs)| *differs) {
        let head = keys::head(by_log.version);
        report.find(Check::Heads, head, format!("{what} differ from the log's"));
    }
}
