//! The official Librato client, unchanged, writes what SQL reads.

#![allow(clippy::unwrap_used, clippy::panic)]

use stele_tests::csv::Table;
use stele_tests::python::run_reader;
use stele_tests::server::Server;
use stele_tests::store::Store;

fn rows(server: &Server, query: &str) -> Vec<Vec<String>> {
    Table::parse(&server.sql(query, "csv").unwrap())
        .unwrap()
        .rows
}

/// What the client wrote, as SQL sees it.
fn check(server: &Server, queued: i64) {
    let count = |condition: &str| {
        let query = format!("SELECT count(*) FROM samples WHERE {condition}");
        server.sql_number(&query).unwrap()
    };
    assert_eq!(count("metric = 'queued'"), queued);
    assert_eq!(
        count("metric = 'queued' AND tags->>'source' = 'web-3'"),
        queued / 7
    );
    let load = "metric = 'web.load' AND value = 1.5 AND tags->>'source' = 'web-1'";
    assert_eq!(
        count(&format!("{load} AND CAST(ts AS BIGINT) = 1700000000000000")),
        1
    );
    assert_eq!(count("metric = 'web.bytes'"), 2);
    assert_eq!(count("metric = 'neighbour'"), 400);
    assert_eq!(count("metric LIKE 'no %'"), 0);
    let tagged =
        "SELECT tags, CAST(value AS BIGINT) FROM samples WHERE metric = 'tagged' ORDER BY 2";
    let want = [
        ["{\"az\":\"b\",\"region\":\"us-east\"}", "7"],
        ["{\"host\":\"web-3\"}", "8"],
        ["{\"role\":\"db\"}", "9"],
    ];
    assert_eq!(rows(server, tagged), want);
    // What was aggregated before it was sent keeps its figures, and merges into rollups exactly.
    for table in ["samples", "rollup_60s", "rollup_15m", "rollup_60m"] {
        let figures = format!(
            "SELECT \"count\", CAST(\"sum\" AS BIGINT), CAST(\"min\" AS BIGINT), \
             CAST(\"max\" AS BIGINT) FROM {table} WHERE metric = 'web.latency'"
        );
        assert_eq!(
            rows(server, &figures),
            [["100", "5050", "1", "100"]],
            "{table}"
        );
        let figures = format!(
            "SELECT \"count\", CAST(\"sum\" AS BIGINT), CAST(10 * \"min\" AS BIGINT), \
             CAST(\"max\" AS BIGINT) FROM {table} WHERE metric = 'tagged.summary'"
        );
        assert_eq!(rows(server, &figures), [["3", "35", "45", "20"]], "{table}");
    }
    let grown = "SELECT CAST(sum(increase) AS BIGINT) FROM rollup_60m WHERE metric = 'web.bytes'";
    assert_eq!(server.sql_number(grown).unwrap(), 30);
}

#[test]
fn the_official_librato_client_writes_without_changes() {
    let server = Server::start(&Store::local().unwrap(), &[]).unwrap();
    let written = run_reader("librato_writer.py", &[server.url()], &[]).unwrap();
    let queued: i64 = written.trim().parse().unwrap();
    check(&server, queued);
    server.settle().unwrap();
    check(&server, queued);
    // The same samples again are the same batches.
    run_reader("librato_writer.py", &[server.url()], &[]).unwrap();
    server.settle().unwrap();
    check(&server, queued);
    server.stop().unwrap();
}
