//! Loading: the requests it makes, its shortcuts, and that damage is an error.
#![allow(clippy::unwrap_used, clippy::panic)]

mod common;

use std::sync::Arc;

use common::*;
use proptest::prelude::*;
use stele_model::{ErrorKind, L0Name, Window, WindowSet};
use stele_store::keys;
use stele_table::{Options, TableState, View, rollups_paused, set_rollups_paused};

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap()
}

#[tokio::test]
async fn a_cold_load_is_two_lists_and_three_gets_and_a_refresh_is_one_get() {
    let store = Watched::new();
    let state = table(&store.log(), 7).await;
    store.requests();
    let log = store.log();
    let loaded = log.load().await.unwrap().unwrap();
    assert_eq!(loaded, state);
    let (head, entry) = (keys::head(7), keys::log_entry(7));
    let next = format!("GET {}", keys::log_entry(8));
    let expected = [
        "LIST table/heads".to_owned(),
        format!("GET {head}"),
        format!("GET {entry}"),
        next.clone(),
        "LIST table/_delta_log".to_owned(),
    ];
    assert_eq!(store.requests(), expected);
    log.refresh(&loaded).await.unwrap();
    assert_eq!(store.requests(), [next]);
}

#[tokio::test]
async fn a_view_lists_l0_before_it_reads_the_log_and_one_get_keeps_it_current() {
    let store = Watched::new();
    table(&store.log(), 3).await;
    store.requests();
    let log = store.log();
    View::read(&log, None).await.unwrap();
    let requests = store.requests();
    assert_eq!(requests.len(), 6);
    assert_eq!(requests[..2], ["LIST l0", "LIST table/heads"]);
    let view = View::read_cached(&log).await.unwrap();
    let next = format!("GET {}", keys::log_entry(4));
    assert_eq!(store.requests(), ["LIST l0".to_owned(), next]);
    assert_eq!(view.state.version, 3);
}

#[tokio::test]
async fn a_view_holds_each_l0_object_until_its_commit_and_not_after() {
    let store = Watched::new();
    let log = store.log();
    let name = |n: u64| L0Name {
        digest: digest(n),
        first: Window(n as i32),
        last: Window(n as i32 + 1),
    };
    let tenant = store.tenant();
    tenant.l0_put(&name(1), "one".into()).await.unwrap();
    let empty = View::read(&log, None).await.unwrap();
    assert!(!empty.state.exists());
    assert_eq!(empty.l0.len(), 1);
    assert_eq!(empty.open_windows(), WindowSet::range(Window(1), Window(2)));
    let state = log.load_or_create(T0).await.unwrap();
    tenant.l0_put(&name(2), "two".into()).await.unwrap();
    let commit = absorb(1, vec![object(1, batch(1, 10))]);
    let state = committed(&log, &state, commit).await;
    let view = View::read(&log, Some(empty.state)).await.unwrap();
    assert_eq!(view.state, state);
    let names: Vec<_> = view.l0.iter().map(|object| object.name).collect();
    assert_eq!(names, [name(2)]);
    let mut open = WindowSet::range(Window(2), Window(3));
    open.insert(Window::of(T0));
    assert_eq!(view.open_windows(), open);
}

/// The stale state's next entry is absent because it was swept, not because nothing followed.
#[tokio::test]
async fn a_state_older_than_half_the_history_is_read_cold() {
    let store = Watched::new();
    let (old, state) = outgrown(&store).await;
    for version in 0..state.ledger.manifest_version {
        store.remove(&keys::log_entry(version)).await;
    }
    store
        .clock
        .advance(Options::default().history_us / 2 + MINUTE);
    assert_eq!(store.log().refresh(&old).await.unwrap(), state);
    let view = View::read(&store.log(), Some(old)).await.unwrap();
    assert_eq!(view.state, state);
    // Once seen to be the newest at that time, one GET is enough again.
    let log = store.log();
    let state = log.refresh(&state).await.unwrap();
    store.requests();
    store.clock.advance(1);
    log.refresh(&state).await.unwrap();
    assert_eq!(store.requests().len(), 1);
}

