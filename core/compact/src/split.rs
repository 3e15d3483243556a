//! Writers that put a file away when it is large enough and begin the next.

use stele_format::{
    EncodedFile, Result, RollupChunk, RollupSink, RollupWriter, SampleRow, SampleWriter,
};
use stele_model::{Aggregate, Resolution, Series, Window, WindowSet};
use stele_table::FileKind;

/// A finished file that is not stored yet.
#[derive(Debug)]
pub(crate) struct Output {
    pub kind: FileKind,
    pub period: String,
    pub windows: WindowSet,
    pub file: EncodedFile,
}

/// What the files of a writer cover.
#[derive(Debug, Clone)]
pub(crate) enum Covers {
    /// Exactly the windows that got a row (open files).
    Rows,
    /// These windows, whether a part got a row of each or not (sealed files).
    All(WindowSet),
}

/// Sample files of one kind and period.
pub(crate) struct SampleOut {
    kind: FileKind,
    period: String,
    covers: Covers,
    split_bytes: u64,
    writer: SampleWriter,
    seen: WindowSet,
    last: Option<Window>,
}

impl SampleOut {
    pub fn new(kind: FileKind, period: String, covers: Covers, split_bytes: u64) -> Self {
        Self {
            kind,
            period,
            covers,
            split_bytes,
            writer: SampleWriter::new(),
            seen: WindowSet::new(),
            last: None,
        }
    }

    pub fn push(&mut self, series: &Series, rows: &[SampleRow]) -> Result<()> {
        for row in rows {
            let window = Window::of(row.ts_us);
            if self.last != Some(window) {
                self.last = Some(window);
                self.seen.insert(window);
            }
        }
        self.writer.push(series, rows)
    }

    /// The file so far, when it is large enough to be put away.
    pub fn take_full(&mut self) -> Result<Option<Output>> {
        if (self.writer.bytes_so_far() as u64) < self.split_bytes {
            return Ok(None);
        }
        self.take()
    }

    /// The file so far; `None` when no row was pushed since the last.
    pub fn take(&mut self) -> Result<Option<Output>> {
        let writer = std::mem::take(&mut self.writer);
        let seen = std::mem::take(&mut self.seen);
        self.last = None;
        let windows = match &self.covers {
            Covers::Rows => seen,
            Covers::All(windows) => windows.clone(),
        };
        Ok(writer.finish()?.map(|file| Output {
            kind: self.kind,
            period: self.period.clone(),
            windows,
            file,
        }))
    }
}

/// Rollup files of one resolution.
pub(crate) struct RollupOut {
    resolution: Resolution,
    period: String,
    windows: WindowSet,
    sketch: bool,
    split_bytes: u64,
    writer: RollupWriter,
    pub rows: u64,
}

impl RollupOut {
    pub fn new(
        resolution: Resolution,
        period: String,
        windows: WindowSet,
        sketch: bool,
        split_bytes: u64,
    ) -> Self {
        Self {
            resolution,
            period,
            windows,
            sketch,
            split_bytes,
            writer: RollupWriter::new(sketch),
            rows: 0,
        }
    }

    pub fn push(&mut self, series: &Series, start_us: i64, aggregate: &Aggregate) -> Result<()> {
        self.rows += 1;
        self.writer.push(series, start_us, aggregate)
    }

    pub fn push_chunk(&mut self, chunk: &RollupChunk) -> Result<()> {
        let mut bins = chunk.bins.iter();
        bins.try_for_each(|(start, aggregate)| self.push(&chunk.series, *start, aggregate))
    }

    pub fn take_full(&mut self) -> Result<Option<Output>> {
        if (self.writer.bytes_so_far() as u64) < self.split_bytes {
            return Ok(None);
        }
        self.take()
    }

    pub fn take(&mut self) -> Result<Option<Output>> {
        let writer = std::mem::replace(&mut self.writer, RollupWriter::new(self.sketch));
        Ok(writer.finish()?.map(|file| Output {
            kind: FileKind::Sealed(self.resolution),
            period: self.period.clone(),
            windows: self.windows.clone(),
            file,
        }))
    }
}

/// The three rollups of one seal.
pub(crate) struct RollupsOut(pub [RollupOut; 3]);

impl RollupSink for RollupsOut {
    fn bin(
        &mut self,
        resolution: Resolution,
        series: &Series,
        bin_start_us: i64,
        aggregate: &Aggregate,
    ) -> Result<()> {
        let [s60, m15, m60] = &mut self.0;
        match resolution {
            Resolution::S60 => s60.push(series, bin_start_us, aggregate),
            Resolution::M15 => m15.push(series, bin_start_us, aggregate),
            Resolution::M60 => m60.push(series, bin_start_us, aggregate),
            Resolution::Raw => Ok(()),
        }
    }
}
