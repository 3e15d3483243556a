//! Windows (hours), days and months as small integers, and sets of windows.
//!
//! A window is one epoch-aligned hour, the unit of sealing. A day is the period of raw, open,
//! 60 s and 15 min files; a month is the period of 60 min files.

use std::collections::BTreeMap;
use std::fmt;

use chrono::{DateTime, Datelike, Months, NaiveDate};
use serde::{Deserialize, Serialize};

use crate::time::{DAY_US, HOUR_US};

/// One epoch-aligned hour: hours since the epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Window(pub i32);

/// One UTC day: days since the epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Day(pub i32);

/// One UTC month: months since January of year 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Month(pub i32);

/// Hours of any accepted timestamp fit an `i32`; others saturate.
fn narrow(n: i64) -> i32 {
    i32::try_from(n).unwrap_or(if n < 0 { i32::MIN } else { i32::MAX })
}

impl Window {
    /// The last window that samples are kept of, the last hour of the year 2199. The first is 0:
    /// a listed name or a log entry that claims others is damaged, and must not be made a set.
    pub const LAST: Self = Self(2_016_143);

    /// Whether samples of it may be stored.
    #[must_use]
    pub fn is_storable(self) -> bool {
        (0..=Self::LAST.0).contains(&self.0)
    }

    /// The window that holds `ts_us`.
    #[must_use]
    pub fn of(ts_us: i64) -> Self {
        Self(narrow(ts_us.div_euclid(HOUR_US)))
    }

    /// The first µs of the window.
    #[must_use]
    pub fn start_us(self) -> i64 {
        i64::from(self.0) * HOUR_US
    }

    /// The first µs after the window.
    #[must_use]
    pub fn end_us(self) -> i64 {
        self.start_us() + HOUR_US
    }

    /// The UTC day the window lies in.
    #[must_use]
    pub fn day(self) -> Day {
        Day(self.0.div_euclid(24))
    }
}

impl Day {
    /// The day that holds `ts_us`.
    #[must_use]
    pub fn of(ts_us: i64) -> Self {
        Self(narrow(ts_us.div_euclid(DAY_US)))
    }

    /// The first µs of the day.
    #[must_use]
    pub fn start_us(self) -> i64 {
        i64::from(self.0) * DAY_US
    }

    /// The first µs after the day.
    #[must_use]
    pub fn end_us(self) -> i64 {
        self.start_us() + DAY_US
    }

    /// The 24 windows of the day, in order.
    pub fn windows(self) -> impl Iterator<Item = Window> {
        (self.0 * 24..self.0 * 24 + 24).map(Window)
    }

    /// The month the day lies in.
    #[must_use]
    pub fn month(self) -> Month {
        Month::of(self.start_us())
    }

    /// The value of the `period` partition column, `YYYY-MM-DD`.
    #[must_use]
    pub fn period(self) -> String {
        date(self.start_us()).to_string()
    }

    /// The day of a `YYYY-MM-DD` text.
    #[must_use]
    pub fn parse(period: &str) -> Option<Self> {
        let start = period
            .parse::<NaiveDate>()
            .ok()?
            .and_hms_opt(0, 0, 0)?
            .and_utc();
        Some(Self::of(start.timestamp_micros()))
    }
}

impl Month {
    /// The month that holds `ts_us`.
    #[must_use]
    pub fn of(ts_us: i64) -> Self {
        let date = date(ts_us);
        Self(date.year() * 12 + date.month0().cast_signed())
    }

    /// The first µs of the month.
    #[must_use]
    pub fn start_us(self) -> i64 {
        self.first_day()
            .and_time(chrono::NaiveTime::MIN)
            .and_utc()
            .timestamp_micros()
    }

    /// The first µs after the month.
    #[must_use]
    pub fn end_us(self) -> i64 {
        Self(self.0 + 1).start_us()
    }

    /// The value of the `period` partition column, `YYYY-MM`.
    #[must_use]
    pub fn period(self) -> String {
        self.first_day().format("%Y-%m").to_string()
    }

