//! Claims about the gate: what passes, what is refused, and that refusing is cheap.

use stele_model::ErrorKind;

use super::*;

fn kind_of(sql: &str) -> Option<(ErrorKind, String)> {
    check(sql, 16 << 10)
        .err()
        .map(|e| (e.kind(), e.to_string()))
}

#[test]
fn reads_are_let_through() {
    for sql in [
        "SELECT 1",
        "select * from samples;",
        "WITH a AS (SELECT 1) SELECT * FROM a",
        "EXPLAIN SELECT 1",
        "EXPLAIN ANALYZE SELECT count(*) FROM samples",
        "SELECT tags->>'host' IN ('a','b') FROM samples",
        "SELECT CASE WHEN a THEN 1 ELSE 2 END FROM samples",
        "VALUES (1), (2)",
        "(SELECT 1) UNION ALL (SELECT 2)",
    ] {
        assert!(
            matches!(check(sql, 16 << 10), Ok(Checked::Query(_))),
            "{sql}"
        );
    }
    assert!(matches!(check("SHOW TABLES", 100), Ok(Checked::ShowTables)));
    let described = check("DESCRIBE rollup_60s", 100);
    assert!(matches!(described, Ok(Checked::Describe(name)) if name == "rollup_60s"));
}

#[test]
fn everything_that_is_no_read_is_refused() {
    for sql in [
        "CREATE TABLE x (a INT)",
        "CREATE EXTERNAL TABLE x STORED AS CSV LOCATION '/etc/passwd'",
        "CREATE VIEW v AS SELECT 1",
        "CREATE FUNCTION f() RETURNS INT RETURN 1",
        "DROP TABLE samples",
        "TRUNCATE TABLE samples",
        "ALTER TABLE samples RENAME TO x",
        "INSERT INTO samples VALUES (1)",
        "UPDATE samples SET value = 0",
        "DELETE FROM samples",
        "COPY samples TO '/tmp/x.csv'",
        "COPY (SELECT 1) TO 's3://bucket/x.parquet'",
        "SET datafusion.execution.batch_size = 1",
        "RESET datafusion.execution.batch_size",
        "SHOW ALL",
        "BEGIN",
        "COMMIT",
        "PREPARE p AS SELECT 1",
        "EXECUTE p",
        "DEALLOCATE p",
        "USE other",
        "GRANT ALL ON samples TO x",
        "VACUUM",
        "ANALYZE TABLE samples",
        "KILL 1",
        "CALL f()",
        "EXPLAIN INSERT INTO samples VALUES (1)",
        "EXPLAIN EXPLAIN SELECT 1",
        "EXPLAIN COPY samples TO '/tmp/x'",
        "WITH x AS (DELETE FROM samples RETURNING *) SELECT * FROM x",
        "WITH RECURSIVE t AS (SELECT 1 AS n UNION ALL SELECT n + 1 FROM t) SELECT * FROM t",
        "SELECT * INTO copied FROM samples",
        "SELECT * FROM samples FOR UPDATE",
        "SELECT * FROM generate_series(1, 1000000000)",
        "SELECT * FROM read_parquet('/etc/passwd')",
        "SELECT * FROM TABLE(f(1))",
        "SELECT * FROM UNNEST(make_array(1,2))",
        "SELECT * FROM samples TABLESAMPLE BERNOULLI (10)",
        "SELECT 1; SELECT 2",
        "SELECT 1; DROP TABLE samples",
    ] {
        let (kind, message) = kind_of(sql).unwrap_or_else(|| panic!("let through: {sql}"));
        assert_eq!(kind, ErrorKind::InvalidQuery, "{sql}: {message}");
    }
}

#[test]
fn refusals_name_the_statement_and_never_its_content() {
    let (_, message) = kind_of("COPY samples TO '/tmp/secret'").expect("refused");
    assert!(message.starts_with("COPY is not allowed"), "{message}");
    let (_, message) = kind_of("DROP TABLE secret").expect("refused");
    assert!(
        message.starts_with("DROP TABLE is not allowed"),
        "{message}"
    );
}

