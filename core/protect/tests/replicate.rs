//! Replication: at every instant the target holds a version of the source or none, and in the end
//! the source's newest, to the byte.
#![allow(clippy::unwrap_used, clippy::panic)]

mod common;
#[path = "common/fuse.rs"]
mod fuse;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use common::{ALL, World, compactor, log, name, tenant};
use fuse::Fuse;
use stele_compact::reader;
use stele_format::{batch, l0};
use stele_model::Clock;
use stele_model::time::{DAY_US, HOUR_US, MINUTE_US};
use stele_protect::{
    CopyProgress, ReplicateError, ReplicateOptions, ReplicateReport, copy_l0, copy_settings,
    drop_snapshot, replicate, return_l0, undelete, verify,
};
use stele_store::{TenantStore, keys};
use stele_table::{
    AsOf, Fence, OperationId, PinState, Pins, TableLog, TableState, View, set_rollups_paused,
};
use stele_testkit::MemoryStore;
use stele_testkit::Rng;
use stele_testkit::gen_rows::RowGen;
use stele_testkit::oracle::Samples;

/// A second tier.
struct Mirror {
    memory: MemoryStore,
    store: TenantStore,
}

impl Mirror {
    fn of(world: &World) -> Self {
        let memory = MemoryStore::new(world.clock.clone());
        let store = tenant(&memory, "default");
        Self { memory, store }
    }

    fn log(&self, world: &World) -> TableLog {
        log(&self.store, &world.clock)
    }

    /// The mirror as a process sees it that dies at its n-th mutation.
    fn dying(&self, world: &World, after: i64, lands: bool) -> (TableLog, Arc<Fuse>) {
        let fuse = Fuse::new(Arc::new(self.memory.clone()), after, lands);
        let tier = self.store.tier().over(Arc::<Fuse>::clone(&fuse));
        (log(&tier.tenant(self.store.tenant()), &world.clock), fuse)
    }
}

async fn run(world: &World, target: &TableLog) -> Result<ReplicateReport, ReplicateError> {
    replicate(&world.log(), target, &ReplicateOptions::default(), &|_| ()).await
}

async fn samples(store: &TenantStore, state: &Arc<TableState>) -> Samples {
    let state = Arc::clone(state);
    let samples = reader::all_samples(
        store,
        &View {
            state,
            l0: Vec::new(),
        },
    )
    .await;
    Samples::read(samples.unwrap().as_mut()).unwrap()
}

async fn assert_equal(world: &World, mirror: &Mirror) {
    let state = world.state().await;
    let theirs = mirror.log(world).load().await.unwrap().unwrap();
    assert_eq!(theirs, state);
    assert_eq!(
        mirror.log(world).load_from_log().await.unwrap().unwrap(),
        state
    );
    let (here, there) = (
        samples(&world.store, &state).await,
        samples(&mirror.store, &state).await,
    );
    assert_eq!(here.first_difference(&there), None);
    let report = verify(&mirror.store, &mirror.log(world), &|_| ()).await;
    assert_eq!(report.findings, []);
}

/// A table with a history, a gap, and a pin below the gap.
async fn old_world() -> World {
    let mut world = World::new();
    world.work(30).await;
    world.pin("noon").await.unwrap();
    world.work(40).await;
    world.clock.advance(3 * DAY_US);
    world.work(3).await;
    world.sweep().await;
    world.work(6).await;
    world.pin("now").await.unwrap();
    world
}

