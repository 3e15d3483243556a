//! The functions of the template, deployed to LocalStack, whose executor runs them as they are:
//! what real clients send is read back exactly, however invocations end.

#![allow(clippy::unwrap_used, clippy::panic)]

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde_json::json;
use stele_tests::binary;
use stele_tests::fleet::{Fleet, Plan};
use stele_tests::lambda::{Function, Stack, Turn};
use stele_tests::localstack::free_port;
use stele_tests::proxy::{Fault, Faults, Proxy};
use stele_tests::python::{run_reader, test_executor, up};
use stele_tests::reader::Reader;
use stele_tests::server::{Reply, post, run};

/// One for each test; another test's samples are another tenant's.
const TENANTS: [&str; 8] = [
    "clients", "rule", "same", "crowded", "killed", "slow", "faulty", "again",
];
/// What a URL answers when its function crashed or timed out, and when too many run already.
/// LocalStack adds a 500 when two requests start an environment at the same moment.
const GATEWAY: &[u16] = &[429, 500, 502];
const CROWD: Plan = Plan {
    writers: 3,
    rows: 36,
    pause_ms_max: 150,
    seed: 7,
};

/// The stack, and the two URLs of one tenant.
struct Stage {
    stack: Turn,
    ingest: Proxy,
    query: Proxy,
}

impl Stage {
    fn of(tenant: &str) -> Self {
        let stack = Stack::take(&TENANTS).unwrap();
        Self {
            ingest: stack.front(Function::Ingest, Some(tenant)).unwrap(),
            query: stack.front(Function::Query, Some(tenant)).unwrap(),
            stack,
        }
    }

    fn reader(&self) -> Reader<'_> {
        Reader {
            url: self.query.url(),
        }
    }

    /// Lets a fleet write until `batches` are acknowledged while `disturb` goes on and on, puts
    /// things right with `calm`, and checks every sample before and every table after compaction.
    fn survives(
        &self,
        batches: u64,
        mut disturb: impl FnMut() -> Result<()> + Send,
        calm: impl FnOnce(),
    ) {
        let fleet = Fleet::start_behind(GATEWAY, CROWD);
        fleet.point_at(&[self.ingest.url()]);
        let done = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let disturbance = scope.spawn(|| {
                while !done.load(Ordering::SeqCst) {
                    disturb()?;
                }
                anyhow::Ok(())
            });
            let written = fleet.wait_for(batches);
            // A run of compact ends when there is nothing more to do.
            fleet.point_at(&[]);
            done.store(true, Ordering::SeqCst);
            disturbance.join().unwrap().unwrap();
            written.unwrap();
        });
        let retried = fleet.retried();
        let oracle = fleet.finish().unwrap();
        calm();
        // A batch that nobody acknowledged may land late, but not between the two checks.
        self.stack.s3().wait_until_idle().unwrap();
        let before = oracle.check(&self.reader().samples().unwrap()).unwrap();
        self.stack.settle(self.reader()).unwrap();
        let after = self.reader().check_tables(&oracle).unwrap();
        assert_eq!(before.len(), after.len());
        eprintln!("{} samples, {retried} requests sent again", after.len());
    }

    fn verify(&self, tenant: &str) {
        let store = self.stack.store();
        let url = store.url();
        let args = ["verify", "--store", &url, "--tenant", tenant];
        let done = run(&store, std::path::Path::new("/"), &args).unwrap();
        let said = String::from_utf8_lossy(&done.stdout);
        let error = String::from_utf8_lossy(&done.stderr);
        assert!(done.status.success(), "verify: {said}\n{error}");
    }
}

#[test]
fn the_executor_passes_its_own_tests() {
    test_executor().unwrap();
}

#[test]
fn the_command_for_a_laptop_does_all_its_steps() {
    let binaries = binary::functions().unwrap();
    let port = free_port().unwrap().to_string();
    let said = up(&[
        "--once",
        "--port",
        &port,
        "--binaries",
        binaries.to_str().unwrap(),
    ]);
    let said = said.unwrap();
    let answer = r#"{"host":"a","samples":120,"total":1740.0,"peak":19.0}"#;
    assert_eq!(said.matches(answer).count(), 2, "{said}");
    assert!(said.ends_with("==> all of it works\n"), "{said}");
}

