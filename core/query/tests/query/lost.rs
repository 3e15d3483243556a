//! Windows of which something is known to be lost: in the table `coverage`, and in the header of
//! an answer that was asked for it.

use axum::body::Body;
use axum::http::{Request, StatusCode};
use axum::response::Response;
use bytes::Bytes;
use stele_model::time::HOUR_US;
use stele_model::{Digest, Resolution, Rows, Window, WindowSet};
use stele_query::{Format, router};
use stele_store::keys;
use stele_table::{
    Commit, CommitKind, FileEntry, FileKind, Loss, LossKind, LostObject, OperationId, Outcome,
    Restored, change_losses, losses, note_losses,
};
use tower::ServiceExt;

use crate::fixture::{A, Fixture, Made, us};

const SHOWN: &str =
    "SELECT ts, state, rows, metric, reason FROM coverage ORDER BY ts, metric NULLS FIRST";
const SIX: &str = "2026-11-22T06:00:00.000000Z";
const SEVEN: &str = "2026-11-22T07:00:00.000000Z";
const RAW: FileKind = FileKind::Sealed(Resolution::Raw);

/// Ten samples of `metric` in each of `hours`, counted from 06:00.
fn batch(metric: &str, hours: &[i64]) -> Rows {
    let mut made = Made::default();
    let s = made.series(metric, A);
    for hour in hours {
        for i in 0..10 {
            let start = us("2026-11-22T06:00:00Z") + hour * HOUR_US;
            made.push(s, start + i * 1_000_000, i as f64);
        }
    }
    made.0
}

/// 06:00 and 07:00 of one metric, sealed.
async fn sealed() -> Fixture {
    let fixture = Fixture::new();
    fixture.put(batch("m", &[0, 1])).await;
    fixture.settle().await;
    fixture
}

async fn files(fixture: &Fixture) -> Vec<FileEntry> {
    let state = fixture.log.load().await.unwrap().unwrap();
    state.files.values().map(|f| f.as_ref().clone()).collect()
}

async fn of_kind(fixture: &Fixture, kind: FileKind) -> FileEntry {
    let mut files = files(fixture).await.into_iter();
    files.find(|file| file.kind == kind).unwrap()
}

/// Takes a file away, or damages it, and records that.
async fn lose(fixture: &Fixture, kind: LossKind, file: &FileEntry) {
    let key = fixture.store.path(&keys::data_file(&file.path));
    match kind {
        LossKind::FileMissing => fixture.memory.lose(&key),
        _ => {
            let bytes = fixture.memory.bytes(&key).unwrap();
            let other: Vec<u8> = bytes.iter().map(|byte| !byte).collect();
            fixture.memory.damage(&key, other.into());
        }
    }
    note(fixture, Loss::of_file(kind, file, 1)).await;
}

async fn note(fixture: &Fixture, loss: Loss) {
    note_losses(&fixture.store, &[loss]).await.unwrap();
}

async fn shown(fixture: &Fixture) -> Vec<String> {
    let text = fixture.text(SHOWN, Format::Csv).await;
    text.lines().skip(1).map(str::to_owned).collect()
}

async fn send(fixture: &Fixture, request: Request<Body>) -> Response {
    router(fixture.state()).oneshot(request).await.unwrap()
}

fn post(path: &str, sql: &str) -> Request<Body> {
    Request::post(path)
        .body(Body::from(sql.to_owned()))
        .unwrap()
}

