//! `/sql` as a client sees it.

use arrow::record_batch::RecordBatch;
use axum::body::{Body, Bytes};
use axum::http::{Request, StatusCode, header};
use axum::response::Response;
use futures::StreamExt;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use stele_query::{Error, Format, QueryConfig, error_response, router};
use tower::ServiceExt;

use crate::fixture::{Fixture, Made, Stage, config, us};

async fn send(fixture: &Fixture, request: Request<Body>) -> Response {
    router(fixture.state())
        .oneshot(request)
        .await
        .expect("infallible")
}

async fn body(response: Response) -> String {
    let bytes = axum::body::to_bytes(response.into_body(), usize::MAX).await;
    String::from_utf8(bytes.expect("a whole body").to_vec()).expect("text")
}

fn post(sql: &str) -> Request<Body> {
    Request::post("/sql")
        .body(Body::from(sql.to_owned()))
        .expect("a request")
}

#[tokio::test]
async fn get_and_post_answer_alike_in_every_format() {
    let fixture = Fixture::at(Stage::Mixed).await;
    let sql = "SELECT metric, value FROM samples WHERE metric = 'requests' ORDER BY ts LIMIT 2";
    let query = "SELECT%20metric,%20value%20FROM%20samples%20WHERE%20metric%20=%20'requests'\
                 %20ORDER%20BY%20ts%20LIMIT%202";
    let want = [
        (
            "json",
            "application/json",
            "[{\"metric\":\"requests\",\"value\":5.0},\n{\"metric\":\"requests\",\"value\":8.0}]\n",
        ),
        (
            "ndjson",
            "application/x-ndjson",
            "{\"metric\":\"requests\",\"value\":5.0}\n{\"metric\":\"requests\",\"value\":8.0}\n",
        ),
        (
            "csv",
            "text/csv; charset=utf-8; header=present",
            "metric,value\nrequests,5.0\nrequests,8.0\n",
        ),
    ];
    for (format, content_type, text) in want {
        let get = Request::get(format!("/sql?q={query}&format={format}"));
        let get = send(&fixture, get.body(Body::empty()).expect("a request")).await;
        assert_eq!(get.status(), StatusCode::OK);
        assert_eq!(get.headers()[header::CONTENT_TYPE], content_type);
        assert_eq!(body(get).await, text);
        let post = Request::post("/sql")
            .header(header::ACCEPT, content_type)
            .body(Body::from(sql))
            .expect("a request");
        assert_eq!(body(send(&fixture, post).await).await, text);
    }
}

#[tokio::test]
async fn arrow_keeps_what_json_cannot_say() {
    let fixture = Fixture::at(Stage::Sealed).await;
    let sql = "SELECT metric, value FROM samples WHERE metric = 'temp' ORDER BY ts";
    let request = Request::post("/sql?format=arrow")
        .body(Body::from(sql))
        .expect("a request");
    let response = send(&fixture, request).await;
    let bytes = axum::body::to_bytes(response.into_body(), usize::MAX)
        .await
        .expect("a body");
    let reader = arrow::ipc::reader::StreamReader::try_new(bytes.as_ref(), None).expect("IPC");
    let batches: Vec<_> = reader.map(|batch| batch.expect("a batch")).collect();
    let values: Vec<u64> = batches
        .iter()
        .flat_map(|batch| {
            let values = batch.column(1).as_any();
            let values = values
                .downcast_ref::<arrow::array::Float64Array>()
                .expect("doubles");
            values
                .values()
                .iter()
                .map(|v| v.to_bits())
                .collect::<Vec<_>>()
        })
        .collect();
    let want = [f64::NAN, f64::INFINITY, f64::NEG_INFINITY, -0.0].map(f64::to_bits);
    assert_eq!(values, want);
}

async fn parquet_batches(fixture: &Fixture, sql: &str) -> (Bytes, Vec<RecordBatch>) {
    let request = Request::post("/sql")
        .header(header::ACCEPT, "application/vnd.apache.parquet")
        .body(Body::from(sql.to_owned()))
        .expect("a request");
    let response = send(fixture, request).await;
    assert_eq!(response.status(), StatusCode::OK);
    let content_type = &response.headers()[header::CONTENT_TYPE];
    assert_eq!(content_type, "application/vnd.apache.parquet");
    let bytes = axum::body::to_bytes(response.into_body(), usize::MAX);
    let bytes = bytes.await.expect("a body");
    let reader = ParquetRecordBatchReaderBuilder::try_new(bytes.clone()).expect("Parquet");
    let reader = reader.build().expect("Parquet");
    (bytes, reader.map(|batch| batch.expect("a batch")).collect())
}