#[test]
fn bombs_are_refused_by_a_limit_with_its_value() {
    let cases = [
        ("x".repeat(16 << 10) + "y", ErrorKind::TooLarge),
        (
            format!("SELECT {}1{}", "(".repeat(200), ")".repeat(200)),
            ErrorKind::Unexecutable,
        ),
        (
            format!("SELECT {}1", "1+".repeat(2_000)),
            ErrorKind::Unexecutable,
        ),
        (
            format!("SELECT {}1", "- ".repeat(2_000)),
            ErrorKind::Unexecutable,
        ),
        (
            format!("SELECT {}true", "NOT ".repeat(2_000)),
            ErrorKind::Unexecutable,
        ),
        (
            format!("SELECT 1 IN ({}1)", "1,".repeat(3_000)),
            ErrorKind::Unexecutable,
        ),
        (
            format!("SELECT 1 {}", "UNION ALL SELECT 1 ".repeat(100)),
            ErrorKind::Unexecutable,
        ),
        (
            format!("SELECT * FROM samples {}", ", samples".repeat(40)),
            ErrorKind::Unexecutable,
        ),
        (
            format!(
                "SELECT {}1{}",
                "CASE WHEN true THEN ".repeat(50),
                " END".repeat(50)
            ),
            ErrorKind::Unexecutable,
        ),
        (
            "SELECT count(*) FROM samples GROUP BY CUBE (a,b,c,d,e,f,g,h)".to_owned(),
            ErrorKind::Unexecutable,
        ),
    ];
    for (sql, kind) in cases {
        let (got, message) = kind_of(&sql).expect("refused");
        assert_eq!(got, kind, "{message}");
        assert!(message.contains("limit"), "{message}");
    }
}

/// `depth` `WITH` queries, each of which names the one before twice.
fn doubling(depth: usize) -> String {
    let twice = (1..depth).map(|i| format!(", q{i} AS (SELECT 1 FROM q{0} a, q{0} b)", i - 1));
    let twice: String = twice.collect();
    format!(
        "WITH q0 AS (SELECT 1 FROM samples){twice} SELECT 1 FROM q{}",
        depth - 1
    )
}

#[test]
fn with_queries_are_weighed_where_they_are_named() {
    // 1, 2, 4, 8 and 16 scans, which are 31 where they stand and 16 where the last is named.
    assert_eq!(kind_of(&doubling(5)), None);
    let (kind, message) = kind_of(&doubling(6)).expect("refused");
    assert_eq!(kind, ErrorKind::Unexecutable);
    assert!(message.contains("95 scans, the limit is 64"), "{message}");
    // A name of an outer query is known in an inner one.
    let inner = format!("SELECT * FROM ({}) t", doubling(6));
    assert!(kind_of(&inner).is_some());
}

#[test]
fn lists_are_made_where_nothing_repeats_them() {
    for sql in [
        "SELECT metric, array_agg(value ORDER BY ts) FROM samples GROUP BY metric",
        "SELECT * FROM (SELECT string_agg(tags, ',') AS t FROM samples) x",
        "SELECT a.value FROM samples a, samples b",
    ] {
        assert_eq!(kind_of(sql), None, "{sql}");
    }
    for sql in [
        "SELECT array_agg(a.value) FROM samples a JOIN samples b ON a.ts = b.ts",
        "SELECT value FROM samples WHERE value IN (SELECT max(l) FROM (SELECT array_agg(value) AS l FROM samples) x)",
        "SELECT ARRAY_AGG(value) OVER () FROM samples",
        "SELECT \"array_agg\"(value), row_number() OVER () FROM samples",
    ] {
        let (kind, message) = kind_of(sql).unwrap_or_else(|| panic!("let through: {sql}"));
        assert_eq!(kind, ErrorKind::InvalidQuery, "{message}");
    }
}

#[test]
fn bins_is_the_one_function_in_from() {
    assert_eq!(kind_of("SELECT * FROM bins(a, b, c)"), None);
    assert_eq!(
        kind_of("SELECT * FROM BINS(a, b, c) x, bins(a, b, c)"),
        None
    );
    for sql in [
        "SELECT * FROM public.bins(a, b, c)",
        "SELECT * FROM bin(a, b, c)",
        "SELECT * FROM LATERAL bins(a, b, c)",
    ] {
        assert!(kind_of(sql).is_some(), "{sql}");
    }
}

#[test]
fn text_that_is_no_sql_is_the_senders_fault() {
    for sql in [
        "",
        " ;",
        "SELEC 1",
        "SELECT 'open",
        "\u{0}",
        "SELECT \"",
        "/* open",
    ] {
        let (kind, _) = kind_of(sql).unwrap_or_else(|| panic!("let through: {sql:?}"));
        assert_eq!(kind.status(), 400, "{sql:?}");
    }
}
