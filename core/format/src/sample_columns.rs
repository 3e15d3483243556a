//! The columns of samples, filled run by run and handed over row group by row group.
//!
//! Table files and L0 objects have the same columns; only their settings and order differ.

use parquet::file::metadata::KeyValue;
use stele_model::{Extra, Series};

use crate::chunk::{Data, Settings};
use crate::codec::runs::Runs;
use crate::column::{Keyed, Optional, Texts, keyed};
use crate::digest::is_plain;
use crate::error::Result;
use crate::file::{Column, FileBuilder, Written};
use crate::scale::{POWERS, scale};

const fn column(
    name: &'static str,
    physical: &'static str,
    annotation: &'static str,
    omittable: bool,
) -> Column {
    Column {
        name,
        physical,
        annotation,
        omittable,
    }
}

/// All columns of a sample file, in order.
pub(crate) static COLUMNS: [Column; 13] = [
    column("metric", "required binary", " (STRING)", false),
    column("tags", "required binary", " (STRING)", false),
    column("ts", "required int64", " (TIMESTAMP(MICROS,true))", false),
    column("kind", "optional int32", "", true),
    column("value", "optional double", "", false),
    column("value_int", "optional int64", "", false),
    column("value_div", "optional double", "", false),
    column("count", "optional int64", "", true),
    column("sum", "optional double", "", true),
    column("min", "optional double", "", true),
    column("max", "optional double", "", true),
    column("sum_squares", "optional double", "", true),
    column("rank", "optional int32", "", true),
];

/// The form of a value that is stored as a double.
const AS_DOUBLE: u8 = u8::MAX;

/// One row as its owner stores it.
pub(crate) trait AsSample: Copy {
    fn ts_us(&self) -> i64;
    fn value(&self) -> f64;
}

impl AsSample for crate::SampleRow {
    #[inline]
    fn ts_us(&self) -> i64 {
        self.ts_us
    }
    #[inline]
    fn value(&self) -> f64 {
        self.value
    }
}

impl AsSample for stele_model::Row {
    #[inline]
    fn ts_us(&self) -> i64 {
        self.ts_us
    }
    #[inline]
    fn value(&self) -> f64 {
        self.value
    }
}

/// The extras of a row group; empty columns are not written.
#[derive(Default)]
struct Extras {
    kind: Optional<i32>,
    count: Optional<i64>,
    floats: [Optional<f64>; 4],
    rank: Optional<i32>,
    rows: usize,
    used: bool,
}

impl Extras {
    fn push(&mut self, extra: &Extra) {
        if !self.used {
            self.used = true;
            let rows = self.rows;
            self.rows = 0;
            self.push_plain(rows);
        }
        self.rows += 1;
        let kind = extra.kind as i32;
        self.kind.push((kind != 0).then_some(kind));
        self.rank.push(extra.rank);
        let s = extra.summary;
        self.count.push(s.map(|s| s.count));
        let [sum, min, max, squares] = &mut self.floats;
        sum.push(s.map(|s| s.sum));
        min.push(s.and_then(|s| s.min));
        max.push(s.and_then(|s| s.max));
        squares.push(s.and_then(|s| s.sum_squares));
    }

    fn push_plain(&mut self, n: usize) {
        self.rows += n;
        if self.used {
            self.kind.push_none(n);
            self.rank.push_none(n);
            self.count.push_none(n);
            self.floats
                .iter_mut()
                .for_each(|column| column.push_none(n));
        }
    }

    fn clear(&mut self) {
        self.kind.clear();
        self.rank.clear();
        self.count.clear();
        self.floats.iter_mut().for_each(Optional::clear);
        self.rows = 0;
        self.used = false;
    }
}

/// Gathers samples and writes them as row groups.
pub(crate) struct SampleColumns {
    file: FileBuilder,
    metrics: Texts,
    tags: Texts,
    metric: Runs<u32>,
    tag: Runs<u32>,
    ts: Vec<i64>,
    /// The power of ten of each row's scaled form, or [`AS_DOUBLE`].
    forms: Runs<u8>,
    doubles: Vec<f64>,
    ints: Vec<i64>,
    extras: Extras,
    scratch: Vec<f64>,
}

impl SampleColumns {
    pub fn new(settings: Settings) -> Self {
        Self {
            file: FileBuilder::new(&COLUMNS, settings),
            metrics: Texts::default(),
            tags: Texts::default(),
            metric: Runs::default(),
            tag: Runs::default(),
            ts: Vec::new(),
            forms: Runs::default(),
            doubles: Vec::new(),
            ints: Vec::new(),
            extras: Extras::default(),
            scratch: Vec::new(),
        }
    }