    /// The month of a `YYYY-MM` text.
    #[must_use]
    pub fn parse(period: &str) -> Option<Self> {
        let date = format!("{period}-01").parse::<NaiveDate>().ok()?;
        Some(Self(date.year() * 12 + date.month0().cast_signed()))
    }

    fn first_day(self) -> NaiveDate {
        let year = NaiveDate::from_ymd_opt(self.0.div_euclid(12), 1, 1).unwrap_or_default();
        let months = Months::new(self.0.rem_euclid(12).unsigned_abs());
        year.checked_add_months(months).unwrap_or_default()
    }
}

fn date(ts_us: i64) -> NaiveDate {
    DateTime::from_timestamp_micros(ts_us).map_or(NaiveDate::MIN, |t| t.date_naive())
}

/// A set of windows, stored as one 24-bit mask per day.
#[derive(Clone, PartialEq, Eq, Default, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct WindowSet(BTreeMap<Day, u32>);

impl WindowSet {
    /// The empty set.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Every window from `first` to `last`, both included; empty when `last < first`.
    #[must_use]
    pub fn range(first: Window, last: Window) -> Self {
        let mut set = Self::new();
        let mut at = first;
        while at <= last {
            let day = at.day();
            let end = Window(last.0.min(day.0 * 24 + 23));
            let (lo, hi) = (at.0 - day.0 * 24, end.0 - day.0 * 24);
            let mask = (u32::MAX >> (31 - (hi - lo))) << lo;
            *set.0.entry(day).or_default() |= mask;
            at = Window(end.0 + 1);
        }
        set
    }

    /// Adds one window.
    pub fn insert(&mut self, window: Window) {
        let day = window.day();
        *self.0.entry(day).or_default() |= 1 << (window.0 - day.0 * 24);
    }

    /// Whether the set holds `window`.
    #[must_use]
    pub fn contains(&self, window: Window) -> bool {
        let day = window.day();
        self.0
            .get(&day)
            .is_some_and(|mask| mask & (1 << (window.0 - day.0 * 24)) != 0)
    }

    /// Adds every window of `other`.
    pub fn extend(&mut self, other: &Self) {
        for (day, mask) in &other.0 {
            *self.0.entry(*day).or_default() |= mask;
        }
    }

    /// The windows that both sets hold.
    #[must_use]
    pub fn intersection(&self, other: &Self) -> Self {
        let both = self.0.iter().filter_map(|(day, mask)| {
            let mask = mask & other.0.get(day)?;
            (mask != 0).then_some((*day, mask))
        });
        Self(both.collect())
    }

    /// The windows of this set that `other` does not hold.
    #[must_use]
    pub fn difference(&self, other: &Self) -> Self {
        let rest = self.0.iter().filter_map(|(day, mask)| {
            let mask = mask & !other.0.get(day).unwrap_or(&0);
            (mask != 0).then_some((*day, mask))
        });
        Self(rest.collect())
    }

    /// Whether any window is in both sets.
    #[must_use]
    pub fn intersects(&self, other: &Self) -> bool {
        self.0
            .iter()
            .any(|(day, mask)| other.0.get(day).is_some_and(|m| m & mask != 0))
    }