#[tokio::test]
async fn a_new_mirror_is_the_source_with_its_history_and_its_snapshots() {
    let mut world = old_world().await;
    let mirror = Mirror::of(&world);
    let told = Mutex::new(CopyProgress::default());
    let tell = |progress: CopyProgress| *told.lock().unwrap() = progress;
    let target = mirror.log(&world);
    let options = ReplicateOptions::default();
    let report = replicate(&world.log(), &target, &options, &tell)
        .await
        .unwrap();
    assert_eq!(report.source_version, report.target_version);
    assert_eq!((report.pins_copied, report.pins_missing.len()), (2, 0));
    let told = *told.lock().unwrap();
    assert_eq!(
        (told.objects, told.bytes),
        (told.objects_total, told.bytes_total)
    );
    assert!(report.copied > 50, "{report:?}");
    assert_eq!(told.objects, report.copied + report.skipped);
    assert_equal(&world, &mirror).await;
    // Both snapshots read as at the source, and so does every version of the history.
    for pin in ["noon", "now"] {
        let at = AsOf::Pin(name(pin));
        let state = world.log().as_of(&at).await.unwrap();
        assert_eq!(mirror.log(&world).as_of(&at).await.unwrap(), state);
        let (here, there) = (
            samples(&world.store, &state).await,
            samples(&mirror.store, &state).await,
        );
        assert_eq!(here.first_difference(&there), None);
    }
    let index = world.log().index().await.unwrap();
    let newest = index.newest().unwrap();
    let oldest = index.oldest_kept(world.log().now_us()).unwrap();
    assert!(oldest < newest);
    for version in oldest..=newest {
        let state = world.log().as_of(&AsOf::Version(version)).await.unwrap();
        assert_eq!(
            mirror
                .log(&world)
                .as_of(&AsOf::Version(version))
                .await
                .unwrap(),
            state
        );
        samples(&mirror.store, &state).await;
    }
    // Nothing is copied twice, and a mirror keeps up.
    let again = run(&world, &target).await.unwrap();
    assert_eq!((again.copied, again.entries), (0, 0));
    for _ in 0..30 {
        world.work(1).await;
        let report = replicate(&world.log(), &target, &options, &|_| ())
            .await
            .unwrap();
        assert!(report.entries > 0);
        assert_equal(&world, &mirror).await;
    }
}

#[tokio::test]
async fn a_first_copy_may_die_at_each_single_mutation() {
    let world = old_world().await;
    let state = world.state().await;
    for after in 0.. {
        let mirror = Mirror::of(&world);
        let (target, fuse) = mirror.dying(&world, after, after % 2 == 0);
        let done = run(&world, &target).await;
        if let Ok(Some(shown)) = mirror.log(&world).load().await {
            assert_eq!(shown, state);
        }
        if done.is_ok() && !fuse.has_blown() {
            assert!(after > 100, "{after} mutations");
            break;
        }
        run(&world, &mirror.log(&world)).await.unwrap();
        let shown = mirror.log(&world).load().await.unwrap().unwrap();
        assert_eq!(shown, state);
        if after % 10 == 0 {
            assert_equal(&world, &mirror).await;
            assert_eq!(mirror.memory.reused_keys(), []);
        }
    }
}

#[tokio::test]
async fn a_first_copy_may_die_at_any_mutation_and_shows_a_version_or_none() {
    let world = old_world().await;
    let state = world.state().await;
    for lands in [false, true] {
        let mirror = Mirror::of(&world);
        let mut deaths = 0;
        for after in 0.. {
            // Each dies one mutation later than the one before, and goes on from what is there.
            let (target, fuse) = mirror.dying(&world, after, lands);
            let done = run(&world, &target).await;
            match (mirror.log(&world).load().await, done) {
                (_, Ok(_)) if !fuse.has_blown() => break,
                (Ok(Some(shown)), _) => assert_eq!(shown, state),
                (Ok(None) | Err(_), Err(_)) => {}
                (other, Ok(report)) => panic!("{other:?} {report:?}"),
            }
            deaths += 1;
            world.clock.advance(MINUTE_US * 97);
        }
        assert!(deaths > 15, "{deaths} deaths");
        run(&world, &mirror.log(&world)).await.unwrap();
        assert_equal(&world, &mirror).await;
        assert_eq!(mirror.memory.reused_keys(), []);
    }
}

/// A tenant that is new on the primary is new on its mirrors, which are read and promoted meanwhile.
#[tokio::test]
async fn a_young_table_loads_at_every_instant_of_its_first_copy() {
    let mut world = World::new();
    world.work(8).await;
    let mut versions = std::collections::BTreeSet::new();
    for after in 0.. {
        let mirror = Mirror::of(&world);
        let (target, fuse) = mirror.dying(&world, after, after % 2 == 0);
        let done = run(&world, &target).await;
        let shown = mirror.log(&world).load().await.unwrap();
        if let Some(shown) = &shown {
            samples(&mirror.store, shown).await;
            versions.insert(shown.version);
        }
        if done.is_ok() && !fuse.has_blown() {
            break;
        }
        run(&world, &mirror.log(&world)).await.unwrap();
        assert_equal(&world, &mirror).await;
        assert_eq!(mirror.memory.reused_keys(), []);
    }
    let newest = world.state().await.version;
    assert_eq!(versions, (0..=newest).collect());
}

