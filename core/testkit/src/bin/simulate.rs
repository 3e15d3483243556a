//! Runs the seeded simulation for any number of seeds, or one seed with its trace.

#![allow(clippy::print_stdout, clippy::print_stderr)]

use std::collections::HashMap;
use std::io::{IsTerminal, Write};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use stele_testkit::Plan;
use stele_testkit::sim::{Scenario, Tally, run};

const HELP: &str = "\
Simulates ingest, compactors, sweep and queries over a store that fails, and asserts the
invariants after every step.

  simulate --seeds N [--from M]     seeds M to M + N - 1 (default: 100 from 0)
  simulate --seed N [--trace]       one seed, with every event
  simulate --seed N --plan FILE     one seed with the faults of FILE (one JSON object per line)

Options: --steps N   steps before the faults stop     --faults N   faults in a plan, at most
         --keep-going   do not stop at the first seed that fails
Exit code: 0 when every invariant held, 1 when one did not, 2 for a wrong command line.";

/// How often the progress line is written when nobody watches.
const QUIET_PROGRESS: Duration = Duration::from_secs(30);

struct Arguments {
    seeds: u64,
    from: u64,
    seed: Option<u64>,
    trace: bool,
    keep_going: bool,
    plan: Option<Plan>,
    steps: Option<usize>,
    faults: Option<usize>,
}

fn main() -> ExitCode {
    match parse(std::env::args().skip(1).collect()) {
        Ok(None) => {
            println!("{HELP}");
            ExitCode::SUCCESS
        }
        Ok(Some(arguments)) => match arguments.seed {
            Some(seed) => one(&arguments, seed),
            None => many(&arguments),
        },
        Err(what) => {
            eprintln!("simulate: {what}; see --help");
            ExitCode::from(2)
        }
    }
}

fn parse(arguments: Vec<String>) -> Result<Option<Arguments>, String> {
    let mut values: HashMap<&str, &str> = HashMap::new();
    let mut words = arguments.iter().map(String::as_str);
    while let Some(word) = words.next() {
        match word {
            "--help" | "-h" => return Ok(None),
            "--trace" | "--keep-going" => {
                values.insert(word, "");
            }
            "--seeds" | "--from" | "--seed" | "--plan" | "--steps" | "--faults" => {
                let value = words.next().ok_or(format!("{word} needs a value"))?;
                values.insert(word, value);
            }
            other => return Err(format!("{other:?} is no option")),
        }
    }
    let number = |name: &str| match values.get(name) {
        None => Ok(None),
        Some(text) => text
            .parse::<u64>()
            .map(Some)
            .map_err(|_| format!("{name} {text:?} is no number")),
    };
    let plan = values.get("--plan").map(|path| {
        let text = std::fs::read_to_string(path).map_err(|e| format!("{path}: {e}"))?;
        Plan::parse(&text).map_err(|e| format!("{path}: {e}"))
    });
    let size = |n: Option<u64>| n.and_then(|n| usize::try_from(n).ok());
    Ok(Some(Arguments {
        seeds: number("--seeds")?.unwrap_or(100),
        from: number("--from")?.unwrap_or(0),
        seed: number("--seed")?,
        trace: values.contains_key("--trace"),
        keep_going: values.contains_key("--keep-going"),
        plan: plan.transpose()?,
        steps: size(number("--steps")?),
        faults: size(number("--faults")?),
    }))
}

fn scenario(arguments: &Arguments, seed: u64) -> Scenario {
    let usual = Scenario::of(seed);
    Scenario {
        steps: arguments.steps.unwrap_or(usual.steps),
        faults: arguments.faults.unwrap_or(usual.faults),
        plan: arguments.plan.clone(),
        ..usual
    }
}

fn one(arguments: &Arguments, seed: u64) -> ExitCode {
    match run(&scenario(arguments, seed)) {
        Ok(outcome) => {
            if arguments.trace {
                outcome.trace.iter().for_each(|line| println!("{line}"));
            }
            println!("seed {seed} holds: {}", outcome.tally);
            ExitCode::SUCCESS
        }
        Err(failure) => {
            if arguments.trace {
                failure.trace.iter().for_each(|line| println!("{line}"));
                println!("faults:\n{}", failure.plan);
            }
            println!("{failure}");
            ExitCode::FAILURE
        }
    }
}

fn many(arguments: &Arguments) -> ExitCode {
    let began = Instant::now();
    let mut shown = Instant::now();
    let mut all = Tally::default();
    let mut failed = Vec::new();
    let watched = std::io::stderr().is_terminal();
    for n in 0..arguments.seeds {
        let seed = arguments.from + n;
        match run(&scenario(arguments, seed)) {
            Ok(outcome) => all.add(&outcome.tally),
            Err(failure) => {
                println!("{failure}\n");
                failed.push(seed);
                if !arguments.keep_going {
                    break;
                }
            }
        }
        let due = if watched {
            Duration::from_millis(200)
        } else {
            QUIET_PROGRESS
        };
        if shown.elapsed() >= due {
            shown = Instant::now();
            progress(n + 1, arguments.seeds, failed.len(), began, watched);
        }
    }
    if watched {
        eprintln!();
    }
    let held = all.requests;
    println!(
        "{} seeds from {} in {:.1} s, {} failed{}",
        arguments.seeds,
        arguments.from,
        began.elapsed().as_secs_f64(),
        failed.len(),
        if failed.is_empty() {
            String::new()
        } else {
            format!(": {failed:?}")
        }
    );
    if held > 0 {
        println!("{all}");
    }
    if failed.is_empty() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

fn progress(done: u64, total: u64, failed: usize, began: Instant, watched: bool) {
    let seconds = began.elapsed().as_secs_f64();
    let left = seconds / done as f64 * (total - done) as f64;
    let line = format!("{done}/{total} seeds, {failed} failed, {seconds:.0} s, {left:.0} s left");
    if watched {
        eprint!("\r{line}   ");
        drop(std::io::stderr().flush());
    } else {
        eprintln!("{line}");
    }
}