/// The header of an answer that was asked for it.
async fn header(fixture: &Fixture, sql: &str) -> String {
    let response = send(fixture, post("/sql?coverage=1", sql)).await;
    assert_eq!(response.status(), StatusCode::OK, "{sql}");
    let header = response.headers()["stele-coverage"].to_str().unwrap();
    assert!(header.len() < 200, "{header}");
    header.to_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_window_is_partial_while_anything_of_it_is_left_and_then_lost() {
    let fixture = sealed().await;
    let whole = [format!("{SIX},sealed,,,"), format!("{SEVEN},sealed,,,")];
    assert_eq!(shown(&fixture).await, whole);
    let raw = of_kind(&fixture, RAW).await;
    lose(&fixture, LossKind::FileMissing, &raw).await;
    // The rollups of both hours are left.
    let reason = format!("\"file missing: table/{}, 20 rows\"", raw.path);
    let both = |state: &str, rows: &str, reason: &str| {
        let rows = [SIX, SEVEN].map(|hour| {
            [
                format!("{hour},{state},{rows},,{reason}"),
                format!("{hour},{state},{rows},m,{reason}"),
            ]
        });
        rows.concat()
    };
    assert_eq!(shown(&fixture).await, both("partial", "", &reason));
    for file in files(&fixture).await {
        if file.kind != RAW {
            lose(&fixture, LossKind::FileDamaged, &file).await;
        }
    }
    let reason = reason.replace(" rows\"", " rows; and 3 more\"");
    assert_eq!(shown(&fixture).await, both("lost", "0", &reason));
    // Whole again, it is as before.
    change_losses(&fixture.store, &[], |_| true).await.unwrap();
    assert_eq!(shown(&fixture).await, whole);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_metric_is_lost_when_its_own_files_are_and_another_is_left() {
    let fixture = sealed().await;
    let of_m = files(&fixture).await;
    fixture.put(batch("n", &[1])).await;
    fixture.absorb().await;
    for file in &of_m {
        lose(&fixture, LossKind::FileMissing, file).await;
    }
    let rows = shown(&fixture).await;
    let starts = rows.iter().map(|row| row.split(",\"").next().unwrap());
    let starts: Vec<&str> = starts.collect();
    let want = [
        format!("{SIX},lost,0,"),
        format!("{SIX},lost,0,m"),
        format!("{SEVEN},partial,,"),
        format!("{SEVEN},lost,0,m"),
    ];
    assert_eq!(starts, want);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_damaged_batch_is_met_by_absorb_and_counts_until_it_is_absorbed() {
    let fixture = sealed().await;
    fixture.put(batch("late", &[1, 2])).await;
    let state = fixture.log.load().await.unwrap().unwrap();
    let mut listed = fixture.store.l0_list().await.unwrap().into_iter();
    let fresh = listed.find(|object| !state.unswept.contains_key(&object.name.digest));
    let name = fresh.unwrap().name;
    let key = fixture.store.path(&format!("l0/{name}"));
    let whole = fixture.memory.bytes(&key).unwrap();
    fixture
        .memory
        .damage(&key, Bytes::from_static(b"not Parquet"));
    fixture.absorb().await;
    let reason = format!("batch damaged: l0/{name}");
    let damaged = [
        format!("{SIX},sealed,,,"),
        format!("{SEVEN},partial,,,{reason}"),
        format!("2026-11-22T08:00:00.000000Z,lost,0,,{reason}"),
    ];
    assert_eq!(shown(&fixture).await, damaged);
    // Deleted by hand it is lost all the same, and now queries can say so.
    let sql = "SELECT count(*) AS n FROM samples";
    let failed = send(&fixture, post("/sql?coverage=1", sql)).await;
    assert_eq!(failed.status(), StatusCode::INTERNAL_SERVER_ERROR);
    fixture.memory.lose(&key);
    assert_eq!(shown(&fixture).await, damaged);
    assert_eq!(
        header(&fixture, sql).await,
        "partial; windows=2; lost=1; from=2026-11-22T07:00:00Z; to=2026-11-22T09:00:00Z; \
         reason=batch_damaged"
    );
    let object = format!("l0/{name}");
    fixture.store.put_new(&object, whole).await.unwrap();
    fixture.settle().await;
    assert_eq!(losses(&fixture.store).await.unwrap(), []);
    let states = shown(&fixture).await;
    assert!(
        states.iter().all(|row| row.contains(",sealed,")),
        "{states:?}"
    );
}

/// What a restore in place does to the table: the first version again, as the next one.
async fn restored() -> (Fixture, u64) {
    let fixture = Fixture::new();
    fixture.put(batch("m", &[0])).await;
    fixture.absorb().await;
    let back = fixture.log.load().await.unwrap().unwrap();
    fixture.put(batch("m", &[1, 2])).await;
    fixture.absorb().await;
    let newest = fixture.log.load().await.unwrap().unwrap();
    let id = OperationId("f".repeat(32));
    let mut commit = Commit::new(id, CommitKind::Restore, 1);
    let missing = |of: &stele_table::TableState, other: &stele_table::TableState| {
        let files = of.files.values();
        let missing = files.filter(|file| !other.files.contains_key(&file.path));
        missing
            .map(|file| file.as_ref().clone())
            .collect::<Vec<_>>()
    };
    commit.add = missing(&back, &newest);
    commit.remove = missing(&newest, &back)
        .into_iter()
        .map(|f| f.path)
        .collect();
    commit.restored = Some(Restored::of(&back, Digest([9; 16])));
    let Outcome::Committed(state) = fixture.log.commit(&newest, commit).await.unwrap() else {
        panic!("nobody else commits");
    };
    for object in fixture.store.l0_list().await.unwrap() {
        let key = format!("l0/{}", object.name);
        fixture.memory.lose(&fixture.store.path(&key));
    }
    (fixture, state.version)
}

fn of_restore(version: u64, first: &str, hours: i32) -> Loss {
    let Window(first) = Window::of(us(first));
    Loss {
        kind: LossKind::BatchRevoked,
        object: LostObject::Restore {
            version,
            batches: 1,
        },
        windows: WindowSet::range(Window(first), Window(first + hours - 1)),
        metrics: None,
        rows: Some(20),
        noticed_us: 1,
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn batches_lost_in_a_restore_are_missed_in_every_table_from_that_version_on() {
    let (fixture, version) = restored().await;
    note(&fixture, of_restore(version, SIX, 3)).await;
    // Of a restore that this table has never had.
    note(&fixture, of_restore(version + 7, "2026-11-22T01:00:00Z", 1)).await;
    let reason = "\"batches lost in a restore in place: version VERSION, batches 1, 20 rows\"";
    let reason = reason.replace("VERSION", &version.to_string());
    let rows = shown(&fixture).await;
    let want = [
        format!("{SIX},partial,,,{reason}"),
        format!("{SEVEN},lost,0,,{reason}"),
        format!("2026-11-22T08:00:00.000000Z,lost,0,,{reason}"),
    ];
    assert_eq!(rows, want);
    let all = "partial; windows=3; lost=2; from=2026-11-22T06:00:00Z; to=2026-11-22T09:00:00Z; \
               reason=batch_revoked";
    for table in ["samples", "rollup_60s", "rollup_60m", "series", "tags"] {
        let sql = format!("SELECT count(*) AS n FROM {table}");
        assert_eq!(header(&fixture, &sql).await, all, "{table}");
    }
    // An older version had them, or had them not yet; it did not lose them.
    let older = format!("/sql?coverage=1&as_of={}", version - 1);
    let response = send(&fixture, post(&older, "SELECT count(*) FROM samples")).await;
    assert_eq!(response.headers()["stele-coverage"], "complete");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_header_speaks_of_the_time_the_metric_and_the_table_that_a_query_reads() {
    let (fixture, version) = restored().await;
    note(&fixture, of_restore(version, SEVEN, 2)).await;
    let of = |when: &str| format!("SELECT count(*) AS n FROM samples WHERE {when}");
    let eight = "ts >= TIMESTAMP '2026-11-22 08:30:00'";
    let cases = [
        (of("ts < TIMESTAMP '2026-11-22 07:00:00'"), "complete"),
        (of("ts > TIMESTAMP '2027-01-01'"), "complete"),
        ("SELECT 1".to_owned(), "complete"),
        ("SHOW TABLES".to_owned(), "complete"),
        ("SELECT * FROM ledger".to_owned(), "complete"),
        (
            of(eight),
            "partial; windows=1; lost=1; from=2026-11-22T08:00:00Z; to=2026-11-22T09:00:00Z; \
             reason=batch_revoked",
        ),
        (
            format!("{} UNION ALL {}", of("metric = 'none'"), of(eight)),
            "partial; windows=2; lost=2; from=2026-11-22T07:00:00Z; to=2026-11-22T09:00:00Z; \
             reason=batch_revoked",
        ),
    ];
    for (sql, want) in cases {
        assert_eq!(header(&fixture, &sql).await, want, "{sql}");
    }
    // Rollups do not miss what raw has lost, nor the other way round.
    let fixture = sealed().await;
    let minutes = of_kind(&fixture, FileKind::Sealed(Resolution::S60)).await;
    lose(&fixture, LossKind::FileDamaged, &minutes).await;
    for table in ["samples", "rollup_15m", "rollup_60m"] {
        let sql = format!("SELECT count(*) AS n FROM {table}");
        assert_eq!(header(&fixture, &sql).await, "complete", "{table}");
    }
    let sql = "SELECT count(*) AS n FROM rollup_60s";
    let failed = send(&fixture, post("/sql?coverage=1", sql)).await;
    assert_eq!(failed.status(), StatusCode::INTERNAL_SERVER_ERROR);
    let none = format!("{sql} WHERE metric = 'n'");
    assert_eq!(header(&fixture, &none).await, "complete");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_format_and_both_forms_carry_the_header_and_only_when_asked() {
    let (fixture, version) = restored().await;
    note(&fixture, of_restore(version, SEVEN, 2)).await;
    let sql = "SELECT metric FROM samples LIMIT 3";
    let query = "SELECT%20metric%20FROM%20samples%20LIMIT%203";
    for format in ["json", "ndjson", "csv", "arrow", "parquet"] {
        let plain = send(&fixture, post(&format!("/sql?format={format}"), sql)).await;
        assert!(!plain.headers().contains_key("stele-coverage"), "{format}");
        let off = send(&fixture, post("/sql?coverage=0", sql)).await;
        assert!(!off.headers().contains_key("stele-coverage"));
        let path = format!("/sql?format={format}&coverage=1");
        let get = Request::get(format!("{path}&q={query}")).body(Body::empty());
        for request in [post(&path, sql), get.unwrap()] {
            let answer = send(&fixture, request).await;
            assert_eq!(answer.status(), StatusCode::OK);
            let header = answer.headers()["stele-coverage"].to_str().unwrap();
            assert!(
                header.starts_with("partial; windows=2; lost=2;"),
                "{format}: {header}"
            );
        }
    }
    let wrong = send(&fixture, post("/sql?coverage=yes", sql)).await;
    assert_eq!(wrong.status(), StatusCode::BAD_REQUEST);
    let body = axum::body::to_bytes(wrong.into_body(), usize::MAX)
        .await
        .unwrap();
    assert!(String::from_utf8_lossy(&body).contains("coverage=\\\"yes\\\" is neither 0 nor 1"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_that_is_not_live_any_more_is_missed_by_nobody() {
    let fixture = sealed().await;
    let raw = of_kind(&fixture, RAW).await;
    note(&fixture, Loss::of_file(LossKind::FileMissing, &raw, 1)).await;
    assert!(shown(&fixture).await[0].contains(",partial,"));
    // A late sample has its window sealed again, into another file.
    fixture.put(batch("late", &[0, 1])).await;
    fixture.settle().await;
    assert_ne!(of_kind(&fixture, RAW).await.path, raw.path);
    let rows = shown(&fixture).await;
    assert_eq!(rows.len(), 2, "{rows:?}");
    assert!(rows.iter().all(|row| row.contains(",sealed,")), "{rows:?}");
    assert_eq!(
        header(&fixture, "SELECT count(*) FROM samples").await,
        "complete"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn objects_that_are_not_named_still_make_their_windows_partial() {
    let fixture = sealed().await;
    let many = (0..stele_table::LOSSES_MAX + 1).map(|n| Loss {
        object: LostObject::File(format!("f{n}")),
        ..Loss {
            kind: LossKind::FileMissing,
            ..of_restore(1, SEVEN, 1)
        }
    });
    let many: Vec<Loss> = many.collect();
    note_losses(&fixture.store, &many).await.unwrap();
    let rows = shown(&fixture).await;
    assert_eq!(rows[0], format!("{SIX},sealed,,,"));
    assert_eq!(
        rows[1],
        format!("{SEVEN},partial,,,file missing: more objects than are named")
    );
}

fn lists_of_losses(shapes: &str) -> usize {
    shapes
        .lines()
        .filter(|line| line.contains("control/losses"))
        .count()
}

#[tokio::test]
async fn only_a_query_that_asks_reads_the_record() {
    let fixture = sealed().await;
    let sql = "SELECT count(*) AS n FROM samples";
    fixture.text(sql, Format::Csv).await;
    for (path, sql, requests) in [
        ("/sql", sql, 0),
        ("/sql?coverage=0", sql, 0),
        ("/sql?coverage=1", sql, 1),
        ("/sql", "SELECT * FROM coverage", 1),
        ("/sql?coverage=1", "SELECT * FROM coverage", 1),
        ("/sql?coverage=1", "SHOW TABLES", 0),
        ("/sql?coverage=1", "DESCRIBE samples", 0),
    ] {
        drop(fixture.requests.take());
        let answer = send(&fixture, post(path, sql)).await;
        assert_eq!(answer.status(), StatusCode::OK);
        let shapes = fixture.requests.take_shapes();
        assert_eq!(lists_of_losses(&shapes), requests, "{path} {sql}: {shapes}");
    }
    let raw = of_kind(&fixture, RAW).await;
    note(&fixture, Loss::of_file(LossKind::FileMissing, &raw, 1)).await;
    drop(fixture.requests.take());
    header(&fixture, sql).await;
    let shapes = fixture.requests.take_shapes();
    assert_eq!(lists_of_losses(&shapes), 2, "a LIST and a GET: {shapes}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_damaged_record_fails_what_asks_for_it_and_nothing_else() {
    let fixture = sealed().await;
    let key = "control/losses/00000000000000000000.json";
    let damaged = Bytes::from_static(b"{\"losses\":[]}");
    fixture.store.put_new(key, damaged).await.unwrap();
    let sql = "SELECT count(*) AS n FROM samples";
    for (path, sql, status) in [
        ("/sql", sql, StatusCode::OK),
        ("/sql?coverage=1", sql, StatusCode::INTERNAL_SERVER_ERROR),
        (
            "/sql",
            "SELECT * FROM coverage",
            StatusCode::INTERNAL_SERVER_ERROR,
        ),
    ] {
        let answer = send(&fixture, post(path, sql)).await;
        assert_eq!(answer.status(), status, "{path} {sql}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_window_whose_file_is_missing_is_an_error_that_names_it_also_when_asked() {
    let fixture = sealed().await;
    let raw = of_kind(&fixture, RAW).await;
    lose(&fixture, LossKind::FileMissing, &raw).await;
    let plain = fixture.encoded("SELECT * FROM samples", Format::Csv).await;
    let stream = fixture
        .engine
        .query_covered(&fixture.log, "SELECT * FROM samples", None);
    let plain = plain.unwrap_err().kind();
    assert_eq!(stream.await.map(drop).unwrap_err().kind(), plain);
    // The rollups answer, and say that they miss nothing.
    let sql = "SELECT sum(\"count\") AS n FROM rollup_60m";
    assert_eq!(fixture.json(sql).await[0]["n"], 20);
    assert_eq!(header(&fixture, sql).await, "complete");
}