/// The process trusted its state, and slept before it asked for the next entry.
#[tokio::test]
async fn a_reader_that_sleeps_through_a_sweep_begins_again() {
    let day = Options::default().history_us;
    let store = Watched::new();
    let (old, state) = outgrown(&store).await;
    let log = store.log();
    store.sleep_before(format!("GET {}", keys::log_entry(6)), day, swept(&state));
    let view = View::read(&log, Some(old.clone())).await.unwrap();
    assert_eq!(view.state, state);
    // A refresh likewise, and a cold load between the LIST of heads and the GETs.
    let store = Watched::new();
    let (old, state) = outgrown(&store).await;
    let log = store.log();
    store.sleep_before(format!("GET {}", keys::log_entry(6)), day, swept(&state));
    assert_eq!(log.refresh(&old).await.unwrap(), state);
    let head = format!("GET {}", keys::log_entry(26));
    store.sleep_before(head, day, Vec::new());
    store.requests();
    assert_eq!(log.load().await.unwrap().unwrap(), state);
    let lists = store.requests();
    let lists = lists.iter().filter(|r| r.starts_with("LIST")).count();
    assert_eq!(lists, 4);
}

#[tokio::test]
async fn a_reader_that_is_always_too_slow_says_so() {
    let store = Watched::new();
    let log = store.log();
    let state = table(&log, 3).await;
    for _ in 0..3 {
        let next = format!("GET {}", keys::log_entry(4));
        store.sleep_before(next, Options::default().history_us, Vec::new());
    }
    let error = log.refresh(&state).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    let text = error.to_string();
    assert!(text.contains("86400 s of at most 21600 s"), "{text}");
}

#[tokio::test]
async fn stale_forged_and_damaged_heads_are_not_believed() {
    let store = Watched::new();
    let state = table(&store.log(), 5).await;
    let tenant = store.tenant();
    let older = tenant.get(&keys::head(4)).await.unwrap();
    let other = Watched::new();
    let foreign = other.log().load_or_create(T0 + 1_000_000).await.unwrap();
    let foreign = committed(&other.log(), &foreign, simple(77)).await;
    assert_eq!(foreign.version, 1);
    for head in [older.to_vec(), b"junk".to_vec(), Vec::new()] {
        store.replace(&keys::head(5), head).await;
        assert_eq!(store.log().load().await.unwrap().unwrap(), state);
    }
    // A head of a version that was never committed.
    store.replace(&keys::head(6), older.clone()).await;
    assert_eq!(store.log().load().await.unwrap().unwrap(), state);
    // A whole head of another table, at the newest version's key.
    let theirs = other.tenant().get(&keys::head(1)).await.unwrap();
    let single = Watched::new();
    let one = table(&single.log(), 1).await;
    single.replace(&keys::head(1), theirs).await;
    assert_eq!(single.log().load().await.unwrap().unwrap(), one);
    // No head at all.
    for version in 0..=6 {
        store.remove(&keys::head(version)).await;
    }
    assert_eq!(store.log().load().await.unwrap().unwrap(), state);
}

#[tokio::test]
async fn an_older_head_is_followed_to_the_newest_version() {
    let store = Watched::new();
    let state = table(&store.log(), 8).await;
    for version in 4..=8 {
        store.remove(&keys::head(version)).await;
    }
    assert_eq!(store.log().load().await.unwrap().unwrap(), state);
}

