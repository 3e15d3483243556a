//! The expressions a scan evaluates itself: its exact row filter, and the logical columns made
//! from stored ones.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, Float64Array, StringArray};
use arrow::buffer::BooleanBuffer;
use arrow::datatypes::{
    DataType, Float64Type, Int32Type, Int64Type, Schema, TimestampMicrosecondType,
};
use arrow::record_batch::RecordBatch;
use datafusion::common::{Result, exec_err};
use datafusion::logical_expr::ColumnarValue;
use datafusion::physical_expr::PhysicalExpr;
use stele_model::Kind;

use super::filter::{TextCondition, TsRange};

/// The rows of a scan that are wanted: the conditions, without the windows that are open.
#[derive(Debug, Clone)]
pub(crate) struct RowFilter {
    metric: Option<(Arc<dyn PhysicalExpr>, Arc<TextCondition>)>,
    tags: Option<(Arc<dyn PhysicalExpr>, Arc<TextCondition>)>,
    ts: Option<Arc<dyn PhysicalExpr>>,
    range: TsRange,
    /// Half-open µs ranges to leave out, ascending and disjoint.
    without: Arc<Vec<(i64, i64)>>,
}

impl RowFilter {
    /// A filter of the given columns; `ts` is needed when `range` or `without` say anything.
    #[expect(
        clippy::type_complexity,
        reason = "each part is a column and what is asked of it"
    )]
    pub(crate) fn new(
        metric: Option<(Arc<dyn PhysicalExpr>, Arc<TextCondition>)>,
        tags: Option<(Arc<dyn PhysicalExpr>, Arc<TextCondition>)>,
        ts: Option<(Arc<dyn PhysicalExpr>, TsRange, Vec<(i64, i64)>)>,
    ) -> Self {
        let (ts, range, without) = match ts {
            Some((column, range, without)) => (Some(column), range, without),
            None => (None, TsRange::ALL, Vec::new()),
        };
        Self {
            metric,
            tags,
            ts,
            range,
            without: Arc::new(without),
        }
    }

    fn keeps(&self, ts: i64) -> bool {
        if !self.range.holds(ts, ts) {
            return false;
        }
        let at = self.without.partition_point(|range| range.1 <= ts);
        self.without.get(at).is_none_or(|range| ts < range.0)
    }

    fn of_ts(&self, column: &ArrayRef) -> Result<BooleanBuffer> {
        let Some(column) = column.as_primitive_opt::<TimestampMicrosecondType>() else {
            return exec_err!("ts is no timestamp");
        };
        let ts = column.values();
        Ok(if self.without.is_empty() {
            BooleanBuffer::collect_bool(ts.len(), |row| self.range.holds(ts[row], ts[row]))
        } else {
            BooleanBuffer::collect_bool(ts.len(), |row| self.keeps(ts[row]))
        })
    }
}

fn column(expr: &Arc<dyn PhysicalExpr>, batch: &RecordBatch) -> Result<ArrayRef> {
    expr.evaluate(batch)?.into_array(batch.num_rows())
}

impl PartialEq for RowFilter {
    fn eq(&self, other: &Self) -> bool {
        fn same(
            a: &Option<(Arc<dyn PhysicalExpr>, Arc<TextCondition>)>,
            b: &Option<(Arc<dyn PhysicalExpr>, Arc<TextCondition>)>,
        ) -> bool {
            match (a, b) {
                (None, None) => true,
                (Some(a), Some(b)) => a.0.eq(&b.0) && a.1 == b.1,
                _ => false,
            }
        }
        let same_ts = match (&self.ts, &other.ts) {
            (None, None) => true,
            (Some(a), Some(b)) => a.eq(b),
            _ => false,
        };
        same(&self.metric, &other.metric)
            && same(&self.tags, &other.tags)
            && same_ts
            && self.range == other.range
            && self.without == other.without
    }
}

impl Eq for RowFilter {}

impl Hash for RowFilter {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.metric.as_ref().map(|(_, c)| c).hash(state);
        self.tags.as_ref().map(|(_, c)| c).hash(state);
        (self.range.from, self.range.to).hash(state);
        self.without.hash(state);
    }
}