#[tokio::test]
async fn a_mirror_may_die_at_any_mutation_and_is_a_prefix_at_every_instant() {
    let mut world = old_world().await;
    let mirror = Mirror::of(&world);
    run(&world, &mirror.log(&world)).await.unwrap();
    world.work(24).await;
    let newest = world.state().await.version;
    let mut states = BTreeMap::new();
    let index = world.log().index().await.unwrap();
    for version in index.oldest_kept(world.log().now_us()).unwrap()..=newest {
        let state = world.log().as_of(&AsOf::Version(version)).await.unwrap();
        states.insert(version, state);
    }
    let mut versions = std::collections::BTreeSet::new();
    for n in 0.. {
        let (target, fuse) = mirror.dying(&world, n % 23, n % 2 == 0);
        let done = run(&world, &target).await;
        let shown = mirror.log(&world).load().await.unwrap().unwrap();
        assert_eq!(Some(&shown), states.get(&shown.version));
        if versions.insert(shown.version) {
            let there = samples(&mirror.store, &shown).await;
            let here = samples(&world.store, &shown).await;
            assert_eq!(here.first_difference(&there), None);
        }
        if done.is_ok() && !fuse.has_blown() {
            break;
        }
        assert!(n < 2_000, "no end");
    }
    assert!(versions.len() > 12, "{versions:?}");
    assert_equal(&world, &mirror).await;
    assert_eq!(mirror.memory.reused_keys(), []);
}

#[tokio::test]
async fn damage_at_the_source_is_never_copied() {
    let mut world = old_world().await;
    let mirror = Mirror::of(&world);
    let flip = |key: &str| {
        let path = world.store.path(key);
        let whole = world.memory.bytes(&path).unwrap();
        let mut flipped = whole.to_vec();
        let at = flipped.len() / 2;
        flipped[at] ^= 1;
        world.memory.damage(&path, Bytes::from(flipped));
        (path, whole)
    };
    let state = world.state().await;
    let file = keys::data_file(state.files.keys().next().unwrap());
    let ledger = state.ledger.recent.last().unwrap().object.key.clone();
    let entry = keys::log_entry(state.version - 1);
    for key in [&file, &ledger, &entry] {
        let (path, whole) = flip(key);
        let error = run(&world, &mirror.log(&world)).await.unwrap_err();
        assert!(error.to_string().contains(key), "{error}");
        let there = mirror.memory.bytes(&path);
        assert!(there.is_none_or(|bytes| bytes == whole), "{key}");
        assert!(mirror.log(&world).load().await.unwrap().is_none());
        world.memory.damage(&path, whole);
    }
    run(&world, &mirror.log(&world)).await.unwrap();
    let before = world.state().await;
    world.absorb().await;
    let after = world.state().await;
    let added = after
        .files
        .keys()
        .find(|path| !before.files.contains_key(*path));
    let file = keys::data_file(added.unwrap());
    let ledger = after.ledger.recent.last().unwrap().object.key.clone();
    let entry = keys::log_entry(before.version + 1);
    let flip = |key: &str| {
        let path = world.store.path(key);
        let whole = world.memory.bytes(&path).unwrap();
        let mut flipped = whole.to_vec();
        let at = flipped.len() / 2;
        flipped[at] ^= 1;
        world.memory.damage(&path, Bytes::from(flipped));
        (path, whole)
    };
    for key in [&file, &ledger, &entry] {
        let (path, whole) = flip(key);
        let error = run(&world, &mirror.log(&world)).await.unwrap_err();
        assert!(error.to_string().contains(key), "{error}");
        assert!(mirror.memory.bytes(&path).is_none(), "{key}");
        assert_eq!(mirror.log(&world).load().await.unwrap().unwrap(), before);
        world.memory.damage(&path, whole);
    }
    // What is gone is named, too.
    let path = world.store.path(&file);
    world.memory.lose(&path);
    let error = run(&world, &mirror.log(&world)).await.unwrap_err();
    let named = matches!(&error, ReplicateError::Gone { key, version } if *key == file && *version == before.version + 1);
    assert!(named, "{error}");
    assert_eq!(mirror.log(&world).load().await.unwrap().unwrap(), before);
}

