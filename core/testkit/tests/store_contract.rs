//! The one store contract, against every store that needs no server.

#![allow(clippy::unwrap_used, clippy::panic)]

use std::sync::Arc;

use stele_store::Tier;
use stele_testkit::{FaultWorld, ManualClock, MemoryStore, Plan, contract};

const NOW_US: i64 = 1_800_000_000_000_000;

#[tokio::test]
async fn memory_keeps_the_contract() {
    let tier = Tier::open("memory://", &[]).unwrap();
    contract::run(&tier, contract::Options::default()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_durable_directory_keeps_the_contract() {
    let dir = tempfile::tempdir().unwrap();
    let tier = Tier::open(dir.path().to_str().unwrap(), &[]).unwrap();
    contract::run(&tier, contract::Options::default()).await;
}

#[tokio::test]
async fn the_simulated_store_keeps_the_contract_below_a_prefix() {
    let store = MemoryStore::new(ManualClock::new(NOW_US));
    let tier = Tier::from_store(Arc::new(store.clone()), "", "sim");
    contract::run(&tier, contract::Options::default()).await;
    // Keys that were deleted and created again with other bytes are noticed.
    let reused: Vec<String> = store.reused_keys().iter().map(|k| k.to_string()).collect();
    assert_eq!(reused, ["tenants/deletes/d/one"]);
}

#[tokio::test]
async fn a_fault_store_without_faults_keeps_the_contract() {
    let store = MemoryStore::new(ManualClock::new(NOW_US));
    let world = FaultWorld::immediate(Arc::new(store), Plan::none());
    let tier = Tier::from_store(world.actor("a"), "", "sim");
    contract::run(&tier, contract::Options { listed_keys: 50 }).await;
}
