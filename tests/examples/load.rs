//! A load that a tenant should never be: a million series in a hundred thousand objects that no
//! job has absorbed. Every answer is checked, before and after all of it is settled; time and peak
//! memory of each step are printed as the rows of a table.
//!
//! ```text
//! cargo run -p stele-tests --example load [SERIES [OBJECTS]]
//! ```

#![allow(clippy::print_stdout)]

use std::fmt::Write as _;
use std::io::Read as _;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use stele_tests::server::stele;
use stele_tests::store::Store;

/// Files that one import is given.
const FILES: usize = 10_000;
/// 2026-11-22T00:00:00Z, s.
const DAY: i64 = 1_795_305_600;
const METRICS: usize = 10;

fn main() -> Result<()> {
    let mut sizes = std::env::args().skip(1).map(|n| n.parse::<usize>());
    let series = sizes.next().transpose()?.unwrap_or(1_000_000);
    let objects = sizes.next().transpose()?.unwrap_or(100_000);
    ensure!(
        objects > 0 && series.is_multiple_of(objects),
        "SERIES must be a multiple of OBJECTS"
    );
    let store = Store::local()?;
    let began = Instant::now();
    fill(&store, series, objects)?;
    println!(
        "{objects} objects of {} series each made in {:.0} s\n\n\
         | | seconds | peak memory, MiB |\n|---|---:|---:|",
        series / objects,
        began.elapsed().as_secs_f64()
    );
    ask_all(&store, series, "unabsorbed")?;
    let (_, cost) = measured(&store, &["settle"])?;
    row("settle: absorb, seal and consolidate all of it", &cost);
    ask_all(&store, series, "settled")
}

/// One sample of each series, so many to an object.
fn fill(store: &Store, series: usize, objects: usize) -> Result<()> {
    let dir = tempfile::TempDir::with_prefix("stele-load-")?;
    let each = series / objects;
    for first in (0..objects).step_by(FILES) {
        let files = first..objects.min(first + FILES);
        let mut names = Vec::with_capacity(FILES);
        for file in files {
            let mut lines = String::new();
            for n in file * each..(file + 1) * each {
                let (metric, ts) = (n % METRICS, DAY + (n % 3_600) as i64);
                writeln!(lines, "load{metric},host=h{n} value=1 {ts}000000000")?;
            }
            let name = format!("{file}.lp");
            std::fs::write(dir.path().join(&name), lines)?;
            names.push(name);
        }
        let mut import = stele(store)?;
        import.current_dir(dir.path()).arg("import").args(&names);
        import.args(["--store", &store.url()]);
        let done = import.output()?;
        let said = String::from_utf8_lossy(&done.stderr);
        ensure!(done.status.success(), "import: {said}");
        for name in names {
            std::fs::remove_file(dir.path().join(name))?;
        }
    }
    Ok(())
}

fn ask_all(store: &Store, series: usize, when: &str) -> Result<()> {
    let metric = format!("load{}", 7 % METRICS);
    let per_metric = series / METRICS;
    let questions = [
        (
            "count of all samples",
            "SELECT count(*) FROM samples".to_owned(),
            series,
        ),
        (
            "number of series",
            "SELECT count(*) FROM series".to_owned(),
            series,
        ),
        (
            "sum of one metric of `rollup_60m`",
            format!(
                "SELECT CAST(sum(\"sum\") AS BIGINT) FROM rollup_60m WHERE metric = '{metric}'"
            ),
            per_metric,
        ),
        (
            "one series by a tag",
            "SELECT count(*) FROM samples WHERE tags = '{\"host\":\"h7\"}'".to_owned(),
            1,
        ),
    ];
    for (what, sql, expected) in questions {
        let (answer, cost) = measured(store, &["sql", &sql, "--format", "csv"])?;
        let number = answer.lines().nth(1).context("no row")?;
        ensure!(
            number == expected.to_string(),
            "{sql}: {number}, not {expected}"
        );
        row(&format!("{what}, {when}"), &cost);
    }
    Ok(())
}

struct Cost {
    seconds: f64,
    peak_mib: u64,
}

fn row(what: &str, cost: &Cost) {
    println!("| {what} | {:.1} | {} |", cost.seconds, cost.peak_mib);
}

/// Runs a command of `stele` on the store to its end: what it printed, and what it cost.
fn measured(store: &Store, args: &[&str]) -> Result<(String, Cost)> {
    let began = Instant::now();
    let mut command = stele(store)?;
    command.args(args).args(["--store", &store.url()]);
    let mut child = command.stdout(Stdio::piped()).spawn()?;
    let mut output = child.stdout.take().context("it has an output")?;
    let reader = std::thread::spawn(move || {
        let mut text = String::new();
        output.read_to_string(&mut text).map(|_| text)
    });
    let mut peak_mib = 0;
    let status = loop {
        peak_mib = peak_mib.max(peak(&child));
        if let Some(status) = child.try_wait()? {
            break status;
        }
        std::thread::sleep(Duration::from_millis(20));
    };
    let seconds = began.elapsed().as_secs_f64();
    let text = reader.join().map_err(|_| anyhow::anyhow!("no output"))??;
    ensure!(status.success(), "{args:?}: {status}");
    Ok((text, Cost { seconds, peak_mib }))
}

/// The most memory a running process has used so far, as its system tells.
fn peak(child: &Child) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", child.id()));
    let status = status.unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kib = line.and_then(|line| line.split_whitespace().next());
    kib.and_then(|kib| kib.parse::<u64>().ok()).unwrap_or(0) / 1024
}
