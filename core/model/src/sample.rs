//! Samples in columns of rows: the form in which every stage hands them on.

use std::cmp::Ordering;

use crate::digest::Digest;
use crate::merge::merge_order;
use crate::window::{Window, WindowSet};

/// Metric name and tag set; ordered by metric, then tags, both as bytes.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Series {
    /// The metric's name.
    pub metric: String,
    /// Canonical JSON of the tags (see [`crate::tags`]).
    pub tags: String,
}

/// What the sender said of a series' values. Not part of a sample's identity.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
#[repr(u8)]
pub enum Kind {
    /// The protocol does not say (Influx).
    #[default]
    Unknown = 0,
    /// A level that may rise and fall.
    Gauge = 1,
    /// An absolute counter; a lower value starts a new run.
    Counter = 2,
}

impl Kind {
    /// The kind stored as `code`; `None` for a code no version wrote.
    #[must_use]
    pub fn from_code(code: i32) -> Option<Self> {
        match code {
            0 => Some(Self::Unknown),
            1 => Some(Self::Gauge),
            2 => Some(Self::Counter),
            _ => None,
        }
    }
}

/// The summary of a pre-aggregated sample; its `value` is the mean.
#[derive(Debug, Clone, Copy)]
pub struct Summary {
    /// Observations summarised, ≥ 1.
    pub count: i64,
    /// Their sum.
    pub sum: f64,
    /// The least, when the sender knew it.
    pub min: Option<f64>,
    /// The greatest, when the sender knew it.
    pub max: Option<f64>,
    /// The sum of squares, when the sender knew it.
    pub sum_squares: Option<f64>,
}

/// What few samples carry besides a value. Rows refer to it by index, so a plain sample costs
/// nothing and many rows may share one entry.
#[derive(Debug, Clone, Copy, Default)]
pub struct Extra {
    /// What the sender said of the series.
    pub kind: Kind,
    /// Set only by an operator's correction import; `None` ranks as 0.
    pub rank: Option<i32>,
    /// Present on pre-aggregated samples.
    pub summary: Option<Summary>,
}

/// The index that means "no [`Extra`]".
pub const NO_EXTRA: u32 = u32::MAX;

/// One sample of a [`Rows`].
#[derive(Debug, Clone, Copy)]
pub struct Row {
    /// µs since the epoch, UTC.
    pub ts_us: i64,
    /// The value, any bit pattern.
    pub value: f64,
    /// Index into [`Rows::series`].
    pub series: u32,
    /// Index into [`Rows::extras`], or [`NO_EXTRA`].
    pub extra: u32,
}

/// Samples with their own dictionary of series.
///
/// *Canonical* rows have a strictly ascending dictionary in which every entry is used, and rows
/// ascending by (series, ts, merge order). Equal canonical rows of one batch may repeat.
#[derive(Debug, Clone, Default)]
pub struct Rows {
    /// The dictionary of series.
    pub series: Vec<Series>,
    /// One entry per sample.
    pub rows: Vec<Row>,
    /// What few rows carry besides a value.
    pub extras: Vec<Extra>,
}

impl Rows {
    /// The extra of `row`; the default when it has none.
    #[must_use]
    pub fn extra(&self, row: &Row) -> Extra {
        self.extras
            .get(row.extra as usize)
            .copied()
            .unwrap_or_default()
    }

    /// The number of samples.
    #[must_use]
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// Whether there is no sample.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// What the rows take in memory, about.
    #[must_use]
    pub fn memory_bytes(&self) -> u64 {
        let text = self.series.iter();
        let text = text.map(|s| 48 + s.metric.len() + s.tags.len());
        let fixed = size_of_val(self.rows.as_slice()) + size_of_val(self.extras.as_slice());
        (text.sum::<usize>() + fixed) as u64
    }

    /// The least and greatest timestamp; `None` when empty.
    #[must_use]
    pub fn ts_range_us(&self) -> Option<(i64, i64)> {
        self.rows
            .iter()
            .map(|row| row.ts_us)
            .fold(None, |range, ts| match range {
                None => Some((ts, ts)),
                Some((lo, hi)) => Some((ts.min(lo), ts.max(hi))),
            })
    }

    /// The windows that hold at least one sample.
    #[must_use]
    pub fn windows(&self) -> WindowSet {
        let mut set = WindowSet::new();
        let mut last = None;
        for row in &self.rows {
            let window = Window::of(row.ts_us);
            if last != Some(window) {
                set.insert(window);
                last = Some(window);
            }
        }
        set
    }

    /// Brings the rows into canonical form: sorts and merges equal dictionary entries, drops
    /// unused ones, and sorts the rows.
    pub fn canonicalize(&mut self) {
        let mut used = vec![false; self.series.len()];
        for row in &self.rows {
            used[row.series as usize] = true;
        }
        let mut order: Vec<usize> = (0..self.series.len()).filter(|i| used[*i]).collect();
        order.sort_unstable_by(|a, b| self.series[*a].cmp(&self.series[*b]));
        let mut map = vec![0u32; self.series.len()];
        let mut sorted: Vec<Series> = Vec::with_capacity(order.len());
        for index in order {
            if sorted.last() != Some(&self.series[index]) {
                sorted.push(std::mem::take(&mut self.series[index]));
            }
            map[index] = u32::try_from(sorted.len() - 1).unwrap_or(u32::MAX);
        }
        self.series = sorted;
        for row in &mut self.rows {
            row.series = map[row.series as usize];
        }
        let extras = std::mem::take(&mut self.extras);
        self.rows.sort_unstable_by(|a, b| {
            (a.series, a.ts_us).cmp(&(b.series, b.ts_us)).then_with(|| {
                let extra = |row: &Row| extras.get(row.extra as usize).copied().unwrap_or_default();
                merge_order(a.value, &extra(a), b.value, &extra(b))
            })
        });
        self.extras = extras;
    }

    /// The order of two rows of this set by (series, ts, merge order); the dictionary must ascend.
    #[must_use]
    pub fn compare(&self, a: &Row, b: &Row) -> Ordering {
        (a.series, a.ts_us)
            .cmp(&(b.series, b.ts_us))
            .then_with(|| merge_order(a.value, &self.extra(a), b.value, &self.extra(b)))
    }
}

impl Default for Series {
    fn default() -> Self {
        Self {
            metric: String::new(),
            tags: crate::tags::EMPTY.to_owned(),
        }
    }
}

/// The accepted samples of one request: canonical rows and their digest.
#[derive(Debug, Clone)]
pub struct Batch {
    /// The digest of the canonical rows (see `stele-format`); the unit of consumption.
    pub digest: Digest,
    /// Canonical rows, never empty.
    pub rows: Rows,
}
