//! Snapshots from the command line, beside a running server: what was pinned is read as it was,
//! restored to an empty tenant, dropped and brought back.

#![allow(clippy::unwrap_used, clippy::panic)]

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, SystemTime};

use serde_json::Value;
use stele_tests::server::{Server, get, run, stele, write};
use stele_tests::store::Store;

/// Runs a command that must succeed; its standard output as JSON.
fn json(store: &Store, args: &[&str]) -> Value {
    let url = store.url();
    let args = [args, &["--store", &url, "--json"]].concat();
    let done = run(store, Path::new("/"), &args).unwrap();
    let said = String::from_utf8_lossy(&done.stderr);
    assert!(done.status.success(), "{args:?}: {said}");
    serde_json::from_slice(&done.stdout).unwrap()
}

/// Runs a command that must fail; what it said.
fn refused(store: &Store, args: &[&str]) -> String {
    let url = store.url();
    let args = [args, &["--store", &url]].concat();
    let done = run(store, Path::new("/"), &args).unwrap();
    assert_eq!(done.status.code(), Some(1), "{args:?}");
    String::from_utf8_lossy(&done.stderr).into_owned()
}

const ROWS: &str = "SELECT metric, tags, CAST(ts AS BIGINT) AS us, value FROM samples \
                    ORDER BY metric, tags, ts";

fn rows(store: &Store, more: &[&str]) -> Value {
    json(store, &[&["sql", ROWS], more].concat())
}

fn a_snapshot_is_read_restored_dropped_and_brought_back(store: &Store) {
    let server = Server::start(store, &[]).unwrap();
    for n in 0..5 {
        let line = format!("cpu,host=a value={n} {}", 1_760_000_000_000_000i64 + n);
        assert_eq!(write(server.url(), &line).unwrap().status, 204);
    }
    // Nothing was absorbed by hand: taking a snapshot does.
    let taken = json(store, &["snapshot", "create", "noon", "--note", "before"]);
    assert_eq!(taken["content"]["samples"]["rows"], 5);
    let again = json(store, &["snapshot", "create", "noon", "--note", "before"]);
    assert_eq!(again["version"], taken["version"]);
    let then = rows(store, &[]);
    assert_eq!(
        write(server.url(), "cpu,host=b value=9").unwrap().status,
        204
    );
    assert!(server.settle().unwrap()["complete"].is_boolean());
    assert_ne!(rows(store, &[]), then);
    let version = taken["version"].to_string();
    for as_of in ["noon", &version] {
        assert_eq!(rows(store, &["--as-of", as_of]), then);
        let path = format!("/sql?format=json&as_of={as_of}&q=SELECT+count(*)+AS+n+FROM+samples");
        let answer: Value = serde_json::from_str(&get(server.url(), &path).unwrap().body).unwrap();
        assert_eq!(answer[0]["n"], 5);
    }
    let said = refused(store, &["snapshot", "create", "noon", "--note", "again"]);
    assert!(said.contains("snapshot noon exists: version"), "{said}");
    let said = refused(store, &["snapshot", "show", "non"]);
    assert!(said.contains("there are noon"), "{said}");

    // To another tenant: a plan, then the copy, then the copy again.
    let to = ["snapshot", "restore", "noon", "--to-tenant", "copy"];
    let plan = json(store, &to);
    assert_eq!(plan["content"], taken["content"]);
    assert!(
        refused(store, &["sql", ROWS, "--tenant", "copy", "--as-of", "0"]).contains("no table")
    );
    let hash = plan["plan"].as_str().unwrap();
    let said = refused(store, &[&to[..], &["--plan", &"0".repeat(32)]].concat());
    assert!(said.contains(hash), "{said}");
    let done = json(store, &[&to[..], &["--plan", hash]].concat());
    assert_eq!(done["copied"], plan["objects"]);
    let done = json(store, &[&to[..], &["--plan", hash]].concat());
    assert_eq!(
        (&done["copied"], &done["skipped"]),
        (&Value::from(0), &plan["objects"])
    );
    assert_eq!(rows(store, &["--tenant", "copy"]), then);
    assert_eq!(json(store, &["verify"])["clean"], true);
    let clean = json(store, &["snapshot", "verify", "noon"]);
    assert_eq!(clean["findings_total"], 0);

    // Dropped only with the plan, and back within the history.
    let plan = json(store, &["snapshot", "drop", "noon"]);
    assert_eq!(json(store, &["snapshot", "list"])[0]["state"], "live");
    let hash = plan["plan"].as_str().unwrap();
    json(store, &["snapshot", "drop", "noon", "--plan", hash]);
    let state = json(store, &["snapshot", "list"])[0]["state"].to_string();
    assert!(state.contains("dropped, until"), "{state}");
    json(store, &["undelete", "noon"]);
    assert_eq!(json(store, &["snapshot", "list"])[0]["state"], "live");
    assert_eq!(rows(store, &["--as-of", "noon"]), then);
    server.stop().unwrap();
}

