//! Which tag has the most distinct values among a tenant's new series.

use std::collections::BTreeMap;
use std::hash::BuildHasher;

use stele_model::time::HOUR_US;
use stele_model::{Rows, tags};

use super::MostDistinct;
use super::series::Asked;

/// Tag names that are counted; those seen later are not.
const NAMES_MAX: usize = 64;

const REGISTERS: usize = 256;

/// Up to this many values are counted one by one.
const FEW_MAX: usize = 32;

/// Distinct values of every tag of new series, counted anew after a series' time of activity.
#[derive(Debug)]
pub(super) struct Explosion {
    metric: Distinct,
    tags: BTreeMap<String, Distinct>,
    since_us: i64,
}

impl Explosion {
    pub(super) fn new(now_us: i64) -> Self {
        Self {
            metric: Distinct::default(),
            tags: BTreeMap::new(),
            since_us: now_us,
        }
    }

    pub(super) fn observe(
        &mut self,
        rows: &Rows,
        asked: &Asked,
        hasher: &impl BuildHasher,
        hours: u32,
        now_us: i64,
    ) {
        let period_us = i64::from(hours).saturating_mul(HOUR_US);
        if !(0..=period_us).contains(&now_us.saturating_sub(self.since_us)) {
            *self = Self::new(now_us);
        }
        for index in asked.new_series() {
            let series = &rows.series[index];
            self.metric.insert(hasher.hash_one(&series.metric));
            for (name, value) in tags::iter(&series.tags) {
                let hash = hasher.hash_one(value.as_ref());
                if let Some(distinct) = self.tags.get_mut(name.as_ref()) {
                    distinct.insert(hash);
                } else if self.tags.len() < NAMES_MAX {
                    let distinct = self.tags.entry(name.into_owned()).or_default();
                    distinct.insert(hash);
                }
            }
        }
    }

    /// The first name of those with the most values; the metric name only when no tag has as many.
    pub(super) fn most(&self) -> MostDistinct {
        let mut most = MostDistinct {
            tag: None,
            values: 0,
        };
        for (name, distinct) in &self.tags {
            let values = distinct.estimate();
            if values > most.values {
                most = MostDistinct {
                    tag: Some(name.clone()),
                    values,
                };
            }
        }
        let values = self.metric.estimate();
        if values > most.values {
            most = MostDistinct { tag: None, values };
        }
        most
    }
}

/// Exact for a few values; beyond them a HyperLogLog of 256 registers with a standard error of
/// 6.5 % (Flajolet, Fusy, Gandouet, Meunier: "HyperLogLog", 2007, figure 3).
#[derive(Debug)]
struct Distinct {
    /// The first hashes, at most [`FEW_MAX`].
    few: Vec<u64>,
    registers: Box<[u8; REGISTERS]>,
}

impl Default for Distinct {
    fn default() -> Self {
        Self {
            few: Vec::new(),
            registers: Box::new([0; REGISTERS]),
        }
    }
}

impl Distinct {
    fn insert(&mut self, hash: u64) {
        if self.few.len() < FEW_MAX && !self.few.contains(&hash) {
            self.few.push(hash);
        }
        let register = (hash >> 56) as usize;
        // The bit below the shifted hash bounds the rank.
        let rank = ((hash << 8) | (1 << 7)).leading_zeros() + 1;
        let rank = u8::try_from(rank).unwrap_or(u8::MAX);
        self.registers[register] = self.registers[register].max(rank);
    }

    fn estimate(&self) -> u64 {
        if self.few.len() < FEW_MAX {
            return self.few.len() as u64;
        }
        let m = REGISTERS as f64;
        let powers = self
            .registers
            .iter()
            .map(|rank| 0.5f64.powi(i32::from(*rank)));
        let raw = 0.7213 / (1.0 + 1.079 / m) * m * m / powers.sum::<f64>();
        let empty = self.registers.iter().filter(|rank| **rank == 0).count();
        let estimate = if raw <= 2.5 * m && empty > 0 {
            m * (m / empty as f64).ln()
        } else {
            raw
        };
        estimate.round() as u64
    }
}

#[cfg(test)]
mod tests {
    use std::hash::{BuildHasherDefault, DefaultHasher};

    use super::*;

    #[test]
    fn an_estimate_is_within_four_standard_errors() {
        // A hasher without a random key: the same numbers in every run.
        let hasher = BuildHasherDefault::<DefaultHasher>::default();
        for n in [1_u64, 10, 100, 500, 1_000, 10_000, 300_000] {
            let mut distinct = Distinct::default();
            for value in 0..n {
                distinct.insert(hasher.hash_one(value));
                distinct.insert(hasher.hash_one(value));
            }
            let (estimate, n) = (distinct.estimate() as f64, n as f64);
            assert!((estimate - n).abs() <= 0.26 * n, "{estimate} of {n}");
        }
        let mut few = Distinct::default();
        (0..31).for_each(|value| few.insert(hasher.hash_one(value)));
        assert_eq!((few.estimate(), Distinct::default().estimate()), (31, 0));
    }
}
