//! What tables look like, and how queries are planned.

use std::fmt::Write;

use stele_query::Format;

use crate::fixture::{Fixture, Made, Stage, us};

#[tokio::test]
async fn every_table_describes_itself() {
    let fixture = Fixture::new();
    let mut seen = String::new();
    for table in [
        "samples",
        "rollup_60s",
        "series",
        "tags",
        "coverage",
        "ledger",
    ] {
        let text = fixture
            .text(&format!("DESCRIBE {table}"), Format::Csv)
            .await;
        writeln!(seen, "{table}\n{text}").expect("to memory");
    }
    for other in ["rollup_15m", "rollup_60m"] {
        let minute = fixture.text("DESCRIBE rollup_60s", Format::Csv).await;
        assert_eq!(
            fixture
                .text(&format!("DESCRIBE {other}"), Format::Csv)
                .await,
            minute
        );
    }
    insta::assert_snapshot!(seen);
}

async fn plan(fixture: &Fixture, sql: &str) -> String {
    let plans = fixture.json(&format!("EXPLAIN {sql}")).await;
    let physical = plans
        .as_array()
        .expect("rows")
        .iter()
        .find(|row| row["plan_type"] == "physical_plan");
    let text = physical.expect("a physical plan")["plan"]
        .as_str()
        .expect("text");
    // Names of data files are digests of bytes that are not this crate's business.
    let words = text.split_inclusive(|c: char| !c.is_ascii_hexdigit());
    words
        .map(|word| match word.get(..32) {
            Some(hex) if hex.bytes().all(|b| b.is_ascii_hexdigit()) => {
                format!("<digest>{}", &word[32..])
            }
            _ => word.to_owned(),
        })
        .collect()
}

/// Two days of two metrics on 50 hosts, every 20 s: a file per day.
async fn two_days() -> Fixture {
    let fixture = Fixture::new();
    for day in ["2026-11-20", "2026-11-21"] {
        let mut made = Made::default();
        let start = us(&format!("{day}T00:00:00Z"));
        for metric in ["cpu", "mem"] {
            for host in 0..50 {
                let s = made.series(metric, &format!("{{\"host\":\"h{host:02}\"}}"));
                for i in 0..4_320 {
                    made.push(s, start + i * 20_000_000, ((i + host) % 100) as f64);
                }
            }
        }
        fixture.put(made.0).await;
    }
    fixture.settle().await;
    fixture
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_selective_scan_reads_few_rows_of_one_file() {
    let fixture = two_days().await;
    let sql = "SELECT max(value) FROM samples WHERE metric = 'mem' AND tags->>'host' = 'h07' \
               AND ts >= TIMESTAMP '2026-11-21 10:00:00' AND ts < TIMESTAMP '2026-11-21 11:00:00'";
    insta::assert_snapshot!(plan(&fixture, sql).await);
    let analyzed = fixture
        .text(&format!("EXPLAIN ANALYZE {sql}"), Format::Ndjson)
        .await;
    assert!(analyzed.contains("store_requests="), "{analyzed}");
    assert!(analyzed.contains("store_bytes="), "{analyzed}");
    let answer = fixture.json(sql).await;
    // (i + 7) % 100 for i from 1,800 to 1,979 passes through 99.
    assert_eq!(answer[0]["max(samples.value)"], 99.0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn settled_data_is_read_from_files_alone_and_open_windows_through_the_merge() {
    let fixture = Fixture::at(Stage::Sealed).await;
    let sealed = plan(&fixture, "SELECT * FROM samples").await;
    assert!(!sealed.contains("MergedExec"), "{sealed}");
    let fixture = Fixture::at(Stage::Absorbed).await;
    let absorbed = plan(&fixture, "SELECT * FROM samples").await;
    assert!(absorbed.contains("MergedExec"), "{absorbed}");
    assert!(!absorbed.contains("DataSourceExec"), "{absorbed}");
    let fixture = Fixture::at(Stage::Mixed).await;
    insta::assert_snapshot!(plan(&fixture, "SELECT ts, value FROM samples").await);
}