/// No head was written for long, and sweep left the old one's entry to a pin.
#[tokio::test]
async fn a_gap_after_an_old_head_or_checkpoint_is_not_the_end_of_the_log() {
    let store = Watched::new();
    let state = table(&store.log(), 50).await;
    for version in 6..=50 {
        store.remove(&keys::head(version)).await;
    }
    for version in 7..40 {
        store.remove(&keys::log_entry(version)).await;
    }
    assert_eq!(store.log().load().await.unwrap().unwrap(), state);
    assert_eq!(store.log().load_from_log().await.unwrap().unwrap(), state);
    // The same, with the hint at a checkpoint that only a pin keeps.
    let store = Watched::new();
    table(&store.log(), 20).await;
    let hint = store.tenant().get(&keys::last_checkpoint()).await.unwrap();
    let log = store.log();
    let mut state = log.load().await.unwrap().unwrap();
    for n in 21..=50 {
        state = committed(&log, &state, simple(n)).await;
    }
    for version in 22..40 {
        store.remove(&keys::log_entry(version)).await;
    }
    store.replace(&keys::last_checkpoint(), hint).await;
    assert_eq!(store.log().load_from_log().await.unwrap().unwrap(), state);
}

#[tokio::test]
async fn a_table_loads_without_the_entries_before_its_checkpoint() {
    let store = Watched::new();
    let log = store.log();
    let state = table(&log, 50).await;
    assert_eq!(log.checkpoint_version().await.unwrap(), Some(40));
    for version in 0..40 {
        store.remove(&keys::log_entry(version)).await;
    }
    assert_eq!(store.log().load_from_log().await.unwrap().unwrap(), state);
    store.remove("table/_delta_log/_last_checkpoint").await;
    assert_eq!(store.log().load_from_log().await.unwrap().unwrap(), state);
    assert_eq!(store.log().load().await.unwrap().unwrap(), state);
}

#[tokio::test]
async fn a_damaged_checkpoint_falls_back_and_without_a_way_back_it_is_an_error() {
    let store = Watched::new();
    let state = table(&store.log(), 45).await;
    let checkpoint = |v: u64| format!("table/_delta_log/{v:020}.checkpoint.parquet");
    let whole = store.tenant().get(&checkpoint(40)).await.unwrap();
    let older = store.tenant().get(&checkpoint(20)).await.unwrap();
    for bad in [&whole[..whole.len() / 2], &whole[..0], &older[..]] {
        store.replace(&checkpoint(40), bad.to_vec()).await;
        assert_eq!(store.log().checkpoint_version().await.unwrap(), None);
        assert_eq!(store.log().load_from_log().await.unwrap().unwrap(), state);
    }
    // A flip here and there: in the magic, in the digest, in a page, in the metadata, in the tail.
    for at in [0, 4, 30, whole.len() / 2, whole.len() - 60, whole.len() - 5] {
        let mut bad = whole.to_vec();
        bad[at] ^= 1;
        store.replace(&checkpoint(40), bad).await;
        let error = store.log().check_checkpoint(40).await.unwrap_err();
        assert!(error.to_string().starts_with(&checkpoint(40)), "{error}");
        assert_eq!(store.log().load_from_log().await.unwrap().unwrap(), state);
    }
    store.remove(&checkpoint(20)).await;
    assert_eq!(store.log().load_from_log().await.unwrap().unwrap(), state);
    store.remove(&keys::log_entry(0)).await;
    let error = store.log().load_from_log().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt);
}

#[tokio::test]
async fn a_damaged_hint_at_a_checkpoint_is_passed_over() {
    let store = Watched::new();
    let state = table(&store.log(), 45).await;
    let key = "table/_delta_log/_last_checkpoint";
    let whole = store.tenant().get(key).await.unwrap();
    assert_eq!(store.log().hinted_version().await.unwrap(), 40);
    let text = String::from_utf8(whole.to_vec()).unwrap();
    let older = text.replace("\"version\":40", "\"version\":20");
    let foreign = r#"{"version":40,"size":99}"#;
    for bad in [&older, foreign, "", &text[1..]] {
        assert_ne!(bad, text);
        store.replace(key, bad.to_owned()).await;
        let error = store.log().hinted_version().await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corrupt);
        assert_eq!(store.log().checkpoint_version().await.unwrap(), None);
        // The newest checkpoint is found by its name.
        for version in 0..40 {
            store.remove(&keys::log_entry(version)).await;
        }
        assert_eq!(store.log().load_from_log().await.unwrap().unwrap(), state);
    }
}

