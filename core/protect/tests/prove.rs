//! Comparison and proof: nothing is called equal that is not, and what is missing is named.
#![allow(clippy::unwrap_used, clippy::panic)]

mod common;

use std::sync::Arc;

use bytes::Bytes;
use common::{ALL, World, compactor, log, tenant};
use stele_format::{batch, l0};
use stele_model::time::{DAY_US, HOUR_US, SECOND_US};
use stele_model::{Clock, Digest};
use stele_protect::{
    Depth, Lacking, Proof, ProofOptions, Proven, Relation, ReplicateOptions, Side, TierOptions,
    Wrong, compare, prove, replicate_tier,
};
use stele_store::{TenantStore, keys};
use stele_table::{TableLog, set_rollups_paused};
use stele_testkit::gen_rows::RowGen;
use stele_testkit::{MemoryStore, Rng};

struct Pair {
    world: World,
    memory: MemoryStore,
    store: TenantStore,
}

impl Pair {
    async fn new() -> Self {
        let mut world = World::new();
        world.work(30).await;
        world.pin("noon").await.unwrap();
        world.work(10).await;
        world.clock.advance(3 * DAY_US);
        world.work(8).await;
        world.sweep().await;
        let memory = MemoryStore::new(world.clock.clone());
        let store = tenant(&memory, "default");
        let pair = Self {
            world,
            memory,
            store,
        };
        pair.replicate().await;
        pair
    }

    async fn replicate(&self) {
        let open = |store: TenantStore| Arc::new(log(&store, &self.world.clock));
        let options = TierOptions {
            log: &open,
            marker_keep_us: 2 * DAY_US,
            replicate: &ReplicateOptions::default(),
        };
        let (from, to) = (self.world.store.tier(), self.store.tier());
        let done = replicate_tier(from, to, &options, &|_| ()).await.unwrap();
        assert!(done.first_error().is_none(), "{done:?}");
    }

    fn log(&self) -> TableLog {
        log(&self.store, &self.world.clock)
    }

    async fn prove(&self) -> Proven {
        let open = |store: TenantStore| Arc::new(log(&store, &self.world.clock));
        let options = ProofOptions {
            log: &open,
            marker_keep_us: 2 * DAY_US,
        };
        let (from, to) = (self.world.store.tier(), self.store.tier());
        prove(from, to, &options, &|_| ()).await.unwrap()
    }

    async fn proof(&self) -> Proof {
        match self.prove().await {
            Proven::Proof(proof) => *proof,
            Proven::Lacking(lacking) => panic!("{lacking:?}"),
        }
    }

    async fn lacking(&self) -> Vec<Lacking> {
        match self.prove().await {
            Proven::Proof(proof) => panic!("{proof:?}"),
            Proven::Lacking(lacking) => lacking,
        }
    }

    async fn accept(&self, stores: &[&TenantStore], seed: u64) {
        let rows = RowGen::new(Rng::new(seed), 5).rows(self.world.clock.now_us(), 20, 30);
        let encoded = l0::encode(&[batch(rows)]).unwrap();
        for store in stores {
            store
                .l0_put(&encoded.name, encoded.bytes.clone())
                .await
                .unwrap();
        }
    }
}

#[tokio::test]
async fn a_mirror_is_equal_and_proved_until_one_object_of_it_is_not_there() {
    let pair = Pair::new().await;
    for depth in [Depth::Names, Depth::Bytes] {
        let found = compare(&pair.world.log(), &pair.log(), depth)
            .await
            .unwrap();
        assert!(found.is_equal(), "{found:?}");
    }
    let proof = pair.proof().await;
    let of = &proof.tenants[0];
    pair.world.clock.advance(HOUR_US);
    assert_eq!(pair.proof().await.hash, proof.hash);
    assert!(
        proof.objects > 60 && proof.bytes > 0 && proof.rows > 0,
        "{proof:?}"
    );
    assert_eq!(of.retiring_version, of.survivor_version);
    // Every object that it holds, one after the other: damaged, then lost.
    let all: Vec<String> = pair
        .store
        .list("")
        .await
        .unwrap()
        .into_iter()
        .map(|o| o.key)
        .collect();
    let (mut named, mut unneeded) = (0, Vec::new());
    for key in all {
        let is_l0 = key.starts_with("l0/");
        let path = pair.store.path(&key);
        let whole = pair.memory.bytes(&path).unwrap();
        let mut flipped = whole.to_vec();
        let at = flipped.len() / 2;
        flipped[at] ^= 1;
        pair.memory.damage(&path, Bytes::from(flipped));
        let open = |store: TenantStore| Arc::new(log(&store, &pair.world.clock));
        let options = ProofOptions {
            log: &open,
            marker_keep_us: 2 * DAY_US,
        };
        let (from, to) = (pair.world.store.tier(), pair.store.tier());
        match prove(from, to, &options, &|_| ()).await {
            Ok(Proven::Proof(_)) => unneeded.push(key),
            Ok(Proven::Lacking(lacking)) => {
                assert!(
                    lacking[0].differences.iter().any(|d| d.key == key),
                    "{key} {lacking:?}"
                );
                named += 1;
            }
            Err(error) => {
                assert!(!is_l0, "{error}");
                named += 1;
            }
        }
        pair.memory.damage(&path, whole);
    }
    // Shortcuts, superseded objects of the history, and L0 that both logs have consumed.
    let shortcut = |key: &String| {
        let superseded = key.starts_with("table/resolution=") || key.starts_with("ledger/");
        let log = key.starts_with(keys::LOG) || key.starts_with(keys::HEADS);
        superseded || log || key.starts_with("l0/")
    };
    assert!(unneeded.iter().all(shortcut), "{unneeded:?}");
    assert!(named > 60, "{named}");
    let state = pair.world.state().await;
    for path in state.files.keys() {
        assert!(!unneeded.contains(&keys::data_file(path)));
    }
}