impl fmt::Display for RowFilter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut parts = Vec::new();
        parts.extend(self.metric.as_ref().map(|(_, c)| c.to_string()));
        parts.extend(self.tags.as_ref().map(|(_, c)| c.to_string()));
        if self.range != TsRange::ALL {
            let bound = stele_model::time::rfc3339;
            if self.range.from != i64::MIN {
                parts.push(format!("ts >= {}", bound(self.range.from)));
            }
            if self.range.to != i64::MAX {
                parts.push(format!("ts <= {}", bound(self.range.to)));
            }
        }
        if !self.without.is_empty() {
            parts.push(format!(
                "ts in a sealed window ({} gaps)",
                self.without.len()
            ));
        }
        f.write_str(&parts.join(" AND "))
    }
}

impl PhysicalExpr for RowFilter {
    fn data_type(&self, _: &Schema) -> Result<DataType> {
        Ok(DataType::Boolean)
    }

    fn nullable(&self, _: &Schema) -> Result<bool> {
        Ok(false)
    }

    fn evaluate(&self, batch: &RecordBatch) -> Result<ColumnarValue> {
        let mut all: Option<BooleanBuffer> = None;
        let mut narrow = |more: BooleanBuffer| {
            all = Some(match all.take() {
                None => more,
                Some(all) => &all & &more,
            });
        };
        for (expr, condition) in [&self.metric, &self.tags].into_iter().flatten() {
            let rows = condition.of_column(&column(expr, batch)?)?;
            narrow(rows.values().clone());
        }
        if let Some(expr) = &self.ts {
            narrow(self.of_ts(&column(expr, batch)?)?);
        }
        let rows = all.unwrap_or_else(|| BooleanBuffer::new_set(batch.num_rows()));
        let rows: ArrayRef = Arc::new(BooleanArray::new(rows, None));
        Ok(ColumnarValue::Array(rows))
    }

    fn children(&self) -> Vec<&Arc<dyn PhysicalExpr>> {
        let texts = [&self.metric, &self.tags].into_iter().flatten();
        texts.map(|(expr, _)| expr).chain(&self.ts).collect()
    }

    fn with_new_children(
        self: Arc<Self>,
        children: Vec<Arc<dyn PhysicalExpr>>,
    ) -> Result<Arc<dyn PhysicalExpr>> {
        let mut children = children.into_iter();
        let mut next = || {
            children.next().ok_or_else(|| {
                datafusion::common::internal_datafusion_err!("a row filter lost a column")
            })
        };
        let mut new = self.as_ref().clone();
        for slot in [&mut new.metric, &mut new.tags].into_iter().flatten() {
            slot.0 = next()?;
        }
        if let Some(slot) = &mut new.ts {
            *slot = next()?;
        }
        Ok(Arc::new(new))
    }

    fn fmt_sql(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A logical column computed from stored ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Made {
    /// `coalesce(value, value_int / value_div)`.
    Value,
    /// The name of a kind's code.
    Kind,
}

/// [`Made`] of the columns it needs.
#[derive(Debug, Clone)]
pub(crate) struct MadeColumn {
    made: Made,
    from: Vec<Arc<dyn PhysicalExpr>>,
}

impl MadeColumn {
    pub(crate) fn new(made: Made, from: Vec<Arc<dyn PhysicalExpr>>) -> Self {
        Self { made, from }
    }
}

impl PartialEq for MadeColumn {
    fn eq(&self, other: &Self) -> bool {
        self.made == other.made
            && self.from.len() == other.from.len()
            && self.from.iter().zip(&other.from).all(|(a, b)| a.eq(b))
    }
}

impl Eq for MadeColumn {}

impl Hash for MadeColumn {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.made.hash(state);
    }
}

impl fmt::Display for MadeColumn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.made, self.from.as_slice()) {
            (Made::Value, [value, int, div]) => write!(f, "coalesce({value}, {int} / {div})"),
            (Made::Kind, [code]) => write!(f, "kind_name({code})"),
            _ => f.write_str("?"),
        }
    }
}

