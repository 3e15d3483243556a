//! What must be stored, computed the slow and obvious way.
//!
//! The samples are a map from (series, time) to the greatest of what was sent, by the model's
//! merge order. The rollups are a second, naive writing of the documented fold: 60 s bins from
//! samples in time order, 15 min bins from 60 s bins, 60 min bins from 15 min bins. Nothing here
//! calls `stele-format` or [`stele_model::Aggregate`] for its numbers.

use std::collections::BTreeMap;
use std::fmt;

use stele_format::{RollupSource, SampleSource};
use stele_model::merge::{merge_order, value_order};
use stele_model::time::rfc3339;
use stele_model::{Aggregate, Extra, Resolution, Rows, Series, Sketch, chain};

/// One stored sample without its identity.
#[derive(Debug, Clone, Copy)]
pub struct Sample {
    /// The value, any bit pattern.
    pub value: f64,
    /// What it carries besides.
    pub extra: Extra,
}

impl Sample {
    fn order(&self, other: &Self) -> std::cmp::Ordering {
        merge_order(self.value, &self.extra, other.value, &other.extra)
    }
}

/// Samples by series and time, each identity once.
#[derive(Debug, Clone, Default)]
pub struct Samples(pub BTreeMap<Series, BTreeMap<i64, Sample>>);

/// Rollup rows by series and bin start.
#[derive(Debug, Clone, Default)]
pub struct Rollups(pub BTreeMap<Series, BTreeMap<i64, Aggregate>>);

/// The first place where two answers differ, for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference(String);

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

fn place(series: &Series, ts_us: i64) -> String {
    format!("{} {} at {}", series.metric, series.tags, rfc3339(ts_us))
}

fn difference(series: &Series, ts_us: i64, what: impl fmt::Display) -> Difference {
    Difference(format!("{}: {what}", place(series, ts_us)))
}

impl Samples {
    /// Merges in one batch's rows.
    pub fn add(&mut self, rows: &Rows) {
        for row in &rows.rows {
            let sample = Sample {
                value: row.value,
                extra: rows.extra(row),
            };
            let series = &rows.series[row.series as usize];
            if !self.0.contains_key(series) {
                self.0.insert(series.clone(), BTreeMap::new());
            }
            let held = self.0.get_mut(series).expect("inserted above");
            let held = held.entry(row.ts_us).or_insert(sample);
            if sample.order(held).is_gt() {
                *held = sample;
            }
        }
    }

    /// Merges in other samples.
    pub fn merge(&mut self, other: &Self) {
        for (series, ts_us, sample) in other.iter() {
            let held = self.0.entry(series.clone()).or_default();
            let held = held.entry(ts_us).or_insert(*sample);
            if sample.order(held).is_gt() {
                *held = *sample;
            }
        }
    }

    /// Everything a source gives.
    ///
    /// # Errors
    /// When the source fails (as text), or is not strictly ascending by series and time: then
    /// some identity may be there twice.
    pub fn read(source: &mut dyn SampleSource) -> Result<Self, String> {
        let mut all = Self::default();
        let mut last: Option<(Series, i64)> = None;
        while let Some(chunk) = source.next_chunk().map_err(|e| chain(&e))? {
            for row in &chunk.rows {
                let at = (chunk.series.as_ref().clone(), row.ts_us);
                if last.as_ref().is_some_and(|last| *last >= at) {
                    return Err(format!("{} is out of order or twice", place(&at.0, at.1)));
                }
                let sample = Sample {
                    value: row.value,
                    extra: row.extra,
                };
                let held = all.0.entry(at.0.clone()).or_default();
                held.insert(row.ts_us, sample);
                last = Some(at);
            }
        }
        Ok(all)
    }

    /// The samples from `ts_us` on.
    #[must_use]
    pub fn since(&self, ts_us: i64) -> Self {
        Self(since(&self.0, ts_us))
    }