#[tokio::test]
async fn logs_that_have_diverged_are_left_alone() {
    let mut world = World::new();
    world.work(8).await;
    let mirror = Mirror::of(&world);
    run(&world, &mirror.log(&world)).await.unwrap();
    // The mirror goes on by itself; the source does not know.
    let rogue = compactor(&mirror.store, &world.clock, 99);
    let rows = RowGen::new(Rng::new(77), 5).rows(world.clock.now_us(), 20, 30);
    let encoded = l0::encode(&[batch(rows)]).unwrap();
    mirror
        .store
        .l0_put(&encoded.name, encoded.bytes)
        .await
        .unwrap();
    rogue.absorb(&ALL).await.unwrap();
    let theirs = mirror.log(&world).load().await.unwrap().unwrap();
    let ahead = run(&world, &mirror.log(&world)).await.unwrap();
    assert_eq!(
        (ahead.copied, ahead.target_version),
        (0, Some(theirs.version))
    );
    assert!(ahead.target_version > ahead.source_version);
    world.work(1).await;
    let before = mirror.memory.mutations(0).len();
    for _ in 0..2 {
        let error = run(&world, &mirror.log(&world)).await.unwrap_err();
        let at = theirs.version;
        let diverged = matches!(&error, ReplicateError::Diverged { version, .. } if *version == at);
        assert!(diverged, "{error}");
        world.work(2).await;
    }
    assert_eq!(mirror.memory.mutations(0).len(), before);
}

#[tokio::test]
async fn a_target_that_fell_behind_the_log_of_the_source_is_told_so() {
    let mut world = World::new();
    world.work(30).await;
    let mirror = Mirror::of(&world);
    run(&world, &mirror.log(&world)).await.unwrap();
    world.work(60).await;
    world.clock.advance(3 * DAY_US);
    world.work(3).await;
    world.sweep().await;
    let error = run(&world, &mirror.log(&world)).await.unwrap_err();
    assert!(matches!(error, ReplicateError::Behind { .. }), "{error}");
    assert!(
        error
            .to_string()
            .contains("copy the tenant to an empty tier")
    );
}

#[tokio::test]
async fn a_fence_comes_with_the_log() {
    let mut world = World::new();
    world.work(5).await;
    let fence = Fence {
        epoch: 3,
        tier: "b".parse().unwrap(),
    };
    let operation = OperationId("7".repeat(32));
    let mirror = Mirror::of(&world);
    run(&world, &mirror.log(&world)).await.unwrap();
    world
        .log()
        .fence(&fence, &operation, world.clock.now_us())
        .await
        .unwrap();
    run(&world, &mirror.log(&world)).await.unwrap();
    let state = mirror.log(&world).load().await.unwrap().unwrap();
    assert_eq!(state.fence, Some(fence));
    assert_equal(&world, &mirror).await;
}

