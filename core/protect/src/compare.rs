//! Rollups as stored against rollups as folded anew from raw samples, bit for bit.

use std::cmp::Ordering;
use std::sync::Arc;

use stele_format::{Merge, Result, Rollup, RollupChunk, RollupSink, RollupSource, SampleSource};
use stele_model::{Aggregate, Resolution, Series};

use crate::report::{Check, VerifyReport};
use crate::text::{chain, place};

/// Findings of one kind for one day and resolution that are spelled out; more are only counted.
const SPELLED_OUT: u64 = 10;

/// Folds `raw` and compares with `stored`, which holds one source per rollup resolution.
pub(crate) fn compare(
    mut raw: Merge,
    stored: Vec<Box<dyn RollupSource>>,
    object: &str,
    report: &mut VerifyReport,
) {
    let mut cursors: Vec<Cursor> = Vec::new();
    for (resolution, source) in Resolution::ROLLUPS.into_iter().zip(stored) {
        cursors.push(Cursor::new(resolution, source));
    }
    // Whether the stored sketches are there is an option of the writer; fold one to compare.
    let mut against = Against { cursors };
    let mut fold = Rollup::new(true);
    let folded = loop {
        match raw.next_chunk() {
            Ok(Some(chunk)) => {
                if let Err(error) = fold.push(&chunk.series, &chunk.rows, &mut against) {
                    break Err(error);
                }
            }
            Ok(None) => break fold.finish(&mut against),
            Err(error) => break Err(error),
        }
    };
    if let Err(error) = folded {
        report.find(Check::Rollups, object, chain(&error));
        return;
    }
    let tally = raw.tally();
    let twice = tally.duplicates + tally.overridden;
    if twice > 0 {
        report.find(
            Check::Objects,
            object,
            format!("raw files hold {twice} samples twice"),
        );
    }
    for mut cursor in against.cursors {
        cursor.drain();
        report.rollup_rows += cursor.compared;
        let object = object.replace('*', cursor.resolution.partition());
        for what in cursor.found {
            report.find(Check::Rollups, object.clone(), what);
        }
        if cursor.unspelled > 0 {
            let what = format!("and {} more rows are wrong", cursor.unspelled);
            report.find(Check::Rollups, object, what);
        }
    }
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
        let cursor = self.cursors.iter_mut().find(|c| c.resolution == resolution);
        if let Some(cursor) = cursor {
            cursor.expect(series, bin_start_us, aggregate);
        }
        Ok(())
    }
}

/// A place in the stored rows of one resolution.
struct Cursor {
    resolution: Resolution,
    source: Box<dyn RollupSource>,
    chunk: Option<RollupChunk>,
    at: usize,
    ended: bool,
    compared: u64,
    found: Vec<String>,
    unspelled: u64,
}

impl Cursor {
    fn new(resolution: Resolution, source: Box<dyn RollupSource>) -> Self {
        Self {
            resolution,
            source,
            chunk: None,
            at: 0,
            ended: false,
            compared: 0,
            found: Vec::new(),
            unspelled: 0,
        }
    }

    fn find(&mut self, what: String) {
        if (self.found.len() as u64) < SPELLED_OUT {
            self.found.push(what);
        } else {
            self.unspelled += 1;
        }
    }

    /// Makes the next stored row, if any, the current one.
    fn load(&mut self) {
        while !self.ended && self.chunk.as_ref().is_none_or(|c| self.at >= c.bins.len()) {
            self.at = 0;
            match self.source.next_chunk() {
                Ok(Some(chunk)) => self.chunk = Some(chunk),
                Ok(None) => self.ended = true,
                Err(error) => {
                    self.ended = true;
                    self.find(format!("cannot be read further: {}", chain(&error)));
                }
            }
        }
    }

    fn current(&mut self) -> Option<(Arc<Series>, i64)> {
        self.load();
        if self.ended {
            return None;
        }
        let chunk = self.chunk.as_ref()?;
        Some((Arc::clone(&chunk.series), chunk.bins.get(self.at)?.0))
    }

    /// The next row must be this one.
    fn expect(&mut self, series: &Series, start_us: i64, want: &Aggregate) {
        loop {
            let order = match self.current() {
                None => Ordering::Greater,
                Some((stored, at)) => (&*stored, at).cmp(&(series, start_us)),
            };
            match order {
                Ordering::Less => self.invented(),
                Ordering::Greater => {
                    return self.find(format!("{} is missing", place(series, start_us)));
                }
                Ordering::Equal => break,
            }
        }
        self.compared += 1;
        let chunk = self.chunk.as_ref();
        let got = chunk.and_then(|chunk| chunk.bins.get(self.at));
        let differs = got.and_then(|(_, got)| difference(want, got));
        self.at += 1;
        if let Some(column) = differs {
            let place = place(series, start_us);
            self.find(format!("{place}: {column} is not what the samples fold to"));
        }
    }

    /// The current row has no samples.
    fn invented(&mut self) {
        if let Some((series, at)) = self.current() {
            self.at += 1;
            self.find(format!("{} has no samples", place(&series, at)));
        }
    }

    /// No more rows may follow.
    fn drain(&mut self) {
        while self.current().is_some() {
            self.invented();
        }
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