    /// How many samples there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.values().map(BTreeMap::len).sum()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn get(&self, series: &Series, ts_us: i64) -> Option<&Sample> {
        self.0.get(series)?.get(&ts_us)
    }

    fn iter(&self) -> impl Iterator<Item = (&Series, i64, &Sample)> {
        let series = self.0.iter();
        series.flat_map(|(series, rows)| rows.iter().map(move |(ts, s)| (series, *ts, s)))
    }

    /// Whether `got` is exactly this.
    #[must_use]
    pub fn first_difference(&self, got: &Self) -> Option<Difference> {
        self.first_violation(self, got)
    }

    /// Whether `got` lies between this (what must be there) and `most` (what may be there): every
    /// sample of this is in `got` with the same or a greater value, and every sample of `got` is
    /// one of `most`'s identities, not greater than `most`'s.
    #[must_use]
    pub fn first_violation(&self, most: &Self, got: &Self) -> Option<Difference> {
        for (series, ts, least) in self.iter() {
            let Some(found) = got.get(series, ts) else {
                return Some(difference(series, ts, format_args!("{least:?} is lost")));
            };
            if found.order(least).is_lt() {
                let what = format_args!("{found:?} instead of {least:?}");
                return Some(difference(series, ts, what));
            }
        }
        for (series, ts, found) in got.iter() {
            let Some(greatest) = most.get(series, ts) else {
                return Some(difference(
                    series,
                    ts,
                    format_args!("{found:?} is invented"),
                ));
            };
            if found.order(greatest).is_gt() {
                let what = format_args!("{found:?} beyond {greatest:?}");
                return Some(difference(series, ts, what));
            }
        }
        None
    }

    /// The rollups of one resolution, by the naive fold.
    ///
    /// # Panics
    /// Never for a rollup; raw has no bins and gives no rows.
    #[must_use]
    pub fn rollups(&self, resolution: Resolution, sketch: bool) -> Rollups {
        let mut out = Rollups::default();
        for (series, rows) in &self.0 {
            let fine = minutes(rows, sketch);
            let bins = match resolution {
                Resolution::Raw => BTreeMap::new(),
                Resolution::S60 => fine,
                Resolution::M15 => coarser(&fine, 900_000_000),
                Resolution::M60 => coarser(&coarser(&fine, 900_000_000), 3_600_000_000),
            };
            out.0.insert(series.clone(), bins);
        }
        out
    }
}

/// What is not before `ts_us`, without series that have nothing left.
fn since<T: Clone>(
    all: &BTreeMap<Series, BTreeMap<i64, T>>,
    ts_us: i64,
) -> BTreeMap<Series, BTreeMap<i64, T>> {
    let rest = all.iter().map(|(series, rows)| {
        let rows = rows.range(ts_us..).map(|(ts, row)| (*ts, row.clone()));
        (series.clone(), rows.collect::<BTreeMap<_, _>>())
    });
    rest.filter(|(_, rows)| !rows.is_empty()).collect()
}

impl Rollups {
    /// The bins from `ts_us` on.
    #[must_use]
    pub fn since(&self, ts_us: i64) -> Self {
        Self(since(&self.0, ts_us))
    }

    /// Adds the bins of `other` before `ts_us`.
    pub fn add_before(&mut self, ts_us: i64, other: &Self) {
        for (series, bins) in &other.0 {
            let bins = bins.range(..ts_us).map(|(ts, bin)| (*ts, bin.clone()));
            self.0.entry(series.clone()).or_default().extend(bins);
        }
    }

    /// Everything a source gives.
    ///
    /// # Errors
    /// As [`Samples::read`].
    pub fn read(source: &mut dyn RollupSource) -> Result<Self, String> {
        let mut all = Self::default();
        let mut last: Option<(Series, i64)> = None;
        while let Some(chunk) = source.next_chunk().map_err(|e| chain(&e))? {
            for (start_us, aggregate) in &chunk.bins {
                let at = (chunk.series.as_ref().clone(), *start_us);
                if last.as_ref().is_some_and(|last| *last >= at) {
                    return Err(format!(
                        "bin {} is out of order or twice",
                        place(&at.0, at.1)
                    ));
                }
                let held = all.0.entry(at.0.clone()).or_default();
                held.insert(*start_us, aggregate.clone());
                last = Some(at);
            }
        }
        Ok(all)
    }

