//! `kill -9` at the worst moments: whatever was acknowledged is there exactly once afterwards, in
//! all four tables, and nothing else is.

#![allow(clippy::unwrap_used, clippy::panic)]

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use stele_tests::fleet::{Fleet, Plan};
use stele_tests::server::{Server, post, run};
use stele_tests::store::{Store, files_below};

/// Jobs follow each other without pause, and sweep forgets quickly.
const BUSY: [(&str, &str); 6] = [
    ("STELE_ABSORB_EVERY_SECS", "1"),
    ("STELE_SEAL_EVERY_SECS", "1"),
    ("STELE_SWEEP_EVERY_SECS", "1"),
    ("STELE_QUERY_DEADLINE_SECS", "5"),
    ("STELE_SWEEP_GRACE_SECS", "10"),
    ("STELE_HISTORY_SECS", "10"),
];

const CROWD: Plan = Plan {
    writers: 3,
    rows: 36,
    pause_ms_max: 60,
    seed: 1,
};

/// What a round waits for before it kills.
#[derive(Clone, Copy, PartialEq)]
enum Moment {
    /// Requests are being answered; no job is forced.
    Ingest,
    /// A new ledger file: written before the commit that names it.
    Absorb,
    /// A new file of sealed raw data or of a rollup: written before the commit that adds it.
    Seal,
    /// A file has vanished.
    Sweep,
}

/// Kills `rounds` times at `moment` under load, checks under load after each restart, and all
/// tables in the end.
fn survives(store: &Store, moment: Moment, rounds: u64, settle: bool, env: &[(&str, &str)]) {
    let mut random = StdRng::seed_from_u64(rounds);
    let fleet = Fleet::start(CROWD);
    let (mut unanswered, mut hit, mut torn) = (0, 0, 0);
    for round in 0..rounds {
        let server = Server::start(store, env).unwrap();
        fleet.point_at(&[server.url()]);
        fleet.wait_for(10).unwrap();
        check_under_load(&server, &fleet).unwrap();
        let settling = Settling::start(server.url(), settle);
        hit += u64::from(wait_until(moment, store, &mut random));
        server.kill_9().unwrap();
        unanswered += settling.stop();
        if matches!(moment, Moment::Absorb | Moment::Seal) {
            torn = uncommitted(store);
        }
        let acked = fleet.acked();
        eprintln!("round {round}: {acked} batches acknowledged, {torn} commits torn");
    }
    let server = Server::start(store, env).unwrap();
    fleet.point_at(&[server.url()]);
    fleet.wait_for(5).unwrap();
    assert!(fleet.retried() > 0, "no kill met a request in flight");
    assert!(!settle || unanswered > 0, "no kill met a running settle");
    assert!(
        hit * 2 >= rounds,
        "only {hit} of {rounds} kills met their moment"
    );
    let watched = moment == Moment::Absorb && store.tenant_dir().is_some();
    assert!(!watched || torn > 0, "no kill fell into a commit");
    let oracle = fleet.finish().unwrap();
    let before = server.check_tables(&oracle).unwrap();
    server.settle().unwrap();
    let absorbed = server.check_tables(&oracle).unwrap();
    rollups(store, "resume");
    server.settle().unwrap();
    let sealed = server.check_tables(&oracle).unwrap();
    let lens = [before.len(), absorbed.len(), sealed.len()];
    assert_eq!(lens, [before.len(); 3]);
    server.stop().unwrap();
    verify(store);
}

fn rollups(store: &Store, action: &str) {
    let done = run(
        store,
        Path::new("/"),
        &["rollups", action, "--store", &store.url()],
    )
    .unwrap();
    assert!(done.status.success(), "rollups {action}: {done:?}");
}

/// Operations whose ledger file is there and whose commit is not: a kill fell between the two.
fn uncommitted(store: &Store) -> usize {
    let Some(tenant) = store.tenant_dir() else {
        return 0;
    };
    let log = tenant.join("table/_delta_log");
    let read = |file: &PathBuf| std::fs::read_to_string(log.join(file)).unwrap_or_default();
    let log: String = files_below(&log).iter().map(read).collect();
    let ledger = files_below(&tenant.join("ledger"));
    let operation = |file: &PathBuf| file.to_string_lossy().split('.').next().map(str::to_owned);
    let operations = ledger.iter().filter_map(operation);
    operations.filter(|name| !log.contains(name)).count()
}

/// `stele verify` agrees.
fn verify(store: &Store) {
    let done = run(
        store,
        Path::new("/"),
        &["verify", "--json", "--store", &store.url()],
    )
    .unwrap();
    let said = String::from_utf8_lossy(&done.stdout);
    let error = String::from_utf8_lossy(&done.stderr);
    assert!(
        done.status.success(),
        "verify: {}\n{said}\n{error}",
        done.status
    );
}

/// A query that starts now holds all that was acknowledged before it, whatever runs beside it.
fn check_under_load(server: &Server, fleet: &Fleet) -> Result<()> {
    let mut before = fleet.oracle();
    let got = server.samples()?;
    before.allow(&fleet.oracle());
    before.check(&got)?;
    Ok(())
}

