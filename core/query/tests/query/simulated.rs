//! SQL over what the seeded simulation leaves behind, compared with its oracle bit for bit.

use std::sync::Arc;

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::datatypes::{Float64Type, Int64Type, TimestampMicrosecondType};
use stele_model::{Aggregate, Resolution, Series};
use stele_query::{Format, QueryEngine, output};
use stele_store::Tier;
use stele_table::TableLog;
use stele_testkit::ManualClock;
use stele_testkit::oracle::{Rollups, Samples};
use stele_testkit::sim::{Outcome, Scenario, run};

use crate::fixture::config;

/// Every 20th of the seeds that CI runs, 0 to 1,999.
const EVERY: u64 = 20;
const SEEDS: u64 = 2_000;

/// Reads one number of a bin.
type Value = fn(&Aggregate) -> f64;

async fn batches(outcome: &Outcome, sql: &str) -> Vec<RecordBatch> {
    use futures::StreamExt;
    let clock = Arc::new(ManualClock::new(outcome.now_us));
    let store = Tier::from_store(Arc::new(outcome.store.clone()), &outcome.root, "sim")
        .tenant(&outcome.tenant);
    let log = Arc::new(TableLog::new(store, Default::default(), clock.clone()));
    let engine = QueryEngine::new(config(), clock).expect("a valid config");
    let stream = engine.query(&log, sql).await.expect(sql);
    let mut encoded = output::encode(stream, Format::Arrow).await.expect(sql);
    let mut bytes = Vec::new();
    while let Some(chunk) = encoded.next().await {
        bytes.extend_from_slice(&chunk.expect(sql));
    }
    let reader = arrow::ipc::reader::StreamReader::try_new(bytes.as_slice(), None);
    let reader = reader.expect("IPC");
    reader.map(|batch| batch.expect("a batch")).collect()
}

/// Calls `each` with the series and time of every row.
fn rows(batches: &[RecordBatch], mut each: impl FnMut(Series, i64, &RecordBatch, usize)) {
    for batch in batches {
        let text = |name: &str, row: usize| {
            let column = batch.column_by_name(name).expect(name);
            arrow::util::display::array_value_to_string(column, row).expect("text")
        };
        let ts = batch.column_by_name("ts").expect("ts");
        let ts = ts.as_primitive::<TimestampMicrosecondType>();
        for row in 0..batch.num_rows() {
            let (metric, tags) = (text("metric", row), text("tags", row));
            each(Series { metric, tags }, ts.value(row), batch, row);
        }
    }
}

fn double(batch: &RecordBatch, name: &str, row: usize) -> Option<u64> {
    let column = batch.column_by_name(name).expect(name);
    let column = column.as_primitive::<Float64Type>();
    column.is_valid(row).then(|| column.value(row).to_bits())
}

async fn samples_agree(seed: u64, outcome: &Outcome, want: &Samples) {
    let sql = "SELECT metric, tags, ts, value FROM samples";
    let mut seen = 0;
    rows(&batches(outcome, sql).await, |series, ts_us, batch, row| {
        let sample = want.0.get(&series).and_then(|samples| samples.get(&ts_us));
        let sample =
            sample.unwrap_or_else(|| panic!("seed {seed}: {series:?} {ts_us} is invented"));
        let value = double(batch, "value", row);
        assert_eq!(
            value,
            Some(sample.value.to_bits()),
            "seed {seed}: {series:?} {ts_us}"
        );
        seen += 1;
    });
    assert_eq!(seen, want.len(), "seed {seed}: samples");
}

async fn rollups_agree(seed: u64, outcome: &Outcome, resolution: Resolution, want: &Rollups) {
    let table = resolution.table();
    let sql = format!("SELECT * FROM {table}");
    let mut seen = 0;
    rows(
        &batches(outcome, &sql).await,
        |series, ts_us, batch, row| {
            let at = format!("seed {seed}: {table} {series:?} {ts_us}");
            let bin = want.0.get(&series).and_then(|bins| bins.get(&ts_us));
            let bin = bin.unwrap_or_else(|| panic!("{at} is invented"));
            let count = batch.column_by_name("count").expect("count");
            assert_eq!(
                count.as_primitive::<Int64Type>().value(row),
                bin.count,
                "{at}"
            );
            // A bin of nothing but NaN has no values.
            let fields: [(&str, Value); 7] = [
                ("sum", |a| a.sum),
                ("min", |a| a.min),
                ("max", |a| a.max),
                ("first", |a| a.first),
                ("last", |a| a.last),
                ("sum_squares", |a| a.sum_squares),
                ("increase", |a| a.increase),
            ];
            for (name, field) in fields {
                match double(batch, name, row) {
                    Some(bits) => assert_eq!(bits, field(bin).to_bits(), "{at} {name}"),
                    None => assert_eq!(bin.count, 0, "{at} {name} is null"),
                }
            }
            seen += 1;
        },
    );
    let bins: usize = want.0.values().map(|bins| bins.len()).sum();
    assert_eq!(seen, bins, "{table} of seed {seed}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sql_agrees_with_the_oracle_at_the_end_of_every_20th_seed() {
    for seed in (0..SEEDS).step_by(EVERY as usize) {
        // The simulation runs futures of its own, on a thread of its own.
        let ran = std::thread::spawn(move || run(&Scenario::of(seed))).join();
        let outcome = ran
            .expect("no panic")
            .unwrap_or_else(|failure| panic!("{failure}"));
        samples_agree(seed, &outcome, &outcome.samples).await;
        for (resolution, want) in &outcome.rollups {
            rollups_agree(seed, &outcome, *resolution, want).await;
        }
    }
}