    /// Whether no window is in the set.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.values().all(|mask| *mask == 0)
    }

    /// The number of windows.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.values().map(|mask| mask.count_ones() as usize).sum()
    }

    /// The windows in order.
    pub fn iter(&self) -> impl Iterator<Item = Window> {
        self.0.iter().flat_map(|(day, mask)| {
            (0..24)
                .filter(move |hour| mask & (1 << hour) != 0)
                .map(|hour| Window(day.0 * 24 + hour))
        })
    }

    /// The days that hold at least one window, in order.
    pub fn days(&self) -> impl Iterator<Item = Day> {
        self.0
            .iter()
            .filter(|(_, mask)| **mask != 0)
            .map(|(day, _)| *day)
    }

    /// The part of the set that lies in one day.
    #[must_use]
    pub fn of_day(&self, day: Day) -> Self {
        Self(
            self.0
                .get(&day)
                .map(|mask| (day, *mask))
                .into_iter()
                .collect(),
        )
    }

    /// Maximal runs of adjacent windows as half-open µs ranges `[start, end)`, in order.
    #[must_use]
    pub fn ranges_us(&self) -> Vec<(i64, i64)> {
        let mut ranges: Vec<(i64, i64)> = Vec::new();
        for window in self.iter() {
            match ranges.last_mut() {
                Some(last) if last.1 == window.start_us() => last.1 = window.end_us(),
                _ => ranges.push((window.start_us(), window.end_us())),
            }
        }
        ranges
    }
}

impl FromIterator<Window> for WindowSet {
    fn from_iter<I: IntoIterator<Item = Window>>(windows: I) -> Self {
        let mut set = Self::new();
        windows.into_iter().for_each(|window| set.insert(window));
        set
    }
}

impl fmt::Debug for WindowSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.iter().map(|w| w.0)).finish()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn periods_are_dates_and_months() {
        let ts = crate::time::parse_rfc3339("2026-11-22T23:59:59.999999Z").expect("valid");
        assert_eq!(Day::of(ts).period(), "2026-11-22");
        assert_eq!(Month::of(ts).period(), "2026-11");
        assert_eq!(Day::parse("2026-11-22"), Some(Day::of(ts)));
        assert_eq!(Month::parse("2026-11"), Some(Month::of(ts)));
        assert_eq!(Window::of(ts).end_us(), ts + 1);
        assert_eq!(
            Month::of(ts).end_us(),
            Month::parse("2026-12").expect("valid").start_us()
        );
    }

    #[test]
    fn the_last_window_ends_with_its_century() {
        let end = crate::time::parse_rfc3339("2200-01-01T00:00:00Z").expect("valid");
        assert_eq!(Window::LAST.end_us(), end);
        let storable = |ts_us| Window::of(ts_us).is_storable();
        assert!(storable(end - 1) && storable(0));
        assert!(!storable(end) && !storable(-1) && !storable(i64::MAX));
    }

    #[test]
    fn windows_before_the_epoch_floor() {
        assert_eq!(Window::of(-1), Window(-1));
        assert_eq!(Day::of(-1), Day(-1));
        assert_eq!(Window(-1).day(), Day(-1));
    }

    proptest! {
        #[test]
        fn a_window_set_behaves_like_a_set(a in proptest::collection::btree_set(0i32..200, 0..40),
                                           b in proptest::collection::btree_set(0i32..200, 0..40)) {
            let set = |s: &std::collections::BTreeSet<i32>| s.iter().map(|w| Window(*w)).collect::<WindowSet>();
            let (x, y) = (set(&a), set(&b));
            prop_assert_eq!(x.len(), a.len());
            let minus: Vec<_> = x.difference(&y).iter().map(|w| w.0).collect();
            prop_assert_eq!(minus, a.difference(&b).copied().collect::<Vec<_>>());
            let both: Vec<_> = x.intersection(&y).iter().map(|w| w.0).collect();
            prop_assert_eq!(both, a.intersection(&b).copied().collect::<Vec<_>>());
            prop_assert_eq!(x.intersects(&y), a.intersection(&b).next().is_some());
            let covered: i64 = x.ranges_us().iter().map(|(lo, hi)| (hi - lo) / HOUR_US).sum();
            prop_assert_eq!(covered as usize, a.len());
        }

        #[test]
        fn a_range_holds_exactly_its_windows(first in -100i32..100, n in -1i32..90) {
            let set = WindowSet::range(Window(first), Window(first + n));
            let want: Vec<_> = (first..=first + n).collect();
            prop_assert_eq!(set.iter().map(|w| w.0).collect::<Vec<_>>(), want);
        }
    }
}
