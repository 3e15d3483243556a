//! One gauge, counter or measurement as it was sent: texts that nothing was checked of yet.

use std::borrow::Cow;

use serde::de::{Deserialize, Deserializer};
use serde_json::value::RawValue;
use stele_model::time::SECOND_US;

use crate::check::{Quoted, TimeRange};
use crate::pairs::Text;

/// Where an item stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum List {
    Gauges,
    Counters,
    Measurements,
}

impl List {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Gauges => "gauges",
            Self::Counters => "counters",
            Self::Measurements => "measurements",
        }
    }
}

/// A value as sent.
#[derive(Debug)]
pub(super) enum Raw<'a> {
    /// JSON text of one value, valid and not `null`.
    Json(&'a str),
    /// A form's value.
    Text(Cow<'a, str>),
}

impl<'de: 'a, 'a> Deserialize<'de> for Raw<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        <&'a RawValue>::deserialize(deserializer).map(|raw| Self::Json(raw.get()))
    }
}

impl Raw<'_> {
    /// As the sender wrote it.
    pub(super) fn as_sent(&self) -> &str {
        match self {
            Self::Json(json) => json,
            Self::Text(text) => text,
        }
    }

    /// The text it is; `None` when it is none.
    pub(super) fn text(&self) -> Option<Cow<'_, str>> {
        match self {
            Self::Json(json) => serde_json::from_str::<Text<'_>>(json).ok().map(|t| t.0),
            Self::Text(text) => Some(Cow::Borrowed(text)),
        }
    }

    /// The digits of the number it is, or holds as text.
    fn digits(&self) -> Cow<'_, str> {
        match self {
            Self::Json(json) if json.starts_with('"') => self.text().unwrap_or_default(),
            Self::Json(json) => Cow::Borrowed(json),
            Self::Text(text) => Cow::Borrowed(text),
        }
    }

    /// The nearest double of the number it is; the inner error says why it is none.
    pub(super) fn number(&self, field: &str) -> Result<f64, String> {
        let digits = self.digits();
        let plain = digits
            .bytes()
            .all(|b| b.is_ascii_digit() || b"+-.eE".contains(&b));
        let number = digits.parse::<f64>().ok().filter(|_| plain);
        let shown = Quoted(digits.as_bytes());
        match number {
            Some(number) if number.is_finite() => Ok(number),
            Some(_) => Err(format!("{field} {shown} is beyond a double")),
            None => Err(format!("{field} {shown} is no number")),
        }
    }

    /// The instant it is in seconds since the epoch, as µs within `range`.
    pub(super) fn instant(&self, range: TimeRange) -> Result<i64, String> {
        let digits = self.digits();
        if let Ok(seconds) = digits.parse::<i64>() {
            let ts_us = seconds.checked_mul(SECOND_US);
            return match ts_us.filter(|ts| range.contains(*ts)) {
                Some(ts_us) => Ok(ts_us),
                None => Err(out_of_range(seconds, ts_us, range)),
            };
        }
        let seconds = self.number("time")?;
        // A double beyond the range of i64 becomes its end, which no range holds.
        #[expect(clippy::cast_possible_truncation, reason = "saturates, see above")]
        let ts_us = (seconds * 1e6).round() as i64;
        if range.contains(ts_us) {
            Ok(ts_us)
        } else {
            Err(range.reason(ts_us))
        }
    }
}

/// Why a time of whole seconds is refused, with the unit the sender probably meant.
fn out_of_range(sent: i64, ts_us: Option<i64>, range: TimeRange) -> String {
    let reason = ts_us.map_or_else(
        || format!("time {sent} is over 64 bits of µs"),
        |ts_us| range.reason(ts_us),
    );
    let units = [(1_000, 1, "ms"), (1, 1, "µs"), (1, 1_000, "ns")];
    let meant = units.iter().find(|(times, per, _)| {
        let meant = sent.checked_mul(*times).map(|n| n.div_euclid(*per));
        meant.is_some_and(|ts_us| range.contains(ts_us))
    });
    match meant {
        Some((_, _, unit)) => format!("{reason}: times are in seconds, is this {unit}?"),
        None => reason,
    }
}

/// One item; keys that are not here are ignored.
#[derive(Debug, Default, serde::Deserialize)]
pub(super) struct Item<'a> {
    #[serde(borrow)]
    pub name: Option<Raw<'a>>,
    #[serde(borrow)]
    pub value: Option<Raw<'a>>,
    #[serde(borrow, alias = "measure_time")]
    pub time: Option<Raw<'a>>,
    #[serde(borrow)]
    pub source: Option<Raw<'a>>,
    #[serde(borrow)]
    pub tags: Option<Raw<'a>>,
    #[serde(borrow)]
    pub count: Option<Raw<'a>>,
    #[serde(borrow)]
    pub sum: Option<Raw<'a>>,
    #[serde(borrow)]
    pub min: Option<Raw<'a>>,
    #[serde(borrow)]
    pub max: Option<Raw<'a>>,
    #[serde(borrow)]
    pub sum_squares: Option<Raw<'a>>,
    #[serde(borrow)]
    pub stddev: Option<Raw<'a>>,
}

impl<'a> Item<'a> {
    /// The place of `field`; `None` when it is ignored.
    pub(super) fn slot(&mut self, field: &str) -> Option<&mut Option<Raw<'a>>> {
        Some(match field {
            "name" => &mut self.name,
            "value" => &mut self.value,
            "time" | "measure_time" => &mut self.time,
            "source" => &mut self.source,
            "tags" => &mut self.tags,
            "count" => &mut self.count,
            "sum" => &mut self.sum,
            "min" => &mut self.min,
            "max" => &mut self.max,
            "sum_squares" => &mut self.sum_squares,
            "stddev" => &mut self.stddev,
            _ => return None,
        })
    }
}
