//! Programs that know nothing of Stele agree with it: the Python `deltalake` package and Polars
//! read the table in place, the official InfluxDB client writes to it.

#![allow(clippy::unwrap_used, clippy::panic)]

use stele_tests::fleet::{Fleet, Plan};
use stele_tests::oracle::same_rollup;
use stele_tests::python::run_reader;
use stele_tests::reader::{ROLLUPS, read_rollup, read_samples};
use stele_tests::server::Server;
use stele_tests::store::Store;

fn readers_agree(store: &Store) {
    let fleet = Fleet::start(Plan {
        writers: 3,
        rows: 50,
        pause_ms_max: 10,
        seed: 11,
    });
    let server = Server::start(store, &[]).unwrap();
    fleet.point_at(&[server.url()]);
    fleet.wait_for(30).unwrap();
    server.settle().unwrap();
    fleet.wait_for(30).unwrap();
    let oracle = fleet.finish().unwrap();
    server.settle().unwrap();
    let ours = server.check_tables(&oracle).unwrap();
    server.stop().unwrap();
    for reader in ["table.py", "polars_table.py"] {
        let read = |resolution| {
            let args = [store.table_url(), String::from(resolution)];
            run_reader(reader, &[&args[0], &args[1]], &store.env()).unwrap()
        };
        let raw = read_samples(&read("raw")).unwrap();
        let theirs = oracle.check(&raw).unwrap();
        assert_eq!(theirs.0, ours.0);
        assert_eq!(
            read_samples(&read("open")).unwrap(),
            [],
            "settle left open rows"
        );
        let resolutions = ["60s", "15m", "60m"];
        for ((resolution, want), name) in resolutions.iter().zip(ours.rollups()).zip(ROLLUPS) {
            same_rollup(name, &read_rollup(&read(resolution)).unwrap(), &want).unwrap();
        }
    }
}

#[test]
fn deltalake_and_polars_read_the_same_rows_and_values_from_a_directory() {
    readers_agree(&Store::local().unwrap());
}

#[test]
fn deltalake_and_polars_read_the_same_rows_and_values_from_s3() {
    readers_agree(&Store::s3().unwrap());
}

#[test]
fn the_official_influxdb_client_writes_without_changes() {
    let server = Server::start(&Store::local().unwrap(), &[]).unwrap();
    let written = run_reader("influx.py", &[server.url()], &[]).unwrap();
    let points: i64 = written.trim().parse().unwrap();
    let count = |condition: &str| {
        let query = format!("SELECT count(*) FROM samples WHERE {condition}");
        server.sql_number(&query).unwrap()
    };
    assert_eq!(count("metric = 'weather.temperature'"), points);
    assert_eq!(count("metric = 'weather.humidity'"), points);
    assert_eq!(count("tags->>'city' = 'São Paulo, SP'"), 2 * points);
    assert_eq!(count("tags->>'station' = 's=2'"), 2 * (points / 3));
    let last = "SELECT CAST(value AS BIGINT) FROM samples WHERE metric = 'weather.humidity' \
                ORDER BY ts DESC LIMIT 1";
    assert_eq!(server.sql_number(last).unwrap(), points - 1);
    server.stop().unwrap();
}
