//! Files of samples, read in parts: line protocol, CSV and Parquet.
//!
//! A part is what one request could hold, checked against the same limits; the caller stores it as
//! a batch and remembers the [`Mark`] behind it. Where a part ends depends on the file alone, so the
//! same file always gives the same batches: importing twice, or going on after a crash, adds
//! nothing twice. Nothing of a foreign file is adopted: values are taken out and encoded anew.
//! What this deliberately does not do: store anything, or talk to a server.

#![cfg_attr(test, allow(clippy::unwrap_used, clippy::panic))]

mod columns;
mod csv;
mod error;
mod lines;
mod parquet;
mod time;

use std::fs::File;
use std::path::Path;

use serde::{Deserialize, Serialize};
use stele_model::{Extra, Limits, NO_EXTRA, Rows};
use stele_wire::{Decoded, Precision};

pub use columns::Columns;
pub use error::{Error, Result};
pub use time::TimeUnit;

/// What a file holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// Influx line protocol.
    Lines,
    /// CSV with a header.
    Csv,
    /// Parquet, Stele's own files included.
    Parquet,
}

impl Format {
    /// By the file's extension: `lp`, `txt`, `line`, `csv`, `parquet`.
    #[must_use]
    pub fn of(path: &Path) -> Option<Self> {
        match path.extension()?.to_str()?.to_ascii_lowercase().as_str() {
            "lp" | "line" | "txt" | "influx" => Some(Self::Lines),
            "csv" => Some(Self::Csv),
            "parquet" | "pq" => Some(Self::Parquet),
            _ => None,
        }
    }
}

/// How a file is to be read.
#[derive(Debug, Clone)]
pub struct Settings {
    /// What the file holds.
    pub format: Format,
    /// Line protocol: the unit of timestamps.
    pub precision: Precision,
    /// CSV and Parquet: which column is what.
    pub columns: Columns,
    /// What a part may hold, and each sample.
    pub limits: Limits,
    /// The clock, µs: how late a timestamp may be.
    pub now_us: i64,
}

/// How far a file was read: behind a part, and where the next begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Mark {
    /// Bytes (line protocol, CSV) or rows (Parquet) before it.
    pub offset: u64,
    /// Lines, records or rows before it, for the positions of rejections.
    pub items: u64,
}

/// Some samples of a file, and what was refused among them.
#[derive(Debug)]
pub struct Part {
    /// Positions are 1-based lines of the file (CSV: with its header), or 0-based rows.
    pub decoded: Decoded,
    /// Where the next part begins.
    pub end: Mark,
}

/// A file opened for import.
pub trait Source {
    /// The unit of [`Mark::offset`] in all: bytes or rows.
    fn total(&self) -> u64;

    /// The next part; `None` at the end.
    ///
    /// # Errors
    /// The file cannot be read, or not as what it was said to be.
    fn next_part(&mut self) -> Result<Option<Part>>;
}

/// Opens `path` at `from`.
///
/// # Errors
/// The file cannot be opened, or lacks a column that `settings` name.
pub fn open(path: &Path, settings: &Settings, from: Mark) -> Result<Box<dyn Source>> {
    let unreadable = |source| Error::Read {
        path: path.to_owned(),
        source,
    };
    let file = File::open(path).map_err(unreadable)?;
    Ok(match settings.format {
        Format::Lines => Box::new(lines::Lines::open(file, settings, from).map_err(unreadable)?),
        Format::Csv => Box::new(csv::Csv::open(file, settings, from)?),
        Format::Parquet => Box::new(parquet::ParquetRows::open(file, settings, from)?),
    })
}

/// Gives every row the rank of a correction: it wins over any value of a lesser rank.
pub fn rank(rows: &mut Rows, rank: i32) {
    let plain = rows.extras.len();
    for extra in &mut rows.extras {
        extra.rank = Some(rank);
    }
    let Ok(shared) = u32::try_from(plain) else {
        return;
    };
    rows.extras.push(Extra {
        rank: Some(rank),
        ..Extra::default()
    });
    for row in &mut rows.rows {
        if row.extra == NO_EXTRA {
            row.extra = shared;
        }
    }
}
