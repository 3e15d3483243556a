//! Parquet, row by row: a table of any writer, or a file of Stele's own with its summaries.

use std::fs::File;
use std::panic::{AssertUnwindSafe, catch_unwind};

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Float64Type, Int32Type, Int64Type, TimeUnit as ArrowUnit};
use parquet::arrow::arrow_reader::{ParquetRecordBatchReader, ParquetRecordBatchReaderBuilder};
use parquet::errors::ParquetError;
use stele_model::{Extra, Kind, Limits, Summary};
use stele_wire::assemble::{Assembler, Loose, pairs};

use crate::columns::{Metric, Plan, metric_name};
use crate::error::Result;
use crate::time::{TimeUnit, of_number, of_text};
use crate::{Mark, Part, Settings, Source};

/// Rows of one part.
const PART_ROWS: usize = 65_536;

/// What Stele's own files have besides metric, tags, ts and value. `rank` is nobody's to claim.
const OWN: [&str; 9] = [
    "kind",
    "value_int",
    "value_div",
    "count",
    "sum",
    "min",
    "max",
    "sum_squares",
    "rank",
];

pub(crate) struct ParquetRows {
    reader: ParquetRecordBatchReader,
    plan: Plan,
    is_own: bool,
    total: u64,
    at: Mark,
    limits: Limits,
    now_us: i64,
}

impl ParquetRows {
    pub(crate) fn open(file: File, settings: &Settings, from: Mark) -> Result<Self> {
        let builder = withstood(|| Ok(ParquetRecordBatchReaderBuilder::try_new(file)?))?;
        // The library panics on them.
        let groups = builder.metadata().row_groups().iter();
        let mut chunks = groups.flat_map(|group| group.columns());
        let is_forged = chunks.any(|chunk| {
            let dictionary = chunk.dictionary_page_offset().unwrap_or(0);
            chunk.data_page_offset() < 0 || dictionary < 0 || chunk.compressed_size() < 0
        });
        if is_forged {
            let what = "a column chunk has a negative place or size".to_owned();
            return Err(ParquetError::General(what).into());
        }
        let total = builder.metadata().file_metadata().num_rows();
        let schema = builder.schema();
        let names: Vec<String> = schema.fields().iter().map(|f| f.name().clone()).collect();
        let is_own = ["metric", "tags", "ts", "value", "value_int", "value_div"]
            .iter()
            .all(|own| names.iter().any(|name| name == own));
        let reserved: &[&str] = if is_own { &OWN } else { &[] };
        let plan = settings.columns.plan(&names, reserved)?;
        let skipped = usize::try_from(from.offset).unwrap_or(usize::MAX);
        let builder = builder.with_batch_size(PART_ROWS).with_offset(skipped);
        let reader = withstood(|| Ok(builder.build()?))?;
        Ok(Self {
            reader,
            plan,
            is_own,
            total: u64::try_from(total).unwrap_or(0),
            at: from,
            limits: settings.limits,
            now_us: settings.now_us,
        })
    }

    fn rows(&self, batch: &RecordBatch, out: &mut Assembler<'_>) -> Result<()> {
        let table = Table::new(batch, &self.plan, self.is_own)?;
        for row in 0..batch.num_rows() {
            let position = self.at.items + row as u64;
            if let Err(reason) = table.row(row, position, out)? {
                out.refuse(position, || reason);
            }
        }
        Ok(())
    }
}

/// What the library makes of a file that anybody may have written: it panics on some forged ones,
/// and that is a fault of the file. What it was reading must not be used any more then.
fn withstood<T>(read: impl FnOnce() -> Result<T>) -> Result<T> {
    catch_unwind(AssertUnwindSafe(read)).unwrap_or_else(|_| {
        let what = "the Parquet library gave up on it: it is damaged or forged".to_owned();
        Err(ParquetError::General(what).into())
    })
}

impl Source for ParquetRows {
    fn total(&self) -> u64 {
        self.total
    }

    fn next_part(&mut self) -> Result<Option<Part>> {
        let Some(batch) = withstood(|| Ok(self.reader.next().transpose()?))? else {
            return Ok(None);
        };
        let limits = self.limits;
        let mut out = Assembler::new(self.now_us, &limits);
        self.rows(&batch, &mut out)?;
        self.at.offset += batch.num_rows() as u64;
        self.at.items += batch.num_rows() as u64;
        Ok(Some(Part {
            decoded: out.finish(),
            end: self.at,
        }))
    }
}

/// The columns of one record batch, in the types they are read in.
struct Table<'p> {
    plan: &'p Plan,
    metric: Option<ArrayRef>,
    time: Time,
    values: Vec<ArrayRef>,
    tags: Vec<ArrayRef>,
    tags_json: Option<ArrayRef>,
    own: Option<Own>,
}

enum Time {
    Number(ArrayRef, Option<TimeUnit>),
    Text(ArrayRef),
}

/// Stele's own columns; those that are null throughout are absent from a file.
struct Own {
    value_int: ArrayRef,
    value_div: ArrayRef,
    kind: Option<ArrayRef>,
    count: Option<ArrayRef>,
    sum: Option<ArrayRef>,
    min: Option<ArrayRef>,
    max: Option<ArrayRef>,
    sum_squares: Option<ArrayRef>,
}

fn double(array: &ArrayRef, row: usize) -> Option<f64> {
    let array = array.as_primitive::<Float64Type>();
    array.is_valid(row).then(|| array.value(row))
}

fn whole(array: &ArrayRef, row: usize) -> Option<i64> {
    let array = array.as_primitive::<Int64Type>();
    array.is_valid(row).then(|| array.value(row))
}

