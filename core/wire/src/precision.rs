//! The unit of a line's timestamp, as the `precision` parameter of a write names it.

use std::fmt;
use std::str::FromStr;

use stele_model::time::{HOUR_US, MINUTE_US, SECOND_US};

use crate::Error;

/// The unit of the timestamps of one request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Precision {
    /// Nanoseconds, the default of every Influx API; floored to the µs.
    #[default]
    Nanoseconds,
    /// Microseconds.
    Microseconds,
    /// Milliseconds.
    Milliseconds,
    /// Seconds.
    Seconds,
    /// Minutes.
    Minutes,
    /// Hours.
    Hours,
}

impl Precision {
    /// All units, finest first.
    pub const ALL: [Self; 6] = [
        Self::Nanoseconds,
        Self::Microseconds,
        Self::Milliseconds,
        Self::Seconds,
        Self::Minutes,
        Self::Hours,
    ];

    /// `raw` of this unit in µs since the epoch; `None` when an `i64` cannot hold it.
    #[must_use]
    pub fn to_us(self, raw: i64) -> Option<i64> {
        let factor = match self {
            Self::Nanoseconds => return Some(raw.div_euclid(1_000)),
            Self::Microseconds => 1,
            Self::Milliseconds => 1_000,
            Self::Seconds => SECOND_US,
            Self::Minutes => MINUTE_US,
            Self::Hours => HOUR_US,
        };
        raw.checked_mul(factor)
    }

    /// The value of the `precision` parameter.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Nanoseconds => "ns",
            Self::Microseconds => "us",
            Self::Milliseconds => "ms",
            Self::Seconds => "s",
            Self::Minutes => "m",
            Self::Hours => "h",
        }
    }
}

impl fmt::Display for Precision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Precision {
    type Err = Error;

    /// Takes both the 1.x (`n`, `u`, `m`, `h`) and the 2.x names (`ns`, `us`).
    fn from_str(text: &str) -> Result<Self, Error> {
        match text {
            "n" | "ns" => Ok(Self::Nanoseconds),
            "u" | "us" | "µ" => Ok(Self::Microseconds),
            "ms" => Ok(Self::Milliseconds),
            "s" => Ok(Self::Seconds),
            "m" => Ok(Self::Minutes),
            "h" => Ok(Self::Hours),
            _ => Err(Error::Precision {
                value: text.chars().take(20).collect(),
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_unit_reads_back_from_its_name() {
        for unit in Precision::ALL {
            assert_eq!(unit.as_str().parse::<Precision>().unwrap(), unit);
        }
        assert!("fortnight".parse::<Precision>().is_err());
    }

    #[test]
    fn nanoseconds_floor_also_before_the_epoch() {
        assert_eq!(Precision::Nanoseconds.to_us(1_999), Some(1));
        assert_eq!(Precision::Nanoseconds.to_us(-1), Some(-1));
        assert_eq!(Precision::Hours.to_us(i64::MAX), None);
        assert_eq!(Precision::Hours.to_us(2), Some(2 * HOUR_US));
    }
}