#[test]
fn on_a_directory() {
    let store = Store::local().unwrap();
    a_snapshot_is_read_restored_dropped_and_brought_back(&store);
}

#[test]
fn on_s3() {
    let store = Store::s3().unwrap();
    a_snapshot_is_read_restored_dropped_and_brought_back(&store);
}

/// Begins a restore in place, which holds deletion and waits, and kills it then.
fn killed_while_it_holds(store: &Store, plan: &str) {
    let url = store.url();
    let restore = ["snapshot", "restore", "noon", "--in-place", "--plan", plan];
    let mut command = stele(store).unwrap();
    command.args(restore).args(["--store", &url]);
    let mut waiting = command.stderr(Stdio::piped()).spawn().unwrap();
    let said = BufReader::new(waiting.stderr.take().unwrap());
    let is_held = |line: String| line.contains("deletion is held");
    assert!(said.lines().map_while(Result::ok).any(is_held));
    waiting.kill().unwrap();
    waiting.wait().unwrap();
}

#[test]
fn a_snapshot_is_restored_in_place_or_that_is_given_up() {
    let store = Store::local().unwrap();
    let server = Server::start(&store, &[]).unwrap();
    let send = |line: &str| assert_eq!(write(server.url(), line).unwrap().status, 204);
    send("cpu,host=a value=1 1760000000000000");
    json(&store, &["snapshot", "create", "noon"]);
    let then = rows(&store, &[]);
    send("cpu,host=a value=2 1760000000000001");
    server.settle().unwrap();
    let now = rows(&store, &[]);
    let restore = ["snapshot", "restore", "noon", "--in-place"];
    let plan = json(&store, &restore);
    let counts = ["samples_then", "samples_now", "returning_batches"].map(|name| &plan[name]);
    assert_eq!(counts, [1, 2, 1], "{plan}");
    assert_eq!(plan["lost"], Value::Array(Vec::new()), "{plan}");
    let hash = plan["plan"].as_str().unwrap();

    killed_while_it_holds(&store, hash);
    let said = refused(&store, &["deletion", "resume"]);
    let abandon = "`stele snapshot restore noon --in-place --abandon`";
    assert!(said.contains(abandon), "{said}");
    json(&store, &[&restore[..], &["--abandon"]].concat());
    assert!(json(&store, &["deletion", "status"])["frozen"].is_null());
    assert_eq!(rows(&store, &[]), now);

    killed_while_it_holds(&store, hash);
    // The hold has lasted long enough.
    let switches = store.tenant_dir().unwrap().join("control/deletion");
    let newest = std::fs::read_dir(switches).unwrap();
    let newest = newest.map(|entry| entry.unwrap().path()).max().unwrap();
    let long_ago = SystemTime::now() - Duration::from_secs(20 * 60);
    File::options()
        .append(true)
        .open(newest)
        .unwrap()
        .set_modified(long_ago)
        .unwrap();
    let done = json(&store, &[&restore[..], &["--plan", hash]].concat());
    assert!(done["done"].as_str().unwrap().contains("is snapshot noon"));
    assert!(json(&store, &["deletion", "status"])["frozen"].is_null());
    // What L0 still has is there again, absorbed or not.
    assert_eq!(rows(&store, &[]), now);
    let first = "SELECT count(*) AS n FROM samples WHERE value = 1";
    assert_eq!(json(&store, &["sql", first])[0]["n"], 1);
    let revoked = "SELECT count(*) AS n FROM ledger WHERE revoked";
    assert_eq!(json(&store, &["sql", revoked])[0]["n"], 1);
    assert_eq!(rows(&store, &["--as-of", "noon"]), then);
    server.settle().unwrap();
    assert_eq!(rows(&store, &[]), now);
    assert_eq!(json(&store, &["verify"])["clean"], true);
    server.stop().unwrap();
}

#[test]
fn a_server_takes_the_snapshots_that_are_due() {
    let store = Store::local().unwrap();
    let server = Server::start(&store, &[]).unwrap();
    assert_eq!(write(server.url(), "cpu value=1").unwrap().status, 204);
    server.stop().unwrap();
    let ladder = [
        ("STELE_SNAPSHOTS", "hourly=2,weekly=1"),
        ("STELE_ABSORB_EVERY_SECS", "1"),
    ];
    let server = Server::start(&store, &ladder).unwrap();
    let whys = || {
        let list = json(&store, &["snapshot", "list"]);
        let whys = list.as_array().unwrap().iter();
        whys.map(|one| one["why"].as_str().unwrap().to_owned())
            .collect::<Vec<_>>()
    };
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(60);
    while whys().len() < 2 && std::time::Instant::now() < deadline {
        std::thread::sleep(std::time::Duration::from_millis(100));
    }
    assert_eq!(whys(), ["hourly", "weekly"]);
    server.stop().unwrap();
}