#[tokio::test]
async fn a_survivor_may_be_ahead_and_may_have_swept_what_it_superseded() {
    let pair = Pair::new().await;
    // The survivor goes on: seals, consolidates, and sweeps a day later.
    let worker = compactor(&pair.store, &pair.world.clock, 500);
    for n in 0..8 {
        pair.accept(&[&pair.store], 900 + n).await;
        worker.absorb(&ALL).await.unwrap();
        pair.world.clock.advance(HOUR_US);
    }
    worker.settle(&ALL, &|_| ()).await.unwrap();
    pair.world.clock.advance(3 * DAY_US);
    pair.accept(&[&pair.store], 990).await;
    worker.absorb(&ALL).await.unwrap();
    let swept = worker.sweep(&ALL).await.unwrap();
    assert!(swept.files_deleted > 0, "{swept:?}");
    let found = compare(&pair.world.log(), &pair.log(), Depth::Bytes)
        .await
        .unwrap();
    assert_eq!(found.relation, Relation::FirstIsPrefix);
    let at_survivor = found.differences.iter().filter(|d| d.side == Side::Second);
    assert_eq!(at_survivor.count(), 0, "{found:?}");
    assert!(found.differences_total > 0, "the first lacks what is new");
    let proof = pair.proof().await;
    assert!(proof.tenants[0].survivor_version > proof.tenants[0].retiring_version);
}

#[tokio::test]
async fn what_the_survivor_lacks_is_named() {
    let mut pair = Pair::new().await;
    // A batch that was accepted on one side only.
    pair.accept(&[&pair.world.store], 77).await;
    let lacking = pair.lacking().await;
    assert_eq!(lacking[0].differences_total, 1);
    assert!(lacking[0].differences[0].key.starts_with("l0/"));
    pair.replicate().await;
    pair.proof().await;
    // Accepted on one side, and consumed and swept on the other.
    pair.world.absorb().await;
    pair.replicate().await;
    let consumed = pair.world.store.l0_list().await.unwrap();
    pair.world.clock.advance(HOUR_US);
    pair.world.sweep().await;
    for object in &consumed {
        let path = pair.store.path(&format!("l0/{}", object.name));
        assert!(
            pair.memory
                .bytes(&path)
                .is_none_or(|bytes| !bytes.is_empty())
        );
    }
    let found = compare(&pair.world.log(), &pair.log(), Depth::Bytes)
        .await
        .unwrap();
    assert_eq!(found.relation, Relation::SecondIsPrefix);
    // A version that has not come over.
    let lacking = pair.lacking().await;
    let newest = pair.world.state().await.version;
    let entry = keys::log_entry(newest);
    let is_entry = |d: &stele_protect::Difference| d.key == entry && d.wrong == Wrong::Missing;
    assert!(lacking[0].differences.iter().any(is_entry), "{lacking:?}");
    pair.replicate().await;
    pair.proof().await;
    // A setting, and a token.
    set_rollups_paused(&pair.world.store, true, 1)
        .await
        .unwrap();
    let token = Bytes::from_static(b"{}");
    pair.world
        .store
        .tier()
        .control()
        .put_new("tokens/x.json", token)
        .await
        .unwrap();
    let lacking = pair.lacking().await;
    assert_eq!(lacking.len(), 2);
    assert_eq!(lacking[0].differences[0].key, "tokens/x.json");
    assert!(
        lacking[1].differences[0]
            .key
            .starts_with("control/rollups/")
    );
    pair.replicate().await;
    pair.proof().await;
    // Another history.
    let rogue = compactor(&pair.store, &pair.world.clock, 99);
    pair.accept(&[&pair.store], 5).await;
    rogue.absorb(&ALL).await.unwrap();
    pair.world.absorb().await;
    let lacking = pair.lacking().await;
    assert!(matches!(lacking[0].relation, Relation::Diverged { .. }));
}

#[tokio::test]
async fn a_survivor_holds_every_marker_that_is_still_accepted() {
    let pair = Pair::new().await;
    let ours = &pair.world.store;
    // Sent a moment apart: the first is kept for exactly as long as it takes.
    let marker = |byte: u8| keys::marker(&Digest([byte; 16]));
    ours.put_new(&marker(1), "{}".into()).await.unwrap();
    pair.world.clock.advance(SECOND_US);
    ours.put_new(&marker(2), "{}".into()).await.unwrap();
    pair.replicate().await;
    pair.proof().await;
    let other = "other".into();
    let (one, two) = (pair.store.path(&marker(1)), pair.store.path(&marker(2)));
    pair.memory.lose(&one);
    pair.memory.damage(&two, other);
    let lacking = pair.lacking().await;
    let named = |lacking: &[Lacking]| -> Vec<String> {
        let differences = lacking.iter().flat_map(|one| &one.differences);
        differences.map(|found| found.key.clone()).collect()
    };
    assert_eq!(named(&lacking), [marker(1), marker(2)]);
    pair.world.clock.advance(2 * DAY_US - SECOND_US);
    assert_eq!(named(&pair.lacking().await), [marker(2)]);
    pair.world.clock.advance(SECOND_US);
    pair.proof().await;
}