#[test]
fn official_clients_write_through_the_ingest_url_and_the_query_url_answers_exactly() {
    let stage = Stage::of("clients");
    let token = stage.stack.token("clients").unwrap();
    // Without a token of its own: the clients send theirs, each in its own way.
    let open = stage.stack.front(Function::Ingest, None).unwrap();
    let refused = post(open.url(), "/write", b"m value=1\n").unwrap();
    assert_eq!(refused.status, 401, "{}", refused.body);
    let influx = run_reader("influx.py", &[open.url(), token], &[]).unwrap();
    let librato = run_reader("librato_writer.py", &[open.url(), token], &[]).unwrap();
    let points: i64 = influx.trim().parse().unwrap();
    let queued: i64 = librato.trim().parse().unwrap();
    let check = || {
        let number = |query: &str| stage.reader().sql_number(query).unwrap();
        let count =
            |condition: &str| number(&format!("SELECT count(*) FROM samples WHERE {condition}"));
        assert_eq!(count("metric = 'weather.temperature'"), points);
        assert_eq!(
            count("metric = 'weather.humidity' AND value >= 250"),
            points / 2
        );
        assert_eq!(count("metric = 'queued'"), queued);
        assert_eq!(count("metric = 'neighbour'"), 400);
        let sum = "SELECT CAST(sum(value) AS BIGINT) FROM samples WHERE metric = 'queued'";
        assert_eq!(number(sum), queued * (queued - 1) / 2);
        let sum = "SELECT CAST(sum(sum) AS BIGINT) FROM rollup_60m WHERE metric = 'web.latency'";
        assert_eq!(number(sum), 5050);
    };
    check();
    stage.stack.settle(stage.reader()).unwrap();
    check();
    let reader = stage.stack.front(Function::Query, None).unwrap();
    let refused = post(reader.url(), "/sql", b"SELECT 1").unwrap();
    assert_eq!(refused.status, 401, "{}", refused.body);
}

#[test]
fn the_rule_fires_and_compacts() {
    let stage = Stage::of("rule");
    let body = "m,host=a value=1 1700000000000000\nm,host=a value=2 1700000000000001\n";
    let written = post(stage.ingest.url(), "/write?precision=u", body.as_bytes()).unwrap();
    assert_eq!(written.status, 204, "{}", written.body);
    let absorbed = "SELECT count(*) FROM ledger WHERE batch IS NOT NULL";
    let deadline = Instant::now() + Duration::from_secs(90);
    // Nobody but the schedule invokes anything here.
    while stage.reader().sql_number(absorbed).unwrap() == 0 {
        assert!(Instant::now() < deadline, "the rule has not fired in 90 s");
        std::thread::sleep(Duration::from_millis(500));
    }
    let sum = "SELECT CAST(sum(value) AS BIGINT) FROM samples";
    assert_eq!(stage.reader().sql_number(sum).unwrap(), 3);
}

#[test]
fn a_request_that_is_delivered_eight_times_at_once_is_one_batch() {
    let stage = Stage::of("same");
    let body = "same value=1 1700000000000000\n";
    let sent: Vec<Reply> = std::thread::scope(|scope| {
        let send = || post(stage.ingest.url(), "/write?precision=u", body.as_bytes());
        let all: Vec<_> = (0..8).map(|_| scope.spawn(send)).collect();
        all.into_iter()
            .map(|t| t.join().unwrap().unwrap())
            .collect()
    });
    let acked: Vec<&Reply> = sent.iter().filter(|reply| reply.status == 204).collect();
    assert!(acked.len() > 1, "{sent:?}");
    assert!(acked.iter().all(|reply| reply.receipt == acked[0].receipt));
    let all = "SELECT count(*) FROM samples";
    assert_eq!(stage.reader().sql_number(all).unwrap(), 1);
    stage.stack.settle(stage.reader()).unwrap();
    assert_eq!(stage.reader().sql_number(all).unwrap(), 1);
}

#[test]
fn concurrent_runs_of_compact_lose_and_double_nothing() {
    let stage = Stage::of("crowded");
    let stack = &*stage.stack;
    let mut at_once = 0;
    stage.survives(
        30,
        || {
            let runs: Vec<_> = std::thread::scope(|scope| {
                let compact = || stack.invoke(Function::Compact, &compact_event());
                let all: Vec<_> = (0..3).map(|_| scope.spawn(compact)).collect();
                all.into_iter().map(|run| run.join().unwrap()).collect()
            });
            let mut ended = 0;
            for run in runs {
                // What was throttled did not run.
                let Some(done) = run? else { continue };
                ensure!(!done.is_error, "compact: {}", done.answer);
                ended += 1;
            }
            at_once = at_once.max(ended);
            Ok(())
        },
        || (),
    );
    assert!(at_once > 1, "compact never ran more than once at a time");
    stage.verify("crowded");
}

