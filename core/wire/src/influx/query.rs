//! The few InfluxQL statements that 1.x clients send before they write. Queries proper are SQL.

use serde_json::{Value, json};

/// The database a client is told of. Its name never chooses anything.
const DATABASE: &str = "stele";

/// The status and body of a `/query` with the statements `q`: `SHOW DATABASES`, `CREATE DATABASE`
/// and `SHOW RETENTION POLICIES`; any other is refused with a 400 that names it.
#[must_use]
pub fn query_reply(q: &str) -> (u16, String) {
    let mut results = Vec::new();
    let statements = q.split(';').map(str::trim).filter(|s| !s.is_empty());
    for (id, statement) in statements.enumerate() {
        match answer(statement) {
            Some(mut result) => {
                result["statement_id"] = json!(id);
                results.push(result);
            }
            None => return (400, super::error_v1(&refusal(statement))),
        }
    }
    if results.is_empty() {
        return (400, super::error_v1("missing required parameter \"q\""));
    }
    (200, json!({ "results": results }).to_string())
}

fn refusal(statement: &str) -> String {
    let shown = crate::check::Quoted(statement.as_bytes());
    format!(
        "{shown} is not supported: only SHOW DATABASES, CREATE DATABASE and SHOW RETENTION \
         POLICIES are; send SQL to /sql"
    )
}

fn answer(statement: &str) -> Option<Value> {
    let mut words = statement
        .split_ascii_whitespace()
        .map(str::to_ascii_uppercase);
    let word = words.next()?;
    let rest: Vec<String> = words.collect();
    let rest: Vec<&str> = rest.iter().map(String::as_str).collect();
    let series = match (word.as_str(), rest.as_slice()) {
        ("CREATE", ["DATABASE", _, ..]) => return Some(json!({})),
        ("SHOW", ["DATABASES"]) => json!({
            "name": "databases",
            "columns": ["name"],
            "values": [[DATABASE]],
        }),
        ("SHOW", ["RETENTION", "POLICIES", ..]) => json!({
            "columns": ["name", "duration", "shardGroupDuration", "replicaN", "default"],
            "values": [["autogen", "0s", "168h0m0s", 1, true]],
        }),
        _ => return None,
    };
    Some(json!({ "series": [series] }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clients_that_connect_are_answered() {
        insta::assert_snapshot!(query_reply("SHOW DATABASES").1, @r#"{"results":[{"series":[{"columns":["name"],"name":"databases","values":[["stele"]]}],"statement_id":0}]}"#);
        insta::assert_snapshot!(query_reply("CREATE DATABASE \"telegraf\" WITH NAME a; show databases;").1, @r#"{"results":[{"statement_id":0},{"series":[{"columns":["name"],"name":"databases","values":[["stele"]]}],"statement_id":1}]}"#);
        insta::assert_snapshot!(query_reply("SHOW RETENTION POLICIES ON \"db\"").1, @r#"{"results":[{"series":[{"columns":["name","duration","shardGroupDuration","replicaN","default"],"values":[["autogen","0s","168h0m0s",1,true]]}],"statement_id":0}]}"#);
    }

    #[test]
    fn any_other_statement_is_refused_by_name() {
        for q in [
            "SELECT * FROM cpu",
            "DROP DATABASE x",
            "",
            " ; ",
            "CREATE DATABASE",
        ] {
            assert_eq!(query_reply(q).0, 400, "{q}");
        }
        insta::assert_snapshot!(query_reply("SHOW DATABASES; SELECT 1").1, @r#"{"error":"\"SELECT 1\" is not supported: only SHOW DATABASES, CREATE DATABASE and SHOW RETENTION POLICIES are; send SQL to /sql"}"#);
    }
}