    /// Adds rows of one series; `extra` is asked for rows that may carry one.
    pub fn push<R: AsSample>(
        &mut self,
        series: &Series,
        mut rows: &[R],
        extra: impl Fn(&R) -> Option<Extra>,
    ) -> Result<()> {
        while !rows.is_empty() {
            let room = self.file.settings.group_rows - self.ts.len();
            let (now, later) = rows.split_at(room.min(rows.len()));
            self.push_run(series, now, &extra);
            if self.ts.len() == self.file.settings.group_rows {
                self.flush()?;
            }
            rows = later;
        }
        Ok(())
    }

    fn push_run<R: AsSample>(
        &mut self,
        series: &Series,
        rows: &[R],
        extra: &impl Fn(&R) -> Option<Extra>,
    ) {
        self.metric
            .push(self.metrics.key(&series.metric), rows.len());
        self.tag.push(self.tags.key(&series.tags), rows.len());
        self.ts.extend(rows.iter().map(AsSample::ts_us));
        self.scratch.clear();
        self.scratch.extend(rows.iter().map(AsSample::value));
        match scale(&self.scratch, &mut self.ints) {
            Some(power) => self.forms.push(power, rows.len()),
            None => {
                self.doubles.extend_from_slice(&self.scratch);
                self.forms.push(AS_DOUBLE, rows.len());
            }
        }
        let mut plain = 0;
        for row in rows {
            match extra(row).filter(|extra| !is_plain(extra)) {
                None => plain += 1,
                Some(extra) => {
                    self.extras.push_plain(plain);
                    self.extras.push(&extra);
                    plain = 0;
                }
            }
        }
        self.extras.push_plain(plain);
    }

    fn flush(&mut self) -> Result<()> {
        let rows = self.ts.len();
        if rows == 0 {
            return Ok(());
        }
        let (mut double, mut int) = (Runs::default(), Runs::default());
        let mut powers = Vec::with_capacity(16);
        let mut divisors = Runs::default();
        for (form, n) in self.forms.as_slice() {
            double.push(*form == AS_DOUBLE, *n);
            int.push(*form != AS_DOUBLE, *n);
            if *form != AS_DOUBLE {
                let known = powers.iter().position(|power| power == form);
                let key = known.unwrap_or_else(|| {
                    powers.push(*form);
                    powers.len() - 1
                });
                divisors.push(key as u32, *n);
            }
        }
        let page: Vec<u8> = powers
            .iter()
            .flat_map(|power| POWERS[usize::from(*power)].to_le_bytes())
            .collect();
        let little = |values: &[i32]| keyed(values, i32::to_le_bytes, usize::MAX);
        let (kind, rank) = (
            little(&self.extras.kind.values),
            little(&self.extras.rank.values),
        );
        let mut columns = vec![
            (0, Data::Texts(&self.metrics, &self.metric), None),
            (1, Data::Texts(&self.tags, &self.tag), None),
            (2, Data::Ints(&self.ts, true), None),
            (4, Data::Floats(&self.doubles), Some(&double)),
            (5, Data::Ints(&self.ints, false), Some(&int)),
            (6, Data::Keys(&page, powers.len(), &divisors), Some(&int)),
        ];
        let extras = &self.extras;
        let keys = |k: &Keyed| k.entries > 0;
        if let Some(kind) = kind.as_ref().filter(|k| keys(k)) {
            let data = Data::Keys(&kind.page, kind.entries, &kind.keys);
            columns.push((3, data, Some(&extras.kind.presence)));
        }
        if let Some(rank) = rank.as_ref().filter(|k| keys(k)) {
            let data = Data::Keys(&rank.page, rank.entries, &rank.keys);
            columns.push((12, data, Some(&extras.rank.presence)));
        }
        if !extras.count.values.is_empty() {
            let data = Data::Ints(&extras.count.values, false);
            columns.push((7, data, Some(&extras.count.presence)));
        }
        for (at, column) in (8..).zip(&extras.floats) {
            if !column.values.is_empty() {
                columns.push((at, Data::Floats(&column.values), Some(&column.presence)));
            }
        }
        self.file.add_group(rows, &columns)?;
        self.clear();
        Ok(())
    }

    fn clear(&mut self) {
        self.metrics.clear();
        self.tags.clear();
        self.metric.clear();
        self.tag.clear();
        self.ts.clear();
        self.forms.clear();
        self.doubles.clear();
        self.ints.clear();
        self.extras.clear();
    }

    /// About how large the file would be if it were finished now.
    pub fn bytes_so_far(&self) -> usize {
        let (bytes, rows) = self.file.size();
        // Rows still in memory are guessed at the rate of those encoded, 2 bytes at first.
        let here = self.ts.len();
        bytes + (here * bytes).checked_div(rows).unwrap_or(here * 2)
    }

    pub fn finish(mut self, metadata: Vec<KeyValue>, sorted: bool) -> Result<Written> {
        self.flush()?;
        self.file.finish(metadata, sorted)
    }
}
