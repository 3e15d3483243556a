//! The drills, as anybody runs them.

#![allow(clippy::unwrap_used, clippy::panic)]

use std::path::Path;

use serde_json::Value;
use stele_tests::server::run;
use stele_tests::store::Store;

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
