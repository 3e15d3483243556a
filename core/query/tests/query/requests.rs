//! The list of object-store requests of a query.

use std::sync::Arc;

use stele_query::QueryEngine;
use stele_table::TableLog;

use crate::fixture::{Fixture, Stage, config};

const SQL: &str = "SELECT max(value) AS m FROM samples WHERE metric = 'cpu.user'";

/// Forgets everything a process would have in memory.
fn cold(mut fixture: Fixture) -> Fixture {
    let clock = Arc::new(fixture.clock.clone());
    let log = TableLog::new(fixture.store.clone(), Default::default(), clock.clone());
    fixture.log = log.into();
    let engine = QueryEngine::new(config(), clock);
    fixture.engine = engine.expect("a valid config").into();
    drop(fixture.requests.take());
    fixture
}

/// The requests in order, but those for objects sorted: they run side by side.
fn rounds(shapes: &str) -> String {
    let (mut objects, mut lines): (Vec<&str>, Vec<&str>) =
        shapes.lines().partition(|line| line.contains(".parquet"));
    objects.sort_unstable();
    lines.append(&mut objects);
    lines.join("\n")
}

#[tokio::test]
async fn a_cold_query_is_one_round_of_lists_one_of_gets_footers_then_data() {
    let fixture = cold(Fixture::at(Stage::Sealed).await);
    fixture.json(SQL).await;
    insta::assert_snapshot!(rounds(&fixture.requests.take_shapes()));
}

#[tokio::test]
async fn a_warm_query_is_a_list_a_get_and_data() {
    let fixture = cold(Fixture::at(Stage::Sealed).await);
    fixture.json(SQL).await;
    drop(fixture.requests.take());
    fixture.json(SQL).await;
    insta::assert_snapshot!(rounds(&fixture.requests.take_shapes()));
}

#[tokio::test]
async fn a_query_over_open_windows_gets_each_object_once() {
    let fixture = cold(Fixture::at(Stage::Mixed).await);
    fixture.json(SQL).await;
    insta::assert_snapshot!(rounds(&fixture.requests.take_shapes()));
}

#[tokio::test]
async fn a_query_of_another_time_reads_no_data() {
    let fixture = cold(Fixture::at(Stage::Mixed).await);
    let sql = "SELECT count(*) AS n FROM samples WHERE ts < TIMESTAMP '2026-01-01'";
    assert_eq!(fixture.json(sql).await[0]["n"], 0);
    let shapes = fixture.requests.take_shapes();
    assert!(!shapes.contains(".parquet"), "{shapes}");
}
