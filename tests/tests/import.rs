//! `stele import` on the real binary: into a store and into a running server, stopped and gone on,
//! repeated, and as a correction.

#![allow(clippy::unwrap_used, clippy::panic)]

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use stele_tests::binary;
use stele_tests::server::Server;
use stele_tests::store::Store;

/// 2026-11-01T00:00:00Z in seconds.
const START: i64 = 1_793_491_200;

fn stele(args: &[&str]) -> Command {
    let mut command = Command::new(binary::stele().unwrap());
    command.args(args);
    command
}

fn run(args: &[&str]) -> Output {
    stele(args).output().unwrap()
}

fn report(output: &Output) -> serde_json::Value {
    let text = String::from_utf8_lossy(&output.stdout);
    let errors = String::from_utf8_lossy(&output.stderr);
    serde_json::from_str(&text).unwrap_or_else(|_| panic!("{text}{errors}"))
}

fn write(dir: &tempfile::TempDir, name: &str, text: &str) -> (PathBuf, String) {
    let path = dir.path().join(name);
    std::fs::write(&path, text).unwrap();
    let name = path.display().to_string();
    (path, name)
}

/// `rows` samples of ten hosts as CSV.
fn csv(rows: i64) -> String {
    let mut text = "time,host,load\n".to_owned();
    for n in 0..rows {
        text += &format!("{},h{},{}\n", START + n / 10, n % 10, n as f64 / 8.0);
    }
    text
}

const MAPPING: [&str; 4] = ["--metric", "load", "--value-columns", "load"];

fn count(server: &Server) -> i64 {
    server
        .sql_number("SELECT count(*) AS n FROM samples")
        .unwrap()
}

#[test]
fn a_file_imported_twice_into_a_server_is_there_once_and_what_is_refused_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(&Store::local().unwrap(), &[]).unwrap();
    let (_, file) = write(&dir, "load.csv", &(csv(60_000) + "soon,h1,1\n"));
    let args = [
        &["import", &file, "--url", server.url(), "--json"],
        &MAPPING[..],
    ]
    .concat();
    for _ in 0..2 {
        let output = run(&args);
        assert_eq!(output.status.code(), Some(1));
        let report = report(&output);
        assert_eq!(report["files"][0]["accepted"], 60_000, "{report}");
        assert_eq!(report["files"][0]["rejections"][0]["position"], 60_002);
        assert_eq!(count(&server), 60_000);
        server.settle().unwrap();
        assert_eq!(count(&server), 60_000);
    }
    // What came in as CSV leaves as Parquet, and goes into another store the same.
    let tenant = server.store().tenant_dir().unwrap();
    let files = stele_tests::store::files_below(&tenant);
    let raw = files.iter().filter(|file| is_raw(file));
    let raw: Vec<String> = raw
        .map(|file| tenant.join(file).display().to_string())
        .collect();
    assert!(!raw.is_empty());
    let all = "SELECT * FROM samples ORDER BY metric, tags, ts";
    let expected = server.sql(all, "csv").unwrap();
    let other = Server::start(&Store::local().unwrap(), &[]).unwrap();
    let raw: Vec<&str> = raw.iter().map(String::as_str).collect();
    let args = [&["import", "--url", other.url(), "--json"], &raw[..]].concat();
    let output = run(&args);
    assert_eq!(output.status.code(), Some(0), "{:?}", report(&output));
    assert_eq!(other.sql(all, "csv").unwrap(), expected);
}

fn is_raw(path: &Path) -> bool {
    path.components()
        .any(|part| part.as_os_str() == "resolution=raw")
}

#[test]
fn an_import_that_was_killed_goes_on_where_it_was() {
    let dir = tempfile::tempdir().unwrap();
    let place = tempfile::tempdir().unwrap();
    let store = place.path().display().to_string();
    let (path, file) = write(&dir, "load.csv", &csv(400_000));
    let args = [
        &["import", &file, "--store", &store, "--json"],
        &MAPPING[..],
    ]
    .concat();
    let note = PathBuf::from(format!("{}.stele-import", path.display()));
    let mut child = stele(&args).stdout(Stdio::null()).spawn().unwrap();
    let patience = Instant::now() + Duration::from_secs(60);
    while !note.exists() {
        assert!(Instant::now() < patience, "no part was stored within 60 s");
        assert!(
            child.try_wait().unwrap().is_none(),
            "it was done before it was killed"
        );
        std::thread::sleep(Duration::from_millis(2));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(note.exists(), "it was done before it was killed");
    let output = run(&args);
    let report = report(&output);
    assert!(
        report["files"][0]["resumed_at"].as_u64().unwrap() > 0,
        "{report}"
    );
    assert_eq!(report["files"][0]["accepted"], 400_000, "{report}");
    assert!(
        !note.exists(),
        "the note stays only while there is something to go on with"
    );
    let sql = [
        "sql",
        "SELECT count(*) AS n FROM samples",
        "--store",
        &store,
        "--json",
    ];
    let rows: serde_json::Value = serde_json::from_slice(&run(&sql).stdout).unwrap();
    assert_eq!(rows[0]["n"], 400_000);
}

#[test]
fn a_correction_replaces_a_greater_value_before_and_after_it_is_sealed() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(&Store::local().unwrap(), &[]).unwrap();
    let line = |value: i64| format!("load,host=a value={value} {START}000000\n");
    assert_eq!(server.write(&line(9)).unwrap().status, 204);
    server.settle().unwrap();
    let value = "SELECT CAST(value AS BIGINT) AS n FROM samples";
    let import = |value: i64, correct: &[&str]| {
        let (_, file) = write(&dir, "fix.lp", &line(value));
        let base = [
            "import",
            &file,
            "--url",
            server.url(),
            "--precision",
            "us",
            "--json",
        ];
        let output = run(&[&base[..], correct].concat());
        assert_eq!(output.status.code(), Some(0), "{:?}", report(&output));
    };
    // Without a rank the greater value stays, whatever came last.
    import(3, &[]);
    assert_eq!(server.sql_number(value).unwrap(), 9);
    import(4, &["--correct"]);
    assert_eq!(server.sql_number(value).unwrap(), 4);
    server.settle().unwrap();
    assert_eq!(server.sql_number(value).unwrap(), 4);
    let rollup = "SELECT CAST(max AS BIGINT) AS n FROM rollup_60m";
    assert_eq!(server.sql_number(rollup).unwrap(), 4);
    import(2, &["--correct", "2"]);
    server.settle().unwrap();
    assert_eq!(server.sql_number(value).unwrap(), 2);
    assert_eq!(server.sql_number(rollup).unwrap(), 2);
}
