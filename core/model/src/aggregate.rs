//! What a rollup row holds of one bin, and the one fold that makes it.
//!
//! A 60 s bin folds its samples in time order ([`Aggregate::push`]); a 15 min bin folds its 60 s
//! bins in time order ([`Aggregate::merge`]), a 60 min bin its 15 min bins. Float addition is not
//! associative: everyone who aggregates uses this fold, so an answer has the same bits before and
//! after a window is sealed.
//!
//! NaN samples (Prometheus' stale marker among them) are not observations: they move `first_ts`
//! and `last_ts` and nothing else. A bin of nothing but NaN has count 0, and its values are NULL
//! where it is stored.

use crate::merge::value_order;
use crate::sample::Extra;
use crate::sketch::Sketch;

/// The aggregate of one bin of one series.
#[derive(Debug, Clone, PartialEq)]
pub struct Aggregate {
    /// Observations that are not NaN; a pre-aggregated sample counts as many as it summarises.
    pub count: i64,
    /// Their sum, folded in time order.
    pub sum: f64,
    /// The least in IEEE total order.
    pub min: f64,
    /// The greatest in IEEE total order.
    pub max: f64,
    /// The earliest value (a pre-aggregated sample's mean).
    pub first: f64,
    /// The latest value.
    pub last: f64,
    /// The sum of squares, folded in time order.
    pub sum_squares: f64,
    /// What a counter grew by between the first and the last value: each step up adds the
    /// difference, a step down is a reset and adds the new value.
    pub increase: f64,
    /// µs of the earliest sample, NaN or not.
    pub first_ts_us: i64,
    /// µs of the latest sample, NaN or not.
    pub last_ts_us: i64,
    /// Plain observations per logarithmic bin; pre-aggregated samples are not in it.
    pub sketch: Option<Sketch>,
}

/// What a counter grew by from `previous` to `next`.
#[must_use]
pub fn increase_between(previous: f64, next: f64) -> f64 {
    if next >= previous {
        next - previous
    } else {
        next
    }
}

fn least(a: f64, b: f64) -> f64 {
    if value_order(b, a).is_lt() { b } else { a }
}

fn greatest(a: f64, b: f64) -> f64 {
    if value_order(b, a).is_gt() { b } else { a }
}

impl Aggregate {
    /// The aggregate of no sample; `sketch` says whether it keeps one.
    #[must_use]
    pub fn empty(sketch: bool) -> Self {
        Self {
            count: 0,
            sum: 0.0,
            min: f64::NAN,
            max: f64::NAN,
            first: f64::NAN,
            last: f64::NAN,
            sum_squares: 0.0,
            increase: 0.0,
            first_ts_us: i64::MAX,
            last_ts_us: i64::MIN,
            sketch: sketch.then(Sketch::default),
        }
    }

    /// Folds in the next sample, which must not be earlier than any before it.
    pub fn push(&mut self, ts_us: i64, value: f64, extra: &Extra) {
        self.first_ts_us = self.first_ts_us.min(ts_us);
        self.last_ts_us = self.last_ts_us.max(ts_us);
        if value.is_nan() {
            return;
        }
        let (count, sum, min, max, squares) = match extra.summary {
            None => (1, value, value, value, value * value),
            Some(s) => (
                s.count,
                s.sum,
                s.min.unwrap_or(value),
                s.max.unwrap_or(value),
                s.sum_squares.unwrap_or(s.sum * value),
            ),
        };
        self.observe(count, value, value);
        self.sum += sum;
        self.sum_squares += squares;
        self.min = if self.min.is_nan() {
            min
        } else {
            least(self.min, min)
        };
        self.max = if self.max.is_nan() {
            max
        } else {
            greatest(self.max, max)
        };
        if extra.summary.is_none()
            && let Some(sketch) = &mut self.sketch
        {
            sketch.push(value);
        }
    }

    /// Folds in the next bin, which must be later than every bin before it.
    pub fn merge(&mut self, next: &Self) {
        self.first_ts_us = self.first_ts_us.min(next.first_ts_us);
        self.last_ts_us = self.last_ts_us.max(next.last_ts_us);
        if let (Some(mine), Some(theirs)) = (&mut self.sketch, &next.sketch) {
            mine.merge(theirs);
        }
        if next.count == 0 {
            return;
        }
        let empty = self.count == 0;
        self.observe(next.count, next.first, next.last);
        self.increase += next.increase;
        self.sum = if empty { next.sum } else { self.sum + next.sum };
        self.sum_squares = if empty {
            next.sum_squares
        } else {
            self.sum_squares + next.sum_squares
        };
        self.min = if empty {
            next.min
        } else {
            least(self.min, next.min)
        };
        self.max = if empty {
            next.max
        } else {
            greatest(self.max, next.max)
        };
    }

