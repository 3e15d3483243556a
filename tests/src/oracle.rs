//! What must be answered, told independently: a plain map of samples and a plain fold of them.
//!
//! A sample that was acknowledged must be there exactly once with its value. A sample that was
//! submitted and never acknowledged may be there. At one (series, ts) the greatest value is kept
//! (IEEE total order; the tests send no NaN).

use std::collections::BTreeMap;

use anyhow::{Result, bail, ensure};

/// Metric name and the canonical JSON of the tags.
pub type Series = (String, String);

/// One value of one series at one instant.
#[derive(Debug, Clone, PartialEq)]
pub struct Sample {
    /// The series.
    pub series: Series,
    /// µs since the epoch.
    pub ts_us: i64,
    /// Never NaN.
    pub value: f64,
}

/// The canonical JSON of `tags`: sorted keys, no spaces.
#[must_use]
pub fn tags_json(tags: &[(&str, &str)]) -> String {
    let sorted: BTreeMap<_, _> = tags.iter().copied().collect();
    serde_json::to_string(&sorted).expect("a map of texts is JSON")
}

/// What was submitted and what was acknowledged.
#[derive(Debug, Clone, Default)]
pub struct Oracle {
    submitted: BTreeMap<(Series, i64), Vec<f64>>,
    acked: BTreeMap<(Series, i64), f64>,
}

/// The samples that a store holds, in time order per series.
#[derive(Debug, Clone, Default)]
pub struct Present(pub BTreeMap<Series, Vec<(i64, f64)>>);

/// One row of a rollup, without its sketch.
#[derive(Debug, Clone, Copy, PartialEq)]
#[allow(missing_docs)]
pub struct Bin {
    pub count: i64,
    pub sum: f64,
    pub min: f64,
    pub max: f64,
    pub first: f64,
    pub last: f64,
    pub sum_squares: f64,
    pub increase: f64,
}

/// The rows of one rollup by series and start of bin (µs).
pub type Rollup = BTreeMap<(Series, i64), Bin>;

impl Oracle {
    /// Notes samples that are about to be sent.
    pub fn submit(&mut self, batch: &[Sample]) {
        for sample in batch {
            let key = (sample.series.clone(), sample.ts_us);
            let values = self.submitted.entry(key).or_default();
            if !values.iter().any(|v| v.to_bits() == sample.value.to_bits()) {
                values.push(sample.value);
            }
        }
    }

    /// Notes samples whose request was answered 2xx.
    pub fn ack(&mut self, batch: &[Sample]) {
        for sample in batch {
            let key = (sample.series.clone(), sample.ts_us);
            let kept = self.acked.entry(key).or_insert(sample.value);
            if sample.value.total_cmp(kept).is_gt() {
                *kept = sample.value;
            }
        }
    }

    /// Also accepts what `later` knows to have been submitted.
    pub fn allow(&mut self, later: &Self) {
        for (key, values) in &later.submitted {
            self.submitted.insert(key.clone(), values.clone());
        }
    }

    /// How many different samples were acknowledged.
    #[must_use]
    pub fn acked_len(&self) -> usize {
        self.acked.len()
    }

    /// Checks that `got` holds every acknowledged sample exactly once and none that was never
    /// submitted.
    ///
    /// # Errors
    /// The first sample that is lost, doubled, changed or invented.
    pub fn check(&self, got: &[Sample]) -> Result<Present> {
        let mut rows: BTreeMap<(Series, i64), f64> = BTreeMap::new();
        for sample in got {
            let key = (sample.series.clone(), sample.ts_us);
            if rows.insert(key, sample.value).is_some() {
                bail!("there twice: {sample:?}");
            }
        }
        let lost: Vec<_> = self
            .acked
            .keys()
            .filter(|k| !rows.contains_key(k))
            .collect();
        ensure!(
            lost.is_empty(),
            "{} of {} acknowledged samples are lost, the first is {:?}",
            lost.len(),
            self.acked.len(),
            lost[0]
        );
        let mut present = Present::default();
        for ((series, ts_us), value) in rows {
            let key = (series, ts_us);
            let Some(submitted) = self.submitted.get(&key) else {
                bail!("never submitted: {key:?} = {value}");
            };
            let known = submitted.iter().any(|v| v.to_bits() == value.to_bits());
            ensure!(known, "{key:?} is {value}, submitted were {submitted:?}");
            if let Some(acked) = self.acked.get(&key) {
                let kept = value.total_cmp(acked).is_ge();
                ensure!(kept, "{key:?} is {value}, acknowledged was {acked}");
            }
            present.0.entry(key.0).or_default().push((ts_us, value));
        }
        Ok(present)
    }
}

impl Present {
    /// The number of samples.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.values().map(Vec::len).sum()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The 60 s, 15 min and 60 min rollups: 60 s bins fold their samples in time order, 15 min
    /// bins their 60 s bins, 60 min bins their 15 min bins.
    #[must_use]
    pub fn rollups(&self) -> [Rollup; 3] {
        let mut first = Rollup::new();
        for (series, rows) in &self.0 {
            for (ts_us, value) in rows {
                let key = (series.clone(), start_of(*ts_us, 60));
                let one = Bin::of(*value);
                first.entry(key).and_modify(|b| b.add(&one)).or_insert(one);
            }
        }
        let second = coarser(&first, 900);
        let third = coarser(&second, 3600);
        [first, second, third]
    }
}

