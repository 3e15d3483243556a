//! The Delta table's schema, as foreign readers see it.

use serde_json::json;

/// The partition columns, in order.
pub(crate) const PARTITION_COLUMNS: [&str; 2] = ["resolution", "period"];

/// Name and Delta type of every column. All are nullable: a file holds those of its resolution.
const COLUMNS: [(&str, &str); 21] = [
    ("metric", "string"),
    ("tags", "string"),
    ("ts", "timestamp"),
    ("kind", "integer"),
    ("value", "double"),
    ("value_int", "long"),
    ("value_div", "double"),
    ("count", "long"),
    ("sum", "double"),
    ("min", "double"),
    ("max", "double"),
    ("sum_squares", "double"),
    ("rank", "integer"),
    ("first", "double"),
    ("last", "double"),
    ("increase", "double"),
    ("first_ts", "timestamp"),
    ("last_ts", "timestamp"),
    ("sketch", "binary"),
    ("resolution", "string"),
    ("period", "string"),
];

/// The value of `metaData.schemaString`.
pub(crate) fn schema_string() -> String {
    let fields: Vec<_> = COLUMNS
        .iter()
        .map(|(name, kind)| json!({"name": name, "type": kind, "nullable": true, "metadata": {}}))
        .collect();
    json!({"type": "struct", "fields": fields}).to_string()
}
