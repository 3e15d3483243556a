//! Values as `integer / power of ten`, where that is exact to the bit.
//!
//! A double that came from a decimal text of up to 15 digits is the double nearest to m / 10ᵏ,
//! and one IEEE division gives exactly that double, as long as |m| < 2⁵³ and k ≤ 22. Small
//! integers pack far better than doubles, and any reader can evaluate the division.

/// The powers of ten a value may be divided by.
pub(crate) const POWERS: [f64; 16] = [
    1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12, 1e13, 1e14, 1e15,
];
/// Integers below this magnitude are exact doubles.
const EXACT: u64 = 1 << 53;

/// The integer m with `m / 10^k == value` bit for bit.
#[inline]
fn mantissa(value: f64, k: usize) -> Option<i64> {
    // The cast saturates and turns NaN to 0; both fail the comparison of bits.
    #[expect(clippy::cast_possible_truncation, reason = "verified by the bits")]
    let m = if k == 0 {
        value as i64
    } else {
        let scaled = value * POWERS[k];
        (scaled + 0.5f64.copysign(scaled)) as i64
    };
    #[expect(clippy::cast_precision_loss, reason = "verified by the bits")]
    let back = m as f64 / POWERS[k];
    (back.to_bits() == value.to_bits() && m.unsigned_abs() < EXACT).then_some(m)
}

/// The least k, not below `from`, that fits one value.
fn least(value: f64, from: usize) -> Option<usize> {
    (from..POWERS.len())
        .take_while(|k| (value * POWERS[*k]).abs() < EXACT as f64)
        .find(|k| mantissa(value, *k).is_some())
}

/// Finds a k that fits every value and appends the integers to `out`; without one `out` is
/// unchanged.
pub(crate) fn scale(values: &[f64], out: &mut Vec<i64>) -> Option<u8> {
    let start = out.len();
    // The first values tell the number of decimals, mostly; a later one may ask for more.
    let mut k = 0;
    for value in values.iter().take(4) {
        if mantissa(*value, k).is_none() {
            k = least(*value, k)?;
        }
    }
    loop {
        match try_scale(values, k, out) {
            Ok(()) => return u8::try_from(k).ok(),
            Err(value) => {
                out.truncate(start);
                k = least(value, k + 1)?;
            }
        }
    }
}

fn try_scale(values: &[f64], k: usize, out: &mut Vec<i64>) -> Result<(), f64> {
    out.reserve(values.len());
    for value in values {
        out.push(mantissa(*value, k).ok_or(*value)?);
    }
    Ok(())
}

/// The value of an integer in scaled form.
#[inline]
pub(crate) fn unscale(m: i64, power: f64) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "below 2^53")]
    let m = m as f64;
    m / power
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn scaled(values: &[f64]) -> Option<(u8, Vec<i64>)> {
        let mut out = Vec::new();
        scale(values, &mut out).map(|k| (k, out))
    }

    #[test]
    fn integers_and_decimals_scale_and_others_do_not() {
        assert_eq!(scaled(&[1.0, -7.0]), Some((0, vec![1, -7])));
        assert_eq!(scaled(&[0.1, 12.34, 5.0]), Some((2, vec![10, 1234, 500])));
        // 1.1 needs one decimal, the fifth value two.
        assert_eq!(
            scaled(&[1.1, 1.2, 1.3, 1.4, 1.55]),
            Some((2, vec![110, 120, 130, 140, 155]))
        );
        for odd in [-0.0, f64::NAN, f64::INFINITY, 1e300, 0.1 + 0.2, 1.0 / 3.0] {
            assert_eq!(scaled(&[odd]), None, "{odd}");
            assert_eq!(scaled(&[1.0, 2.0, 3.0, 4.0, 5.0, odd]), None, "{odd}");
        }
        assert_eq!(scaled(&[9_007_199_254_740_992.0]), None);
        assert_eq!(scaled(&[9_007_199_254_740_991.0]).map(|s| s.0), Some(0));
    }

    proptest! {
        #[test]
        fn a_scaled_value_is_read_back_to_the_bit(m in -(1i64 << 53)..1 << 53, k in 0usize..16) {
            let value = m as f64 / POWERS[k];
            if let Some((k, m)) = scaled(&[value]) {
                prop_assert_eq!(unscale(m[0], POWERS[k as usize]).to_bits(), value.to_bits());
            }
        }

        #[test]
        fn short_decimals_always_scale(m in -99_999_999i64..99_999_999, k in 0usize..8) {
            let value: f64 = format!("{m}e-{k}").parse().unwrap();
            prop_assert!(scaled(&[value]).is_some());
        }
    }
}