async fn assert_corrupt(store: &Watched) {
    let error = store.log().load_from_log().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt, "{error}");
}

#[tokio::test]
async fn a_missing_or_damaged_entry_is_an_error_and_never_an_older_table() {
    for version in 0..6 {
        let store = Watched::new();
        table(&store.log(), 6).await;
        let key = keys::log_entry(version);
        let entry = store.tenant().get(&key).await.unwrap();
        store.remove(&key).await;
        assert_corrupt(&store).await;
        store.replace(&key, entry[..entry.len() / 2].to_vec()).await;
        assert_corrupt(&store).await;
        let text = String::from_utf8(entry.to_vec()).unwrap();
        store
            .replace(&key, text.replacen("\"timestamp\"", "\"timestomp\"", 1))
            .await;
        assert_corrupt(&store).await;
        let other = store
            .tenant()
            .get(&keys::log_entry((version + 1) % 6))
            .await
            .unwrap();
        store.replace(&key, other).await;
        assert_corrupt(&store).await;
    }
}

#[tokio::test]
async fn a_missing_or_damaged_ledger_object_is_an_error() {
    let store = Watched::new();
    let state = table(&store.log(), 25).await;
    let heads_only = store.log().load().await.unwrap().unwrap();
    assert_eq!(heads_only, state);
    let segment = &state.ledger.days["2026-11-22"][0].object.key;
    let recent = state.ledger.recent[0].object.key.clone();
    let manifest = state.ledger.manifest.clone().unwrap().key;
    let old = format!("ledger/{}.json.zst", operation(1).0);
    for (key, loads) in [(segment, true), (&recent, false), (&manifest, true)] {
        let whole = store.tenant().get(key).await.unwrap();
        store.replace(key, "junk").await;
        let broken = store.log();
        if !loads {
            assert_corrupt(&store).await;
        }
        if key != &manifest {
            let error = broken.ledger_rows(&state).await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Corrupt);
            let ask = [(digest(3), day())];
            let error = broken.ledger_lookup(&state, &ask).await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Corrupt);
        }
        store.replace(key, whole).await;
    }
    // Without checkpoints the whole log is replayed, and every ledger file is needed.
    store.remove("table/_delta_log/_last_checkpoint").await;
    store
        .remove("table/_delta_log/00000000000000000020.checkpoint.parquet")
        .await;
    assert_eq!(store.log().load_from_log().await.unwrap().unwrap(), state);
    store.remove(&old).await;
    assert_corrupt(&store).await;
}

#[tokio::test]
async fn rollups_pause_and_resume_and_a_race_has_one_effect() {
    let store = Watched::new();
    let tenant = store.tenant();
    assert_eq!(rollups_paused(&tenant).await.unwrap(), None);
    set_rollups_paused(&tenant, false, T0).await.unwrap();
    let both = futures::join!(
        set_rollups_paused(&tenant, true, T0 + 1),
        set_rollups_paused(&tenant, true, T0 + 2)
    );
    both.0.unwrap();
    both.1.unwrap();
    let paused = rollups_paused(&tenant).await.unwrap().unwrap();
    assert_eq!(tenant.list("control/rollups").await.unwrap().len(), 1);
    set_rollups_paused(&tenant, true, T0 + 9).await.unwrap();
    assert_eq!(rollups_paused(&tenant).await.unwrap(), Some(paused));
    set_rollups_paused(&tenant, false, T0 + 10).await.unwrap();
    assert_eq!(rollups_paused(&tenant).await.unwrap(), None);
}

