//! The actions of a Delta log as they are stored, one JSON object per line.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use stele_model::{Digest, FileStats, RowsHash, time};

use crate::entry::CommitInfo;
use crate::error::Damage;
use crate::file::{FileEntry, FileKind, windows_from_text, windows_to_text};
use crate::schema;
use crate::state::{RemovedFile, TableMeta};

/// The application id of our `txn` actions; their version is the table's.
pub(crate) const APP_ID: &str = "stele";
/// The configuration key that names the ledger manifest.
pub(crate) const MANIFEST_KEY: &str = "stele.manifest";

type Texts = BTreeMap<String, String>;

/// One line: exactly one action. One of another writer is refused, not skipped.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) enum Line {
    CommitInfo(Box<CommitInfo>),
    Protocol(Protocol),
    MetaData(MetaData),
    Txn(Txn),
    Remove(Remove),
    Add(Add),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct Protocol {
    pub min_reader_version: i32,
    pub min_writer_version: i32,
}

impl Protocol {
    pub const OURS: Self = Self {
        min_reader_version: 1,
        min_writer_version: 2,
    };
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Format {
    pub provider: String,
    #[serde(default)]
    pub options: Texts,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct MetaData {
    pub id: String,
    pub format: Format,
    pub schema_string: String,
    pub partition_columns: Vec<String>,
    pub configuration: Texts,
    pub created_time: i64,
}

impl MetaData {
    /// The table's metadata; `manifest` is the key of the last ledger manifest.
    pub fn new(meta: &TableMeta, manifest: Option<&str>) -> Self {
        let mut configuration = Texts::new();
        // Sweep is ours: a library's clean-up once deleted entries that were still needed.
        configuration.insert("delta.enableExpiredLogCleanup".into(), "false".into());
        if let Some(key) = manifest {
            configuration.insert(MANIFEST_KEY.into(), key.to_owned());
        }
        Self {
            id: meta.id.clone(),
            format: Format {
                provider: "parquet".into(),
                options: Texts::new(),
            },
            schema_string: schema::schema_string(),
            partition_columns: schema::PARTITION_COLUMNS.map(str::to_owned).to_vec(),
            configuration,
            created_time: meta.created_us.div_euclid(1000),
        }
    }
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct Txn {
    pub app_id: String,
    pub version: u64,
    pub last_updated: i64,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct Remove {
    pub path: String,
    pub deletion_timestamp: i64,
    pub data_change: bool,
    pub extended_file_metadata: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub partition_values: Option<Texts>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size: Option<u64>,
}

impl Remove {
    /// The removal of a live file.
    pub fn of_file(file: &FileEntry, timestamp_us: i64) -> Self {
        Self {
            path: file.path.clone(),
            deletion_timestamp: timestamp_us.div_euclid(1000),
            data_change: true,
            extended_file_metadata: true,
            partition_values: Some(partition_values(file)),
            size: Some(file.stats.size_bytes),
        }
    }

    /// A removal long committed, for a checkpoint.
    pub fn of_tombstone(file: &RemovedFile) -> Self {
        Self {
            path: file.path.clone(),
            deletion_timestamp: file.removed_us.div_euclid(1000),
            data_change: true,
            extended_file_metadata: false,
            partition_values: None,
            size: Some(file.size_bytes),
        }
    }
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct Add {
    pub path: String,
    pub partition_values: Texts,
    pub size: u64,
    pub modification_time: i64,
    pub data_change: bool,
    pub stats: String,
    pub tags: Texts,
}

/// Statistics for foreign readers. Value columns have none: NaN and -0.0 in them have made
/// engines prune live rows.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Stats {
    num_records: u64,
    min_values: Bounds,
    max_values: Bounds,
    null_count: BTreeMap<String, u64>,
}

#[derive(Debug, Serialize, Deserialize)]
struct Bounds {
    metric: String,
    ts: String,
}

fn partition_values(file: &FileEntry) -> Texts {
    let kind = file.kind.partition().to_owned();
    Texts::from([
        ("resolution".to_owned(), kind),
        ("period".to_owned(), file.period.clone()),
    ])
}

fn stats_of(stats: &FileStats) -> Stats {
    Stats {
        num_records: stats.rows,
        min_values: Bounds {
            metric: stats.metric_min.clone(),
            ts: time::rfc3339(stats.ts_min_us),
        },
        max_values: Bounds {
            metric: stats.metric_max.clone(),
            ts: time::rfc3339(stats.ts_max_us),
        },
        null_count: [("metric".to_owned(), 0), ("ts".to_owned(), 0)].into(),
    }
}

impl Add {
    /// The add action of a file.
    pub fn of_file(file: &FileEntry, timestamp_us: i64) -> Result<Self, Damage> {
        let stats = &file.stats;
        let tags = [
            ("stele.digest", stats.digest.to_string()),
            ("stele.footer_digest", stats.footer_digest.to_string()),
            ("stele.footer_bytes", stats.footer_bytes.to_string()),
            ("stele.rows", stats.rows.to_string()),
            ("stele.rows_hash", stats.rows_hash.to_string()),
            ("stele.series", stats.series.to_string()),
            ("stele.ts_min_us", stats.ts_min_us.to_string()),
            ("stele.ts_max_us", stats.ts_max_us.to_string()),
            ("stele.metric_min", stats.metric_min.clone()),
            ("stele.metric_max", stats.metric_max.clone()),
            ("stele.windows", windows_to_text(&file.windows)),
        ];
        Ok(Self {
            path: file.path.clone(),
            partition_values: partition_values(file),
            size: stats.size_bytes,
            modification_time: timestamp_us.div_euclid(1000),
            data_change: true,
            stats: serde_json::to_string(&stats_of(stats))?,
            tags: tags.map(|(key, value)| (key.to_owned(), value)).into(),
        })
    }

    /// The file of an add action; everything in it must be present, valid and agree.
    pub fn to_file(&self) -> Result<FileEntry, Damage> {
        let kind = text(&self.partition_values, "resolution")?;
        let kind = FileKind::of_partition(kind).ok_or_else(|| Damage::value("resolution", kind))?;
        let file = FileEntry {
            path: self.path.clone(),
            kind,
            period: text(&self.partition_values, "period")?.to_owned(),
            windows: windows_from_text(text(&self.tags, "stele.windows")?)?,
            stats: FileStats {
                size_bytes: self.size,
                digest: parse::<Digest>(&self.tags, "stele.digest")?,
                footer_digest: parse::<Digest>(&self.tags, "stele.footer_digest")?,
                footer_bytes: parse(&self.tags, "stele.footer_bytes")?,
                rows: parse(&self.tags, "stele.rows")?,
                rows_hash: parse::<RowsHash>(&self.tags, "stele.rows_hash")?,
                ts_min_us: parse(&self.tags, "stele.ts_min_us")?,
                ts_max_us: parse(&self.tags, "stele.ts_max_us")?,
                metric_min: text(&self.tags, "stele.metric_min")?.to_owned(),
                metric_max: text(&self.tags, "stele.metric_max")?.to_owned(),
                series: parse(&self.tags, "stele.series")?,
            },
        };
        let stats: Stats = serde_json::from_str(&self.stats)?;
        if stats.num_records != file.stats.rows {
            return Err(Damage::Disagrees { what: "numRecords" });
        }
        file.check().map_err(|what| Damage::File {
            path: file.path.clone(),
            what,
        })?;
        Ok(file)
    }
}

fn text<'a>(texts: &'a Texts, field: &'static str) -> Result<&'a str, Damage> {
    let value = texts.get(field).ok_or_else(|| Damage::value(field, ""))?;
    Ok(value)
}

fn parse<T: std::str::FromStr>(texts: &Texts, field: &'static str) -> Result<T, Damage> {
    let value = text(texts, field)?;
    value.parse().map_err(|_| Damage::value(field, value))
}
