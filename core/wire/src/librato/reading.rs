//! What an item says of its metric: one value, or the summary of several.

use stele_model::Summary;
use stele_model::merge::value_order;

use super::item::{Item, List, Raw};

/// The most observations one sample may summarise. Millions of such samples still add up within
/// 64 bits.
pub(super) const COUNT_MAX: i64 = 1 << 40;

/// The value of a sample, and its summary when it was pre-aggregated (the value is the mean then).
#[derive(Debug, Clone, Copy)]
pub(super) struct Reading {
    pub value: f64,
    pub summary: Option<Summary>,
}

fn number(raw: Option<&Raw<'_>>, field: &str) -> Result<Option<f64>, String> {
    raw.map(|raw| raw.number(field)).transpose()
}

fn as_f64(count: i64) -> f64 {
    // Below 2^53 when sent; a merged count beyond it is rounded, which moves the mean by one
    // part in 2^53.
    #[expect(clippy::cast_precision_loss, reason = "see above")]
    let count = count as f64;
    count
}

impl Reading {
    /// Reads the figures of `item`; the error says why they make no sample.
    pub(super) fn of(item: &Item<'_>, list: List) -> Result<Self, String> {
        let value = number(item.value.as_ref(), "value")?;
        let parts = [
            ("count", &item.count),
            ("sum", &item.sum),
            ("min", &item.min),
            ("max", &item.max),
            ("sum_squares", &item.sum_squares),
            ("stddev", &item.stddev),
        ];
        let part = parts.iter().find(|(_, raw)| raw.is_some());
        match (value, part) {
            (Some(value), None) => Ok(Self {
                value,
                summary: None,
            }),
            (Some(_), Some((field, _))) => Err(format!("value and {field} exclude each other")),
            (None, None) if list == List::Counters => Err("it has no value".to_owned()),
            (None, None) => Err("it has neither value nor count and sum".to_owned()),
            (None, Some((field, _))) if list == List::Counters => Err(format!(
                "a counter has one absolute value, {field} belongs to gauges"
            )),
            (None, Some(_)) => Self::summarised(item),
        }
    }

    fn summarised(item: &Item<'_>) -> Result<Self, String> {
        let count = item.count.as_ref().ok_or("sum, min and max need a count")?;
        let count = whole(count)?;
        let sum = item.sum.as_ref().ok_or("a count needs a sum")?;
        let sum = sum.number("sum")?;
        let min = number(item.min.as_ref(), "min")?;
        let max = number(item.max.as_ref(), "max")?;
        if let (Some(min), Some(max)) = (min, max)
            && min > max
        {
            return Err(format!("min {min:?} is greater than max {max:?}"));
        }
        let squares = number(item.sum_squares.as_ref(), "sum_squares")?;
        let stddev = number(item.stddev.as_ref(), "stddev")?;
        for (field, figure) in [("sum_squares", squares), ("stddev", stddev)] {
            if let Some(figure) = figure.filter(|figure| *figure < 0.0) {
                return Err(format!("{field} {figure:?} is less than 0"));
            }
        }
        let value = sum / as_f64(count);
        let from_stddev = stddev.map(|s| as_f64(count) * (s * s + value * value));
        let summary = Summary {
            count,
            sum,
            min,
            max,
            sum_squares: squares.or(from_stddev.filter(|squares| squares.is_finite())),
        };
        let summary = Some(summary).filter(|summary| !is_one_observation(summary));
        Ok(Self { value, summary })
    }

    /// All five figures. What the sender did not know is stood in for as in a rollup: an extreme
    /// by the mean, the squares by those of equal observations.
    fn complete(&self) -> Summary {
        let value = self.value;
        let Some(known) = self.summary else {
            return Summary {
                count: 1,
                sum: value,
                min: Some(value),
                max: Some(value),
                sum_squares: Some(value * value),
            };
        };
        Summary {
            min: Some(known.min.unwrap_or(value)),
            max: Some(known.max.unwrap_or(value)),
            sum_squares: Some(known.sum_squares.unwrap_or(known.sum * value)),
            ..known
        }
    }

    /// Both readings as one; `None` when their sum is beyond a double.
    pub(super) fn merge(&self, next: &Self) -> Option<Self> {
        let (a, b) = (self.complete(), next.complete());
        let pick = |a: Option<f64>, b: Option<f64>, least: bool| match (a, b) {
            (Some(a), Some(b)) if value_order(a, b).is_lt() == least => Some(a),
            (_, b) => b,
        };
        let summary = Summary {
            count: a.count.saturating_add(b.count),
            sum: a.sum + b.sum,
            min: pick(a.min, b.min, true),
            max: pick(a.max, b.max, false),
            sum_squares: a.sum_squares.zip(b.sum_squares).map(|(a, b)| a + b),
        };
        let value = summary.sum / as_f64(summary.count);
        let summary = Some(summary).filter(|summary| summary.sum.is_finite())?;
        Some(Self {
            value,
            summary: Some(summary),
        })
    }
}

/// A count: whole, at least 1.
fn whole(raw: &Raw<'_>) -> Result<i64, String> {
    let count = raw.number("count")?;
    if count.fract() != 0.0 || count < 1.0 {
        return Err(format!("count {count:?} is no whole number of at least 1"));
    }
    // Saturates beyond i64.
    #[expect(clippy::cast_possible_truncation, reason = "whole, see above")]
    let count = count as i64;
    if count > COUNT_MAX {
        return Err(format!(
            "count {count} is over the limit of {COUNT_MAX} (count_max)"
        ));
    }
    Ok(count)
}

/// Whether it says no more than its one value does.
fn is_one_observation(summary: &Summary) -> bool {
    let same =
        |figure: Option<f64>, value: f64| figure.is_none_or(|f| f.to_bits() == value.to_bits());
    let value = summary.sum;
    summary.count == 1
        && same(summary.min, value)
        && same(summary.max, value)
        && same(summary.sum_squares, value * value)
}