fn text(array: &ArrayRef, row: usize) -> &str {
    let array = array.as_string::<i32>();
    if array.is_valid(row) {
        array.value(row)
    } else {
        ""
    }
}

impl<'p> Table<'p> {
    fn new(batch: &RecordBatch, plan: &'p Plan, is_own: bool) -> Result<Self> {
        let typed = |at: usize, to: DataType| cast(batch.column(at), &to);
        let texts = |at: &usize| typed(*at, DataType::Utf8);
        let metric = match &plan.metric {
            Metric::Fixed(_) => None,
            Metric::Column(at) => Some(texts(at)?),
        };
        let values = plan
            .values
            .iter()
            .map(|(at, _)| typed(*at, DataType::Float64));
        let tags = plan.tags.iter().map(|(at, _)| texts(at));
        Ok(Self {
            plan,
            metric,
            time: Time::new(batch.column(plan.time), plan.time_unit)?,
            values: values.collect::<Result<_, _>>()?,
            tags: tags.collect::<Result<_, _>>()?,
            tags_json: plan.tags_json.as_ref().map(texts).transpose()?,
            own: is_own.then(|| Own::new(batch)).transpose()?.flatten(),
        })
    }

    /// Pushes the samples of one row; the inner error says why it has none.
    fn row(
        &self,
        row: usize,
        position: u64,
        out: &mut Assembler<'_>,
    ) -> Result<Result<(), String>> {
        let Some(ts_us) = self.time.us(row) else {
            return Ok(Err("its time is missing or not understood".to_owned()));
        };
        let json = self.tags_json.as_ref().map(|tags| text(tags, row));
        let json = match json.filter(|text| !text.is_empty()).map(pairs) {
            None => Vec::new(),
            Some(Some(json)) => json,
            Some(None) => return Ok(Err("tags are not a JSON object of texts".to_owned())),
        };
        let json = json.iter().map(|(name, value)| (&**name, &**value));
        let named = self.plan.tags.iter().zip(&self.tags);
        let named = named.map(|((_, name), array)| (&**name, text(array, row)));
        let named = named.filter(|(_, value)| !value.is_empty());
        let mut tags: Vec<(&str, &str)> = json.chain(named).collect();
        let metric = match (&self.plan.metric, &self.metric) {
            (Metric::Fixed(name), _) => name.as_str(),
            (_, Some(array)) => text(array, row),
            (Metric::Column(_), None) => "",
        };
        for ((_, field), array) in self.plan.values.iter().zip(&self.values) {
            let own = self.own.as_ref();
            let value = double(array, row).or_else(|| own?.scaled(row));
            let Some(value) = value else {
                continue;
            };
            let metric = metric_name(metric, field.as_deref());
            let sample = Loose {
                metric: &metric,
                ts_us,
                value,
                extra: own.and_then(|own| own.extra(row)),
            };
            out.push(position, sample, &mut tags)?;
        }
        Ok(Ok(()))
    }
}

impl Time {
    fn new(column: &ArrayRef, unit: Option<TimeUnit>) -> Result<Self> {
        Ok(match column.data_type() {
            DataType::Timestamp(_, zone) => {
                let micros = DataType::Timestamp(ArrowUnit::Microsecond, zone.clone());
                let us = cast(&cast(column, &micros)?, &DataType::Int64)?;
                Self::Number(us, Some(TimeUnit::Us))
            }
            kind if kind.is_integer() => Self::Number(cast(column, &DataType::Int64)?, unit),
            _ => Self::Text(cast(column, &DataType::Utf8)?),
        })
    }

    fn us(&self, row: usize) -> Option<i64> {
        match self {
            Self::Number(array, unit) => of_number(whole(array, row)?, *unit),
            Self::Text(array) => of_text(text(array, row), None),
        }
    }
}

impl Own {
    fn new(batch: &RecordBatch) -> Result<Option<Self>> {
        let typed = |name: &str, to: DataType| {
            batch
                .column_by_name(name)
                .map(|column| cast(column, &to))
                .transpose()
        };
        let double = |name| typed(name, DataType::Float64);
        let (Some(value_int), Some(value_div)) =
            (typed("value_int", DataType::Int64)?, double("value_div")?)
        else {
            return Ok(None);
        };
        Ok(Some(Self {
            value_int,
            value_div,
            kind: typed("kind", DataType::Int32)?,
            count: typed("count", DataType::Int64)?,
            sum: double("sum")?,
            min: double("min")?,
            max: double("max")?,
            sum_squares: double("sum_squares")?,
        }))
    }

    #[expect(
        clippy::cast_precision_loss,
        reason = "it was written only where this is exact"
    )]
    fn scaled(&self, row: usize) -> Option<f64> {
        Some(whole(&self.value_int, row)? as f64 / double(&self.value_div, row)?)
    }

    fn extra(&self, row: usize) -> Option<Extra> {
        let kind = self.kind.as_ref().and_then(|array| {
            let array = array.as_primitive::<Int32Type>();
            array.is_valid(row).then(|| array.value(row))
        });
        let of = |array: &Option<ArrayRef>| array.as_ref().and_then(|array| double(array, row));
        let summary = match (
            self.count.as_ref().and_then(|a| whole(a, row)),
            of(&self.sum),
        ) {
            (Some(count), Some(sum)) => Some(Summary {
                count,
                sum,
                min: of(&self.min),
                max: of(&self.max),
                sum_squares: of(&self.sum_squares),
            }),
            _ => None,
        };
        let kind = kind.and_then(Kind::from_code).unwrap_or_default();
        let is_plain = summary.is_none() && kind == Kind::default();
        (!is_plain).then_some(Extra {
            kind,
            rank: None,
            summary,
        })
    }
}
