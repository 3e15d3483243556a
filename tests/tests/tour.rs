//! The README is true: its tour runs as it stands and shows what it promises.

#![allow(clippy::unwrap_used, clippy::panic)]

use std::process::Command;

use stele_tests::server::Server;
use stele_tests::store::Store;
use stele_tests::{binary, repository};

/// The first shell block under the heading `## A tour`.
fn tour() -> String {
    let readme = std::fs::read_to_string(repository().join("README.md")).unwrap();
    let (_, section) = readme
        .split_once("\n## A tour\n")
        .expect("a tour in README.md");
    let (_, block) = section
        .split_once("```sh\n")
        .expect("a shell block in the tour");
    block
        .split_once("```")
        .expect("the block ends")
        .0
        .to_owned()
}

#[test]
fn the_tour_of_the_readme_shows_data_from_every_table() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::other(
        &format!("file://{}/stele-data", dir.path().display()),
        vec![],
    );
    let server = Server::start(&store, &[("STELE_HOST_METRICS", "true")]).unwrap();
    let address = server.url().trim_start_matches("http://");
    let tour = tour();
    for needed in [
        "samples",
        "rollup_60s",
        "rollup_15m",
        "rollup_60m",
        "series",
        "ledger",
    ] {
        assert!(
            tour.contains(&format!("FROM {needed}")),
            "no query of {needed}"
        );
    }
    let stele = binary::stele().unwrap();
    // The reader's server is on the default port and the binary in target/release; ours are not.
    let script = tour
        .replace("./target/release/stele", &stele.display().to_string())
        .replace("localhost:8686", address);
    assert!(script.contains(&stele.display().to_string()) && script.contains(address));
    let done = Command::new("bash")
        .args(["-euxo", "pipefail", "-c", &script])
        .current_dir(dir.path())
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap())
        .env("STELE_URL", server.url())
        .output()
        .unwrap();
    let said = String::from_utf8(done.stdout).unwrap();
    let log = String::from_utf8_lossy(&done.stderr);
    assert!(done.status.success(), "{}\n{said}\n{log}", done.status);
    let rollup = "\"count\":2,\"sum\":8.0,\"min\":3.0,\"max\":5.0,\"first\":3.0,\"last\":5.0";
    for promised in ["HTTP/1.1 204", "41.5", "12.25", rollup] {
        assert!(said.contains(promised), "no {promised} in\n{said}\n{log}");
    }
    // Asked before and after settle.
    assert_eq!(said.matches(rollup).count(), 2, "{said}");
    let empty = said.lines().any(|line| line.trim() == "[]");
    assert!(!empty, "a query of the tour has no row:\n{said}\n{log}");
    server.stop().unwrap();
}
