//! The table `coverage` at every stage of compaction.

use stele_query::Format;

use crate::fixture::{A, Fixture, Made, us};

const HOUR_US: i64 = 3_600_000_000;

async fn shown(fixture: &Fixture) -> String {
    let sql = "SELECT ts, state, rows, files, objects FROM coverage ORDER BY ts";
    fixture.text(sql, Format::Csv).await
}

/// `rows` samples in each of `hours`, counted from 06:00.
fn batch(hours: &[i64], rows: i64) -> stele_model::Rows {
    let mut made = Made::default();
    let s = made.series("m", A);
    for hour in hours {
        for i in 0..rows {
            let start = us("2026-11-22T06:00:00Z") + hour * HOUR_US;
            made.push(s, start + i * 1_000_000, (hour * 100 + i) as f64);
        }
    }
    made.0
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn coverage_follows_a_window_from_open_to_sealed_and_late() {
    let fixture = Fixture::new();
    assert_eq!(shown(&fixture).await, "ts,state,rows,files,objects\n");

    // Two hours, one object. Nothing is counted without reading it.
    fixture.put(batch(&[0, 1], 5)).await;
    assert_eq!(
        shown(&fixture).await,
        "ts,state,rows,files,objects\n\
         2026-11-22T06:00:00.000000Z,open,,0,1\n\
         2026-11-22T07:00:00.000000Z,open,,0,1\n"
    );
    fixture.absorb().await;
    let absorbed = shown(&fixture).await;
    assert!(absorbed.contains("06:00:00.000000Z,open,"), "{absorbed}");
    assert!(!absorbed.contains(",1\n"), "no object is left: {absorbed}");

    fixture.settle().await;
    let sealed = shown(&fixture).await;
    for hour in ["06", "07"] {
        let row = format!("2026-11-22T{hour}:00:00.000000Z,sealed,");
        assert!(sealed.contains(&row), "{sealed}");
    }
    assert_known_rows_are_exact(&fixture).await;

    // A late object from 07:00 to 09:00 reopens 07:00, and may hold samples of 08:00.
    fixture.put(batch(&[1, 3], 7)).await;
    let late = shown(&fixture).await;
    let states: Vec<&str> = late
        .lines()
        .skip(1)
        .map(|row| row.split(',').nth(1))
        .map(Option::unwrap)
        .collect();
    assert_eq!(states, ["sealed", "late", "open", "open"], "{late}");
    assert_known_rows_are_exact(&fixture).await;

    // Once absorbed, the hour that holds nothing is gone.
    fixture.settle().await;
    let settled = shown(&fixture).await;
    let states: Vec<&str> = settled
        .lines()
        .skip(1)
        .map(|row| row.split(',').nth(1))
        .map(Option::unwrap)
        .collect();
    assert_eq!(states, ["sealed", "sealed", "sealed"], "{settled}");
    assert_known_rows_are_exact(&fixture).await;
}

async fn assert_known_rows_are_exact(fixture: &Fixture) {
    let wrong = fixture
        .text(
            "SELECT c.ts, c.rows, count(s.ts) AS n FROM coverage c LEFT JOIN \
             (SELECT time_bucket(INTERVAL '1 hour', ts) AS hour, ts FROM samples) s \
             ON s.hour = c.ts GROUP BY c.ts, c.rows HAVING c.rows <> count(s.ts)",
            Format::Csv,
        )
        .await;
    assert_eq!(wrong, "ts,rows,n\n");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_rows_of_a_sealed_hour_in_a_file_of_its_own_are_known() {
    let fixture = Fixture::new();
    fixture.put(batch(&[0], 5)).await;
    fixture.put(batch(&[0], 9)).await;
    fixture.settle().await;
    // The first 5 samples are among the 9.
    assert_eq!(
        shown(&fixture).await,
        "ts,state,rows,files,objects\n2026-11-22T06:00:00.000000Z,sealed,9,1,0\n"
    );
}