#[tokio::test]
async fn snapshots_are_copied_dropped_and_brought_back_with_those_of_the_source() {
    let mut world = World::new();
    world.work(30).await;
    let mirror = Mirror::of(&world);
    run(&world, &mirror.log(&world)).await.unwrap();
    world.work(5).await;
    world.pin("a").await.unwrap();
    world.pin("b").await.unwrap();
    drop_snapshot(&world.log(), &name("b"), &world.clock)
        .await
        .unwrap();
    world.work(5).await;
    let report = run(&world, &mirror.log(&world)).await.unwrap();
    assert_eq!((report.pins_copied, report.pins_marked), (1, 0));
    let state = async |text: &str| {
        let stored = Pins::read_one(&mirror.store, &name(text)).await.unwrap();
        stored.map(|stored| stored.state(DAY_US))
    };
    assert_eq!(state("a").await, Some(PinState::Live));
    assert_eq!(state("b").await, None);
    drop_snapshot(&world.log(), &name("a"), &world.clock)
        .await
        .unwrap();
    let report = run(&world, &mirror.log(&world)).await.unwrap();
    assert_eq!(report.pins_marked, 1);
    assert!(matches!(state("a").await, Some(PinState::Dropped { .. })));
    undelete(&world.log(), &name("a")).await.unwrap();
    world.clock.advance(HOUR_US);
    let report = run(&world, &mirror.log(&world)).await.unwrap();
    assert_eq!((report.pins_undeleted, report.pins_marked), (1, 0));
    assert_eq!(state("a").await, Some(PinState::Live));
    // Undeleted at the source after the target's log is there: it comes with what it keeps.
    undelete(&world.log(), &name("b")).await.unwrap();
    let report = run(&world, &mirror.log(&world)).await.unwrap();
    assert_eq!((report.pins_copied, report.pins_missing.len()), (1, 0));
    let at = AsOf::Pin(name("b"));
    assert_eq!(
        mirror.log(&world).as_of(&at).await.unwrap(),
        world.log().as_of(&at).await.unwrap()
    );
    // Another snapshot under the same name.
    let key = name("c").key();
    world.pin("c").await.unwrap();
    let other = mirror.store.get(&name("a").key()).await.unwrap();
    mirror.store.put_new(&key, other).await.unwrap();
    let error = run(&world, &mirror.log(&world)).await.unwrap_err();
    let named = matches!(&error, ReplicateError::Other { key: at, .. } if *at == key);
    assert!(named, "{error}");
}

#[tokio::test]
async fn a_snapshot_that_comes_too_late_is_reported_and_not_put() {
    let mut world = World::new();
    world.work(4).await;
    let mirror = Mirror::of(&world);
    let held = world.state().await;
    world.pin("noon").await.unwrap();
    let noon = world.store.get(&name("noon").key()).await.unwrap();
    world.store.delete(&name("noon").key()).await.unwrap();
    world.absorb().await;
    run(&world, &mirror.log(&world)).await.unwrap();
    // It was there all along, but the replicator stood still for most of the history.
    world
        .store
        .put_new(&name("noon").key(), noon)
        .await
        .unwrap();
    world.clock.advance(19 * HOUR_US);
    let report = run(&world, &mirror.log(&world)).await.unwrap();
    assert_eq!(report.pins_missing, [name("noon")]);
    assert!(Pins::read(&mirror.store).await.unwrap().pins.is_empty());
    let at = AsOf::Pin(name("noon"));
    assert_eq!(world.log().as_of(&at).await.unwrap(), held);
}

