//! The SQL surface: every `.slt` file holds at every stage of compaction.

use std::sync::Arc;

use async_trait::async_trait;
use sqllogictest::{DBOutput, DefaultColumnType, Runner};
use stele_query::{Error, Format};

use crate::fixture::{Fixture, Stage};

struct Database(Arc<Fixture>);

#[async_trait]
impl sqllogictest::AsyncDB for Database {
    type Error = Error;
    type ColumnType = DefaultColumnType;

    /// Rows as text: numbers and times as JSON writes them, null as `NULL`.
    async fn run(&mut self, sql: &str) -> Result<DBOutput<DefaultColumnType>, Error> {
        let bytes = self.0.encoded(sql, Format::Ndjson).await?;
        let text = String::from_utf8(bytes).expect("JSON is text");
        let rows: Vec<Vec<String>> = text.lines().map(cells).collect();
        let columns = rows.first().map_or(0, Vec::len);
        Ok(DBOutput::Rows {
            types: vec![DefaultColumnType::Text; columns],
            rows,
        })
    }

    async fn shutdown(&mut self) {}

    fn engine_name(&self) -> &str {
        "stele"
    }
}

/// The values of a flat JSON object in the order written, which a map would lose.
fn cells(line: &str) -> Vec<String> {
    let mut cells = Vec::new();
    let mut rest = line.strip_prefix('{').expect("an object");
    while rest != "}" {
        let mut key = serde_json::Deserializer::from_str(rest).into_iter::<String>();
        key.next().expect("a key").expect("text");
        rest = rest[key.byte_offset()..]
            .strip_prefix(':')
            .expect("a colon");
        let mut value = serde_json::Deserializer::from_str(rest).into_iter::<serde_json::Value>();
        let parsed = value.next().expect("a value").expect("JSON");
        let end = value.byte_offset();
        cells.push(match parsed {
            serde_json::Value::Null => "NULL".to_owned(),
            serde_json::Value::String(text) if text.is_empty() => "(empty)".to_owned(),
            serde_json::Value::String(text) => text,
            _ => rest[..end].to_owned(),
        });
        rest = &rest[end..];
        rest = rest.strip_prefix(',').unwrap_or(rest);
    }
    cells
}

async fn run(file: &str) {
    let path = format!("{}/tests/query/slt/{file}", env!("CARGO_MANIFEST_DIR"));
    for stage in Stage::ALL {
        let fixture = Arc::new(Fixture::at(stage).await);
        let mut runner = Runner::new(|| {
            let fixture = Arc::clone(&fixture);
            async move { Ok(Database(fixture)) }
        });
        let ran = runner.run_file_async(&path).await;
        ran.unwrap_or_else(|e| panic!("at stage {stage:?}: {}", e.display(false)));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn samples_hold_at_every_stage() {
    run("samples.slt").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rollups_hold_at_every_stage() {
    run("rollups.slt").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tags_hold_at_every_stage() {
    run("tags.slt").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_dialect_holds_at_every_stage() {
    run("dialect.slt").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn quantiles_hold_at_every_stage() {
    run("quantiles.slt").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn counters_hold_at_every_stage() {
    run("counters.slt").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bins_zones_and_gaps_hold_at_every_stage() {
    run("time.slt").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_recipes_hold_at_every_stage() {
    run("recipes.slt").await;
}
