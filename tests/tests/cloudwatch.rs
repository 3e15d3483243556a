//! Series shaped like real monitoring exports go in as they are and come out as they were.

#![allow(clippy::unwrap_used, clippy::panic)]

use std::collections::BTreeMap;

use stele_tests::csv::Table;
use stele_tests::fleet::line_protocol;
use stele_tests::oracle::{Oracle, Sample, tags_json};
use stele_tests::server::Server;
use stele_tests::store::Store;

const EXPORT: &str = include_str!("../fixtures/cloudwatch_like.csv");

/// µs of `2026-03-07 HH:MM:SS` or of the day after, the only days of the export.
fn ts_us(text: &str) -> i64 {
    let (day, time) = text.split_once(' ').unwrap();
    let day = match day {
        "2026-03-07" => 1_772_841_600,
        "2026-03-08" => 1_772_928_000,
        other => panic!("{other} is not in the export"),
    };
    let secs = time
        .split(':')
        .fold(0, |acc, part| acc * 60 + part.parse::<i64>().unwrap());
    (day + secs) * 1_000_000
}

fn export() -> Vec<Sample> {
    let csv: Vec<&str> = EXPORT.lines().filter(|l| !l.starts_with('#')).collect();
    let table = Table::parse(&csv.join("\n")).unwrap();
    let sample = |row: &Vec<String>| {
        let text = |column| table.text(row, column).unwrap();
        let tags = tags_json(&[("resource", text("resource"))]);
        Sample {
            series: (text("metric").to_owned(), tags),
            ts_us: ts_us(text("timestamp")),
            value: text("value").parse().unwrap(),
        }
    };
    table.rows.iter().map(sample).collect()
}

#[test]
fn an_export_is_answered_exactly_before_and_after_settle() {
    let samples = export();
    assert_eq!(samples.len(), 1723);
    let mut oracle = Oracle::default();
    let server = Server::start(&Store::local().unwrap(), &[]).unwrap();
    for batch in samples.chunks(100) {
        oracle.submit(batch);
        let reply = server.write(&line_protocol(batch)).unwrap();
        assert_eq!(reply.status, 204, "{}", reply.body);
        oracle.ack(batch);
    }
    let daily = "SELECT metric, count(*) AS n, max(value) AS most FROM samples \
                 WHERE ts >= '2026-03-08T00:00:00Z' GROUP BY metric ORDER BY metric";
    let before = server.sql(daily, "json").unwrap();
    let present = server.check_tables(&oracle).unwrap();
    server.settle().unwrap();
    assert_eq!(server.check_tables(&oracle).unwrap().0, present.0);
    assert_eq!(server.sql(daily, "json").unwrap(), before);
    let midnight = ts_us("2026-03-08 00:00:00");
    let mut want: BTreeMap<&str, (i64, f64)> = BTreeMap::new();
    for ((metric, _), rows) in &present.0 {
        let second = rows.iter().filter(|(ts, _)| *ts >= midnight);
        let entry = want.entry(metric).or_insert((0, f64::MIN));
        second.for_each(|(_, v)| *entry = (entry.0 + 1, entry.1.max(*v)));
    }
    let rows: Vec<serde_json::Value> = serde_json::from_str(&before).unwrap();
    assert_eq!(rows.len(), want.len());
    for (row, (metric, (n, most))) in rows.iter().zip(&want) {
        assert_eq!(row["metric"], *metric);
        assert_eq!(
            (row["n"].as_i64(), row["most"].as_f64()),
            (Some(*n), Some(*most))
        );
    }
    server.stop().unwrap();
}

#[test]
fn of_two_values_at_one_time_the_greater_is_kept_in_any_order() {
    let samples = export();
    let server = Server::start(&Store::local().unwrap(), &[]).unwrap();
    let mut oracle = Oracle::default();
    oracle.submit(&samples);
    oracle.ack(&samples);
    for batch in samples.rchunks(200) {
        server.write(&line_protocol(batch)).unwrap();
    }
    let twice = samples.len() - server.check_tables(&oracle).unwrap().len();
    assert_eq!(twice, 12, "one hour of five-minute steps is there twice");
    server.stop().unwrap();
}
