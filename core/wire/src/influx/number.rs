//! Field values: numbers and booleans of line protocol.

use crate::check::Quoted;

/// Why one field is refused while its neighbours are kept.
#[derive(Debug, Clone, Copy, thiserror::Error)]
pub(super) enum ValueFault<'a> {
    #[error("{} is no number, 12i, 12u, true or false", Quoted(.0))]
    NotANumber(&'a [u8]),
    #[error("{} is over the range of a 64-bit integer", Quoted(.0))]
    IntegerRange(&'a [u8]),
    #[error("{} is over the range of a 64-bit float", Quoted(.0))]
    FloatRange(&'a [u8]),
}

/// Powers of ten that a double holds exactly.
const POW10: [f64; 23] = [
    1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12, 1e13, 1e14, 1e15, 1e16,
    1e17, 1e18, 1e19, 1e20, 1e21, 1e22,
];

/// Whether `byte` ends a field value.
#[inline]
pub(super) fn ends_value(byte: u8) -> bool {
    matches!(byte, b',' | b' ' | b'\n' | b'\r')
}

/// Reads the value at the start of `text`: its number and length. `text` is not empty.
///
/// # Errors
/// The fault and the length of the refused token.
#[inline]
pub(super) fn value(text: &[u8]) -> Result<(f64, usize), (ValueFault<'_>, usize)> {
    if let Some(found) = plain_number(text) {
        return Ok(found);
    }
    let len = text
        .iter()
        .position(|b| ends_value(*b))
        .unwrap_or(text.len());
    match token(&text[..len]) {
        Ok(value) => Ok((value, len)),
        Err(fault) => Err((fault, len)),
    }
}

/// The fast path: up to 18 digits with at most one point, perhaps a sign and a type letter, whose
/// nearest double needs one exact conversion or one correctly rounded division.
#[inline]
fn plain_number(text: &[u8]) -> Option<(f64, usize)> {
    let negative = text[0] == b'-';
    let start = usize::from(negative);
    let mut at = start;
    let mut mantissa: u64 = 0;
    let mut point = None;
    while let Some(&byte) = text.get(at) {
        let digit = byte.wrapping_sub(b'0');
        if digit < 10 {
            mantissa = mantissa.wrapping_mul(10).wrapping_add(u64::from(digit));
        } else if byte == b'.' && point.is_none() {
            point = Some(at);
        } else {
            break;
        }
        at += 1;
    }
    let digits = at - start - usize::from(point.is_some());
    if digits == 0 || digits > 18 {
        return None;
    }
    let letter = text.get(at).copied().unwrap_or(b'\n');
    // An integer's zero has no sign; a float's has.
    let value = match (letter, point) {
        (b'i', None) if negative && mantissa != 0 => {
            return ended(text, at + 1, -(mantissa as f64));
        }
        (b'i', None) => return ended(text, at + 1, mantissa as f64),
        (b'u', None) if !negative => return ended(text, at + 1, mantissa as f64),
        _ if mantissa >= 1 << 53 => return None,
        (_, None) => mantissa as f64,
        (_, Some(point)) => mantissa as f64 / POW10.get(at - point - 1)?,
    };
    ended(text, at, if negative { -value } else { value })
}

#[inline]
fn ended(text: &[u8], at: usize, value: f64) -> Option<(f64, usize)> {
    let clean = text.get(at).is_none_or(|b| ends_value(*b));
    clean.then_some((value, at))
}

/// Any other token, whole.
fn token(token: &[u8]) -> Result<f64, ValueFault<'_>> {
    match token {
        b"t" | b"T" | b"true" | b"True" | b"TRUE" => return Ok(1.0),
        b"f" | b"F" | b"false" | b"False" | b"FALSE" => return Ok(0.0),
        _ => {}
    }
    let text = std::str::from_utf8(token).map_err(|_| ValueFault::NotANumber(token))?;
    let unsigned = text.strip_prefix(['-', '+']).unwrap_or(text);
    let all_digits = |s: &str| !s.is_empty() && s.bytes().all(|b| b.is_ascii_digit());
    if let Some(digits) = unsigned.strip_suffix('i').filter(|d| all_digits(d)) {
        let signed = &text[..text.len() - 1];
        debug_assert!(signed.ends_with(digits));
        let n: i64 = signed
            .parse()
            .map_err(|_| ValueFault::IntegerRange(token))?;
        return Ok(n as f64);
    }
    if text.strip_suffix('u').is_some_and(all_digits) {
        let n: u64 = text[..text.len() - 1]
            .parse()
            .map_err(|_| ValueFault::IntegerRange(token))?;
        return Ok(n as f64);
    }
    // Rust also reads "inf", "nan" and "infinity"; line protocol has no such numbers.
    let numeric = |b: u8| b.is_ascii_digit() || matches!(b, b'.' | b'e' | b'E' | b'-' | b'+');
    if !text.bytes().all(numeric) {
        return Err(ValueFault::NotANumber(token));
    }
    let value: f64 = text.parse().map_err(|_| ValueFault::NotANumber(token))?;
    if value.is_infinite() {
        return Err(ValueFault::FloatRange(token));
    }
    Ok(value)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(text: &str) -> Option<f64> {
        value(text.as_bytes()).ok().map(|(value, len)| {
            assert_eq!(len, text.len(), "{text}");
            value
        })
    }

    #[test]
    fn integers_floats_and_booleans_are_numbers() {
        for (text, want) in [
            ("12i", 12.0),
            ("-12i", -12.0),
            ("12u", 12.0),
            ("9223372036854775807i", 9_223_372_036_854_775_807_i64 as f64),
            ("-9223372036854775808i", -9_223_372_036_854_775_808.0),
            ("18446744073709551615u", u64::MAX as f64),
            ("9007199254740993i", 9_007_199_254_740_992.0),
            ("1e-3", 0.001),
            ("-1.5E+3", -1500.0),
            (".5", 0.5),
            ("5.", 5.0),
            ("+5", 5.0),
            ("t", 1.0),
            ("TRUE", 1.0),
            ("False", 0.0),
        ] {
            assert_eq!(read(text).map(f64::to_bits), Some(want.to_bits()), "{text}");
        }
        assert_eq!(read("-0").unwrap().to_bits(), (-0.0f64).to_bits());
        assert_eq!(read("-0i").unwrap().to_bits(), 0);
    }

    #[test]
    fn other_tokens_are_refused_by_name() {
        for text in [
            "nan",
            "NaN",
            "inf",
            "-Inf",
            "12x",
            "1.2.3",
            "--1",
            "1e",
            "e5",
            "-",
            ".",
            "0x1f",
            "-1u",
            "1.5i",
            "tru",
            "i",
            "9223372036854775808i",
            "18446744073709551616u",
            "1e999",
            "12ii",
        ] {
            let fault = value(text.as_bytes()).unwrap_err().0.to_string();
            assert!(fault.contains(text), "{text}: {fault}");
        }
    }

    proptest! {
        #[test]
        fn decimals_are_the_nearest_double(text in "-?[0-9]{1,21}(\\.[0-9]{0,24})?([eE][-+]?[0-9]{1,2})?") {
            let want: f64 = text.parse().unwrap();
            prop_assert_eq!(read(&text).map(f64::to_bits), Some(want.to_bits()));
        }

        #[test]
        fn every_finite_double_reads_back(bits in any::<u64>()) {
            let want = f64::from_bits(bits);
            prop_assume!(want.is_finite());
            for text in [format!("{want}"), format!("{want:e}")] {
                prop_assert_eq!(read(&text).map(f64::to_bits), Some(want.to_bits()));
            }
        }

        #[test]
        fn every_integer_reads_as_its_nearest_double(n in any::<i64>(), m in any::<u64>()) {
            let (signed, unsigned) = (format!("{n}i"), format!("{m}u"));
            prop_assert_eq!(read(&signed), Some(n as f64));
            prop_assert_eq!(read(&unsigned), Some(m as f64));
        }
    }
}
