//! Classic Delta checkpoints: the live files of one version as a Parquet file.
//!
//! They are for foreign readers and for a start without heads. The JSON of the actions goes
//! through arrow-json in both directions, so a checkpoint says exactly what entries say.
//!
//! ```text
//! "PAR1" · 16 bytes: digest of all that follows · one row group · metadata · tail
//! ```
//!
//! Parquet addresses pages by offset, so foreign readers skip the digest. Ours checks it before it
//! parses anything: damaged metadata or pages can make the library panic.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Fields, Schema};
use arrow::json::{LineDelimitedWriter, ReaderBuilder};
use bytes::Bytes;
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_reader::{ArrowReaderOptions, ParquetRecordBatchReaderBuilder};
use parquet::basic::{Compression, ZstdLevel};
use parquet::file::properties::WriterProperties;
use serde::{Deserialize, Serialize};
use stele_model::Digest;

use crate::action::{APP_ID, Add, Line, MANIFEST_KEY, MetaData, Protocol, Remove, Txn};
use crate::codec;
use crate::error::Damage;
use crate::file::FileEntry;
use crate::state::TableState;

/// What every Parquet file begins with.
const MAGIC: &[u8] = b"PAR1";
/// Where the digest lies: after the magic.
const DIGEST: Range<usize> = 4..20;
/// The tag of a hint with the digest of the rest of it.
const CHECK: &str = "stele.check";

/// `_last_checkpoint`. Delta gives it `tags` for whatever a writer has to say.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Hint {
    /// The version of the checkpoint.
    pub version: u64,
    /// The number of actions in it.
    pub size: u64,
    size_in_bytes: u64,
    num_of_add_files: u64,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    tags: BTreeMap<String, String>,
}

impl Hint {
    /// The stored form, with its check.
    fn encode(mut self) -> Result<Bytes, Damage> {
        self.tags.clear();
        let check = codec::digest(&serde_json::to_vec(&self)?);
        self.tags.insert(CHECK.to_owned(), check.to_string());
        Ok(serde_json::to_vec(&self)?.into())
    }

    /// The reverse of [`Hint::encode`]. A hint that is not ours to the byte is none: the
    /// checkpoints themselves are listed too.
    pub fn decode(bytes: &[u8]) -> Result<Self, Damage> {
        let hint: Self = serde_json::from_slice(bytes)?;
        let ours = hint.clone().encode()?;
        if *ours != *bytes {
            let (got, expected) = (codec::digest(bytes), codec::digest(&ours));
            return Err(Damage::Digest { got, expected });
        }
        Ok(hint)
    }
}

/// A checkpoint, ready to be put.
pub(crate) struct Encoded {
    pub bytes: Bytes,
    pub hint: Bytes,
}

/// The checkpoint of a version that ends with a ledger commit.
pub(crate) fn encode(state: &TableState) -> Result<Encoded, Damage> {
    let lines = lines(state)?;
    let schema = Arc::new(schema());
    let mut decoder = ReaderBuilder::new(Arc::clone(&schema))
        .with_batch_size(lines.len())
        .with_strict_mode(true)
        .build_decoder()?;
    decoder.serialize(&lines)?;
    let properties = WriterProperties::builder()
        .set_compression(Compression::ZSTD(ZstdLevel::default()))
        .set_created_by(concat!("stele ", env!("CARGO_PKG_VERSION")).to_owned())
        .build();
    let mut bytes = Vec::new();
    let mut writer = ArrowWriter::try_new(&mut bytes, schema, Some(properties))?;
    writer.write_all(&[0; DIGEST.end - DIGEST.start])?;
    if let Some(batch) = decoder.flush()? {
        writer.write(&batch)?;
    }
    writer.close()?;
    let digest = codec::digest(&bytes[DIGEST.end..]);
    bytes[DIGEST].copy_from_slice(&digest.0);
    let hint = Hint {
        version: state.version,
        size: lines.len() as u64,
        size_in_bytes: bytes.len() as u64,
        num_of_add_files: state.files.len() as u64,
        tags: BTreeMap::new(),
    };
    Ok(Encoded {
        bytes: bytes.into(),
        hint: hint.encode()?,
    })
}

fn lines(state: &TableState) -> Result<Vec<Line>, Damage> {
    let manifest = state.ledger.manifest.as_ref();
    let mut lines = vec![
        Line::Protocol(Protocol::OURS),
        Line::MetaData(MetaData::new(&state.meta, manifest.map(|o| o.key.as_str()))),
        Line::Txn(Txn {
            app_id: APP_ID.to_owned(),
            version: state.version,
            last_updated: state.timestamp_us.div_euclid(1000),
        }),
    ];
    for file in state.files.values() {
        lines.push(Line::Add(Add::of_file(file, state.timestamp_us)?));
    }
    for file in &state.removed {
        lines.push(Line::Remove(Remove::of_tombstone(file)));
    }
    Ok(lines)
}

