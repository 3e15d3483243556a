//! Every statement of `hostile.txt` ends as the file says, and leaves the engine as it was.
//!
//! The statements run in a process of their own (this test calls itself), so that the memory it
//! took at its peak is theirs alone.

use std::process::Command;
use std::time::{Duration, Instant};

use stele_query::{Format, QueryConfig};

use crate::fixture::{Fixture, Made, config, hand_made, us};

const TEXTS: &str = include_str!("hostile.txt");
const CHILD: &str = "STELE_TEST_HOSTILE_CHILD";
const NAME: &str = "hostile::no_hostile_statement_harms_the_engine";
const POOL_BYTES: usize = 32 << 20;
const DEADLINE: Duration = Duration::from_secs(2);
/// What the whole process may take at its peak: far less than one bomb that goes off.
const PEAK_BYTES_MAX: u64 = 700 << 20;

/// The kind and the text of each statement.
fn statements() -> Vec<(&'static str, String)> {
    let lines = TEXTS
        .lines()
        .filter(|line| !line.is_empty() && !line.starts_with('#'));
    lines
        .map(|line| {
            let (kind, sql) = line.split_once(" | ").expect("kind | text");
            (kind, expanded(sql))
        })
        .collect()
}

/// `<<3*ab>>` is `ababab`.
fn expanded(mut sql: &str) -> String {
    let mut out = String::new();
    while let Some((before, after)) = sql.split_once("<<") {
        let (call, rest) = after.split_once(">>").expect("<<n*text>>");
        let (times, text) = call.split_once('*').expect("<<n*text>>");
        out += before;
        out += &text.repeat(times.parse().expect("a number"));
        sql = rest;
    }
    out + sql
}

async fn fixture() -> Fixture {
    let fixture = Fixture::with(QueryConfig {
        deadline: DEADLINE,
        memory_pool_bytes: POOL_BYTES,
        rows_max: 100_000,
        bytes_max: 16 << 20,
        ..config()
    });
    fixture.put_all(&hand_made()).await;
    let mut made = Made::default();
    let s = made.series("m", r#"{"host":"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"}"#);
    for i in 0..40_000 {
        made.push(s, us("2026-11-22T10:00:00Z") + i * 1_000, i as f64);
    }
    fixture.put(made.0).await;
    fixture.settle().await;
    fixture
}

/// The most memory this process ever held, bytes; `None` where the system does not say.
fn peak_bytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kib: u64 = line.trim().strip_suffix(" kB")?.parse().ok()?;
    Some(kib << 10)
}

#[expect(
    clippy::print_stdout,
    reason = "what the parent shows when the process dies"
)]
async fn run_all() {
    let fixture = fixture().await;
    let probe = "SELECT metric, count(*) AS n FROM samples GROUP BY metric ORDER BY metric";
    let usual = fixture.text(probe, Format::Csv).await;
    let mut wrong = Vec::new();
    for (kind, sql) in statements() {
        let shown: String = sql.chars().take(100).collect();
        // The last line is the one that did it, should the process die.
        println!("{kind} | {shown}");
        let (began, peak) = (Instant::now(), peak_bytes().unwrap_or(0));
        let answer = fixture.encoded(&sql, Format::Json).await;
        let got = match &answer {
            Ok(_) => "answers".to_owned(),
            Err(error) => error.kind().as_str().to_owned(),
        };
        if got != kind {
            let message = answer.map_or_else(|e| format!("{e:?}"), |_| String::new());
            let message: String = message.chars().take(200).collect();
            wrong.push(format!("{shown}: {got}, not {kind}: {message}"));
        }
        let took = began.elapsed();
        if took > DEADLINE * 2 {
            wrong.push(format!("{shown}: took {took:?}"));
        }
        if let Err(error) = fixture.encoded("SELECT 1 AS a", Format::Json).await {
            wrong.push(format!("{shown}: leaves an engine that says {error}"));
            // What follows would say nothing of itself.
            break;
        }
        let more = peak_bytes().unwrap_or(0) - peak;
        if more > 200 << 20 {
            wrong.push(format!("{shown}: took {} MiB", more >> 20));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert_eq!(fixture.text(probe, Format::Csv).await, usual);
    assert_eq!(fixture.engine.memory_reserved_bytes(), 0);
    if let Some(peak) = peak_bytes() {
        assert!(peak < PEAK_BYTES_MAX, "{} MiB at the peak", peak >> 20);
    }
}

#[test]
fn no_hostile_statement_harms_the_engine() {
    if std::env::var_os(CHILD).is_some() {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .expect("a runtime");
        return runtime.block_on(run_all());
    }
    let this = std::env::current_exe().expect("a path");
    let child = Command::new(this)
        .args(["--exact", NAME, "--nocapture"])
        .env(CHILD, "1")
        .output()
        .expect("starts");
    let text = String::from_utf8_lossy(&child.stderr).into_owned();
    let out = String::from_utf8_lossy(&child.stdout).into_owned();
    assert!(child.status.success(), "{}\n{text}\n{out}", child.status);
    assert!(out.contains("1 passed"), "{out}");
}

#[test]
fn there_are_many_hostile_statements_of_many_kinds() {
    let all = statements();
    assert!(all.len() >= 100, "{}", all.len());
    let kinds = TEXTS.lines().filter(|line| line.starts_with("# -- "));
    assert!(kinds.count() >= 10);
}
