//! Adaptors over sources: rollups folded on the fly, and sources that must be disjoint.

use std::collections::VecDeque;
use std::sync::Arc;

use stele_format::{
    Error, Merge, Result, Rollup, RollupChunk, RollupSink, RollupSource, SampleChunk, SampleSource,
};
use stele_model::{Aggregate, Resolution, Series};

/// The bins of one resolution, folded from samples as they are asked for.
pub(super) struct OnTheFly {
    samples: Box<dyn SampleSource>,
    rollup: Option<Rollup>,
    sink: Collect,
}

impl OnTheFly {
    pub fn new(samples: Box<dyn SampleSource>, resolution: Resolution, sketch: bool) -> Self {
        Self {
            samples,
            rollup: Some(Rollup::new(sketch)),
            sink: Collect {
                resolution,
                ready: VecDeque::new(),
            },
        }
    }
}

impl RollupSource for OnTheFly {
    fn next_chunk(&mut self) -> Result<Option<RollupChunk>> {
        // The last chunk ready may still grow by bins of the same series; handing it out early
        // only means that a series comes in several chunks.
        while self.sink.ready.is_empty() {
            let Some(rollup) = &mut self.rollup else {
                return Ok(None);
            };
            match self.samples.next_chunk()? {
                Some(chunk) => rollup.push(&chunk.series, &chunk.rows, &mut self.sink)?,
                None => {
                    if let Some(rollup) = self.rollup.take() {
                        rollup.finish(&mut self.sink)?;
                    }
                }
            }
        }
        Ok(self.sink.ready.pop_front())
    }
}

/// Keeps the bins of one resolution, grouped by series.
struct Collect {
    resolution: Resolution,
    ready: VecDeque<RollupChunk>,
}

impl RollupSink for Collect {
    fn bin(
        &mut self,
        resolution: Resolution,
        series: &Series,
        bin_start_us: i64,
        aggregate: &Aggregate,
    ) -> Result<()> {
        if resolution != self.resolution {
            return Ok(());
        }
        let bin = (bin_start_us, aggregate.clone());
        match self.ready.back_mut() {
            Some(last) if *last.series == *series => last.bins.push(bin),
            _ => self.ready.push_back(RollupChunk {
                series: Arc::new(series.clone()),
                bins: vec![bin],
            }),
        }
        Ok(())
    }
}

/// Sources that must not share a (series, ts): reading on fails when they do.
pub(super) struct Disjoint(Merge);

impl Disjoint {
    pub fn new(sources: Vec<Box<dyn SampleSource>>) -> Self {
        Self(Merge::new(sources))
    }
}

impl SampleSource for Disjoint {
    fn next_chunk(&mut self) -> Result<Option<SampleChunk>> {
        let chunk = self.0.next_chunk()?;
        let tally = self.0.tally();
        if tally.duplicates + tally.overridden > 0 {
            return Err(Error::Corrupt {
                what: "sealed files hold the same sample twice",
            });
        }
        Ok(chunk)
    }
}