fn total(batches: &[RecordBatch]) -> usize {
    batches.iter().map(RecordBatch::num_rows).sum()
}

#[tokio::test]
async fn parquet_holds_what_arrow_holds() {
    let fixture = Fixture::at(Stage::Mixed).await;
    for sql in [
        "SELECT * FROM samples ORDER BY metric, tags, ts",
        "SELECT * FROM rollup_60s ORDER BY metric, tags, ts",
        "SELECT * FROM ledger ORDER BY batch",
        "SELECT metric, array_agg(value ORDER BY ts) AS l FROM samples GROUP BY metric ORDER BY metric",
        "SELECT ts AT TIME ZONE 'Europe/Zurich' AS local, NULL AS nothing FROM samples ORDER BY ts",
        "SELECT metric, ts FROM samples WHERE metric = 'none'",
    ] {
        let (_, got) = parquet_batches(&fixture, sql).await;
        let arrow = fixture
            .encoded(sql, Format::Arrow)
            .await
            .expect("an answer");
        let reader = arrow::ipc::reader::StreamReader::try_new(arrow.as_slice(), None);
        let want: Vec<_> = reader
            .expect("IPC")
            .map(|batch| batch.expect("a batch"))
            .collect();
        assert_eq!(total(&got), total(&want), "{sql}");
        let shown = |batches: &[RecordBatch]| {
            let text = arrow::util::pretty::pretty_format_batches(batches);
            text.expect("shown").to_string()
        };
        if total(&want) > 0 {
            assert_eq!(shown(&got), shown(&want), "{sql}");
        }
    }
    let sql = "SELECT INTERVAL '1 month' AS step";
    let request = Request::post("/sql?format=parquet");
    let response = send(&fixture, request.body(Body::from(sql)).expect("a request")).await;
    assert_eq!(response.status(), StatusCode::BAD_REQUEST);
    assert!(
        body(response)
            .await
            .contains("column \\\"step\\\" holds intervals")
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn parquet_comes_in_row_groups_and_within_the_cap_of_bytes() {
    let fixture = many_rows(5_000_000).await;
    let (bytes, batches) = parquet_batches(&fixture, "SELECT * FROM samples").await;
    assert_eq!(total(&batches), 400_000);
    let reader = ParquetRecordBatchReaderBuilder::try_new(bytes).expect("Parquet");
    let groups = reader.metadata().row_groups();
    assert!(groups.len() > 2, "{} row groups", groups.len());
    assert!(groups.iter().all(|group| group.num_rows() <= 131_072));

    let fixture = Fixture::with(QueryConfig {
        bytes_max: 1_000,
        ..config()
    });
    fixture.put_all(&crate::fixture::hand_made()).await;
    let error = fixture
        .encoded("SELECT * FROM samples", Format::Parquet)
        .await;
    let error = error.expect_err("over the cap").to_string();
    assert!(error.contains("more than 1000 bytes"), "{error}");
}

#[tokio::test]
async fn an_answer_without_rows_is_still_an_answer() {
    let fixture = Fixture::at(Stage::L0).await;
    let sql = "SELECT metric, ts FROM samples WHERE metric = 'none'";
    for (format, text) in [("json", "[]\n"), ("ndjson", ""), ("csv", "metric,ts\n")] {
        let request = Request::post(format!("/sql?format={format}"));
        let response = send(&fixture, request.body(Body::from(sql)).expect("a request")).await;
        assert_eq!(response.status(), StatusCode::OK);
        assert_eq!(body(response).await, text, "{format}");
    }
}

#[tokio::test]
async fn a_tenant_without_data_has_empty_tables() {
    let fixture = Fixture::new();
    for table in [
        "samples",
        "rollup_60s",
        "rollup_15m",
        "rollup_60m",
        "series",
        "tags",
        "coverage",
        "ledger",
    ] {
        let response = send(&fixture, post(&format!("SELECT * FROM {table}"))).await;
        assert_eq!(response.status(), StatusCode::OK, "{table}");
        assert_eq!(body(response).await, "[]\n", "{table}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn errors_say_what_is_wrong_in_one_form() {
    let fixture = Fixture::at(Stage::Sealed).await;
    let long = format!("SELECT '{}'", "x".repeat(17 << 10));
    let deep = format!("SELECT {}1{}", "(".repeat(60), ")".repeat(60));
    let texts = [
        "",
        "SELEC 1",
        "SELECT 1; SELECT 2",
        "DROP TABLE samples",
        "COPY samples TO '/tmp/x'",
        "SET x = 1",
        "SELECT * FROM sample",
        "SELECT * FROM '/etc/passwd'",
        "SELECT valeu FROM samples",
        "SELECT maxx(value) FROM samples",
        "SELECT repeat('x', 100)",
        "SELECT tags->>metric FROM samples",
        "SELECT value + tags FROM samples",
        "SELECT * FROM generate_series(1, 10)",
        "SELECT 1 / 0 FROM samples",
        &deep,
        &long,
    ];
    let mut seen = String::new();
    for sql in texts {
        let response = send(&fixture, post(sql)).await;
        let status = response.status();
        let start: String = sql.chars().take(40).collect();
        seen += &format!("{start}\n  {status}: {}\n", body(response).await);
    }
    let request = Request::get("/sql?q=SELECT%201&format=xml").body(Body::empty());
    let response = send(&fixture, request.expect("a request")).await;
    seen += &format!(
        "format=xml\n  {}: {}\n",
        response.status(),
        body(response).await
    );
    insta::assert_snapshot!(seen);
}

#[tokio::test]
async fn a_live_file_that_is_missing_is_named_by_its_key_alone() {
    let fixture = Fixture::at(Stage::Sealed).await;
    let files = fixture.store.list("table/resolution=raw").await;
    let files = files.expect("lists");
    for file in &files {
        fixture.store.delete(&file.key).await.expect("deletes");
    }
    let response = send(&fixture, post("SELECT * FROM samples")).await;
    assert_eq!(response.status(), StatusCode::INTERNAL_SERVER_ERROR);
    let text = body(response).await;
    let said = |file: &stele_store::ObjectInfo| format!("\"{} is missing", file.key);
    assert!(
        files.iter().any(|file| text.contains(&said(file))),
        "{text}"
    );
}

#[tokio::test]
async fn what_may_be_tried_again_says_when() {
    let response = error_response(&Error::Vanished { attempts: 4 });
    assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(response.headers()[header::RETRY_AFTER], "2");
    let text = body(response).await;
    assert!(text.contains("4 times; try again"), "{text}");
}

/// 400,000 rows: far more than what is held back.
async fn many_rows(rows_max: u64) -> Fixture {
    let fixture = Fixture::with(QueryConfig {
        rows_max,
        ..config()
    });
    let start = us("2026-11-22T10:00:00Z");
    for part in 0..4 {
        let mut made = Made::default();
        let s = made.series("m", "{}");
        for i in 0..100_000 {
            made.push(s, start + (part * 100_000 + i) * 1_000, 0.5);
        }
        fixture.put(made.0).await;
    }
    fixture
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_body_that_breaks_off_never_ends_cleanly() {
    let fixture = many_rows(300_000).await;
    for (format, end) in [("json", &b"]\n"[..]), ("parquet", b"PAR1")] {
        breaks_off(&fixture, format, end).await;
    }
}

/// A body over the cap of rows has a beginning and an error, and never the bytes of an end.
async fn breaks_off(fixture: &Fixture, format: &str, end: &[u8]) {
    let request = Request::post(format!("/sql?format={format}"));
    let request = request.body(Body::from("SELECT * FROM samples"));
    let response = send(fixture, request.expect("a request")).await;
    assert_eq!(response.status(), StatusCode::OK);
    assert!(response.headers().get(header::CONTENT_LENGTH).is_none());
    let mut chunks = response.into_body().into_data_stream();
    let mut last = None;
    while let Some(chunk) = chunks.next().await {
        assert!(last.is_none(), "a chunk after the failure");
        match chunk {
            Ok(bytes) => assert!(!bytes.ends_with(end), "{format}: it was closed"),
            Err(error) => last = Some(error),
        }
    }
    assert!(last.is_some(), "{format}: the body ended cleanly");
}

#[tokio::test]
async fn a_text_that_is_no_utf8_is_refused() {
    let fixture = Fixture::at(Stage::L0).await;
    let request = Request::post("/sql")
        .body(Body::from(vec![0xff, 0xfe]))
        .expect("a request");
    assert_eq!(
        send(&fixture, request).await.status(),
        StatusCode::BAD_REQUEST
    );
}