#[tokio::test]
async fn accepted_batches_make_their_union_and_none_comes_back_that_was_consumed() {
    let mut world = World::new();
    world.work(4).await;
    let mirror = Mirror::of(&world);
    run(&world, &mirror.log(&world)).await.unwrap();
    let mut random = RowGen::new(Rng::new(77), 5);
    let mut encoded = async |stores: &[&TenantStore]| {
        let rows = random.rows(world.clock.now_us(), 20, 30);
        let encoded = l0::encode(&[batch(rows)]).unwrap();
        for store in stores {
            store
                .l0_put(&encoded.name, encoded.bytes.clone())
                .await
                .unwrap();
        }
        encoded
    };
    let (here, there) = (world.log(), mirror.log(&world));
    // What the source consumed is not brought, though it is listed there.
    let done = copy_l0(&here, &there).await.unwrap();
    assert_eq!((done.listed, done.there, done.copied), (4, 4, 0));
    encoded(&[&world.store]).await;
    encoded(&[&mirror.store]).await;
    encoded(&[&world.store, &mirror.store]).await;
    let (to, back) = (
        copy_l0(&here, &there).await.unwrap(),
        copy_l0(&there, &here).await.unwrap(),
    );
    assert_eq!((to.copied, back.copied), (1, 1));
    let names = async |store: &TenantStore| {
        let listed = store.l0_list().await.unwrap();
        listed
            .into_iter()
            .map(|o| o.name.to_string())
            .collect::<std::collections::BTreeSet<_>>()
    };
    let mut ours = names(&world.store).await;
    let theirs = names(&mirror.store).await;
    ours.retain(|name| theirs.contains(name));
    assert_eq!((ours.len(), theirs.len()), (3, 3));
    // A batch that the source knows under another name comes not either.
    let one = encoded(&[&world.store]).await;
    world.compactor.absorb(&ALL).await.unwrap();
    world.clock.advance(HOUR_US);
    world.sweep().await;
    mirror.store.l0_put(&one.name, one.bytes).await.unwrap();
    let back = copy_l0(&there, &here).await.unwrap();
    assert_eq!((back.copied, back.known), (0, 4));
    // Unless the primary is to consume it under this name, too: else the mirror keeps it for ever.
    let back = return_l0(&there, &here).await.unwrap();
    assert_eq!((back.copied, back.known), (4, 0));
    assert!(names(&world.store).await.contains(&one.name.to_string()));
    world.compactor.absorb(&ALL).await.unwrap();
    run(&world, &there).await.unwrap();
    let view = View::read_cached(&there).await.unwrap();
    assert!(view.l0.is_empty(), "{:?}", view.l0);
    // One that is damaged is named, and the others are copied.
    let damaged = encoded(&[&world.store]).await;
    let whole = encoded(&[&world.store]).await;
    let path = world.store.path(&format!("l0/{}", damaged.name));
    let mut flipped = damaged.bytes.to_vec();
    flipped[40] ^= 1;
    world.memory.damage(&path, Bytes::from(flipped));
    let error = copy_l0(&here, &there).await.unwrap_err();
    assert!(matches!(error, ReplicateError::L0 { .. }), "{error}");
    assert!(names(&mirror.store).await.contains(&whole.name.to_string()));
    assert!(
        !names(&mirror.store)
            .await
            .contains(&damaged.name.to_string())
    );
}

#[tokio::test]
async fn settings_and_young_markers_are_copied_and_never_changed() {
    let world = World::new();
    let mirror = Mirror::of(&world);
    set_rollups_paused(&world.store, true, 1).await.unwrap();
    set_rollups_paused(&world.store, false, 2).await.unwrap();
    world
        .store
        .put_new("idem/old", Bytes::from_static(b"o"))
        .await
        .unwrap();
    world.clock.advance(3 * DAY_US);
    world
        .store
        .put_new("idem/new", Bytes::from_static(b"n"))
        .await
        .unwrap();
    let keep_us = 2 * DAY_US;
    let copied = copy_settings(&world.store, &mirror.store, keep_us)
        .await
        .unwrap();
    assert_eq!((copied.settings, copied.markers, copied.there), (2, 1, 0));
    let again = copy_settings(&world.store, &mirror.store, keep_us)
        .await
        .unwrap();
    assert_eq!((again.settings, again.markers, again.there), (0, 0, 3));
    assert_eq!(mirror.store.get_opt("idem/old").await.unwrap(), None);
    set_rollups_paused(&world.store, true, 3).await.unwrap();
    set_rollups_paused(&mirror.store, true, 4).await.unwrap();
    let error = copy_settings(&world.store, &mirror.store, keep_us)
        .await
        .unwrap_err();
    assert!(matches!(error, ReplicateError::Other { .. }), "{error}");
}

/// What a server's task must be, and a limit on its speed.
#[tokio::test(start_paused = true)]
async fn replication_runs_in_a_task_and_no_faster_than_it_may() {
    let world = old_world().await;
    let mirror = Mirror::of(&world);
    let (source, target) = (world.log(), mirror.log(&world));
    let began = tokio::time::Instant::now();
    let ran = tokio::spawn(async move {
        let options = ReplicateOptions::new(Some(1000), 2);
        replicate(&source, &target, &options, &|_| ())
            .await
            .unwrap()
    });
    let report = ran.await.unwrap();
    let millis = began.elapsed().as_millis();
    assert!(
        millis * 11 / 10 > u128::from(report.copied_bytes),
        "{millis} ms for {report:?}"
    );
}
