//! Servers that race each other on a real S3 server, through a network that fails them: a request
//! that never arrives, arrives late, or arrives though its sender was told otherwise.

#![allow(clippy::unwrap_used, clippy::panic)]

use std::path::Path;

use stele_tests::fleet::{Fleet, Plan};
use stele_tests::localstack::{LocalStack, aws_env};
use stele_tests::proxy::{Fault, Faults, Proxy};
use stele_tests::server::{EAGER, Server, run};
use stele_tests::store::Store;

const KINDS: [Fault; 5] = [
    Fault::Unavailable,
    Fault::Reset,
    Fault::CommitThenFail,
    Fault::CommitThenDrop,
    Fault::DelayMs(100),
];
const CROWD: Plan = Plan {
    writers: 4,
    rows: 30,
    pause_ms_max: 80,
    seed: 11,
};

#[test]
fn racing_servers_behind_a_failing_network_lose_and_double_nothing() {
    let server = LocalStack::start().unwrap();
    server.create_bucket("bucket").unwrap();
    let network = Proxy::start(server.endpoint(), &[]).unwrap();
    let url = "s3://bucket/prefix";
    let store = Store::other(url, aws_env(network.url()));
    let one = Server::start(&store, &EAGER).unwrap();
    let two = Server::start(&store, &EAGER).unwrap();
    network.set_faults(Some(Faults {
        method: None,
        percent: 10,
        kinds: KINDS.to_vec(),
        seed: 11,
    }));
    let fleet = Fleet::start(CROWD);
    fleet.point_at(&[one.url(), two.url()]);
    fleet.wait_for(200).unwrap();
    let met = network.met();
    eprintln!("{} batches, {} faults", fleet.acked(), met.len());
    let oracle = fleet.finish().unwrap();
    network.set_faults(None);
    for kind in KINDS {
        let times = met.iter().filter(|fault| **fault == kind).count();
        assert!(times > 0, "{kind:?} came {times} times in {}", met.len());
    }
    eprintln!("written");
    one.check_tables(&oracle).unwrap();
    eprintln!("read");
    two.settle().unwrap();
    for server in [&one, &two] {
        server.check_tables(&oracle).unwrap();
    }
    one.stop().unwrap();
    two.stop().unwrap();
    let verify = ["verify", "--json", "--store", url];
    let verified = run(&store, Path::new("/"), &verify).unwrap();
    assert!(verified.status.success(), "{verified:?}");
}
