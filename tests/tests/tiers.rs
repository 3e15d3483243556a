//! Tiers from the command line, under a running server and a fleet of senders: a store is moved to
//! another one, and what was acknowledged is there.

#![allow(clippy::unwrap_used, clippy::panic)]

use std::path::Path;

use serde_json::Value;
use stele_tests::fleet::{Fleet, Plan};
use stele_tests::server::{Server, post, run, write};
use stele_tests::store::Store;

const SENDERS: Plan = Plan {
    writers: 2,
    rows: 24,
    pause_ms_max: 60,
    seed: 7,
};

/// Runs a command that must succeed; its standard output as JSON.
fn json(store: &Store, args: &[&str]) -> Value {
    let done = run(store, Path::new("/"), &[args, &["--json"]].concat()).unwrap();
    let said = String::from_utf8_lossy(&done.stderr);
    assert!(done.status.success(), "{args:?}: {said}");
    serde_json::from_slice(&done.stdout).unwrap()
}

/// Runs a command that must fail; what it said.
fn refused(store: &Store, args: &[&str]) -> String {
    let done = run(store, Path::new("/"), args).unwrap();
    assert_eq!(done.status.code(), Some(1), "{args:?}");
    String::from_utf8_lossy(&done.stderr).into_owned()
}

fn states(store: &Store, url: &str) -> Vec<(String, String)> {
    let list = json(store, &["tier", "list", "--store", url]);
    let tiers = list["tiers"].as_array().unwrap().iter();
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    tiers
        .map(|tier| (text(&tier["tier"]), text(&tier["state"])))
        .collect()
}

fn a_store_is_moved_under_load(old: &Store, new: &str) {
    let old_url = old.url();
    let tier = |args: &[&str]| json(old, &[&["tier"], args, &["--store", &old_url]].concat());
    let no = |args: &[&str]| refused(old, &[&["tier"], args, &["--store", &old_url]].concat());
    assert!(no(&["add", "b", new]).contains("stele tier init"));
    let init = ["init", "--name", "a", "--lease", "1s", "--request", "1s"];
    tier(&[&init[..], &["--nobody-writes"]].concat());
    let server = Server::start(old, &[("STELE_SYNC_EVERY_SECS", "1")]).unwrap();
    let fleet = Fleet::start(SENDERS);
    fleet.point_at(&[server.url()]);
    fleet.wait_for(200).unwrap();

    let said = no(&["promote", "b"]);
    assert!(said.contains("there is no tier b; there are a"), "{said}");
    tier(&["add", "b", new]);
    let said = no(&["retire", "a"]);
    assert!(
        said.contains("tier a (primary) holds what tier b lacks"),
        "{said}"
    );
    let said = no(&["promote", "b"]);
    assert!(said.contains("only a mirror"), "{said}");
    let synced = tier(&["sync"]);
    assert_eq!(synced["tiers"][0]["state"], "mirror", "{synced}");
    fleet.wait_for(200).unwrap();
    assert_eq!(tier(&["verify"])["equal"], true);
    let said = refused(old, &["settle", "--store", new]);
    assert!(said.contains("is not the primary of its tiers"), "{said}");

    let promoted = tier(&["promote", "b"]);
    assert_eq!(promoted["members"][1]["state"], "primary");
    fleet.wait_for(200).unwrap();
    let said = refused(old, &["settle", "--store", &old_url]);
    assert!(said.contains("is not the primary of its tiers"), "{said}");
    tier(&["drain", "a"]);
    let plan = tier(&["retire", "a"]);
    let hash = plan["hash"].as_str().unwrap();
    assert!(no(&["retire", "a", "--plan", &"0".repeat(32)]).contains(hash));
    tier(&["retire", "a", "--plan", hash]);
    fleet.wait_for(200).unwrap();
    let of = |tier: &str, state: &str| (tier.to_owned(), state.to_owned());
    assert_eq!(
        states(old, &old_url),
        [of("a", "retired"), of("b", "primary")]
    );

    let oracle = fleet.finish().unwrap();
    server.settle().unwrap();
    server.check_tables(&oracle).unwrap();
    assert_eq!(server.status().unwrap()["store"], new);
    server.stop().unwrap();
    assert_eq!(json(old, &["verify", "--store", new])["clean"], true);
}

#[test]
fn from_a_directory_to_another() {
    let (old, dir) = (Store::local().unwrap(), tempfile::tempdir().unwrap());
    let new = dir.path().canonicalize().unwrap().join("new");
    a_store_is_moved_under_load(&old, new.to_str().unwrap());
}

#[test]
fn from_s3_to_a_directory() {
    let (old, dir) = (Store::s3().unwrap(), tempfile::tempdir().unwrap());
    let new = dir.path().canonicalize().unwrap().join("new");
    a_store_is_moved_under_load(&old, new.to_str().unwrap());
}

#[test]
fn a_lost_primary_is_read_from_the_mirror_and_replaced_by_force() {
    let (old, dir) = (Store::local().unwrap(), tempfile::tempdir().unwrap());
    let (old_url, new) = (old.url(), dir.path().canonicalize().unwrap().join("new"));
    let new = new.to_str().unwrap();
    let tier = |args: &[&str], at: &str| json(&old, &[&["tier"], args, &["--store", at]].concat());
    let init = ["init", "--name", "a", "--lease", "1s", "--request", "1s"];
    tier(&[&init[..], &["--nobody-writes"]].concat(), &old_url);
    tier(&["add", "b", new], &old_url);
    let server = Server::start(&old, &[]).unwrap();
    assert_eq!(write(server.url(), "cpu value=1").unwrap().status, 204);
    tier(&["sync"], &old_url);
    let said = refused(&old, &["tier", "promote", "b", "--force", "--store", new]);
    assert!(
        said.contains("can be read: promote without force"),
        "{said}"
    );

    // The directory is gone, and a file is in its place.
    let old_dir = old_url.strip_prefix("file://").unwrap();
    std::fs::remove_dir_all(old_dir).unwrap();
    std::fs::write(old_dir, "gone").unwrap();
    let answer = post(
        server.url(),
        "/sql?format=json",
        b"SELECT count(*) AS n FROM samples",
    );
    let answer = answer.unwrap();
    assert_eq!((answer.status, answer.body.trim()), (200, "[{\"n\":1}]"));
    assert_eq!(write(server.url(), "cpu value=2").unwrap().status, 503);
    server.stop().unwrap();
    tier(&["promote", "b", "--force"], new);
    let (b, lost) = ("b".to_owned(), "lost".to_owned());
    assert_eq!(
        states(&old, new),
        [("a".to_owned(), lost), (b, "primary".to_owned())]
    );
    let rows = json(
        &old,
        &["sql", "SELECT count(*) AS n FROM samples", "--store", new],
    );
    assert_eq!(rows[0]["n"], 1);
    json(&old, &["settle", "--store", new]);
    assert_eq!(json(&old, &["verify", "--store", new])["clean"], true);
}
