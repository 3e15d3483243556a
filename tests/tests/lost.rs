//! What a store has lost, from the command line: found and recorded by `verify --record`, shown by
//! `stele sql`, and taken back when it is whole again.

#![allow(clippy::unwrap_used, clippy::panic)]

use std::path::Path;
use std::process::Output;

use serde_json::Value;
use stele_tests::server::{Server, run, write};
use stele_tests::store::{Store, files_below};

fn stele(store: &Store, args: &[&str]) -> Output {
    run(store, Path::new("/"), args).unwrap()
}

fn json(done: &Output) -> Value {
    let said = String::from_utf8_lossy(&done.stderr);
    serde_json::from_slice(&done.stdout).unwrap_or_else(|error| panic!("{error}: {said}"))
}

#[test]
fn a_lost_file_is_recorded_shown_and_taken_back() {
    let store = Store::local().unwrap();
    let server = Server::start(&store, &[]).unwrap();
    for n in 0..3 {
        let line = format!("cpu,host=a value={n} {}", 1_760_000_000_000_000i64 + n);
        assert_eq!(write(server.url(), &line).unwrap().status, 204);
    }
    assert_eq!(server.settle().unwrap()["complete"], true);
    let table = store.tenant_dir().unwrap().join("table");
    let files = files_below(&table);
    let of = |resolution: &str| {
        let mut files = files.iter();
        let file = files.find(|file| file.starts_with(format!("resolution={resolution}")));
        table.join(file.unwrap())
    };
    let minutes = of("60s");
    let whole = std::fs::read(&minutes).unwrap();
    std::fs::remove_file(&minutes).unwrap();

    let url = store.url();
    let verify = ["verify", "--store", &url, "--json"];
    let found = json(&stele(&store, &verify));
    assert_eq!(found["clean"], false);
    assert_eq!(found["tenants"]["default"]["recorded"], Value::Null);
    assert!(!store.tenant_dir().unwrap().join("control/losses").exists());
    let record = [&verify[..], &["--record"]].concat();
    let recorded = &json(&stele(&store, &record))["tenants"]["default"]["recorded"];
    assert_eq!(
        (&recorded["noted"], &recorded["losses"]),
        (&1.into(), &1.into())
    );

    let sql = "SELECT state, metric, reason FROM coverage ORDER BY metric NULLS FIRST";
    let rows = json(&stele(
        &store,
        &["sql", sql, "--json", "--url", server.url()],
    ));
    assert_eq!(
        (&rows[0]["state"], &rows[0]["metric"]),
        (&"partial".into(), &Value::Null)
    );
    assert_eq!(
        (&rows[1]["state"], &rows[1]["metric"]),
        (&"partial".into(), &"cpu".into())
    );
    let reason = rows[1]["reason"].as_str().unwrap();
    assert!(
        reason.starts_with("file missing: table/resolution=60s/"),
        "{reason}"
    );

    // Both the server and the store itself are asked.
    for target in [["--url", server.url()], ["--store", &url]] {
        let asked = |sql: &str| {
            let args = [&["sql", sql, "--json", "--coverage"][..], &target].concat();
            let done = stele(&store, &args);
            let said = String::from_utf8(done.stderr).unwrap();
            assert!(done.status.success(), "{said}");
            said
        };
        let said = asked("SELECT count(*) AS n FROM samples");
        assert!(said.ends_with("coverage: complete\n"), "{said}");
        let args = [
            &["sql", "SELECT * FROM rollup_60s", "--coverage"][..],
            &target,
        ]
        .concat();
        assert_eq!(stele(&store, &args).status.code(), Some(1));
    }
    std::fs::write(&minutes, whole).unwrap();
    let done = stele(
        &store,
        &record[..3]
            .iter()
            .copied()
            .chain(["--record"])
            .collect::<Vec<_>>(),
    );
    let said = String::from_utf8(done.stdout).unwrap();
    assert!(
        said.contains("losses on record: 0; new: 0; over: 1"),
        "{said}"
    );
    let rows = json(&stele(
        &store,
        &["sql", sql, "--json", "--url", server.url()],
    ));
    assert_eq!(
        (&rows[0]["state"], &rows[0]["reason"]),
        (&"sealed".into(), &Value::Null)
    );
    server.stop().unwrap();
}