/// Settles over and over in the background until the server is gone.
struct Settling {
    thread: std::thread::JoinHandle<()>,
    stop: std::sync::Arc<(AtomicBool, AtomicU64)>,
}

impl Settling {
    fn start(url: &str, on: bool) -> Self {
        let stop = std::sync::Arc::new((AtomicBool::new(!on), AtomicU64::new(0)));
        let (shared, url) = (std::sync::Arc::clone(&stop), url.to_owned());
        let thread = std::thread::spawn(move || {
            while !shared.0.load(Ordering::SeqCst) {
                if post(&url, "/admin/settle", b"").is_err() {
                    shared.1.fetch_add(1, Ordering::SeqCst);
                    break;
                }
            }
        });
        Self { thread, stop }
    }

    /// How many settles got no answer.
    fn stop(self) -> u64 {
        self.stop.0.store(true, Ordering::SeqCst);
        self.thread.join().unwrap();
        self.stop.1.load(Ordering::SeqCst)
    }
}

/// Waits for the moment and a little random time more; false when it did not come within 20 s.
fn wait_until(moment: Moment, store: &Store, random: &mut StdRng) -> bool {
    let Some(tenant) = store.tenant_dir().filter(|_| moment != Moment::Ingest) else {
        // A store that cannot be watched, or no job to watch for: any moment will do.
        std::thread::sleep(Duration::from_millis(random.random_range(50..900)));
        return true;
    };
    // Half of the kills come before the first sign could even be seen again.
    std::thread::sleep(Duration::from_millis(random.random_range(0..400)));
    let before = watched(&tenant, moment);
    let deadline = Instant::now() + Duration::from_secs(20);
    while Instant::now() < deadline {
        let now = watched(&tenant, moment);
        let (from, to) = match moment {
            Moment::Sweep => (&before, &now),
            _ => (&now, &before),
        };
        if from.iter().any(|file| !to.contains(file)) {
            std::thread::sleep(Duration::from_micros(random.random_range(0..6_000)));
            return true;
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    false
}

fn watched(tenant: &Path, moment: Moment) -> Vec<PathBuf> {
    let folders: &[&'static str] = match moment {
        Moment::Ingest => &[],
        Moment::Absorb => &["ledger"],
        Moment::Seal => &[
            "table/resolution=raw",
            "table/resolution=60s",
            "table/resolution=15m",
            "table/resolution=60m",
        ],
        Moment::Sweep => &["l0", "table/resolution=open", "table/resolution=raw"],
    };
    let below = |folder: &'static str| {
        let files = files_below(&tenant.join(folder));
        files
            .into_iter()
            .map(move |file| Path::new(folder).join(file))
    };
    folders.iter().copied().flat_map(below).collect()
}

#[test]
fn kill_9_in_ingest_loses_and_doubles_nothing() {
    let store = Store::local().unwrap();
    survives(&store, Moment::Ingest, 6, false, &[]);
}

#[test]
fn kill_9_in_absorb_loses_and_doubles_nothing() {
    let store = Store::local().unwrap();
    // Paused, settle absorbs and seals nothing.
    rollups(&store, "pause");
    let env = [("STELE_ABSORB_EVERY_SECS", "1")];
    survives(&store, Moment::Absorb, 6, true, &env);
}

#[test]
fn kill_9_in_seal_loses_and_doubles_nothing() {
    let store = Store::local().unwrap();
    survives(
        &store,
        Moment::Seal,
        6,
        true,
        &[("STELE_ABSORB_EVERY_SECS", "1")],
    );
}

#[test]
fn kill_9_in_sweep_loses_and_doubles_nothing() {
    let store = Store::local().unwrap();
    survives(&store, Moment::Sweep, 5, true, &BUSY);
}

#[test]
fn what_is_superseded_is_swept_and_no_answer_changes() -> Result<()> {
    let store = Store::local()?;
    let fleet = Fleet::start(CROWD);
    let server = Server::start(&store, &BUSY)?;
    fleet.point_at(&[server.url()]);
    fleet.wait_for(60)?;
    let oracle = fleet.finish()?;
    server.settle()?;
    let l0 = store.tenant_dir().unwrap().join("l0");
    let full = files_below(&l0).len();
    let deadline = Instant::now() + Duration::from_secs(60);
    while !files_below(&l0).is_empty() && Instant::now() < deadline {
        oracle.check(&server.samples()?)?;
        std::thread::sleep(Duration::from_millis(500));
    }
    let left = files_below(&l0);
    ensure!(
        left.is_empty(),
        "{} of {full} L0 objects left: {left:?}",
        left.len()
    );
    server.check_tables(&oracle)?;
    server.stop()?;
    verify(&store);
    Ok(())
}

#[test]
fn kill_9_on_s3_loses_and_doubles_nothing() {
    let store = Store::s3().unwrap();
    survives(&store, Moment::Ingest, 4, true, &BUSY);
}
