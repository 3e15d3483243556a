//! Claims about the gate: what its limits let through, and that a limit names its value.

use sqlparser::parser::Parser;
use stele_model::ErrorKind;

use super::*;

/// The checks with the parser between them that the engine's extends.
fn check(sql: &str) -> Result<Vec<Admitted>> {
    let tokens = tokens(sql, 16 << 10)?;
    let mut parser = Parser::new(&DIALECT).with_tokens_with_locations(tokens);
    let statements = parser.parse_statements().unwrap();
    let is_zone = |name: &str| name == "Europe/Zurich";
    statements.iter().map(|s| admit(s, is_zone)).collect()
}

fn kind_of(sql: &str) -> Option<(ErrorKind, String)> {
    check(sql).err().map(|e| (e.kind(), e.to_string()))
}

#[test]
fn reads_are_told_apart_and_anything_else_is_refused_by_its_first_words() {
    let admitted = |sql| check(sql).unwrap();
    assert_eq!(
        admitted("SELECT 1; VALUES (2)"),
        [Admitted::Query, Admitted::Query]
    );
    assert_eq!(admitted("SHOW TABLES"), [Admitted::ShowTables]);
    let described = Admitted::Describe("rollup_60s".to_owned());
    assert_eq!(admitted("DESCRIBE \"rollup_60s\""), [described]);
    for (sql, words) in [
        ("DROP TABLE secret", "DROP TABLE"),
        ("SET a = 'secret'", "SET"),
        ("EXPLAIN SELECT 1", "EXPLAIN SELECT"),
        ("SELECT * INTO secret FROM samples", "SELECT INTO"),
        (
            "WITH x AS (DELETE FROM secret RETURNING *) SELECT * FROM x",
            "DELETE",
        ),
    ] {
        let (kind, message) = kind_of(sql).unwrap();
        assert_eq!(kind, ErrorKind::InvalidQuery);
        assert!(
            message.starts_with(&format!("{words} is not allowed")),
            "{message}"
        );
    }
}

#[test]
fn what_is_read_from_a_literal_is_checked_before_it_is_used() {
    for sql in [
        "SELECT ts AT TIME ZONE 'Europe/Zurich' FROM samples",
        "SELECT 1 FROM samples WHERE metric ~ '^c\\w+' AND tags LIKE '%a%'",
        "SELECT to_char(ts, '%Y-%m-%d') FROM samples",
    ] {
        assert_eq!(kind_of(sql), None, "{sql}");
    }
    let long = "%Y".repeat(40);
    for (sql, message) in [
        (
            "SELECT ts AT TIME ZONE 'Zurich' FROM samples",
            "no time zone \"Zurich\"",
        ),
        (
            "SELECT ts AT TIME ZONE tags FROM samples",
            "a time zone that is no literal",
        ),
        (
            "SELECT metric ~ '(' FROM samples",
            "a regular expression cannot be used",
        ),
        (
            "SELECT metric ~ '(a{1000}){1000}' FROM samples",
            "size limit",
        ),
        (
            "SELECT metric ~ tags FROM samples",
            "a regular expression that is no literal",
        ),
        (
            "SELECT metric LIKE tags FROM samples",
            "a LIKE pattern that is no literal",
        ),
        (
            &format!("SELECT to_char(ts, '{long}') FROM samples"),
            "the limit is 64",
        ),
    ] {
        let (_, got) = kind_of(sql).unwrap();
        assert!(got.contains(message), "{sql}: {got}");
    }
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
