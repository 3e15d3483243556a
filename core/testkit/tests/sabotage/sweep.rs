//! Nothing is deleted or forgotten that somebody counts on.

use std::pin::pin;
use std::sync::Arc;

use futures::FutureExt;
use futures::future::BoxFuture;
use stele_compact::{Standing, Witness, WitnessError, Witnesses, reader};
use stele_format::{RollupReader, RollupSource, RollupWriter};
use stele_model::time::{DAY_US, HOUR_US, SECOND_US};
use stele_model::{Clock, Day, Resolution};
use stele_protect::{NewSnapshot, create};
use stele_store::keys;
use stele_table::{
    AsOf, Commit, CommitKind, FileEntry, FileKind, OperationId, Outcome, Retention, View, Why,
    set_retention,
};

use crate::reads::{gated, pass};
use crate::world::{ALL, DAY0, World, hour, rows, sample};

/// Whoever takes a snapshot stands still for two days, and its version is swept.
pub async fn a_pin_comes_too_late() {
    for gates in 0..16 {
        let mut world = World::new();
        let worker = world.compactor(1);
        for n in 0..30 {
            world
                .accept(sample("cpu", DAY0 + 9 * HOUR_US + n, 1.0))
                .await;
            worker.absorb(&ALL).await.unwrap();
        }
        let (faults, log) = gated(&world);
        let name: stele_table::PinName = "noon".parse().unwrap();
        let new = NewSnapshot {
            name: name.clone(),
            why: Why::Manual,
            note: String::new(),
        };
        let clock = world.clock.clone();
        let mut creation = pin!(create(&log, &new, &clock));
        let mut created = pass(&faults, &mut creation, gates).await;
        for _ in 0..2 {
            worker.settle(&ALL, &|_| ()).await.unwrap();
            for n in 0..30 {
                let at = world.clock.now_us() + n;
                world.accept(sample("cpu", at, 1.0)).await;
                worker.absorb(&ALL).await.unwrap();
            }
            world.clock.advance(DAY_US + HOUR_US);
            worker.sweep(&ALL).await.unwrap();
        }
        if created.is_none() {
            created = pass(&faults, &mut creation, usize::MAX).await;
        }
        if created.unwrap().is_err() {
            continue;
        }
        let of_pin = world.log(DAY_US).as_of(&AsOf::Pin(name)).await;
        let state = of_pin.unwrap_or_else(|error| panic!("a snapshot does not load: {error}"));
        let l0 = Vec::new();
        let read = reader::all_samples(&world.store, &View { state, l0 }).await;
        if let Err(error) = read {
            panic!("a snapshot does not read: {error}");
        }
    }
}

/// One other tier.
struct Beside(Witness);

impl Witnesses for Beside {
    fn standing(&self) -> BoxFuture<'_, Result<Standing, WitnessError>> {
        let others = vec![self.0.clone()];
        let standing = Standing {
            may_commit: true,
            others,
        };
        async move { Ok(standing) }.boxed()
    }
}

/// An object was absorbed on the primary; the mirror has neither it nor the entry.
pub async fn a_mirror_lacks_an_object() {
    let mut primary = World::new();
    let mirror = primary.beside();
    let name = primary.accept(hour("cpu", 9)).await;
    primary.compactor(1).absorb(&ALL).await.unwrap();
    primary.clock.advance(HOUR_US);
    let witness = Witness {
        tier: "mirror".to_owned(),
        log: Arc::new(mirror.log(DAY_US)),
    };
    let worker = primary
        .compactor(2)
        .with_witnesses(Arc::new(Beside(witness)));
    worker.sweep(&ALL).await.unwrap();
    for world in [&primary, &mirror] {
        let listed = world.store.l0_list().await.unwrap();
        if listed.iter().any(|object| object.name == name) {
            return;
        }
    }
    panic!("{name} is on no tier, and the mirror's log does not have it");
}

/// A maximum in a rollup of a day that is about to expire is not that of its raw samples.
pub async fn a_rollup_is_not_its_raw() {
    let mut world = World::new();
    for day in 0..3 {
        let at = DAY0 + day * DAY_US + 7 * HOUR_US;
        world.accept(rows("cpu", at, 60 * SECOND_US, 90)).await;
    }
    world.clock.set(DAY0 + 3 * DAY_US);
    let keep = Retention {
        raw_days: Some(1),
        ..Retention::default()
    };
    set_retention(&world.store, keep).await.unwrap();
    world.compactor(1).settle(&ALL, &|_| ()).await.unwrap();
    world.clock.set(DAY0 + 4 * DAY_US);
    tamper(&world).await;
    // What it says does not matter here: raw must still be there.
    drop(world.compactor(2).expire(&ALL).await);
    let expired = world.state().await.expired.raw_before;
    assert!(expired.is_none(), "raw is gone, and its rollup is wrong");
}

async fn tamper(world: &World) {
    let kind = FileKind::Sealed(Resolution::S60);
    let log = world.log(DAY_US);
    let state = log.load().await.unwrap().unwrap();
    let period = Day::of(DAY0).period();
    let mut files = state.files_of(kind).filter(|file| file.period == period);
    let old = files.next().unwrap();
    let bytes = world.store.get(&keys::data_file(&old.path)).await.unwrap();
    let mut reader = RollupReader::open(bytes).unwrap();
    let mut writer = RollupWriter::new(true);
    while let Some(mut chunk) = reader.next_chunk().unwrap() {
        chunk.bins[0].1.max += 0.5;
        for (start_us, aggregate) in &chunk.bins {
            writer.push(&chunk.series, *start_us, aggregate).unwrap();
        }
    }
    let file = writer.finish().unwrap().unwrap();
    let path = FileEntry::path_of(kind, &period, "tampered");
    let put = world
        .store
        .put_new(&keys::data_file(&path), file.bytes)
        .await;
    put.unwrap();
    let operation = OperationId("1".repeat(32));
    let mut commit = Commit::new(operation, CommitKind::Consolidate, world.clock.now_us());
    commit.remove = vec![old.path.clone()];
    commit.add = vec![FileEntry {
        path,
        stats: file.stats,
        ..old.as_ref().clone()
    }];
    let done = log.commit(&state, commit).await.unwrap();
    assert!(matches!(done, Outcome::Committed(_)));
}
