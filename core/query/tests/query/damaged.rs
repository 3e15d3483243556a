//! Flipped bits in data files, and files that are not there: a query answers as before or with an
//! error, never with other rows.

use std::sync::Arc;

use bytes::Bytes;
use object_store::ObjectStoreExt;
use stele_model::{ErrorKind, Resolution};
use stele_query::{Format, QueryEngine};
use stele_store::keys;
use stele_table::FileKind;
use stele_testkit::Rng;

use crate::fixture::{Fixture, Stage, config};

/// Flips in each file.
const FLIPS: usize = 60;

fn queries(resolution: Resolution) -> [&'static str; 2] {
    match resolution {
        Resolution::Raw => [
            "SELECT metric, tags, ts, value, kind FROM samples ORDER BY metric, tags, ts",
            "SELECT count(*), sum(value) FROM samples WHERE metric = 'cpu.user' \
             AND tags LIKE '%\"a\"%'",
        ],
        Resolution::S60 => [
            "SELECT * FROM rollup_60s ORDER BY metric, tags, ts",
            "SELECT quantile(sketch, 0.5) FROM rollup_60s WHERE metric = 'cpu.user'",
        ],
        Resolution::M15 => [
            "SELECT * FROM rollup_15m ORDER BY metric, tags, ts",
            "SELECT sum(\"count\") FROM rollup_15m WHERE tags LIKE '%host%'",
        ],
        Resolution::M60 => [
            "SELECT * FROM rollup_60m ORDER BY metric, tags, ts",
            "SELECT max(\"max\") FROM rollup_60m WHERE metric <> 'x'",
        ],
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flipped_bit_gives_the_same_rows_or_an_error() {
    let fixture = Fixture::at(Stage::Sealed).await;
    let state = fixture.log.load().await.unwrap().unwrap();
    let mut random = Rng::new(8);
    for resolution in [Resolution::Raw].into_iter().chain(Resolution::ROLLUPS) {
        let [rows, sum] = queries(resolution);
        let whole = [
            fixture.text(rows, Format::Csv).await,
            fixture.text(sum, Format::Csv).await,
        ];
        let file = state.files_of(FileKind::Sealed(resolution)).next().unwrap();
        let key = fixture.store.path(&keys::data_file(&file.path));
        let bytes = fixture.memory.bytes(&key).unwrap();
        let mut refused = 0;
        for _ in 0..FLIPS {
            let (at, bit) = (random.below(bytes.len()), random.below(8));
            let mut damaged = bytes.to_vec();
            damaged[at] ^= 1 << bit;
            fixture.memory.damage(&key, Bytes::from(damaged));
            // Another process: no footer is remembered.
            let engine = QueryEngine::new(config(), Arc::new(fixture.clock.clone())).unwrap();
            let fixture = fixture.with_engine(engine);
            for (sql, whole) in [rows, sum].iter().zip(&whole) {
                match fixture.encoded(sql, Format::Csv).await {
                    Ok(answer) => assert_eq!(
                        String::from_utf8_lossy(&answer),
                        *whole,
                        "{sql} with bit {bit} of byte {at} flipped"
                    ),
                    Err(error) => {
                        assert_eq!(error.kind(), ErrorKind::Corrupt, "{sql}: {error:?}");
                        refused += 1;
                    }
                }
            }
        }
        assert!(refused > FLIPS, "{refused} of {FLIPS} flips were found");
        fixture.memory.damage(&key, bytes);
    }
}

/// Sweep deletes nothing that the newest version needs, so no new view would help.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_live_file_that_is_not_there_is_named() {
    for stage in [Stage::Absorbed, Stage::Sealed] {
        let fixture = Fixture::at(stage).await;
        let listed = fixture.store.list("table").await.unwrap().into_iter();
        let mut named = 0;
        for object in listed.filter(|object| object.key.ends_with(".parquet")) {
            let path = fixture.store.path(&object.key);
            let bytes = fixture.memory.bytes(&path).unwrap();
            fixture.memory.delete(&path).await.unwrap();
            // Another process: no footer is remembered.
            let engine = QueryEngine::new(config(), Arc::new(fixture.clock.clone())).unwrap();
            let asked = fixture.with_engine(engine);
            let sql = "SELECT count(*), sum(value) FROM samples";
            if let Err(error) = asked.encoded(sql, Format::Csv).await {
                assert_eq!(error.kind(), ErrorKind::Corrupt, "{error:?}");
                let text = error.to_string();
                assert!(text.contains(&object.key), "{text} names {}", object.key);
                named += 1;
            }
            fixture.memory.put(&path, bytes.into()).await.unwrap();
        }
        assert!(named > 0, "{stage:?}: no query needed any of the files");
    }
}
