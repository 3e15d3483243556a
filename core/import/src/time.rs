//! Timestamps as files have them.

use stele_model::time::parse_rfc3339;

/// The unit of a numeric timestamp.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TimeUnit {
    /// Seconds.
    S,
    /// Milliseconds.
    Ms,
    /// Microseconds.
    Us,
    /// Nanoseconds; what is finer than a µs is cut off.
    Ns,
}

impl TimeUnit {
    /// The unit called `s`, `ms`, `us` or `ns`.
    #[must_use]
    pub fn of_name(name: &str) -> Option<Self> {
        match name {
            "s" => Some(Self::S),
            "ms" => Some(Self::Ms),
            "us" => Some(Self::Us),
            "ns" => Some(Self::Ns),
            _ => None,
        }
    }

    /// The unit in which `number` lies between 1970-04-26 and 2286-11-20: the four ranges of
    /// magnitude do not meet.
    fn of_magnitude(number: i64) -> Option<Self> {
        match number.unsigned_abs() {
            10_000_000..10_000_000_000 => Some(Self::S),
            10_000_000_000..10_000_000_000_000 => Some(Self::Ms),
            10_000_000_000_000..10_000_000_000_000_000 => Some(Self::Us),
            10_000_000_000_000_000.. => Some(Self::Ns),
            _ => None,
        }
    }

    fn to_us(self, number: i64) -> Option<i64> {
        match self {
            Self::S => number.checked_mul(1_000_000),
            Self::Ms => number.checked_mul(1_000),
            Self::Us => Some(number),
            Self::Ns => Some(number.div_euclid(1_000)),
        }
    }
}

/// µs of a number.
pub(crate) fn of_number(number: i64, unit: Option<TimeUnit>) -> Option<i64> {
    unit.or_else(|| TimeUnit::of_magnitude(number))?
        .to_us(number)
}

/// µs of a text: a whole number, RFC 3339, or the same with a space and without a zone (UTC).
pub(crate) fn of_text(text: &str, unit: Option<TimeUnit>) -> Option<i64> {
    let text = text.trim();
    if let Ok(number) = text.parse::<i64>() {
        return of_number(number, unit);
    }
    if let Some(us) = parse_rfc3339(text) {
        return Some(us);
    }
    let (date, rest) = text.split_once([' ', 'T'])?;
    let zoned = rest.ends_with(['Z', 'z']) || rest.contains(['+', '-']);
    let zone = if zoned { "" } else { "Z" };
    parse_rfc3339(&format!("{date}T{rest}{zone}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_told_by_form_and_magnitude() {
        let noon = Some(1_392_388_200_000_000);
        for text in [
            "2014-02-14T14:30:00Z",
            "2014-02-14 14:30:00",
            "2014-02-14 15:30:00+01:00",
            "1392388200",
            "1392388200000",
            "1392388200000000",
            "1392388200000000999",
        ] {
            assert_eq!(of_text(text, None), noon, "{text}");
        }
        assert_eq!(of_text("12", Some(TimeUnit::S)), Some(12_000_000));
        for text in ["12", "", "noon", "2014-02-14", "1e9"] {
            assert_eq!(of_text(text, None), None, "{text}");
        }
    }
}