    /// Moves first, last, increase and count over observations that begin and end with the given
    /// values.
    fn observe(&mut self, count: i64, first: f64, last: f64) {
        if self.count == 0 {
            self.first = first;
        } else {
            self.increase += increase_between(self.last, first);
        }
        self.last = last;
        // Senders choose the counts of summaries; rows that were accepted must always fold.
        self.count = self.count.saturating_add(count);
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::sample::Summary;

    fn of(values: &[f64]) -> Aggregate {
        let mut all = Aggregate::empty(true);
        for (ts, value) in (0..).zip(values) {
            all.push(ts, *value, &Extra::default());
        }
        all
    }

    #[test]
    fn a_reset_adds_the_new_value_and_nan_is_no_observation() {
        let got = of(&[5.0, f64::NAN, 8.0, 2.0, 3.0]);
        assert_eq!((got.count, got.sum, got.min, got.max), (4, 18.0, 2.0, 8.0));
        assert_eq!(
            (got.first, got.last, got.increase),
            (5.0, 3.0, 3.0 + 2.0 + 1.0)
        );
        assert_eq!((got.first_ts_us, got.last_ts_us), (0, 4));
    }

    #[test]
    fn a_bin_of_nan_alone_counts_nothing_but_has_a_time() {
        let got = of(&[f64::NAN]);
        assert_eq!((got.count, got.first_ts_us), (0, 0));
        let mut merged = got.clone();
        merged.merge(&of(&[1.0]));
        assert_eq!((merged.count, merged.first, merged.increase), (1, 1.0, 0.0));
    }

    /// The summary of `values`, as a sender makes it.
    fn summary(values: &[f64]) -> Extra {
        let summary = Summary {
            count: i64::try_from(values.len()).unwrap(),
            sum: values.iter().sum(),
            min: values.iter().copied().reduce(f64::min),
            max: values.iter().copied().reduce(f64::max),
            sum_squares: Some(values.iter().map(|v| v * v).sum()),
        };
        Extra {
            summary: Some(summary),
            ..Extra::default()
        }
    }

    #[test]
    fn a_bin_of_summaries_tells_how_few_observations_its_sketch_holds() {
        let mut bin = of(&[1.0, 2.0]);
        bin.push(2, 5.0, &summary(&[4.0, 6.0, 5.0]));
        assert_eq!((bin.count, bin.sum, bin.min, bin.max), (5, 18.0, 1.0, 6.0));
        assert_eq!(bin.sketch.map(|sketch| sketch.count()), Some(2));
        let mut bin = Aggregate::empty(true);
        bin.push(0, 5.0, &summary(&[4.0, 6.0]));
        let sketch = bin.sketch.unwrap();
        assert_eq!(
            (bin.count, sketch.count(), sketch.quantile(0.5)),
            (2, 0, None)
        );
    }

    #[test]
    fn counts_that_senders_choose_never_overflow() {
        let mut extra = summary(&[1.0]);
        let huge = extra.summary.as_mut().unwrap();
        huge.count = i64::MAX;
        let mut bin = Aggregate::empty(false);
        bin.push(0, 1.0, &extra);
        bin.push(1, 1.0, &extra);
        assert_eq!(bin.count, i64::MAX);
    }

    proptest! {
        #[test]
        fn summaries_fold_to_exactly_what_their_observations_fold_to(
            groups in proptest::collection::vec(proptest::collection::vec(-50i32..50, 1..9), 1..20), cut in 0usize..20) {
            let groups: Vec<Vec<f64>> = groups.iter().map(|g| g.iter().map(|v| f64::from(*v)).collect()).collect();
            let (mut whole, mut bins) = (Aggregate::empty(true), [Aggregate::empty(true), Aggregate::empty(true)]);
            let mut plain = 0;
            for (i, group) in groups.iter().enumerate() {
                let ts = i64::try_from(i).unwrap();
                for value in group {
                    whole.push(ts, *value, &Extra::default());
                }
                let bin = &mut bins[usize::from(i >= cut)];
                if let [value] = group.as_slice() {
                    bin.push(ts, *value, &Extra::default());
                    plain += 1;
                } else {
                    let extra = summary(group);
                    let of = extra.summary.unwrap();
                    bin.push(ts, of.sum / f64::from(u8::try_from(of.count).unwrap()), &extra);
                }
            }
            let [mut merged, tail] = bins;
            merged.merge(&tail);
            prop_assert_eq!((merged.count, merged.sum), (whole.count, whole.sum));
            prop_assert_eq!((merged.min, merged.max, merged.sum_squares), (whole.min, whole.max, whole.sum_squares));
            prop_assert_eq!(merged.sketch.map(|sketch| sketch.count()), Some(plain));
        }

        #[test]
        fn merging_bins_agrees_with_folding_all(values in proptest::collection::vec(-50i32..50, 1..60), cut in 0usize..60) {
            let values: Vec<f64> = values.into_iter().map(f64::from).collect();
            let cut = cut.min(values.len());
            let mut merged = of(&values[..cut]);
            let mut tail = Aggregate::empty(true);
            for (ts, value) in (0i64..).zip(&values).skip(cut) {
                tail.push(ts, *value, &Extra::default());
            }
            merged.merge(&tail);
            let whole = of(&values);
            // Small integers add exactly, so even the sums agree.
            prop_assert_eq!((merged.count, merged.sum), (whole.count, whole.sum));
            prop_assert_eq!((merged.min, merged.max, merged.first, merged.last), (whole.min, whole.max, whole.first, whole.last));
            prop_assert_eq!((merged.increase, merged.sum_squares), (whole.increase, whole.sum_squares));
            prop_assert_eq!(merged.sketch, whole.sketch);
        }
    }
}
