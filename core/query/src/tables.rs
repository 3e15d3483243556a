//! The tables by name, and what they are for.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::{
    ArrayRef, BooleanArray, Date32Array, Int64Array, RecordBatch, StringArray,
    TimestampMicrosecondArray,
};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use datafusion::catalog::TableProvider;
use datafusion::common::Result;
use datafusion::datasource::{DefaultTableSource, MemTable, ViewTable};
use datafusion::functions_aggregate::expr_fn::{max, min};
use datafusion::logical_expr::{LogicalPlanBuilder, TableSource, col};
use stele_format::schema;
use stele_model::Resolution;
use stele_table::{Ledger, LedgerRow};

use crate::coverage;
use crate::losses::Losses;
use crate::scan::{SampleTable, Scope};
use crate::tag_list;

/// Every table, in the order they are shown.
pub(crate) const TABLES: [(&str, &str); 8] = [
    (
        "samples",
        "every sample once: metric, tags, ts, value, and summaries where sent",
    ),
    (
        "rollup_60s",
        "per series and minute: count, sum, min, max, first, last, increase, …",
    ),
    ("rollup_15m", "per series and 15 minutes"),
    ("rollup_60m", "per series and hour"),
    (
        "series",
        "each series with the times of its first and last sample",
    ),
    (
        "tags",
        "each tag's name with its number of values and of series",
    ),
    (
        "coverage",
        "each hour that has data: open, sealed or late, its rows where known, and what is lost of it",
    ),
    (
        "ledger",
        "each accepted batch that the table has taken in, and each commit with conflicts",
    ),
];

/// What the tables hold that are made before planning, because a query names them.
#[derive(Debug, Default)]
pub(crate) struct Named {
    pub(crate) ledger: Ledger,
    /// The losses that the table `coverage` shows.
    pub(crate) coverage: Option<Arc<Losses>>,
}

/// The sources of all tables; `ledger` and `coverage` are empty unless asked for.
///
/// # Errors
/// When the plan of a view cannot be built.
pub(crate) fn sources(
    scope: &Arc<Scope>,
    named: Named,
) -> Result<HashMap<&'static str, Arc<dyn TableSource>>> {
    let source = |provider: Arc<dyn TableProvider>| -> Arc<dyn TableSource> {
        Arc::new(DefaultTableSource::new(provider))
    };
    let mut tables = HashMap::new();
    for resolution in [Resolution::Raw].into_iter().chain(Resolution::ROLLUPS) {
        let table = SampleTable::new(Arc::clone(scope), resolution);
        tables.insert(resolution.table(), source(Arc::new(table)));
    }
    let hourly = Arc::clone(&tables[Resolution::M60.table()]);
    let series = LogicalPlanBuilder::scan(Resolution::M60.table(), hourly, None)?
        .aggregate(
            vec![col("metric"), col("tags")],
            vec![
                min(col("first_ts")).alias("first_seen"),
                max(col("last_ts")).alias("last_seen"),
            ],
        )?
        .build()?;
    let tags = tag_list::view(series.clone())?;
    tables.insert("series", source(Arc::new(ViewTable::new(series, None))));
    tables.insert("tags", source(Arc::new(ViewTable::new(tags, None))));
    let windows = named.coverage.as_ref();
    let windows = windows.map(|losses| coverage::rows(&scope.view, losses));
    let windows = Vec::from_iter(windows.transpose()?);
    let windows = MemTable::try_new(coverage::table_schema(), vec![windows])?;
    tables.insert("coverage", source(Arc::new(windows)));
    let ledger = vec![vec![ledger_batch(&named.ledger)?]];
    let ledger = MemTable::try_new(ledger_schema(), ledger)?;
    tables.insert("ledger", source(Arc::new(ledger)));
    Ok(tables)
}

/// A row of a batch has no `conflicts`, a row of an operation that met conflicts no batch.
fn ledger_schema() -> SchemaRef {
    Arc::new(Schema::new(vec![
        Field::new("batch", DataType::Utf8, true),
        Field::new("day", DataType::Date32, true),
        Field::new("rows", DataType::Int64, true),
        Field::new("hash", DataType::Utf8, true),
        Field::new("object", DataType::Utf8, true),
        Field::new("stored_at", schema::timestamp(), true),
        Field::new("operation", DataType::Utf8, false),
        Field::new("version", DataType::Int64, false),
        Field::new("committed_at", schema::timestamp(), false),
        Field::new("duplicate_of", DataType::Utf8, true),
        Field::new("conflicts", DataType::Int64, true),
        Field::new("revoked", DataType::Boolean, true),
    ]))
}

