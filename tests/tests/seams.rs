//! Which crate may link what, read from cargo itself.

#![allow(clippy::unwrap_used, clippy::panic)]

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

use stele_tests::repository;

/// The names of all crates that `package` links, itself included.
fn links(package: &str) -> BTreeSet<String> {
    tree(package, &[])
}

/// The names of the crates that `package` itself names.
fn names(package: &str) -> BTreeSet<String> {
    let mut direct = tree(package, &["--depth", "1"]);
    direct.remove(package);
    direct
}

fn tree(package: &str, more: &[&str]) -> BTreeSet<String> {
    let mut cargo = Command::new(env!("CARGO"));
    cargo.current_dir(repository());
    cargo.args([
        "tree", "-e", "normal", "--prefix", "none", "-f", "{p}", "-p", package,
    ]);
    let done = cargo.args(more).output().unwrap();
    let error = String::from_utf8_lossy(&done.stderr);
    assert!(done.status.success(), "{package}: {error}");
    let lines = String::from_utf8(done.stdout).unwrap();
    let name = |line: &str| line.split_whitespace().next().map(str::to_owned);
    lines.lines().filter_map(name).collect()
}

/// Every crate of the product and its layer; an arrow may only point to the same or a lower one.
fn layers() -> BTreeMap<&'static str, u8> {
    let layers: [&[&str]; 6] = [
        &["stele-model"],
        &[
            "stele-wire",
            "stele-guard",
            "stele-format",
            "stele-store",
            "stele-table",
            "stele-runtime",
        ],
        &[
            "stele-auth",
            "stele-import",
            "stele-ingest",
            "stele-compact",
            "stele-protect",
            "stele-query",
        ],
        &["stele-http", "stele-node"],
        &["stele-lambda"],
        &[
            "stele",
            "stele-fn-ingest",
            "stele-fn-query",
            "stele-fn-compact",
            "stele-fn-protect",
        ],
    ];
    let numbered = (0..).zip(layers);
    let pairs = numbered.flat_map(|(n, names)| names.iter().map(move |name| (*name, n)));
    pairs.collect()
}

fn links_none_of(package: &str, forbidden: &[&str]) {
    let linked = links(package);
    assert!(linked.contains(package));
    for word in forbidden {
        let found = |name: &&String| *name == word || name.starts_with(&format!("{word}-"));
        let found: Vec<&String> = linked.iter().filter(found).collect();
        assert!(found.is_empty(), "{package} links {found:?}");
    }
}

#[test]
fn arrows_point_one_way() {
    let layers = layers();
    for (package, layer) in &layers {
        for name in names(package) {
            if name.starts_with("stele") {
                let below = layers.get(name.as_str());
                let below = below.unwrap_or_else(|| panic!("{package} names {name}"));
                assert!(below <= layer, "{package} names {name}");
            }
        }
    }
}

#[test]
fn only_query_names_datafusion() {
    assert!(names("stele-query").contains("datafusion"));
    for package in layers().keys().filter(|p| **p != "stele-query") {
        let named = names(package);
        let datafusion = named.iter().find(|name| name.starts_with("datafusion"));
        assert_eq!(datafusion, None, "{package}");
    }
}

#[test]
fn the_ingest_function_links_no_query_engine_and_no_compaction() {
    let forbidden = [
        "datafusion",
        "deltalake",
        "stele-compact",
        "stele-protect",
        "stele-query",
        "sqlparser",
    ];
    links_none_of("stele-fn-ingest", &forbidden);
}

#[test]
fn compact_and_protect_link_no_datafusion() {
    for package in ["stele-node", "stele-fn-compact", "stele-fn-protect"] {
        links_none_of(package, &["datafusion", "deltalake", "sqlparser"]);
    }
}

#[test]
fn the_model_does_no_io_and_wire_and_guard_know_only_bytes() {
    let io = [
        "tokio",
        "arrow",
        "parquet",
        "object_store",
        "reqwest",
        "hyper",
    ];
    links_none_of("stele-model", &io);
    links_none_of("stele-wire", &io);
    links_none_of("stele-guard", &io);
}

#[test]
fn format_has_no_network_and_store_no_arrow() {
    links_none_of("stele-format", &["object_store", "reqwest", "hyper"]);
    links_none_of("stele-store", &["arrow", "parquet"]);
}

#[test]
fn every_crate_of_the_product_has_a_layer() {
    let layers = layers();
    for folder in ["core", "functions"] {
        for entry in std::fs::read_dir(repository().join(folder)).unwrap() {
            let manifest = entry.unwrap().path().join("Cargo.toml");
            // `core/notes` is no crate.
            let Ok(manifest) = std::fs::read_to_string(manifest) else {
                continue;
            };
            let manifest: toml::Table = manifest.parse().unwrap();
            let name = manifest["package"]["name"].as_str().unwrap().to_owned();
            let known = layers.contains_key(name.as_str()) || name == "stele-testkit";
            assert!(known, "{name} has no layer in this test");
        }
    }
}