    /// Whether `got` is exactly this, bit for bit (a bin of no observation has no values; NaN
    /// sums are equal whatever their bits).
    #[must_use]
    pub fn first_difference(&self, got: &Self) -> Option<Difference> {
        let empty = BTreeMap::new();
        for (series, want) in &self.0 {
            let found = got.0.get(series).unwrap_or(&empty);
            for (ts, want) in want {
                let Some(found) = found.get(ts) else {
                    return Some(difference(series, *ts, "the bin is missing"));
                };
                if let Some(what) = bin_difference(want, found) {
                    return Some(difference(series, *ts, what));
                }
            }
        }
        for (series, found) in &got.0 {
            let want = self.0.get(series).unwrap_or(&empty);
            if let Some(ts) = found.keys().find(|ts| !want.contains_key(ts)) {
                return Some(difference(series, *ts, "the bin is invented"));
            }
        }
        None
    }
}

fn bin_difference(want: &Aggregate, got: &Aggregate) -> Option<String> {
    let times = |a: &Aggregate| (a.count, a.first_ts_us, a.last_ts_us);
    if times(want) != times(got) {
        let (want, got) = (times(want), times(got));
        return Some(format!(
            "(count, first_ts, last_ts) {got:?} instead of {want:?}"
        ));
    }
    if want.sketch != got.sketch {
        return Some(format!(
            "sketch {:?} instead of {:?}",
            got.sketch, want.sketch
        ));
    }
    if want.count == 0 {
        return None;
    }
    let values = |a: &Aggregate| {
        [
            ("sum", a.sum),
            ("min", a.min),
            ("max", a.max),
            ("first", a.first),
            ("last", a.last),
            ("sum_squares", a.sum_squares),
            ("increase", a.increase),
        ]
    };
    let same = |a: f64, b: f64| a.to_bits() == b.to_bits() || (a.is_nan() && b.is_nan());
    let pairs = values(want).into_iter().zip(values(got));
    let mut wrong = pairs.filter(|((_, want), (_, got))| !same(*want, *got));
    let ((name, want), (_, got)) = wrong.next()?;
    Some(format!("{name} {got:?} instead of {want:?}"))
}

/// A reset starts again from zero.
fn step(from: f64, to: f64) -> f64 {
    if to >= from { to - from } else { to }
}

fn bin_of(ts_us: i64, bin_us: i64) -> i64 {
    ts_us.div_euclid(bin_us) * bin_us
}

fn extreme(values: &[f64], greatest: bool) -> f64 {
    let mut values = values.iter().copied();
    let first = values.next().unwrap_or(f64::NAN);
    values.fold(first, |held, value| {
        let order = value_order(value, held);
        let better = if greatest {
            order.is_gt()
        } else {
            order.is_lt()
        };
        if better { value } else { held }
    })
}

fn minutes(rows: &BTreeMap<i64, Sample>, sketch: bool) -> BTreeMap<i64, Aggregate> {
    let mut groups: BTreeMap<i64, Vec<(i64, Sample)>> = BTreeMap::new();
    for (ts, sample) in rows {
        let group = groups.entry(bin_of(*ts, 60_000_000)).or_default();
        group.push((*ts, *sample));
    }
    let bins = groups.into_iter();
    bins.map(|(start, group)| (start, minute(&group, sketch)))
        .collect()
}

