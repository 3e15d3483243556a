//! What is linked may be shipped: licences, sources and single versions, as `deny.toml` says.
//!
//! The same file drives `cargo deny`; this test needs nothing but cargo.

#![allow(clippy::unwrap_used, clippy::panic)]

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

use serde_json::Value;
use stele_tests::repository;

fn packages() -> Vec<Value> {
    let mut cargo = Command::new(env!("CARGO"));
    cargo.current_dir(repository());
    let done = cargo
        .args(["metadata", "--format-version", "1"])
        .output()
        .unwrap();
    let error = String::from_utf8_lossy(&done.stderr);
    assert!(done.status.success(), "{error}");
    let mut metadata: Value = serde_json::from_slice(&done.stdout).unwrap();
    match metadata["packages"].take() {
        Value::Array(packages) => packages,
        other => panic!("packages are {other}"),
    }
}

fn deny() -> toml::Table {
    let text = std::fs::read_to_string(repository().join("deny.toml")).unwrap();
    text.parse().unwrap()
}

fn texts(table: &toml::Table, section: &str, key: &str) -> BTreeSet<String> {
    let list = table[section][key].as_array().unwrap().iter();
    list.map(|v| v.as_str().unwrap().to_owned()).collect()
}

/// Whether an SPDX expression is satisfied by allowed licences alone. `/` is the old `OR`.
fn allowed(expression: &str, allow: &BTreeSet<String>) -> bool {
    let spaced = expression.replace('/', " OR ");
    let spaced = spaced.replace('(', " ( ").replace(')', " ) ");
    let words: Vec<&str> = spaced.split_whitespace().collect();
    let mut at = 0;
    let ok = any(&words, &mut at, allow);
    assert_eq!(at, words.len(), "{expression} is no SPDX expression");
    ok
}

fn any(words: &[&str], at: &mut usize, allow: &BTreeSet<String>) -> bool {
    let mut ok = all(words, at, allow);
    while words.get(*at) == Some(&"OR") {
        *at += 1;
        ok |= all(words, at, allow);
    }
    ok
}

fn all(words: &[&str], at: &mut usize, allow: &BTreeSet<String>) -> bool {
    let mut ok = one(words, at, allow);
    while words.get(*at) == Some(&"AND") {
        *at += 1;
        ok &= one(words, at, allow);
    }
    ok
}

fn one(words: &[&str], at: &mut usize, allow: &BTreeSet<String>) -> bool {
    let word = words[*at];
    *at += 1;
    if word == "(" {
        let ok = any(words, at, allow);
        assert_eq!(words.get(*at), Some(&")"));
        *at += 1;
        return ok;
    }
    let mut name = word.to_owned();
    if words.get(*at) == Some(&"WITH") {
        name = format!("{name} WITH {}", words[*at + 1]);
        *at += 2;
    }
    allow.contains(&name)
}

#[test]
fn expressions_are_read_as_spdx_means_them() {
    let allow = BTreeSet::from(["MIT".to_owned(), "BSD-3-Clause".to_owned()]);
    for yes in [
        "MIT",
        "GPL-3.0 OR MIT",
        "GPL-3.0/MIT",
        "(X OR MIT) AND BSD-3-Clause",
    ] {
        assert!(allowed(yes, &allow), "{yes}");
    }
    for no in ["GPL-3.0", "MIT AND GPL-3.0", "MIT WITH x", "X OR MIT AND Y"] {
        assert!(!allowed(no, &allow), "{no}");
    }
}

#[test]
fn every_dependency_has_an_allowed_licence() {
    let allow = texts(&deny(), "licenses", "allow");
    let refused = |p: &Value| {
        let licence = p["license"].as_str();
        let ok = licence.is_some_and(|text| allowed(text, &allow));
        (!ok).then(|| format!("{} {}: {licence:?}", p["name"], p["version"]))
    };
    let refused: Vec<String> = packages().iter().filter_map(refused).collect();
    assert!(refused.is_empty(), "{refused:#?}");
}

#[test]
fn every_dependency_comes_from_an_allowed_registry() {
    let allow = texts(&deny(), "sources", "allow-registry");
    let foreign = |p: &Value| {
        let source = p["source"].as_str()?;
        let known = source
            .strip_prefix("registry+")
            .is_some_and(|s| allow.contains(s));
        (!known).then(|| format!("{}: {source}", p["name"]))
    };
    let foreign: Vec<String> = packages().iter().filter_map(foreign).collect();
    assert!(foreign.is_empty(), "{foreign:#?}");
}

#[test]
fn crates_whose_types_cross_borders_have_one_version() {
    let mut versions: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for package in packages() {
        let (name, version) = (package["name"].as_str(), package["version"].as_str());
        let known = versions.entry(name.unwrap().to_owned()).or_default();
        known.insert(version.unwrap().to_owned());
    }
    let deny = deny();
    let single = deny["bans"]["deny"].as_array().unwrap();
    assert!(!single.is_empty());
    for entry in single {
        let name = entry["crate"].as_str().unwrap();
        let found = versions.get(name).map_or(0, BTreeSet::len);
        assert_eq!(found, 1, "{name}: {:?}", versions.get(name));
    }
}
