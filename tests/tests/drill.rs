//! The drills, as anybody runs them.

#![allow(clippy::unwrap_used, clippy::panic)]

use std::path::Path;

use serde_json::Value;
use stele_tests::server::{Server, run, write};
use stele_tests::store::{Store, files_below};

fn february(store: &Store, more: &[&str]) {
    let args = [&["drill", "february", "--json"], more].concat();
    let done = run(store, Path::new("/"), &args).unwrap();
    let report: Value = serde_json::from_slice(&done.stdout).unwrap();
    assert_eq!(report["passed"], true, "{report:#}");
    assert!(done.status.success());
    assert_eq!(report["queries_failed"], 0, "{report:#}");
    assert_eq!(report["longest_read_gap_secs"], 0.0);
    let samples = report["samples_acknowledged"].as_u64().unwrap();
    assert!(samples > 40_000, "{samples}");
    for checked in report["checked"].as_array().unwrap() {
        assert_eq!(checked["samples"], samples, "{checked}");
    }
    assert!(report["objects_lost_on_the_old_tier"].as_u64() > Some(0));
    let refusals = report["refusals"].to_string();
    assert!(
        refusals.contains("objects are missing, first"),
        "{refusals}"
    );
}

#[test]
fn february_on_directories() {
    february(&Store::local().unwrap(), &[]);
}

#[test]
fn february_on_s3() {
    let store = Store::s3().unwrap();
    february(&store, &["--at", &store.url()]);
}

#[test]
fn a_snapshot_is_proven_by_restoring_it() {
    let (store, dir) = (Store::local().unwrap(), tempfile::tempdir().unwrap());
    let (url, copy) = (store.url(), dir.path().join("backup"));
    let json = |args: &[&str]| -> Value {
        let args = [args, &["--store", &url, "--json"]].concat();
        let done = run(&store, Path::new("/"), &args).unwrap();
        let said = String::from_utf8_lossy(&done.stderr);
        assert!(done.status.success(), "{args:?}: {said}");
        serde_json::from_slice(&done.stdout).unwrap()
    };
    let server = Server::start(&store, &[]).unwrap();
    for n in 0..20 {
        let line = format!("cpu,host=a value={n} {}", 1_760_000_000_000_000i64 + n);
        assert_eq!(write(server.url(), &line).unwrap().status, 204);
    }
    server.settle().unwrap();
    server.stop().unwrap();
    json(&["snapshot", "create", "noon"]);
    let proven = || json(&["snapshot", "list"])[0]["proven"].clone();
    assert_eq!(proven(), "unproven");
    let times = ["--lease", "1s", "--request", "1s", "--nobody-writes"];
    json(&[&["tier", "init", "--name", "main"][..], &times].concat());
    let backup = ["tier", "add", "backup", copy.to_str().unwrap()];
    json(&[&backup[..], &["--role", "backup"]].concat());
    json(&["tier", "sync"]);
    let drilled = json(&["drill", "restore", "--tier", "backup"]);
    assert_eq!(
        (&drilled["passed"], &drilled["samples"]),
        (&true.into(), &20.into())
    );
    assert!(proven().as_str().unwrap().starts_with("20"), "{}", proven());
    // A flipped byte on the backup: the drill finds it, and says so until it is mended.
    let files = files_below(&copy.join("tenants/default/table"));
    let raw = files
        .iter()
        .find(|file| file.starts_with("resolution=raw"))
        .unwrap();
    let raw = copy.join("tenants/default/table").join(raw);
    let mut bytes = std::fs::read(&raw).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&raw, bytes).unwrap();
    let failed = ["drill", "restore", "--tier", "backup", "--store", &url];
    let failed = run(&store, Path::new("/"), &failed).unwrap();
    assert_eq!(failed.status.code(), Some(1));
    assert!(
        proven().as_str().unwrap().starts_with("FAILED"),
        "{}",
        proven()
    );
}
