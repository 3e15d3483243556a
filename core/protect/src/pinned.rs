//! Snapshots: every pin loads, holds what it held when it was taken, and has all its objects.

use std::collections::BTreeMap;
use std::sync::Arc;

use stele_format::{SampleOrRollup, check_file, content_digest};
use stele_model::chain;
use stele_store::{TenantStore, keys};
use stele_table::{
    FileEntry, LedgerObject, LogIndex, PinName, PinState, Pins, StoredPin, TableLog, TableState,
    Verdict,
};

use crate::report::{Check, Progress, Stage, VerifyReport};
use crate::verify::Tell;

/// What pins need, each with the names of the pins that need it.
#[derive(Default)]
struct Needed {
    files: BTreeMap<String, (Arc<FileEntry>, Vec<PinName>)>,
    ledger: BTreeMap<String, (LedgerObject, Vec<PinName>)>,
}

/// Checks one snapshot, every object of it included.
///
/// # Errors
/// [`stele_table::Error::NoSnapshot`]; everything else is a finding.
pub async fn verify_snapshot(
    log: &TableLog,
    name: &PinName,
    progress: &(dyn Fn(Progress) + Sync),
) -> stele_table::Result<VerifyReport> {
    let mut report = VerifyReport::default();
    let Some(stored) = Pins::read_one(log.store(), name).await? else {
        return Err(log.no_snapshot(name).await?);
    };
    report.version = stored.pin.as_ref().ok().map(|pin| pin.version);
    let index = log.index().await?;
    let mut needed = Needed::default();
    check_pin(log, &index, &stored, &mut needed, &mut report).await;
    check_needed(log.store(), &needed, &mut report, progress).await;
    Ok(report)
}

/// Checks all snapshots. Files that are `live` have been read.
pub(crate) async fn check_pins(
    log: &TableLog,
    live: Option<&TableState>,
    report: &mut VerifyReport,
    tell: Tell<'_>,
) {
    let read = async {
        // In this order: a pin is judged by a LIST that is younger than itself.
        let pins = Pins::read(log.store()).await?;
        Ok::<_, stele_table::Error>((pins, log.index().await?))
    };
    let (pins, index) = match read.await {
        Ok(read) => read,
        Err(error) => return report.find(Check::Snapshots, keys::PINS, chain(&error)),
    };
    for key in pins.foreign {
        report.find(Check::Snapshots, key, "is not the name of a snapshot");
    }
    let mut needed = Needed::default();
    for stored in pins.pins.values() {
        check_pin(log, &index, stored, &mut needed, report).await;
    }
    if let Some(live) = live {
        let is_live = |path: &String, file: &FileEntry| {
            let live = live.files.get(path);
            live.is_some_and(|live| live.as_ref() == file)
        };
        needed.files.retain(|path, (file, _)| !is_live(path, file));
    }
    check_needed(log.store(), &needed, report, tell).await;
}

/// Whether a pin still promises anything.
fn promises(log: &TableLog, index: &LogIndex, stored: &StoredPin) -> bool {
    let history_us = log.options().history_us;
    let never = |version| index.judge(version, stored.stored_us) == Verdict::Never;
    match stored.state(history_us) {
        PinState::Withdrawn => false,
        PinState::Dropped { until_us } => log.now_us() < until_us,
        PinState::Live => !stored.pin.as_ref().is_ok_and(|pin| never(pin.version)),
        PinState::Damaged => true,
    }
}

async fn check_pin(
    log: &TableLog,
    index: &LogIndex,
    stored: &StoredPin,
    needed: &mut Needed,
    report: &mut VerifyReport,
) {
    if !promises(log, index, stored) {
        return;
    }
    report.snapshots += 1;
    let key = stored.name.key();
    if let Some(Err(damage)) = stored.mark.as_ref().map(|mark| &mark.mark) {
        report.find(Check::Snapshots, stored.name.mark_key(), chain(damage));
    }
    let pin = match &stored.pin {
        Ok(pin) => pin,
        Err(damage) => return report.find(Check::Snapshots, key, chain(damage)),
    };
    let reach = match log.reach(index, pin.version).await {
        Ok(reach) => reach,
        Err(error) => {
            let what = format!(
                "version {} cannot be loaded: {}",
                pin.version,
                chain(&error)
            );
            return report.find(Check::Snapshots, key, what);
        }
    };
    if let Err(damage) = pin.check(&reach.state) {
        report.find(Check::Snapshots, key, chain(&damage));
    }
    for (path, file) in &reach.state.files {
        let slot = needed.files.entry(path.clone());
        let (known, names) = slot.or_insert_with(|| (Arc::clone(file), Vec::new()));
        if known != file {
            let what = format!("{path} is another file than in an earlier snapshot");
            report.find(Check::Snapshots, stored.name.key(), what);
        }
        names.push(stored.name.clone());
    }
    for (key, object) in reach.ledger {
        let slot = needed.ledger.entry(key);
        let (_, names) = slot.or_insert_with(|| (object, Vec::new()));
        names.push(stored.name.clone());
    }
}

/// Reads every file and ledger object that pins need.
async fn check_needed(
    store: &TenantStore,
    needed: &Needed,
    report: &mut VerifyReport,
    tell: Tell<'_>,
) {
    let total = needed.files.len() as u64;
    for (done, (path, (file, names))) in (0..).zip(&needed.files) {
        tell(Progress {
            stage: Stage::Snapshots,
            done,
            total,
        });
        let key = keys::data_file(path);
        match read_file(store, &key, file).await {
            Ok(bytes) => {
                report.snapshot_files += 1;
                report.snapshot_files_bytes += bytes;
            }
            Err(what) => report.find(Check::Snapshots, key, of_snapshots(names, &what)),
        }
        tokio::task::yield_now().await;
    }
    for (key, (object, names)) in &needed.ledger {
        let found = match store.get(key).await {
            Err(error) => Err(chain(&error)),
            Ok(bytes) if content_digest(&bytes) != object.digest => {
                Err("its bytes are not the ones the log names".to_owned())
            }
            Ok(_) => Ok(()),
        };
        if let Err(what) = found {
            report.find(Check::Snapshots, key.clone(), of_snapshots(names, &what));
        }
    }
}

async fn read_file(store: &TenantStore, key: &str, file: &FileEntry) -> Result<u64, String> {
    let bytes = store.get(key).await.map_err(|error| chain(&error))?;
    let rows = match file.kind.holds_samples() {
        true => SampleOrRollup::Sample,
        false => SampleOrRollup::Rollup,
    };
    check_file(&bytes, &file.stats, rows).map_err(|error| chain(&error))?;
    Ok(bytes.len() as u64)
}

fn of_snapshots(names: &[PinName], what: &str) -> String {
    let names: Vec<&str> = names.iter().map(PinName::as_str).collect();
    format!("{what} (of snapshot {})", names.join(", "))
}