/// What a checkpoint says.
pub(crate) struct Decoded {
    pub files: Vec<FileEntry>,
    /// The key of the ledger manifest.
    pub manifest: String,
    pub version: u64,
}

/// Whether these are the very bytes that [`encode`] made.
fn check(bytes: &[u8]) -> Result<(), Damage> {
    let expected = bytes.get(DIGEST).and_then(|digest| digest.try_into().ok());
    let expected = expected.filter(|_| bytes.starts_with(MAGIC)).map(Digest);
    let expected = expected.ok_or_else(|| Damage::value("magic and digest", ""))?;
    let got = codec::digest(&bytes[DIGEST.end..]);
    if got != expected {
        return Err(Damage::Digest { got, expected });
    }
    Ok(())
}

/// The reverse of [`encode`].
pub(crate) fn decode(bytes: Bytes) -> Result<Decoded, Damage> {
    check(&bytes)?;
    let mut json = Vec::new();
    let mut writer = LineDelimitedWriter::new(&mut json);
    // Arrow's copy of the schema is not needed.
    let options = ArrowReaderOptions::new().with_skip_arrow_metadata(true);
    for batch in ParquetRecordBatchReaderBuilder::try_new_with_options(bytes, options)?.build()? {
        writer.write(&batch?)?;
    }
    writer.finish()?;
    let (mut files, mut manifest, mut version) = (Vec::new(), None, None);
    for line in json.split(|b| *b == b'\n').filter(|line| !line.is_empty()) {
        match serde_json::from_slice(line)? {
            Line::Add(add) => files.push(add.to_file()?),
            Line::MetaData(meta) => manifest = meta.configuration.get(MANIFEST_KEY).cloned(),
            Line::Txn(txn) if txn.app_id == APP_ID => version = Some(txn.version),
            Line::CommitInfo(_) | Line::Protocol(_) | Line::Txn(_) | Line::Remove(_) => {}
        }
    }
    Ok(Decoded {
        files,
        manifest: manifest.ok_or_else(|| Damage::value(MANIFEST_KEY, ""))?,
        version: version.ok_or_else(|| Damage::value("txn", ""))?,
    })
}

fn nullable(name: &str, of: DataType) -> Field {
    Field::new(name, of, true)
}

fn group(name: &str, fields: Vec<Field>) -> Field {
    nullable(name, DataType::Struct(Fields::from(fields)))
}

/// A map of strings, with the field names the Parquet specification asks for.
fn texts(name: &str) -> Field {
    let entry = Fields::from(vec![
        Field::new("key", DataType::Utf8, false),
        nullable("value", DataType::Utf8),
    ]);
    let entries = Field::new("key_value", DataType::Struct(entry), false);
    nullable(name, DataType::Map(Arc::new(entries), false))
}

fn schema() -> Schema {
    use DataType::{Boolean, Int32, Int64, Utf8};
    let file = |name: &str, rest: Vec<Field>| {
        let mut fields = vec![
            nullable("path", Utf8),
            texts("partitionValues"),
            nullable("size", Int64),
            nullable("dataChange", Boolean),
        ];
        fields.extend(rest);
        group(name, fields)
    };
    let element = Arc::new(nullable("element", Utf8));
    Schema::new(vec![
        group(
            "txn",
            vec![
                nullable("appId", Utf8),
                nullable("version", Int64),
                nullable("lastUpdated", Int64),
            ],
        ),
        file(
            "add",
            vec![
                nullable("modificationTime", Int64),
                nullable("stats", Utf8),
                texts("tags"),
            ],
        ),
        file(
            "remove",
            vec![
                nullable("deletionTimestamp", Int64),
                nullable("extendedFileMetadata", Boolean),
            ],
        ),
        group(
            "metaData",
            vec![
                nullable("id", Utf8),
                group("format", vec![nullable("provider", Utf8), texts("options")]),
                nullable("schemaString", Utf8),
                nullable("partitionColumns", DataType::List(element)),
                texts("configuration"),
                nullable("createdTime", Int64),
            ],
        ),
        group(
            "protocol",
            vec![
                nullable("minReaderVersion", Int32),
                nullable("minWriterVersion", Int32),
            ],
        ),
    ])
}
