//! Several servers may write, compact and answer on one store at once.

#![allow(clippy::unwrap_used, clippy::panic)]

use std::path::Path;

use stele_tests::fake_s3::{FakeS3, Lie};
use stele_tests::fleet::{Fleet, Plan};
use stele_tests::server::{EAGER, Server, run};
use stele_tests::store::Store;

const CROWD: Plan = Plan {
    writers: 4,
    rows: 30,
    pause_ms_max: 80,
    seed: 3,
};

/// Both servers take writes and compact against each other until `batches` are acknowledged.
fn two_servers_agree(store: &Store, batches: u64) {
    let fleet = Fleet::start(CROWD);
    let one = Server::start(store, &EAGER).unwrap();
    let two = Server::start(store, &EAGER).unwrap();
    fleet.point_at(&[one.url(), two.url()]);
    std::thread::scope(|scope| {
        scope.spawn(|| settle_thrice(&one));
        scope.spawn(|| settle_thrice(&two));
        fleet.wait_for(batches).unwrap();
    });
    let oracle = fleet.finish().unwrap();
    assert!(oracle.acked_len() > 0);
    one.check_tables(&oracle).unwrap();
    two.check_tables(&oracle).unwrap();
    std::thread::scope(|scope| {
        scope.spawn(|| one.settle().unwrap());
        scope.spawn(|| two.settle().unwrap());
    });
    one.check_tables(&oracle).unwrap();
    two.check_tables(&oracle).unwrap();
    one.stop().unwrap();
    two.stop().unwrap();
    let verify = ["verify", "--json", "--store", &store.url()];
    let verified = run(store, Path::new("/"), &verify).unwrap();
    assert!(verified.status.success(), "{verified:?}");
}

fn settle_thrice(server: &Server) {
    for _ in 0..3 {
        server.settle().unwrap();
    }
}

#[test]
fn two_servers_on_one_directory_lose_and_double_nothing() {
    two_servers_agree(&Store::local().unwrap(), 200);
}

#[test]
fn two_servers_on_one_s3_store_lose_and_double_nothing() {
    two_servers_agree(&Store::s3().unwrap(), 60);
}

#[test]
fn a_store_that_loses_replies_loses_and_doubles_no_sample() {
    let fake = FakeS3::start(Lie::LosesReplies).unwrap();
    two_servers_agree(&fake.store(), 60);
    assert!(fake.puts() > 100, "only {} PUTs were made", fake.puts());
}
