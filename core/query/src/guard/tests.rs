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