fn start_of(ts_us: i64, secs: i64) -> i64 {
    ts_us.div_euclid(secs * 1_000_000) * secs * 1_000_000
}

fn coarser(fine: &Rollup, secs: i64) -> Rollup {
    let mut out = Rollup::new();
    // The map ascends by series, then start: bins arrive in time order.
    for ((series, start), bin) in fine {
        let key = (series.clone(), start_of(*start, secs));
        out.entry(key).and_modify(|b| b.add(bin)).or_insert(*bin);
    }
    out
}

impl Bin {
    fn of(value: f64) -> Self {
        Self {
            count: 1,
            // A sum starts at 0.0, so that of -0.0 alone is 0.0.
            sum: 0.0 + value,
            min: value,
            max: value,
            first: value,
            last: value,
            sum_squares: value * value,
            increase: 0.0,
        }
    }

    /// Adds the next bin or sample in time order.
    fn add(&mut self, next: &Self) {
        let step = if next.first >= self.last {
            next.first - self.last
        } else {
            next.first
        };
        self.count += next.count;
        self.sum += next.sum;
        self.sum_squares += next.sum_squares;
        // A step and the next bin's own increase are added one after the other.
        self.increase += step;
        self.increase += next.increase;
        if next.min.total_cmp(&self.min).is_lt() {
            self.min = next.min;
        }
        if next.max.total_cmp(&self.max).is_gt() {
            self.max = next.max;
        }
        self.last = next.last;
    }

    /// Whether every figure has the same bits.
    #[must_use]
    pub fn same_bits(&self, other: &Self) -> bool {
        let bits = |b: &Self| {
            [
                b.sum,
                b.min,
                b.max,
                b.first,
                b.last,
                b.sum_squares,
                b.increase,
            ]
            .map(f64::to_bits)
        };
        self.count == other.count && bits(self) == bits(other)
    }
}

/// Checks that two rollups are equal bit for bit.
///
/// # Errors
/// The first bin that is missing, different or one too many; `name` says of what.
pub fn same_rollup(name: &str, got: &Rollup, want: &Rollup) -> Result<()> {
    for (key, bin) in want {
        match got.get(key) {
            None => bail!("{name} lacks {key:?} = {bin:?}"),
            Some(b) => ensure!(b.same_bits(bin), "{name} {key:?} is {b:?}, not {bin:?}"),
        }
    }
    let more = got.keys().find(|key| !want.contains_key(key));
    ensure!(more.is_none(), "{name} invents {more:?}");
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn sample(ts_us: i64, value: f64) -> Sample {
        let series = ("m".to_owned(), "{}".to_owned());
        Sample {
            series,
            ts_us,
            value,
        }
    }

    #[test]
    fn a_lost_a_doubled_a_changed_and_an_invented_sample_are_all_found() {
        let mut oracle = Oracle::default();
        let batch = [sample(1, 1.0), sample(2, 2.0)];
        oracle.submit(&batch);
        oracle.ack(&batch);
        oracle.submit(&[sample(3, 3.0)]);
        assert_eq!(oracle.check(&batch).unwrap().len(), 2);
        let with_unknown = [batch.as_slice(), &[sample(3, 3.0)]].concat();
        assert_eq!(oracle.check(&with_unknown).unwrap().len(), 3);
        let doubled = [batch.as_slice(), &batch[..1]].concat();
        let changed = [sample(1, 1.0), sample(2, 2.5)];
        let invented = [batch.as_slice(), &[sample(4, 1.0)]].concat();
        for (wrong, says) in [
            (&batch[..1], "lost"),
            (&doubled, "twice"),
            (&changed, "submitted were"),
            (&invented, "never submitted"),
        ] {
            let error = oracle.check(wrong).unwrap_err().to_string();
            assert!(error.contains(says), "{error}");
        }
    }

    #[test]
    fn the_greater_of_two_values_is_kept() {
        let mut oracle = Oracle::default();
        let both = [sample(1, -0.0), sample(1, 0.0)];
        oracle.submit(&both);
        oracle.ack(&both);
        assert!(oracle.check(&both[..1]).is_err());
        assert!(oracle.check(&both[1..]).is_ok());
    }

    #[test]
    fn rollups_fold_each_other() {
        let minute = 60_000_000;
        let rows = vec![(0, 1.0), (minute, 4.0), (15 * minute, 2.0)];
        let present = Present(BTreeMap::from([(sample(0, 0.0).series, rows)]));
        let [fine, middle, coarse] = present.rollups();
        assert_eq!((fine.len(), middle.len(), coarse.len()), (3, 2, 1));
        let hour = coarse.values().next().unwrap();
        assert_eq!((hour.count, hour.sum, hour.increase), (3, 7.0, 3.0 + 2.0));
        assert_eq!((hour.first, hour.last), (1.0, 2.0));
        let mut other = coarse.clone();
        other.values_mut().next().unwrap().sum = 7.000_000_000_000_001;
        assert!(same_rollup("x", &other, &coarse).is_err());
    }
}
