//! What a hostile text can do through the whole engine: nothing.

use std::time::Duration;

use stele_model::ErrorKind;
use stele_query::{Error, Format, QueryConfig};

use crate::fixture::{Fixture, Made, Stage, config, us};

async fn refusal(fixture: &Fixture, sql: &str) -> Error {
    match fixture.encoded(sql, Format::Json).await {
        Err(error) => error,
        Ok(bytes) => panic!("let through: {sql}: {}", String::from_utf8_lossy(&bytes)),
    }
}

#[tokio::test]
async fn no_text_names_a_file_a_store_or_another_tenant() {
    let fixture = Fixture::at(Stage::Sealed).await;
    for sql in [
        "SELECT * FROM '/etc/passwd'",
        "SELECT * FROM \"/etc/passwd\"",
        "SELECT * FROM 's3://bucket/key.parquet'",
        "SELECT * FROM 'http://169.254.169.254/latest/meta-data'",
        "SELECT * FROM 'memory://test/tenants/default/l0/x.parquet'",
        "SELECT * FROM 'tenants/other/table'",
        "SELECT * FROM other.public.samples",
        "SELECT * FROM datafusion.public.samples",
        "SELECT * FROM information_schema.tables",
        "SELECT * FROM information_schema.df_settings",
        "SELECT * FROM pg_catalog.pg_tables",
        "SELECT * FROM samples, \"../other\"",
        "SELECT (SELECT count(*) FROM \"/etc/passwd\")",
        "DESCRIBE \"/etc/passwd\"",
    ] {
        let error = refusal(&fixture, sql).await;
        assert!(
            matches!(error, Error::NoSuchTable { .. }),
            "{sql}: {error:?}"
        );
    }
}

#[tokio::test]
async fn functions_that_are_not_listed_do_not_exist() {
    let fixture = Fixture::at(Stage::L0).await;
    for call in [
        "repeat('x', 1000000000)",
        "lpad('x', 1000000000)",
        "rpad('x', 1000000000)",
        "replace(repeat('a', 9), 'a', 'b')",
        "regexp_replace('a', 'a', 'b')",
        "range(0, 1000000000)",
        "generate_series(0, 1000000000)",
        "array_repeat(1, 1000000000)",
        "array_resize(make_array(1), 1000000000)",
        "random()",
        "uuid()",
        "version()",
        "input_file_name()",
        "file_row_index()",
        "read_csv('/etc/passwd')",
        "pg_read_file('/etc/passwd')",
        "pg_sleep(100)",
        "current_setting('x')",
    ] {
        let sql = format!("SELECT {call} FROM samples");
        let error = refusal(&fixture, &sql).await;
        assert!(
            matches!(error, Error::NoSuchFunction { .. }),
            "{sql}: {error:?}"
        );
    }
}

#[tokio::test]
async fn refused_texts_send_no_request() {
    let fixture = Fixture::at(Stage::Sealed).await;
    drop(fixture.requests.take());
    for sql in [
        "DROP TABLE samples",
        "SELECT 1; SELECT 2",
        "nonsense",
        "SHOW TABLES",
    ] {
        let _ = fixture.encoded(sql, Format::Json).await;
    }
    assert_eq!(fixture.requests.take(), []);
}

/// 40,000 samples of one series.
async fn large(config: QueryConfig) -> Fixture {
    let fixture = Fixture::with(config);
    let mut made = Made::default();
    let s = made.series("m", "{}");
    let start = us("2026-11-22T10:00:00Z");
    for i in 0..40_000 {
        made.push(s, start + i * 1_000, i as f64);
    }
    fixture.put(made.0).await;
    fixture
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_over_a_cap_is_an_error_naming_it() {
    let fixture = large(QueryConfig {
        rows_max: 1_000,
        ..config()
    })
    .await;
    let error = refusal(&fixture, "SELECT * FROM samples").await;
    assert_eq!(error.kind(), ErrorKind::Unexecutable);
    assert!(error.to_string().contains("more than 1000 rows"), "{error}");
    fixture.json("SELECT * FROM samples LIMIT 1000").await;

    let fixture = large(QueryConfig {
        bytes_max: 10_000,
        ..config()
    })
    .await;
    let error = refusal(&fixture, "SELECT * FROM samples").await;
    assert!(
        error.to_string().contains("more than 10000 bytes"),
        "{error}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn memory_is_bounded_and_the_error_names_the_limit() {
    let fixture = large(QueryConfig {
        memory_pool_bytes: 2 << 20,
        ..config()
    })
    .await;
    let sql = "SELECT value, array_agg(ts) AS l FROM samples GROUP BY value ORDER BY value";
    let error = refusal(&fixture, sql).await;
    assert_eq!(error.kind(), ErrorKind::Unexecutable, "{error:?}");
    assert!(error.to_string().contains("2097152 bytes"), "{error}");
    // The memory is given back: the next query runs.
    fixture.json("SELECT count(*) AS n FROM samples").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_query_past_its_deadline_is_stopped() {
    let fixture = large(QueryConfig {
        deadline: Duration::from_secs(1),
        ..config()
    })
    .await;
    let started = std::time::Instant::now();
    let sql = "SELECT count(*) FROM samples a, samples b WHERE sin(a.value * b.value) > 0.999";
    let error = refusal(&fixture, sql).await;
    assert_eq!(error.kind(), ErrorKind::QueryTimeout, "{error:?}");
    assert!(started.elapsed() < Duration::from_secs(10));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn texts_that_double_their_text_end_in_an_error() {
    let fixture = Fixture::at(Stage::L0).await;
    let mut sql = "SELECT tags AS a FROM samples".to_owned();
    for _ in 0..20 {
        sql = format!("SELECT a || a AS a FROM ({sql}) t");
    }
    let error = refusal(&fixture, &sql).await;
    assert_eq!(error.kind(), ErrorKind::InvalidQuery, "{error:?}");
    assert!(error.to_string().contains("limit is 8192"), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_deepest_allowed_texts_are_planned_without_harm() {
    let fixture = Fixture::at(Stage::Sealed).await;
    let sum = vec!["value"; 500].join(" + ");
    let any = vec!["value = 1"; 250].join(" OR ");
    let nested = (0..18).fold("value".to_owned(), |inner, _| format!("abs({inner})"));
    let list: Vec<String> = (0..1_900).map(|i| format!("'{i}'")).collect();
    let cases = format!(
        "{}0{}",
        "CASE WHEN true THEN ".repeat(12),
        " END".repeat(12)
    );
    for sql in [
        format!("SELECT {sum} AS s FROM samples"),
        format!("SELECT count(*) AS n FROM samples WHERE {any}"),
        format!("SELECT {nested} AS s FROM samples"),
        format!(
            "SELECT count(*) AS n FROM samples WHERE metric IN ({})",
            list.join(",")
        ),
        format!("SELECT {cases} AS c FROM samples LIMIT 1"),
        format!("SELECT 1 AS a {}", "UNION ALL SELECT 1 ".repeat(24)),
    ] {
        fixture
            .encoded(&sql, Format::Json)
            .await
            .unwrap_or_else(|e| panic!("{}…: {e:?}", sql.chars().take(60).collect::<String>()));
    }
}
