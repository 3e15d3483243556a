//! Deliberate defects, one after the other: what holds without one must be seen to break with it.
//!
//! `cargo test -p stele-testkit --features sabotage --test sabotage`, with a part of a name after
//! `--` for some of them. One line for each: what found it. A defect that nothing finds fails.

#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout)]

mod ingest;
mod reads;
mod sweep;
mod tiers;
#[path = "../../../compact/tests/common/mod.rs"]
mod world;

use std::panic::{AssertUnwindSafe, catch_unwind, set_hook};
use std::process::ExitCode;
use std::time::Instant;

use futures::future::LocalBoxFuture;
use stele_model::sabotage::{Sabotage, begin};
use stele_testkit::sim::{Scenario, run};

use Sabotage as S;
use Scene::{Simulated, Told};

/// Seeds of the simulation that a defect has to be found in.
const SEEDS_MAX: u64 = 40;

/// How a defect is looked for. Every way panics when it sees one.
enum Scene {
    /// The seeded simulation, so many seeds from 0 at most.
    Simulated(u64),
    /// A story of its own.
    Told(fn() -> LocalBoxFuture<'static, ()>),
}

/// A defect, the scene that finds it, and a part of what is said then: a scene that fails for
/// another reason finds nothing.
struct Case {
    defect: Sabotage,
    scene: Scene,
    says: &'static str,
}

const fn case(defect: Sabotage, scene: Scene, says: &'static str) -> Case {
    Case {
        defect,
        scene,
        says,
    }
}

const SIMULATED: Scene = Simulated(SEEDS_MAX);

#[rustfmt::skip]
static CASES: [Case; 22] = [
    case(S::AckBeforePut, SIMULATED, "I1 durable ack"),
    case(S::ExistsIsSuccess, Told(|| Box::pin(ingest::a_name_seems_to_exist())), "and nowhere"),
    case(S::MirrorIgnored, Told(|| Box::pin(ingest::a_mirror_fails())), "and not on b"),
    case(S::LeaseIgnored, Told(|| Box::pin(ingest::the_set_changes())), "and not on b"),
    case(S::WatermarkForLedger, SIMULATED, "I2 exactly once"),
    // Rows that are read twice are one sample again, so no answer is wrong: only coverage is.
    case(S::LedgerIgnored, Told(|| Box::pin(reads::a_window_is_sealed())), "counts as open"),
    case(S::LedgerUnasked, SIMULATED, "refused: batch"),
    case(S::DropLastRow, SIMULATED, "I2 exactly once"),
    case(S::Unconserved, SIMULATED, "rows are not conserved"),
    case(S::RetryUnplanned, SIMULATED, "refused: file"),
    case(S::CleanUpAmbiguous, SIMULATED, "is live, and missing"),
    case(S::LogBeforeL0, Told(|| Box::pin(reads::a_reader_stands_still())), "a reader sees"),
    case(S::HeadTrusted, Told(|| Box::pin(reads::a_head_of_another_table())), "Gone"),
    case(S::NoGrace, SIMULATED, "I6 safe delete"),
    case(S::PinsIgnored, SIMULATED, "I10 pin stability"),
    case(S::PinUnread, Told(|| Box::pin(sweep::a_pin_comes_too_late())), "a snapshot does not"),
    case(S::WitnessesUnasked, Told(|| Box::pin(sweep::a_mirror_lacks_an_object())), "on no tier"),
    case(S::RollupsUnproven, Told(|| Box::pin(sweep::a_rollup_is_not_its_raw())), "raw is gone"),
    case(S::CopyUnchained, Told(|| Box::pin(tiers::logs_have_diverged())), "but the one before is"),
    case(S::LogBeforeData, Told(|| Box::pin(tiers::a_copy_is_cut_short())), "a mirror that stopped"),
    case(S::ProofByNames, Told(|| Box::pin(tiers::a_survivor_is_damaged())), "and damaged"),
    case(S::RestoreUnchecked, Told(|| Box::pin(tiers::a_snapshot_is_damaged())), "was restored"),
];

/// Plays a scene; what it said when it saw a defect.
fn play(scene: &Scene) -> Result<(), String> {
    let played = catch_unwind(AssertUnwindSafe(|| match scene {
        Scene::Told(story) => {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_time()
                .start_paused(true)
                .build();
            runtime.unwrap().block_on(story());
        }
        Scene::Simulated(seeds) => {
            for seed in 0..*seeds {
                if let Err(failure) = run(&Scenario::of(seed)) {
                    panic!("seed {seed}: {}", failure.violation);
                }
            }
        }
    }));
    played.map_err(|panic| {
        let text = panic.downcast_ref::<String>().cloned();
        let text = text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
        text.unwrap_or_else(|| "a panic without a text".to_owned())
    })
}

/// One defect: what found it, or why nothing did.
fn find(case: &Case) -> Result<String, String> {
    // The simulation without a defect is a test of its own; of its seeds, those needed here.
    if let Scene::Told(_) = case.scene {
        play(&case.scene).map_err(|what| format!("fails without it, too: {what}"))?;
    }
    let guard = begin(case.defect);
    let played = play(&case.scene);
    let reached = guard.reached();
    drop(guard);
    match played {
        Ok(()) if reached == 0 => Err("no scene came by it".to_owned()),
        Ok(()) => Err(format!("NOT CAUGHT, although reached {reached} times")),
        Err(what) if !what.contains(case.says) => Err(format!("fails by another thing: {what}")),
        Err(what) => Ok(what),
    }
}

/// Seeds up to the last that found a defect hold without one.
fn hold(seeds: u64) -> Result<(), String> {
    play(&Scene::Simulated(seeds))
}

/// The first line, and not all of a long one.
fn short(text: &str) -> String {
    let line = text.lines().next().unwrap_or_default();
    line.chars().take(160).collect()
}

fn main() -> ExitCode {
    set_hook(Box::new(|_| {}));
    let wanted: Vec<String> = std::env::args()
        .skip(1)
        .filter(|a| !a.starts_with('-'))
        .collect();
    let (mut caught, mut missed, mut seeds) = (0, 0, 0);
    for case in &CASES {
        let name = format!("{:?}", case.defect);
        if !wanted.is_empty() && !wanted.iter().any(|part| name.contains(part.as_str())) {
            continue;
        }
        let began = Instant::now();
        let found = find(case);
        let secs = began.elapsed().as_secs_f64();
        match &found {
            Ok(by) => {
                println!("{name}: caught by {} ({secs:.1} s)", short(by));
                caught += 1;
            }
            Err(why) => {
                println!("{name}: FAILED: {why} ({secs:.1} s)");
                missed += 1;
            }
        }
        let seed = found.ok().and_then(|by| {
            let seed = by.strip_prefix("seed ")?.split(':').next()?;
            seed.parse::<u64>().ok()
        });
        seeds = seed.map_or(seeds, |seed| seeds.max(seed + 1));
    }
    if let Err(what) = hold(seeds) {
        println!("without a defect: FAILED: {what}");
        missed += 1;
    }
    println!("test result: {caught} passed; {missed} failed; {seeds} seeds hold without a defect");
    match missed {
        0 => ExitCode::SUCCESS,
        _ => ExitCode::FAILURE,
    }
}
