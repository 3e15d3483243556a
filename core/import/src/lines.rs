//! Line protocol, in parts of whole lines.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};

use stele_model::Limits;
use stele_wire::{Precision, influx};

use crate::error::{Error, Result};
use crate::{Mark, Part, Settings, Source};

/// Bytes of text in one part, but for its last line.
const PART_BYTES: usize = 4 << 20;

pub(crate) struct Lines {
    file: File,
    total: u64,
    at: Mark,
    /// Text behind the last whole line that was read.
    rest: Vec<u8>,
    is_at_end: bool,
    precision: Precision,
    limits: Limits,
    /// Stamps points without a timestamp: the file's own time, so that it is the same every time.
    modified_us: i64,
}

impl Lines {
    pub(crate) fn open(mut file: File, settings: &Settings, from: Mark) -> std::io::Result<Self> {
        let metadata = file.metadata()?;
        let modified = metadata.modified()?.duration_since(std::time::UNIX_EPOCH);
        let modified_us = modified.map_or(0, |since| since.as_micros());
        let modified_us = i64::try_from(modified_us).unwrap_or(settings.now_us);
        file.seek(SeekFrom::Start(from.offset))?;
        // The decoder counts its margin from the time that stamps.
        let future_us_max = settings
            .now_us
            .saturating_add(settings.limits.future_us_max)
            .saturating_sub(modified_us);
        Ok(Self {
            file,
            total: metadata.len(),
            at: from,
            rest: Vec::new(),
            is_at_end: false,
            precision: settings.precision,
            limits: Limits {
                future_us_max,
                ..settings.limits
            },
            modified_us,
        })
    }

    /// Reads until `rest` holds a part, or the file ends.
    fn fill(&mut self) -> Result<()> {
        let mut piece = vec![0; 256 << 10];
        while self.rest.len() < PART_BYTES && !self.is_at_end {
            let read = self.file.read(&mut piece)?;
            self.rest.extend_from_slice(&piece[..read]);
            self.is_at_end = read == 0;
        }
        Ok(())
    }
}

impl Source for Lines {
    fn total(&self) -> u64 {
        self.total
    }

    fn next_part(&mut self) -> Result<Option<Part>> {
        self.fill()?;
        if self.rest.is_empty() {
            return Ok(None);
        }
        // The same bytes wherever reading began: the last newline within a part's length.
        let within = &self.rest[..self.rest.len().min(PART_BYTES)];
        let is_last = self.is_at_end && self.rest.len() <= PART_BYTES;
        let len = match within.iter().rposition(|byte| *byte == b'\n') {
            _ if is_last => self.rest.len(),
            Some(newline) => newline + 1,
            None => {
                return Err(Error::Line {
                    line: self.at.items + 1,
                    limit: PART_BYTES,
                });
            }
        };
        let rest = self.rest.split_off(len);
        let text = std::mem::replace(&mut self.rest, rest);
        let mut decoded = influx::decode(&text, self.precision, self.modified_us, &self.limits)?;
        for rejection in &mut decoded.rejections.named {
            rejection.position += self.at.items;
        }
        let lines = text.iter().filter(|byte| **byte == b'\n').count();
        self.at.items += lines as u64;
        self.at.offset += len as u64;
        Ok(Some(Part {
            decoded,
            end: self.at,
        }))
    }
}
