//! Column names and Arrow schemas: as stored, and as SQL shows them.

use std::sync::{Arc, LazyLock};

use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};

/// µs since the epoch, UTC.
#[must_use]
pub fn timestamp() -> DataType {
    DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()))
}

/// Dictionary-encoded text, as `metric` and `tags` are.
#[must_use]
pub fn text() -> DataType {
    DataType::Dictionary(Box::new(DataType::Int32), Box::new(DataType::Utf8))
}

fn schema(fields: &[(&str, DataType, bool)]) -> SchemaRef {
    let field = |f: &(&str, DataType, bool)| Field::new(f.0, f.1.clone(), f.2);
    Arc::new(Schema::new(fields.iter().map(field).collect::<Vec<_>>()))
}

static STORED_SAMPLES: LazyLock<SchemaRef> = LazyLock::new(|| {
    schema(&[
        ("metric", text(), false),
        ("tags", text(), false),
        ("ts", timestamp(), false),
        ("kind", DataType::Int32, true),
        ("value", DataType::Float64, true),
        ("value_int", DataType::Int64, true),
        ("value_div", DataType::Float64, true),
        ("count", DataType::Int64, true),
        ("sum", DataType::Float64, true),
        ("min", DataType::Float64, true),
        ("max", DataType::Float64, true),
        ("sum_squares", DataType::Float64, true),
        ("rank", DataType::Int32, true),
    ])
});

static STORED_ROLLUPS: LazyLock<SchemaRef> = LazyLock::new(|| {
    let mut fields = ROLLUP_COLUMNS.to_vec();
    fields.push(("sketch", DataType::Binary, true));
    schema(&fields)
});

static LOGICAL_SAMPLES: LazyLock<SchemaRef> = LazyLock::new(|| {
    schema(&[
        ("metric", text(), false),
        ("tags", text(), false),
        ("ts", timestamp(), false),
        ("value", DataType::Float64, false),
        ("kind", DataType::Utf8, true),
        ("count", DataType::Int64, true),
        ("sum", DataType::Float64, true),
        ("min", DataType::Float64, true),
        ("max", DataType::Float64, true),
        ("sum_squares", DataType::Float64, true),
        ("rank", DataType::Int32, true),
    ])
});

static ROLLUP_COLUMNS: LazyLock<[(&str, DataType, bool); 13]> = LazyLock::new(|| {
    [
        ("metric", text(), false),
        ("tags", text(), false),
        ("ts", timestamp(), false),
        ("count", DataType::Int64, false),
        ("sum", DataType::Float64, true),
        ("min", DataType::Float64, true),
        ("max", DataType::Float64, true),
        ("first", DataType::Float64, true),
        ("last", DataType::Float64, true),
        ("sum_squares", DataType::Float64, true),
        ("increase", DataType::Float64, true),
        ("first_ts", timestamp(), false),
        ("last_ts", timestamp(), false),
    ]
});

/// All columns a stored sample file may have, in order. A file has the first three, `value`,
/// `value_int`, `value_div`, and of the others those that are not null throughout.
#[must_use]
pub fn stored_samples() -> SchemaRef {
    Arc::clone(&STORED_SAMPLES)
}

/// All columns a stored rollup file may have, in order; `sketch` may be absent.
#[must_use]
pub fn stored_rollups() -> SchemaRef {
    Arc::clone(&STORED_ROLLUPS)
}

/// The SQL table `samples`: one `value`, `kind` as text (null, `gauge`, `counter`).
#[must_use]
pub fn logical_samples() -> SchemaRef {
    Arc::clone(&LOGICAL_SAMPLES)
}

/// The SQL tables `rollup_60s`, `rollup_15m`, `rollup_60m`: as stored.
#[must_use]
pub fn logical_rollups() -> SchemaRef {
    stored_rollups()
}
