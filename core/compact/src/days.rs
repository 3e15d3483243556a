//! The rows of many batches, brought together by day over one dictionary of series.

use std::collections::{BTreeMap, HashMap};

use stele_model::{Day, Extra, NO_EXTRA, Row, Rows, Series};

/// Rows of one day, in any order, over a dictionary without repetitions.
#[derive(Default)]
pub(crate) struct DayRows {
    rows: Rows,
    index: HashMap<Series, u32>,
}

impl DayRows {
    /// Adds every row to the rows of its day.
    pub fn sort_into(days: &mut BTreeMap<Day, DayRows>, rows: Rows) {
        let Some((first, last)) = rows.ts_range_us() else {
            return;
        };
        let (first, last) = (Day::of(first), Day::of(last));
        if first == last {
            days.entry(first).or_default().add(&rows, &rows.rows);
            return;
        }
        let mut by_day: BTreeMap<Day, Vec<Row>> = BTreeMap::new();
        for row in &rows.rows {
            by_day.entry(Day::of(row.ts_us)).or_default().push(*row);
        }
        for (day, of_day) in by_day {
            days.entry(day).or_default().add(&rows, &of_day);
        }
    }

    /// Adds `some` of the rows of `of`.
    fn add(&mut self, of: &Rows, some: &[Row]) {
        let mut map: Vec<Option<u32>> = vec![None; of.series.len()];
        self.rows.rows.reserve(some.len());
        for row in some {
            let series = match map[row.series as usize] {
                Some(series) => series,
                None => {
                    let series = self.intern(&of.series[row.series as usize]);
                    map[row.series as usize] = Some(series);
                    series
                }
            };
            let extra = match of.extras.get(row.extra as usize) {
                Some(extra) => self.extra(*extra),
                None => NO_EXTRA,
            };
            self.rows.rows.push(Row {
                series,
                extra,
                ..*row
            });
        }
    }

    fn intern(&mut self, series: &Series) -> u32 {
        if let Some(index) = self.index.get(series) {
            return *index;
        }
        let index = u32::try_from(self.rows.series.len()).unwrap_or(u32::MAX);
        self.rows.series.push(series.clone());
        self.index.insert(series.clone(), index);
        index
    }

    /// Consecutive rows often share an extra (one kind for a whole batch).
    fn extra(&mut self, extra: Extra) -> u32 {
        let is_plain = |e: &Extra| e.summary.is_none();
        let at = |n: usize| u32::try_from(n).unwrap_or(NO_EXTRA);
        if let Some(last) = self.rows.extras.last()
            && is_plain(last)
            && is_plain(&extra)
            && (last.kind, last.rank) == (extra.kind, extra.rank)
        {
            return at(self.rows.extras.len() - 1);
        }
        self.rows.extras.push(extra);
        at(self.rows.extras.len() - 1)
    }

    /// The rows in canonical form.
    pub fn into_rows(self) -> Rows {
        let Self { mut rows, index } = self;
        drop(index);
        rows.canonicalize();
        rows
    }
}

#[cfg(test)]
mod tests {
    use stele_model::Kind;
    use stele_model::time::DAY_US;

    use super::*;

    fn series(name: &str) -> Series {
        Series {
            metric: name.to_owned(),
            tags: "{}".to_owned(),
        }
    }

    fn row(series: u32, ts_us: i64, extra: u32) -> Row {
        Row {
            ts_us,
            value: 1.0,
            series,
            extra,
        }
    }

    #[test]
    fn rows_go_to_their_days_and_keep_series_and_extra() {
        let gauge = Extra {
            kind: Kind::Gauge,
            ..Extra::default()
        };
        let one = Rows {
            series: vec![series("a"), series("b")],
            rows: vec![row(0, 0, 0), row(0, DAY_US, NO_EXTRA), row(1, 5, 0)],
            extras: vec![gauge],
        };
        let two = Rows {
            series: vec![series("b")],
            rows: vec![row(0, 6, NO_EXTRA)],
            extras: Vec::new(),
        };
        let mut days = BTreeMap::new();
        DayRows::sort_into(&mut days, one);
        DayRows::sort_into(&mut days, two);
        let of = |day: i32, days: &mut BTreeMap<Day, DayRows>| {
            let rows = days.remove(&Day(day)).unwrap().into_rows();
            let named = rows.rows.iter().map(|r| {
                let name = rows.series[r.series as usize].metric.clone();
                (name, r.ts_us, rows.extra(r).kind)
            });
            named.collect::<Vec<_>>()
        };
        let name = str::to_owned;
        assert_eq!(
            of(0, &mut days),
            [
                (name("a"), 0, Kind::Gauge),
                (name("b"), 5, Kind::Gauge),
                (name("b"), 6, Kind::Unknown)
            ]
        );
        assert_eq!(of(1, &mut days), [(name("a"), DAY_US, Kind::Unknown)]);
    }
}