#[test]
fn killed_invocations_lose_and_double_nothing() {
    let stage = Stage::of("killed");
    let stack = &*stage.stack;
    let exits = |function| stack.count(function, "exited").unwrap();
    let before = [exits(Function::Ingest), exits(Function::Compact)];
    let mut random = StdRng::seed_from_u64(3);
    stage.survives(
        40,
        || {
            stack.send(Function::Compact, &compact_event())?;
            let function = [Function::Ingest, Function::Compact][random.random_range(0..2)];
            if let Some(process) = wait_for_busy(stack, function)? {
                std::thread::sleep(Duration::from_millis(random.random_range(0..30)));
                kill_9(process)?;
            }
            std::thread::sleep(Duration::from_millis(random.random_range(0..300)));
            Ok(())
        },
        || (),
    );
    let after = [exits(Function::Ingest), exits(Function::Compact)];
    eprintln!("killed at work: ingest and compact {before:?} to {after:?}");
    assert!(after[0] > before[0], "no kill met a request");
    assert!(after[1] > before[1], "no kill met a run of compact");
    stage.verify("killed");
}

#[test]
fn timed_out_invocations_lose_and_double_nothing_though_their_writes_land_later() {
    let stage = Stage::of("slow");
    let stack = &*stage.stack;
    let timeouts = || stack.count(Function::Ingest, "timed_out").unwrap();
    let before = timeouts();
    stack.set_timeout(Function::Ingest, 2).unwrap();
    stack.set_timeout(Function::Compact, 3).unwrap();
    stack.s3().set_faults(Some(Faults {
        method: Some("PUT"),
        percent: 10,
        kinds: vec![Fault::DelayMs(4000), Fault::CommitThenDelayMs(4000)],
        seed: 5,
    }));
    stage.survives(
        25,
        || {
            stack.send(Function::Compact, &compact_event())?;
            std::thread::sleep(Duration::from_millis(500));
            Ok(())
        },
        || {
            stack.s3().set_faults(None);
            stack.set_timeout(Function::Ingest, 60).unwrap();
            stack.set_timeout(Function::Compact, 300).unwrap();
        },
    );
    assert!(timeouts() > before, "no request timed out");
    stage.verify("slow");
}

#[test]
fn faults_between_the_functions_and_the_store_lose_and_double_nothing() {
    let stage = Stage::of("faulty");
    let stack = &*stage.stack;
    let kinds = [
        Fault::Unavailable,
        Fault::Reset,
        Fault::CommitThenFail,
        Fault::CommitThenDrop,
        Fault::DelayMs(50),
    ];
    let before = stack.s3().met().len();
    stack.s3().set_faults(Some(Faults {
        method: None,
        percent: 8,
        kinds: kinds.to_vec(),
        seed: 9,
    }));
    stage.survives(
        40,
        || {
            stack.send(Function::Compact, &compact_event())?;
            std::thread::sleep(Duration::from_millis(300));
            Ok(())
        },
        || stack.s3().set_faults(None),
    );
    let met = stack.s3().met().split_off(before);
    for kind in kinds {
        assert!(met.contains(&kind), "{kind:?} is not among {}", met.len());
    }
    stage.verify("faulty");
}

#[test]
fn an_event_whose_invocation_was_killed_is_delivered_again() {
    let stage = Stage::of("again");
    let stack = &*stage.stack;
    let count = |what| stack.count(Function::Protect, what).unwrap();
    let (exited, answered) = (count("exited"), count("answered"));
    stack.s3().set_faults(Some(Faults {
        method: None,
        percent: 100,
        kinds: vec![Fault::DelayMs(2000)],
        seed: 1,
    }));
    stack
        .send(Function::Protect, &json!({"job": "verify"}))
        .unwrap();
    let process = wait_for_busy(stack, Function::Protect).unwrap();
    kill_9(process.expect("the event starts the function")).unwrap();
    stack.s3().set_faults(None);
    let deadline = Instant::now() + Duration::from_secs(60);
    while count("answered") == answered {
        assert!(Instant::now() < deadline, "not delivered again in 60 s");
        std::thread::sleep(Duration::from_millis(100));
    }
    assert_eq!(count("exited"), exited + 1);
}

fn compact_event() -> serde_json::Value {
    json!({"job": "compact"})
}

/// A process of `function` that is at work, as soon as there is one; none after 3 s.
fn wait_for_busy(stack: &Stack, function: Function) -> Result<Option<u64>> {
    let deadline = Instant::now() + Duration::from_secs(3);
    while Instant::now() < deadline {
        if let Some(process) = stack.processes(function, true)?.first() {
            return Ok(Some(*process));
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    Ok(None)
}

fn kill_9(process: u64) -> Result<()> {
    // It may have come to its end by itself.
    let kill = format!("kill -KILL {process} 2>/dev/null || true");
    let status = std::process::Command::new("sh")
        .args(["-c", &kill])
        .status()?;
    ensure!(status.success(), "{kill}: {status}");
    Ok(())
}
