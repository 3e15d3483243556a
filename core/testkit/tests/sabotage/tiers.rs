//! A copy is the very thing, or none.

#[path = "../../../protect/tests/common/fuse.rs"]
mod fuse;
#[path = "../../../protect/tests/common/mod.rs"]
mod history;

use std::sync::Arc;

use bytes::Bytes;
use fuse::Fuse;
use history::{ALL, World, compactor, log, name, tenant};
use stele_compact::reader;
use stele_format::{batch, content_digest, l0};
use stele_model::Clock;
use stele_model::time::DAY_US;
use stele_protect::{
    ProofOptions, Proven, ReplicateError, ReplicateOptions, ReplicateReport, TierOptions, prove,
    replicate, replicate_tier, restore, restore_plan,
};
use stele_store::{TenantStore, keys};
use stele_table::{TableLog, TableState, View};
use stele_testkit::gen_rows::RowGen;
use stele_testkit::oracle::Samples;
use stele_testkit::{MemoryStore, Rng};

async fn run(world: &World, to: &TableLog) -> Result<ReplicateReport, ReplicateError> {
    replicate(&world.log(), to, &ReplicateOptions::default(), &|_| ()).await
}

/// What a tenant's table holds, or why it cannot be read.
async fn samples(store: &TenantStore, state: Arc<TableState>) -> Result<Samples, String> {
    let l0 = Vec::new();
    let read = reader::all_samples(store, &View { state, l0 }).await;
    Samples::read(read.map_err(|error| error.to_string())?.as_mut())
}

fn flip(memory: &MemoryStore, store: &TenantStore, key: &str) {
    let path = store.path(key);
    let mut bytes = memory.bytes(&path).unwrap().to_vec();
    let at = bytes.len() / 2;
    bytes[at] ^= 1;
    memory.damage(&path, Bytes::from(bytes));
}

/// A mirror has taken a commit of its own, and the primary goes on.
pub async fn logs_have_diverged() {
    let mut world = World::new();
    world.work(8).await;
    let memory = MemoryStore::new(world.clock.clone());
    let mirror = tenant(&memory, "default");
    run(&world, &log(&mirror, &world.clock)).await.unwrap();
    let rows = RowGen::new(Rng::new(77), 5).rows(world.clock.now_us(), 20, 30);
    let encoded = l0::encode(&[batch(rows)]).unwrap();
    mirror.l0_put(&encoded.name, encoded.bytes).await.unwrap();
    let rogue = compactor(&mirror, &world.clock, 99);
    rogue.absorb(&ALL).await.unwrap();
    world.work(2).await;
    match run(&world, &log(&mirror, &world.clock)).await {
        Err(ReplicateError::Diverged { .. }) => {}
        Err(error) => panic!("another check refuses: {}", stele_model::chain(&error)),
        Ok(report) => panic!("a diverged log was copied to: {report:?}"),
    }
}

/// A mirror that follows dies at each single mutation.
pub async fn a_copy_is_cut_short() {
    let mut world = World::new();
    world.work(6).await;
    let memory = MemoryStore::new(world.clock.clone());
    let mirror = tenant(&memory, "default");
    run(&world, &log(&mirror, &world.clock)).await.unwrap();
    for after in 0..12 {
        world.work(2).await;
        let fuse = Fuse::new(Arc::new(memory.clone()), after, after % 2 == 0);
        let dying = mirror.tier().over(fuse).tenant(mirror.tenant());
        drop(run(&world, &log(&dying, &world.clock)).await);
        let read = match log(&mirror, &world.clock).load().await {
            Ok(shown) => samples(&mirror, shown.unwrap()).await.map(drop),
            Err(error) => Err(stele_model::chain(&error)),
        };
        if let Err(error) = read {
            panic!("a mirror that stopped after {after} mutations: {error}");
        }
        run(&world, &log(&mirror, &world.clock)).await.unwrap();
    }
}

/// A file that both tiers hold is damaged on the one that is to stay.
pub async fn a_survivor_is_damaged() {
    let mut world = World::new();
    world.work(12).await;
    let memory = MemoryStore::new(world.clock.clone());
    let store = tenant(&memory, "default");
    let open = |store: TenantStore| Arc::new(log(&store, &world.clock));
    let options = TierOptions {
        log: &open,
        marker_keep_us: 2 * DAY_US,
        replicate: &ReplicateOptions::default(),
    };
    let (from, to) = (world.store.tier(), store.tier());
    let done = replicate_tier(from, to, &options, &|_| ()).await.unwrap();
    assert!(done.first_error().is_none(), "{done:?}");
    let state = world.state().await;
    for file in state.files.values() {
        let key = keys::data_file(&file.path);
        let whole = memory.bytes(&store.path(&key)).unwrap();
        flip(&memory, &store, &key);
        let options = ProofOptions {
            log: &open,
            marker_keep_us: 2 * DAY_US,
        };
        let proven = prove(from, to, &options, &|_| ()).await;
        let there = content_digest(&store.get(&key).await.unwrap());
        let is_proved = matches!(proven, Ok(Proven::Proof(_)));
        assert!(
            !is_proved || there == file.stats.digest,
            "{key} is proved, and damaged"
        );
        memory.damage(&store.path(&key), whole);
    }
}

/// A file of a snapshot is damaged when the snapshot is restored.
pub async fn a_snapshot_is_damaged() {
    let mut world = World::new();
    world.work(12).await;
    world.pin("noon").await.unwrap();
    let state = world.state().await;
    let expected = samples(&world.store, Arc::clone(&state)).await.unwrap();
    let target = tenant(&world.memory, "drill");
    let plan = restore_plan(&world.log(), &name("noon"), &target)
        .await
        .unwrap();
    let mut files = state.files.values();
    let file = files.find(|file| file.kind.holds_samples()).unwrap();
    flip(&world.memory, &world.store, &keys::data_file(&file.path));
    let to = log(&target, &world.clock);
    if restore(&plan, plan.hash, &world.store, &to, &|_| ())
        .await
        .is_err()
    {
        return;
    }
    let restored = log(&target, &world.clock).load().await.unwrap().unwrap();
    match samples(&target, restored).await {
        Err(error) => panic!("what was restored does not read: {error}"),
        Ok(got) => assert_eq!(expected.first_difference(&got), None, "restored"),
    }
}