fn value(stored: &ArrayRef, int: &ArrayRef, div: &ArrayRef) -> Result<ArrayRef> {
    let (Some(stored_values), Some(int), Some(div)) = (
        stored.as_primitive_opt::<Float64Type>(),
        int.as_primitive_opt::<Int64Type>(),
        div.as_primitive_opt::<Float64Type>(),
    ) else {
        return exec_err!("value, value_int and value_div have other types");
    };
    if stored.null_count() == 0 {
        return Ok(Arc::clone(stored));
    }
    #[expect(
        clippy::cast_precision_loss,
        reason = "the writer keeps |value_int| < 2^53"
    )]
    let quotient = |row: usize| int.values()[row] as f64 / div.values()[row];
    if int.null_count() == 0 && div.null_count() == 0 {
        let values: Vec<f64> = (0..int.len()).map(quotient).collect();
        return Ok(Arc::new(Float64Array::from(values)));
    }
    let mut values = Vec::with_capacity(stored.len());
    for row in 0..stored.len() {
        values.push(if stored_values.is_valid(row) {
            stored_values.values()[row]
        } else if int.is_valid(row) && div.is_valid(row) {
            quotient(row)
        } else {
            return exec_err!("a row has no value");
        });
    }
    Ok(Arc::new(Float64Array::from(values)))
}

fn kind(code: &ArrayRef) -> Result<ArrayRef> {
    let Some(codes) = code.as_primitive_opt::<Int32Type>() else {
        return exec_err!("kind has another type");
    };
    let names: Result<StringArray> = codes
        .iter()
        .map(|code| match code.map(Kind::from_code) {
            None | Some(Some(Kind::Unknown)) => Ok(None),
            Some(Some(Kind::Gauge)) => Ok(Some("gauge")),
            Some(Some(Kind::Counter)) => Ok(Some("counter")),
            Some(None) => exec_err!("kind has an unknown code"),
        })
        .collect();
    Ok(Arc::new(names?))
}

impl PhysicalExpr for MadeColumn {
    fn data_type(&self, _: &Schema) -> Result<DataType> {
        Ok(match self.made {
            Made::Value => DataType::Float64,
            Made::Kind => DataType::Utf8,
        })
    }

    fn nullable(&self, _: &Schema) -> Result<bool> {
        Ok(self.made == Made::Kind)
    }

    fn evaluate(&self, batch: &RecordBatch) -> Result<ColumnarValue> {
        let columns = self
            .from
            .iter()
            .map(|expr| column(expr, batch))
            .collect::<Result<Vec<_>>>()?;
        Ok(ColumnarValue::Array(
            match (self.made, columns.as_slice()) {
                (Made::Value, [stored, int, div]) => value(stored, int, div)?,
                (Made::Kind, [code]) => kind(code)?,
                _ => return exec_err!("{self} has too few columns"),
            },
        ))
    }

    fn children(&self) -> Vec<&Arc<dyn PhysicalExpr>> {
        self.from.iter().collect()
    }

    fn with_new_children(
        self: Arc<Self>,
        children: Vec<Arc<dyn PhysicalExpr>>,
    ) -> Result<Arc<dyn PhysicalExpr>> {
        Ok(Arc::new(Self::new(self.made, children)))
    }

    fn fmt_sql(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::Int64Array;

    use super::*;

    #[test]
    fn a_value_is_the_stored_one_or_one_division() {
        let stored: ArrayRef = Arc::new(Float64Array::from(vec![Some(-0.0), None, None]));
        let int: ArrayRef = Arc::new(Int64Array::from(vec![None, Some(1), Some(-7)]));
        let div: ArrayRef = Arc::new(Float64Array::from(vec![None, Some(10.0), Some(1.0)]));
        let got = value(&stored, &int, &div).unwrap();
        let got = got.as_primitive::<Float64Type>();
        let bits: Vec<u64> = got.values().iter().map(|v| v.to_bits()).collect();
        assert_eq!(
            bits,
            [(-0.0f64).to_bits(), 0.1f64.to_bits(), (-7.0f64).to_bits()]
        );
        let none: ArrayRef = Arc::new(Int64Array::from(vec![None, None, None]));
        assert!(value(&stored, &none, &div).is_err());
    }

    #[test]
    fn rows_of_left_out_ranges_are_not_kept() {
        let filter = RowFilter::new(
            None,
            None,
            Some((
                Arc::new(datafusion::physical_expr::expressions::Column::new("ts", 0)),
                TsRange { from: 0, to: 50 },
                vec![(10, 20), (30, 40)],
            )),
        );
        let kept: Vec<i64> = [-1, 0, 9, 10, 19, 20, 29, 30, 39, 40, 50, 51]
            .into_iter()
            .filter(|ts| filter.keeps(*ts))
            .collect();
        assert_eq!(kept, [0, 9, 20, 29, 40, 50]);
    }
}
