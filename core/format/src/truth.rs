//! Rollups as stored against rollups as folded anew from raw samples, bit for bit.
//!
//! The proof that raw samples may expire, and what `verify` checks while they are there.

use std::cmp::Ordering;
use std::sync::Arc;

use stele_model::time::rfc3339;
use stele_model::{Aggregate, Resolution, Series};

use crate::error::Result;
use crate::rollup::{Rollup, RollupSink};
use crate::sample::{RollupChunk, RollupSource, SampleRow};

/// Differences of one resolution that are spelled out; more are only counted.
const SPELLED_OUT: u64 = 10;

/// What a comparison came to, for one resolution.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Compared {
    /// The resolution.
    pub resolution: Resolution,
    /// Rows that both sides have.
    pub rows: u64,
    /// The first differences, in words.
    pub found: Vec<String>,
    /// Differences beyond those.
    pub unspelled: u64,
}

/// Folds raw samples and compares with stored rollups of the same windows and series.
pub struct RollupTruth {
    fold: Rollup,
    against: Against,
}

impl RollupTruth {
    /// A comparison with `stored`: the rows of one resolution each.
    #[must_use]
    pub fn new(stored: Vec<(Resolution, Box<dyn RollupSource>)>) -> Self {
        let cursors = stored.into_iter().map(|(r, source)| Cursor::new(r, source));
        Self {
            // Whether stored sketches are there is an option of the writer; fold one to compare.
            fold: Rollup::new(true),
            against: Against {
                cursors: cursors.collect(),
            },
        }
    }

    /// The next raw samples, strictly ascending by (series, ts).
    ///
    /// # Errors
    /// [`crate::Error::Unsorted`] when they are not, and what reading the stored rows fails with.
    pub fn push(&mut self, series: &Series, rows: &[SampleRow]) -> Result<()> {
        self.fold.push(series, rows, &mut self.against)
    }

    /// What it came to, once all samples were pushed.
    ///
    /// # Errors
    /// What reading the stored rows fails with.
    pub fn finish(mut self) -> Result<Vec<Compared>> {
        self.fold.finish(&mut self.against)?;
        let mut compared = Vec::new();
        for mut cursor in self.against.cursors {
            cursor.drain()?;
            compared.push(cursor.compared);
        }
        Ok(compared)
    }
}

fn place(series: &Series, ts_us: i64) -> String {
    format!("{} {} at {}", series.metric, series.tags, rfc3339(ts_us))
}

/// Takes folded bins and compares each with the next stored one.
struct Against {
    cursors: Vec<Cursor>,
}

impl RollupSink for Against {
    fn bin(
        &mut self,
        resolution: Resolution,
        series: &Series,
        bin_start_us: i64,
        aggregate: &Aggregate,
    ) -> Result<()> {
        let mut cursors = self.cursors.iter_mut();
        match cursors.find(|c| c.compared.resolution == resolution) {
            Some(cursor) => cursor.expect(series, bin_start_us, aggregate),
            None => Ok(()),
        }
    }
}

/// A place in the stored rows of one resolution.
struct Cursor {
    source: Box<dyn RollupSource>,
    chunk: Option<RollupChunk>,
    at: usize,
    ended: bool,
    compared: Compared,
}

impl Cursor {
    fn new(resolution: Resolution, source: Box<dyn RollupSource>) -> Self {
        Self {
            source,
            chunk: None,
            at: 0,
            ended: false,
            compared: Compared {
                resolution,
                rows: 0,
                found: Vec::new(),
                unspelled: 0,
            },
        }
    }

    fn find(&mut self, what: String) {
        if (self.compared.found.len() as u64) < SPELLED_OUT {
            self.compared.found.push(what);
        } else {
            self.compared.unspelled += 1;
        }
    }

    /// The next stored row, if any, becomes the current one.
    fn current(&mut self) -> Result<Option<(Arc<Series>, i64)>> {
        while !self.ended && self.chunk.as_ref().is_none_or(|c| self.at >= c.bins.len()) {
            self.at = 0;
            self.chunk = self.source.next_chunk()?;
            self.ended = self.chunk.is_none();
        }
        let row = self.chunk.as_ref().and_then(|chunk| {
            let (start_us, _) = chunk.bins.get(self.at)?;
            Some((Arc::clone(&chunk.series), *start_us))
        });
        Ok(row)
    }

    /// The next row must be this one.
    fn expect(&mut self, series: &Series, start_us: i64, want: &Aggregate) -> Result<()> {
        loop {
            let current = self.current()?;
            let order = current.as_ref().map_or(Ordering::Greater, |(stored, at)| {
                (&**stored, *at).cmp(&(series, start_us))
            });
            match (order, current) {
                (Ordering::Equal, _) => break,
                (Ordering::Less, Some((stored, at))) => self.invented(&stored, at),
                _ => {
                    self.find(format!("{} is missing", place(series, start_us)));
                    return Ok(());
                }
            }
        }
        self.compared.rows += 1;
        let chunk = self.chunk.as_ref();
        let got = chunk.and_then(|chunk| chunk.bins.get(self.at));
        let differs = got.and_then(|(_, got)| difference(want, got));
        self.at += 1;
        if let Some(column) = differs {
            let place = place(series, start_us);
            self.find(format!("{place}: {column} is not what the samples fold to"));
        }
        Ok(())
    }

    /// The current row has no samples.
    fn invented(&mut self, series: &Series, at: i64) {
        self.at += 1;
        self.find(format!("{} has no samples", place(series, at)));
    }

    /// No more rows may follow.
    fn drain(&mut self) -> Result<()> {
        while let Some((series, at)) = self.current()? {
            self.invented(&series, at);
        }
        Ok(())
    }
}

/// The first column in which a stored row is not the folded one. A bin of no observation has no
/// values; a file written without sketches has none to compare.
fn difference(want: &Aggregate, got: &Aggregate) -> Option<&'static str> {
    let counts = [
        ("count", want.count == got.count),
        ("first_ts", want.first_ts_us == got.first_ts_us),
        ("last_ts", want.last_ts_us == got.last_ts_us),
        ("sketch", got.sketch.is_none() || want.sketch == got.sketch),
    ];
    let bits = |a: f64, b: f64| a.to_bits() == b.to_bits() || (a.is_nan() && b.is_nan());
    let values = [
        ("sum", bits(want.sum, got.sum)),
        ("min", bits(want.min, got.min)),
        ("max", bits(want.max, got.max)),
        ("first", bits(want.first, got.first)),
        ("last", bits(want.last, got.last)),
        ("sum_squares", bits(want.sum_squares, got.sum_squares)),
        ("increase", bits(want.increase, got.increase)),
    ];
    let values = values.into_iter().filter(|_| want.count != 0);
    let mut columns = counts.into_iter().chain(values);
    columns.find(|(_, same)| !same).map(|(column, _)| column)
}
