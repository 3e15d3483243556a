//! Storing finished files: under a name never used before, read back before anything relies on
//! them.

use stele_format::{SampleOrRollup, check_file};
use stele_model::{Resolution, sabotaged};
use stele_store::{Put, keys};
use stele_table::{FileEntry, FileKind, TableState};

use crate::compactor::Compactor;
use crate::error::{Error, Result};
use crate::reader::{damaged, fetch};
use crate::report::Report;
use crate::split::Output;

/// What `check_file` must expect of a kind.
pub(crate) fn rows_of(kind: FileKind) -> SampleOrRollup {
    match kind {
        FileKind::Open | FileKind::Sealed(Resolution::Raw) => SampleOrRollup::Sample,
        FileKind::Sealed(_) => SampleOrRollup::Rollup,
    }
}

impl Compactor {
    /// Stores an output and reads it back. Its name is its digest, so that the same plan made
    /// again finds its own file; a name that is live, or that a sweep may still delete, gets a
    /// number instead.
    pub(crate) async fn store_output(
        &self,
        base: &TableState,
        taken: &[FileEntry],
        output: Output,
        report: &mut Report,
    ) -> Result<FileEntry> {
        let Output {
            kind,
            period,
            windows,
            file,
        } = output;
        let (bytes, stats) = (file.bytes, file.stats);
        let path = self
            .put_under_free_name(base, taken, kind, &period, &stats.digest, bytes)
            .await?;
        let entry = FileEntry {
            path,
            kind,
            period,
            windows,
            stats,
        };
        let stored = fetch(&self.store, &keys::data_file(&entry.path)).await?;
        check_file(&stored, &entry.stats, rows_of(kind)).map_err(|e| damaged(&entry, e))?;
        report.written_bytes += entry.stats.size_bytes;
        report.read_bytes += entry.stats.size_bytes;
        Ok(entry)
    }

    async fn put_under_free_name(
        &self,
        base: &TableState,
        taken: &[FileEntry],
        kind: FileKind,
        period: &str,
        digest: &stele_model::Digest,
        bytes: bytes::Bytes,
    ) -> Result<String> {
        let mut number = 0u32;
        loop {
            let name = match number {
                0 => digest.to_string(),
                n => format!("{digest}-{n}"),
            };
            number += 1;
            let path = FileEntry::path_of(kind, period, &name);
            let is_known = base.files.contains_key(&path)
                || base.removed.iter().any(|file| file.path == path)
                || taken.iter().any(|file| file.path == path);
            if is_known {
                continue;
            }
            match self
                .store
                .put_new(&keys::data_file(&path), bytes.clone())
                .await?
            {
                Put::Created | Put::Same => return Ok(path),
                Put::Other(found) => {
                    let found_bytes = found.len();
                    tracing::error!(path, found_bytes, "a data file is not what its name says");
                }
            }
        }
    }

    /// Stores all of `outputs` after each other.
    pub(crate) async fn store_outputs(
        &self,
        base: &TableState,
        entries: &mut Vec<FileEntry>,
        outputs: impl IntoIterator<Item = Output>,
        report: &mut Report,
    ) -> Result<()> {
        for output in outputs {
            let entry = self.store_output(base, entries, output, report).await?;
            entries.push(entry);
        }
        Ok(())
    }
}

/// A job whose outputs do not add up must not commit; the table would refuse it, too.
pub(crate) fn check_rows(
    job: &'static str,
    rows_in: u64,
    rows_out: u64,
    dropped: u64,
) -> Result<()> {
    if rows_in == rows_out + dropped || sabotaged!(Unconserved) {
        return Ok(());
    }
    Err(Error::NotConserved {
        job,
        rows_in,
        rows_out,
        dropped,
    })
}
