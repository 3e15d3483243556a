//! Which of two values at one (series, ts) is kept.
//!
//! The order is total on the content of a sample, so the merge (keep the greatest) is
//! commutative, associative and idempotent: the result never depends on arrival, listing or file
//! order. Absorb, seal, consolidate and query all use this function.

use std::cmp::Ordering;

use crate::sample::{Extra, Summary};

/// IEEE total order with every NaN below every number, NaNs ordered by their bits.
#[must_use]
pub fn value_order(a: f64, b: f64) -> Ordering {
    match (a.is_nan(), b.is_nan()) {
        (true, true) => a.to_bits().cmp(&b.to_bits()),
        (true, false) => Ordering::Less,
        (false, true) => Ordering::Greater,
        (false, false) => a.total_cmp(&b),
    }
}

/// Orders two samples of one (series, ts): by rank (none = 0), count (none = 1), value, then the
/// remaining columns bitwise. The greater is kept; `Equal` means the same sample.
#[must_use]
pub fn merge_order(a_value: f64, a: &Extra, b_value: f64, b: &Extra) -> Ordering {
    let count = |e: &Extra| e.summary.map_or(1, |s| s.count);
    (a.rank.unwrap_or(0), count(a))
        .cmp(&(b.rank.unwrap_or(0), count(b)))
        .then_with(|| value_order(a_value, b_value))
        .then_with(|| remaining(a).cmp(&remaining(b)))
}

type Remaining = (Option<i32>, u8, Option<(u64, [Option<u64>; 3])>);

fn remaining(extra: &Extra) -> Remaining {
    let bits = |s: Summary| {
        let optional = [s.min, s.max, s.sum_squares].map(|v| v.map(f64::to_bits));
        (s.sum.to_bits(), optional)
    };
    (extra.rank, extra.kind as u8, extra.summary.map(bits))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::sample::Kind;

    fn any_extra() -> impl Strategy<Value = Extra> {
        let summary =
            (1i64..3, any::<f64>(), any::<Option<f64>>()).prop_map(|(count, sum, min)| Summary {
                count,
                sum,
                min,
                max: min,
                sum_squares: None,
            });
        (
            proptest::option::of(-1i32..2),
            proptest::option::of(summary),
            0i32..3,
        )
            .prop_map(|(rank, summary, kind)| Extra {
                kind: Kind::from_code(kind).expect("0..3"),
                rank,
                summary,
            })
    }

    fn any_value() -> impl Strategy<Value = f64> {
        prop_oneof![
            any::<u64>().prop_map(f64::from_bits),
            (-2i32..3).prop_map(f64::from),
            Just(-0.0)
        ]
    }

    proptest! {
        #[test]
        fn the_order_is_total((a, x) in (any_value(), any_extra()), (b, y) in (any_value(), any_extra()),
                              (c, z) in (any_value(), any_extra())) {
            let ab = merge_order(a, &x, b, &y);
            prop_assert_eq!(ab, merge_order(b, &y, a, &x).reverse());
            if ab != Ordering::Greater && merge_order(b, &y, c, &z) != Ordering::Greater {
                prop_assert_ne!(merge_order(a, &x, c, &z), Ordering::Greater);
            }
            if ab == Ordering::Equal {
                prop_assert_eq!(a.to_bits(), b.to_bits());
            }
        }
    }

    #[test]
    fn every_nan_is_below_every_number_and_zeroes_differ() {
        assert_eq!(value_order(f64::NAN, f64::NEG_INFINITY), Ordering::Less);
        assert_eq!(value_order(-0.0, 0.0), Ordering::Less);
        assert_eq!(value_order(f64::INFINITY, -f64::NAN), Ordering::Greater);
    }

    #[test]
    fn rank_beats_count_beats_value() {
        let summary = Summary {
            count: 2,
            sum: 1.0,
            min: None,
            max: None,
            sum_squares: None,
        };
        let ranked = Extra {
            rank: Some(1),
            ..Extra::default()
        };
        let counted = Extra {
            summary: Some(summary),
            ..Extra::default()
        };
        assert_eq!(merge_order(0.0, &ranked, 9.0, &counted), Ordering::Greater);
        assert_eq!(
            merge_order(0.0, &counted, 9.0, &Extra::default()),
            Ordering::Greater
        );
    }
}