fn ledger_batch(Ledger { rows, conflicts }: &Ledger) -> Result<RecordBatch> {
    let clamp = |n: u64| i64::try_from(n).unwrap_or(i64::MAX);
    let of_batch = |f: &dyn Fn(&LedgerRow) -> Option<String>| -> ArrayRef {
        let none = conflicts.iter().map(|_| None);
        Arc::new(rows.iter().map(f).chain(none).collect::<StringArray>())
    };
    let times = |times: Vec<Option<i64>>| -> ArrayRef {
        Arc::new(TimestampMicrosecondArray::from(times).with_timezone("UTC"))
    };
    let none = || conflicts.iter().map(|_| None);
    let days: Date32Array = rows.iter().map(|r| Some(r.day.0)).chain(none()).collect();
    let counts = rows.iter().map(|r| Some(clamp(r.rows)));
    let counts: Int64Array = counts.chain(conflicts.iter().map(|_| None)).collect();
    let stored = rows.iter().map(|r| Some(r.stored_us));
    let stored = stored.chain(conflicts.iter().map(|_| None)).collect();
    let operations = rows.iter().map(|r| &r.operation);
    let operations = operations.chain(conflicts.iter().map(|c| &c.operation));
    let versions = rows.iter().map(|r| clamp(r.version));
    let versions = versions.chain(conflicts.iter().map(|c| clamp(c.version)));
    let committed = rows.iter().map(|r| Some(r.committed_us));
    let committed = committed.chain(conflicts.iter().map(|c| Some(c.committed_us)));
    let met = rows.iter().map(|_| None);
    let met = met.chain(conflicts.iter().map(|c| Some(clamp(c.overridden))));
    let revoked = rows.iter().map(|r| Some(r.revoked));
    let revoked = revoked.chain(conflicts.iter().map(|_| None));
    let columns: Vec<ArrayRef> = vec![
        of_batch(&|r| Some(r.batch.to_string())),
        Arc::new(days),
        Arc::new(counts),
        of_batch(&|r| Some(r.hash.to_string())),
        of_batch(&|r| Some(r.object.to_string())),
        times(stored),
        Arc::new(StringArray::from_iter_values(operations)),
        Arc::new(Int64Array::from_iter_values(versions)),
        times(committed.collect()),
        of_batch(&|r| r.duplicate_of.clone()),
        Arc::new(met.collect::<Int64Array>()),
        Arc::new(revoked.collect::<BooleanArray>()),
    ];
    Ok(RecordBatch::try_new(ledger_schema(), columns)?)
}

/// The answer to `SHOW TABLES`.
///
/// # Errors
/// Never in practice: the columns are built here.
pub(crate) fn show_tables() -> Result<RecordBatch> {
    let schema = Schema::new(vec![
        Field::new("table_name", DataType::Utf8, false),
        Field::new("holds", DataType::Utf8, false),
    ]);
    let names = StringArray::from_iter_values(TABLES.iter().map(|t| t.0));
    let holds = StringArray::from_iter_values(TABLES.iter().map(|t| t.1));
    let columns: Vec<ArrayRef> = vec![Arc::new(names), Arc::new(holds)];
    Ok(RecordBatch::try_new(Arc::new(schema), columns)?)
}

/// The answer to `DESCRIBE`.
///
/// # Errors
/// Never in practice: the columns are built here.
pub(crate) fn describe(table: &Schema) -> Result<RecordBatch> {
    let schema = Schema::new(vec![
        Field::new("column_name", DataType::Utf8, false),
        Field::new("data_type", DataType::Utf8, false),
        Field::new("is_nullable", DataType::Boolean, false),
    ]);
    let fields = || table.fields().iter();
    let names = StringArray::from_iter_values(fields().map(|f| f.name()));
    let types = StringArray::from_iter_values(fields().map(|f| sql_type(f.data_type())));
    let nullable: BooleanArray = fields().map(|f| Some(f.is_nullable())).collect();
    let columns: Vec<ArrayRef> = vec![Arc::new(names), Arc::new(types), Arc::new(nullable)];
    Ok(RecordBatch::try_new(Arc::new(schema), columns)?)
}

fn sql_type(data_type: &DataType) -> String {
    match data_type {
        DataType::Dictionary(_, value) => sql_type(value),
        DataType::Utf8 | DataType::Utf8View | DataType::LargeUtf8 => "text".to_owned(),
        DataType::Float64 => "double precision".to_owned(),
        DataType::Int64 => "bigint".to_owned(),
        DataType::Int32 => "integer".to_owned(),
        DataType::Boolean => "boolean".to_owned(),
        DataType::Date32 => "date".to_owned(),
        DataType::Binary => "bytea".to_owned(),
        DataType::Timestamp(_, Some(_)) => "timestamp with time zone".to_owned(),
        other => other.to_string(),
    }
}
