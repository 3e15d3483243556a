//! The same answer, bit for bit, before absorb, after absorb and after seal; and the right one.

use stele_model::Resolution;
use stele_query::Format;
use stele_testkit::Rng;
use stele_testkit::gen_rows::RowGen;
use stele_testkit::oracle::Samples;

use crate::fixture::Fixture;

/// Every table in full and in parts, in an order that the rows decide.
const TEXTS: [&str; 21] = [
    "SELECT * FROM samples ORDER BY metric, tags, ts",
    "SELECT * FROM rollup_60s ORDER BY metric, tags, ts",
    "SELECT * FROM rollup_15m ORDER BY metric, tags, ts",
    "SELECT * FROM rollup_60m ORDER BY metric, tags, ts",
    "SELECT * FROM series ORDER BY metric, tags",
    "SELECT metric, tags, count(*) AS n, min(ts) AS a, max(ts) AS b FROM samples GROUP BY metric, tags ORDER BY metric, tags",
    "SELECT date_bin(INTERVAL '1 minute', ts) AS b, count(*) AS n FROM samples GROUP BY b ORDER BY b",
    "SELECT ts, value FROM samples WHERE tags->>'host' IS NOT NULL AND ts >= TIMESTAMP '2026-11-22 09:30:00' ORDER BY metric, tags, ts",
    "SELECT sum(count) AS n FROM rollup_60m WHERE metric < 'n'",
    "SELECT metric, tags, increase(value, ts) AS i, rate(value, ts) AS r FROM samples GROUP BY metric, tags ORDER BY metric, tags",
    "SELECT metric, tags, increase(increase, first, last, ts) AS i, rate(increase, first, last, first_ts, last_ts) AS r FROM rollup_60s GROUP BY metric, tags ORDER BY metric, tags",
    "SELECT metric, tags, increase(increase, first, last, ts) AS i, rate(increase, first, last, first_ts, last_ts) AS r FROM rollup_15m GROUP BY metric, tags ORDER BY metric, tags",
    "SELECT metric, tags, increase(increase, first, last, ts) AS i, rate(increase, first, last, first_ts, last_ts) AS r FROM rollup_60m GROUP BY metric, tags ORDER BY metric, tags",
    "SELECT metric, quantile(value, 0.0) AS a, quantile(value, 0.5) AS b, quantile(value, 0.99) AS c FROM samples WHERE count IS NULL GROUP BY metric HAVING quantile(value, 0.5) IS NOT NULL ORDER BY metric",
    "SELECT metric, quantile(sketch, 0.0) AS a, quantile(sketch, 0.5) AS b, quantile(sketch, 0.99) AS c FROM rollup_60s GROUP BY metric HAVING sketch_count(sketch) > 0 ORDER BY metric",
    "SELECT metric, quantile(sketch, 0.0) AS a, quantile(sketch, 0.5) AS b, quantile(sketch, 0.99) AS c FROM rollup_15m GROUP BY metric HAVING sketch_count(sketch) > 0 ORDER BY metric",
    "SELECT metric, quantile(sketch, 0.0) AS a, quantile(sketch, 0.5) AS b, quantile(sketch, 0.99) AS c FROM rollup_60m GROUP BY metric HAVING sketch_count(sketch) > 0 ORDER BY metric",
    "SELECT sketch_count(sketch) AS n, quantile(sketch, 0.9) AS q FROM rollup_60m",
    "SELECT * FROM tags ORDER BY tag",
    "SELECT b.ts, locf(max(s.value)) OVER (ORDER BY b.ts) AS v FROM bins('2026-11-22T08:00:00Z', '2026-11-22T12:00:00Z', '5 minutes') b LEFT JOIN (SELECT time_bucket(INTERVAL '5 minutes', ts) AS ts, value FROM samples) s ON s.ts = b.ts GROUP BY b.ts ORDER BY b.ts",
    "SELECT date_trunc('day', ts AT TIME ZONE 'Asia/Kathmandu') AS d, count(*) AS n FROM samples GROUP BY d ORDER BY d",
];

async fn answers(fixture: &Fixture) -> Vec<Vec<u8>> {
    let mut all = Vec::new();
    for sql in TEXTS {
        // Arrow keeps every bit of a double.
        let bytes = fixture.encoded(sql, Format::Arrow).await;
        all.push(bytes.unwrap_or_else(|e| panic!("{sql}: {e:?}")));
    }
    all
}

fn rows(bytes: &[u8]) -> String {
    let reader = arrow::ipc::reader::StreamReader::try_new(bytes, None).expect("IPC");
    let batches: Vec<_> = reader.map(|batch| batch.expect("a batch")).collect();
    // Floats by their bits: a table of text that tells every NaN apart.
    let mut out = String::new();
    for batch in &batches {
        for row in 0..batch.num_rows() {
            for column in batch.columns() {
                use arrow::array::{Array, AsArray};
                if column.is_null(row) {
                    out.push_str("-|");
                } else if let Some(floats) =
                    column.as_primitive_opt::<arrow::datatypes::Float64Type>()
                {
                    out.push_str(&format!("{:016x}|", floats.value(row).to_bits()));
                } else {
                    let text = arrow::util::display::array_value_to_string(column, row);
                    out.push_str(&format!("{}|", text.expect("shown")));
                }
            }
            out.push('\n');
        }
    }
    out
}

async fn check(seed: u64) {
    let fixture = Fixture::new();
    let mut generator = RowGen::new(Rng::new(seed), 12);
    let mut expected = Samples::default();
    use stele_model::Clock;
    let now_us = fixture.clock.now_us();
    let mut put = Vec::new();
    for _ in 0..8 {
        let rows = generator.rows(now_us, 30, 300);
        expected.add(&rows);
        put.push(rows);
    }
    fixture.put_all(&put[..4]).await;
    fixture.put_all(&put).await;
    let first: Vec<String> = answers(&fixture).await.iter().map(|b| rows(b)).collect();
    assert_eq!(first[0].lines().count(), expected.len(), "seed {seed}");
    for (resolution, text) in [
        (Resolution::S60, &first[1]),
        (Resolution::M15, &first[2]),
        (Resolution::M60, &first[3]),
    ] {
        let want: usize = expected
            .rollups(resolution, true)
            .0
            .values()
            .map(|b| b.len())
            .sum();
        assert_eq!(text.lines().count(), want, "seed {seed} {resolution:?}");
    }
    // Counters and quantiles are the same over samples and over every rollup.
    for same in [&first[9..13], &first[13..17]] {
        for text in &same[1..] {
            assert_eq!(&same[0], text, "seed {seed}");
        }
    }
    fixture.absorb().await;
    compare(&first, &fixture, seed, "after absorb").await;
    fixture.clock.advance(2 * 3_600_000_000);
    fixture.settle().await;
    compare(&first, &fixture, seed, "after seal").await;
    // A late batch that holds nothing new reopens windows and changes no answer.
    fixture.put(put[5].clone()).await;
    compare(&first, &fixture, seed, "with a replayed batch").await;
}

async fn compare(first: &[String], fixture: &Fixture, seed: u64, when: &str) {
    for ((sql, want), got) in TEXTS.iter().zip(first).zip(answers(fixture).await) {
        let got = rows(&got);
        if *want != got {
            let differing = want.lines().zip(got.lines()).find(|(a, b)| a != b);
            panic!(
                "seed {seed} {when}: {sql}: {} rows, then {}; first difference {differing:?}",
                want.lines().count(),
                got.lines().count()
            );
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn answers_do_not_change_by_a_bit_through_absorb_and_seal() {
    for seed in 0..6 {
        check(seed).await;
    }
}