/// One 60 s bin: every field on its own, over the samples that are numbers.
fn minute(group: &[(i64, Sample)], sketch: bool) -> Aggregate {
    let seen: Vec<Sample> = group
        .iter()
        .map(|(_, sample)| *sample)
        .filter(|sample| !sample.value.is_nan())
        .collect();
    let of = |f: &dyn Fn(&Sample) -> f64| seen.iter().map(f).collect::<Vec<f64>>();
    let add = |values: Vec<f64>| values.into_iter().fold(0.0, |sum, value| sum + value);
    let means = of(&|s| s.value);
    let mins = of(&|s| s.extra.summary.and_then(|x| x.min).unwrap_or(s.value));
    let maxs = of(&|s| s.extra.summary.and_then(|x| x.max).unwrap_or(s.value));
    let sums = of(&|s| s.extra.summary.map_or(s.value, |x| x.sum));
    let squares = of(&|s| match s.extra.summary {
        None => s.value * s.value,
        Some(x) => x.sum_squares.unwrap_or(x.sum * s.value),
    });
    let mut quantiles = Sketch::default();
    for sample in seen.iter().filter(|s| s.extra.summary.is_none()) {
        quantiles.push(sample.value);
    }
    Aggregate {
        count: seen
            .iter()
            .map(|s| s.extra.summary.map_or(1, |x| x.count))
            .sum(),
        sum: add(sums),
        min: extreme(&mins, false),
        max: extreme(&maxs, true),
        first: means.first().copied().unwrap_or(f64::NAN),
        last: means.last().copied().unwrap_or(f64::NAN),
        sum_squares: add(squares),
        increase: add(means
            .windows(2)
            .map(|pair| step(pair[0], pair[1]))
            .collect()),
        first_ts_us: group.first().map_or(i64::MAX, |(ts, _)| *ts),
        last_ts_us: group.last().map_or(i64::MIN, |(ts, _)| *ts),
        sketch: sketch.then_some(quantiles),
    }
}

fn coarser(fine: &BTreeMap<i64, Aggregate>, bin_us: i64) -> BTreeMap<i64, Aggregate> {
    let mut groups: BTreeMap<i64, Vec<&Aggregate>> = BTreeMap::new();
    for (start, bin) in fine {
        groups.entry(bin_of(*start, bin_us)).or_default().push(bin);
    }
    groups
        .into_iter()
        .map(|(start, bins)| (start, joined(&bins)))
        .collect()
}

/// Bins in time order as one; those without an observation only widen the time.
fn joined(bins: &[&Aggregate]) -> Aggregate {
    let full: Vec<&&Aggregate> = bins.iter().filter(|bin| bin.count > 0).collect();
    let of = |f: &dyn Fn(&Aggregate) -> f64| full.iter().map(|bin| f(bin)).collect::<Vec<f64>>();
    let add = |values: Vec<f64>| values.into_iter().reduce(|sum, value| sum + value);
    let mut increase = 0.0;
    for (index, bin) in full.iter().enumerate() {
        if index > 0 {
            increase += step(full[index - 1].last, bin.first);
        }
        increase += bin.increase;
    }
    let sketch = bins.iter().try_fold(Sketch::default(), |mut all, bin| {
        all.merge(bin.sketch.as_ref()?);
        Some(all)
    });
    Aggregate {
        count: full.iter().map(|bin| bin.count).sum(),
        sum: add(of(&|b| b.sum)).unwrap_or(0.0),
        min: extreme(&of(&|b| b.min), false),
        max: extreme(&of(&|b| b.max), true),
        first: full.first().map_or(f64::NAN, |b| b.first),
        last: full.last().map_or(f64::NAN, |b| b.last),
        sum_squares: add(of(&|b| b.sum_squares)).unwrap_or(0.0),
        increase,
        first_ts_us: bins.iter().map(|b| b.first_ts_us).min().unwrap_or(i64::MAX),
        last_ts_us: bins.iter().map(|b| b.last_ts_us).max().unwrap_or(i64::MIN),
        sketch,
    }
}

#[cfg(test)]
mod tests;
