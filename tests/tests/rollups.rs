//! Rollups change how fast an answer is, never what it says.

#![allow(clippy::unwrap_used, clippy::panic)]

use std::path::Path;

use stele_tests::fleet::{Fleet, Plan};
use stele_tests::server::{Server, run};
use stele_tests::store::{Store, files_below};

/// Ordered, so that equal answers are equal bytes.
const QUESTIONS: [&str; 8] = [
    "SELECT * FROM samples ORDER BY metric, tags, ts",
    "SELECT * FROM rollup_60s ORDER BY metric, tags, ts",
    "SELECT * FROM rollup_15m ORDER BY metric, tags, ts",
    "SELECT * FROM rollup_60m ORDER BY metric, tags, ts",
    "SELECT * FROM series ORDER BY metric, tags",
    "SELECT metric, count(*) AS n, min(value) AS least, max(value) AS most FROM samples \
     WHERE tags->>'host' = 'host 1' GROUP BY metric ORDER BY metric",
    "SELECT tags->>'zone' AS zone, count(*) AS n FROM samples WHERE metric = 'kill.float' \
     GROUP BY 1 ORDER BY 1",
    "SELECT metric, \"sum\", increase FROM rollup_60m WHERE metric <> 'kill.int' \
     ORDER BY metric, tags, ts LIMIT 20",
];

fn answers(server: &Server) -> Vec<String> {
    let ask = |question: &&str| server.sql(question, "json").unwrap();
    QUESTIONS.iter().map(ask).collect()
}

fn same(when: &str, got: &[String], want: &[String]) {
    for ((question, got), want) in QUESTIONS.iter().zip(got).zip(want) {
        assert!(
            got == want,
            "{when}, {question} differs:\n{got}\nfrom\n{want}"
        );
    }
}

fn switch(server: &Server, action: &str) {
    let done = run(
        server.store(),
        Path::new("/"),
        &["rollups", action, "--url", server.url()],
    );
    let done = done.unwrap();
    assert!(done.status.success(), "{action}: {done:?}");
}

fn pausing_changes_no_answer(store: &Store) {
    let fleet = Fleet::start(Plan {
        writers: 2,
        rows: 60,
        pause_ms_max: 5,
        seed: 7,
    });
    let mut server = Server::start(store, &[]).unwrap();
    fleet.point_at(&[server.url()]);
    fleet.wait_for(20).unwrap();
    switch(&server, "pause");
    assert_eq!(server.status().unwrap()["rollups_paused"], true);
    fleet.wait_for(20).unwrap();
    let oracle = fleet.finish().unwrap();
    let in_l0 = answers(&server);
    server.check_tables(&oracle).unwrap();
    server.settle().unwrap();
    let paused = answers(&server);
    same("absorbed and paused", &paused, &in_l0);
    if let Some(tenant) = store.tenant_dir() {
        let sealed = files_below(&tenant.join("table/resolution=raw"));
        assert!(sealed.is_empty(), "sealed while paused: {sealed:?}");
    }
    server.stop().unwrap();
    server = Server::start(store, &[]).unwrap();
    assert_eq!(server.status().unwrap()["rollups_paused"], true);
    switch(&server, "resume");
    server.settle().unwrap();
    assert_eq!(server.status().unwrap()["rollups_paused"], false);
    same("resumed and sealed", &answers(&server), &paused);
    if let Some(tenant) = store.tenant_dir() {
        let sealed = files_below(&tenant.join("table/resolution=60m"));
        assert!(!sealed.is_empty(), "nothing was sealed after resume");
    }
    server.check_tables(&oracle).unwrap();
    server.stop().unwrap();
}

#[test]
fn rollups_paused_and_resumed_give_identical_answers() {
    pausing_changes_no_answer(&Store::local().unwrap());
}

#[test]
fn rollups_paused_and_resumed_give_identical_answers_on_s3() {
    pausing_changes_no_answer(&Store::s3().unwrap());
}

#[test]
fn a_late_sample_reopens_its_window_and_every_table_shows_it_at_once() {
    let store = Store::local().unwrap();
    let server = Server::start(&store, &[]).unwrap();
    let hour = 1_700_000_000_i64.div_euclid(3600) * 3_600_000_000;
    server
        .write(&format!("late value=1 {}\n", hour + 1))
        .unwrap();
    server.settle().unwrap();
    let count = "SELECT CAST(sum(\"count\") AS BIGINT) FROM rollup_60m";
    assert_eq!(server.sql_number(count).unwrap(), 1);
    server
        .write(&format!("late value=5 {}\n", hour + 2))
        .unwrap();
    for step in ["in L0", "sealed again"] {
        assert_eq!(server.sql_number(count).unwrap(), 2, "{step}");
        let last = server
            .sql("SELECT \"last\", increase FROM rollup_15m", "csv")
            .unwrap();
        assert_eq!(last.trim(), "last,increase\n5.0,4.0", "{step}");
        server.settle().unwrap();
    }
    server.stop().unwrap();
}