#[derive(Debug, Clone, Copy)]
enum Step {
    Absorb(u8),
    Duplicate,
    Seal,
    Sweep,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        6 => (1u8..4).prop_map(Step::Absorb),
        1 => Just(Step::Duplicate),
        2 => Just(Step::Seal),
        1 => Just(Step::Sweep),
    ];
    proptest::collection::vec(step, 1..70)
}

async fn run(store: &Watched, steps: &[Step]) -> Arc<TableState> {
    let log = store.log();
    let mut state = log.load_or_create(T0).await.unwrap();
    let mut next = 1;
    for step in steps {
        let commit = match step {
            Step::Absorb(objects) => {
                let numbers = next..next + u64::from(*objects);
                let objects = numbers.map(|n| {
                    let mut batch = batch(n, n % 7 + 1);
                    batch.day.0 += (n % 2) as i32;
                    object(n, batch)
                });
                absorb(next, objects.collect())
            }
            Step::Duplicate => {
                let first = log.ledger_rows(&state).await.unwrap().into_iter().next();
                let Some(first) = first else { continue };
                let mut again = batch(0, first.rows);
                (again.digest, again.day) = (first.batch, first.day);
                again.duplicate_of = Some(first.operation);
                absorb(next, vec![object(next, again)])
            }
            Step::Seal => seal(next, &state),
            Step::Sweep => sweep(next, &state),
        };
        state = committed(&log, &state, commit).await;
        next += 4;
    }
    state
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn every_way_to_load_gives_the_same_state(steps in steps()) {
        runtime().block_on(async {
            let store = Watched::new();
            let state = run(&store, &steps).await;
            let by_head = store.log().load().await.unwrap().unwrap();
            assert_eq!(by_head, state);
            let by_checkpoint = store.log().load_from_log().await.unwrap().unwrap();
            assert_eq!(by_checkpoint, state);
            let first = store.log().entry(0).await.unwrap().unwrap();
            assert_eq!(first.version, 0);
            let rows = store.log().ledger_rows(&state).await.unwrap();
            let effective = rows.iter().filter(|row| row.duplicate_of.is_none());
            assert_eq!(effective.count() as u64, state.totals.batches);
            assert_eq!(rows.len() as u64, state.totals.batches + state.totals.duplicate_batches);
            let live = state.files.values().filter(|file| file.kind.holds_samples());
            let live: u64 = live.map(|file| file.stats.rows).sum();
            assert_eq!(live, state.totals.rows);
            let objects = store.tenant().list("table/_delta_log").await.unwrap();
            for object in objects.iter().filter(|o| o.key.contains("checkpoint")) {
                store.remove(&object.key).await;
            }
            // Ledger objects are never deleted here, so version 0 is a start too.
            let by_entries = store.log().load_from_log().await.unwrap().unwrap();
            assert_eq!(by_entries, state);
        });
    }

    #[test]
    fn arbitrary_bytes_in_any_object_are_an_error_or_ignored(
        bytes in proptest::collection::vec(any::<u8>(), 0..200),
        cut in 0usize..10_000,
        flip in any::<u8>(),
    ) {
        runtime().block_on(async {
            let store = Watched::new();
            let state = table(&store.log(), 22).await;
            let tenant = store.tenant();
            let mut all = tenant.list("table").await.unwrap();
            all.extend(tenant.list("ledger").await.unwrap());
            for object in all.iter().step_by(3) {
                let whole = tenant.get(&object.key).await.unwrap();
                let mut flipped = whole.to_vec();
                let at = cut % flipped.len();
                flipped[at] ^= flip | 1;
                for bad in [bytes.clone(), whole[..at].to_vec(), flipped] {
                    store.replace(&object.key, bad).await;
                    for loaded in [store.log().load().await, store.log().load_from_log().await] {
                        match loaded {
                            Ok(loaded) => assert_eq!(loaded.unwrap().version, state.version),
                            Err(error) => assert_eq!(error.kind(), ErrorKind::Corrupt),
                        }
                    }
                }
                store.replace(&object.key, whole).await;
            }
        });
    }
}
