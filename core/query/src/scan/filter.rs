//! What a query's `WHERE` says of metric, tags and ts: the conditions a scan applies exactly.
//!
//! Conjuncts over `metric` alone and over `tags` alone are evaluated on *distinct* texts, never
//! per row: on candidate literals, on dictionary pages, on the dictionaries of batches. Conjuncts
//! that bound `ts` by literals become one range. Everything else stays with DataFusion.

use std::collections::{BTreeSet, HashMap};
use std::fmt;
use std::hash::{Hash, Hasher};
use std::ops::Bound;
use std::sync::{Arc, Mutex, PoisonError};

use arrow::array::{
    Array, ArrayRef, AsArray, BooleanArray, DictionaryArray, Int32Array, RecordBatch, StringArray,
};
use arrow::datatypes::{Field, Int32Type, Schema, SchemaRef};
use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::common::{Column, DFSchema, Result, ScalarValue, exec_err};
use datafusion::logical_expr::execution_props::ExecutionProps;
use datafusion::logical_expr::physical_planning_context::PhysicalPlanningContext;
use datafusion::logical_expr::{
    BinaryExpr, Expr, Operator, Volatility, expr::InList, utils::split_conjunction,
};
use datafusion::physical_expr::{PhysicalExpr, create_physical_expr};
use stele_format::schema;
use stele_model::FileStats;

use crate::text::same_memory;

/// Distinct texts whose verdict one query remembers, per column.
const REMEMBERED_MAX: usize = 200_000;

/// The conditions a scan applies itself; all must hold.
#[derive(Debug, Clone)]
pub(crate) struct Conditions {
    pub(crate) metric: Option<Arc<TextCondition>>,
    pub(crate) tags: Option<Arc<TextCondition>>,
    pub(crate) ts: TsRange,
}

/// Timestamps in `[from, to]`, µs; empty when `from > to`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct TsRange {
    pub(crate) from: i64,
    pub(crate) to: i64,
}

impl TsRange {
    pub(crate) const ALL: Self = Self {
        from: i64::MIN,
        to: i64::MAX,
    };

    pub(crate) fn is_empty(self) -> bool {
        self.from > self.to
    }

    pub(crate) fn overlaps(self, from: i64, to: i64) -> bool {
        self.from <= to && from <= self.to
    }

    pub(crate) fn holds(self, from: i64, to: i64) -> bool {
        self.from <= from && to <= self.to
    }

    fn narrow(&mut self, other: Self) {
        self.from = self.from.max(other.from);
        self.to = self.to.min(other.to);
    }
}

/// Which condition a conjunct is.
enum Role {
    Text(&'static str),
    Ts(TsRange),
}

/// Whether the scan applies `filter` exactly, so that nobody has to again.
pub(crate) fn is_exact(filter: &Expr) -> bool {
    split_conjunction(filter)
        .into_iter()
        .all(|conjunct| role(conjunct).is_some())
}

fn role(conjunct: &Expr) -> Option<Role> {
    if let Some(range) = ts_range(conjunct) {
        return Some(Role::Ts(range));
    }
    let mut only: Option<&Column> = None;
    let mut plain = true;
    let walked = conjunct.apply(|e| {
        match e {
            Expr::Column(column) => match only {
                Some(seen) if seen.name != column.name => plain = false,
                _ => only = Some(column),
            },
            Expr::ScalarFunction(call)
                if call.func.signature().volatility != Volatility::Immutable =>
            {
                plain = false;
            }
            Expr::Alias(_)
            | Expr::Literal(..)
            | Expr::BinaryExpr(_)
            | Expr::Like(_)
            | Expr::SimilarTo(_)
            | Expr::Not(_)
            | Expr::IsNotNull(_)
            | Expr::IsNull(_)
            | Expr::IsTrue(_)
            | Expr::IsFalse(_)
            | Expr::IsUnknown(_)
            | Expr::IsNotTrue(_)
            | Expr::IsNotFalse(_)
            | Expr::IsNotUnknown(_)
            | Expr::Negative(_)
            | Expr::Between(_)
            | Expr::Case(_)
            | Expr::Cast(_)
            | Expr::TryCast(_)
            | Expr::ScalarFunction(_)
            | Expr::InList(_) => {}
            _ => plain = false,
        }
        Ok(if plain {
            TreeNodeRecursion::Continue
        } else {
            TreeNodeRecursion::Stop
        })
    });
    match only?.name.as_str() {
        _ if walked.is_err() || !plain => None,
        "metric" => Some(Role::Text("metric")),
        "tags" => Some(Role::Text("tags")),
        _ => None,
    }
}

/// The µs of a timestamp literal and whether it is exact: a finer one is floored.
fn literal_us(value: &ScalarValue) -> Option<(i64, bool)> {
    match value {
        ScalarValue::TimestampSecond(Some(t), _) => Some((t.checked_mul(1_000_000)?, true)),
        ScalarValue::TimestampMillisecond(Some(t), _) => Some((t.checked_mul(1_000)?, true)),
        ScalarValue::TimestampMicrosecond(Some(t), _) => Some((*t, true)),
        ScalarValue::TimestampNanosecond(Some(t), _) => {
            Some((t.div_euclid(1_000), t.rem_euclid(1_000) == 0))
        }
        _ => None,
    }
}

/// `ts`, perhaps cast to another timestamp type in UTC, which does not change its instant.
fn is_ts(expr: &Expr) -> bool {
    match expr {
        Expr::Column(column) => column.name == "ts",
        Expr::Cast(cast) => match cast.field.data_type() {
            arrow::datatypes::DataType::Timestamp(unit, zone) => {
                use arrow::datatypes::TimeUnit::{Microsecond, Nanosecond};
                let utc = zone.as_deref().is_none_or(|z| z == "UTC" || z == "+00:00");
                utc && matches!(unit, Microsecond | Nanosecond) && is_ts(&cast.expr)
            }
            _ => false,
        },
        _ => false,
    }
}

/// The bounds that one conjunct puts on `ts`; `None` when it is not of that form.
fn ts_range(conjunct: &Expr) -> Option<TsRange> {
    match conjunct {
        Expr::BinaryExpr(BinaryExpr { left, op, right }) => {
            let (op, value) = match (left.as_ref(), right.as_ref()) {
                (column, Expr::Literal(value, _)) if is_ts(column) => (*op, value),
                (Expr::Literal(value, _), column) if is_ts(column) => (op.swap()?, value),
                _ => return None,
            };
            compare(op, literal_us(value)?)
        }
        Expr::Between(between) if !between.negated && is_ts(&between.expr) => {
            let (Expr::Literal(low, _), Expr::Literal(high, _)) =
                (between.low.as_ref(), between.high.as_ref())
            else {
                return None;
            };
            let mut range = compare(Operator::GtEq, literal_us(low)?)?;
            range.narrow(compare(Operator::LtEq, literal_us(high)?)?);
            Some(range)
        }
        _ => None,
    }
}

fn compare(op: Operator, (us, exact): (i64, bool)) -> Option<TsRange> {
    let (mut range, none) = (TsRange::ALL, TsRange { from: 1, to: 0 });
    match op {
        // `us` is the floor of the literal: a whole µs is below it exactly when it is ≤ floor.
        Operator::GtEq if exact => range.from = us,
        Operator::GtEq | Operator::Gt => match us.checked_add(1) {
            Some(next) => range.from = next,
            None => return Some(none),
        },
        Operator::Lt if exact => match us.checked_sub(1) {
            Some(before) => range.to = before,
            None => return Some(none),
        },
        Operator::Lt | Operator::LtEq => range.to = us,
        Operator::Eq if exact => (range.from, range.to) = (us, us),
        Operator::Eq => return Some(none),
        _ => return None,
    }
    Some(range)
}

impl Conditions {
    /// Whether a file with these statistics may hold a row that is wanted.
    pub(crate) fn may_match(&self, stats: &FileStats) -> bool {
        let is_of_metric =
            |metric: &Arc<TextCondition>| metric.may_match(&stats.metric_min, &stats.metric_max);
        self.ts.overlaps(stats.ts_min_us, stats.ts_max_us)
            && self.metric.as_ref().is_none_or(is_of_metric)
    }

    /// The conditions in those of `filters` for which [`is_exact`] holds; others are ignored.
    ///
    /// # Errors
    /// When an expression over one column cannot be made physical.
    pub(crate) fn of(filters: &[Expr]) -> Result<Self> {
        let mut ts = TsRange::ALL;
        let mut texts: HashMap<&'static str, Vec<&Expr>> = HashMap::new();
        for filter in filters.iter().filter(|filter| is_exact(filter)) {
            for conjunct in split_conjunction(filter) {
                match role(conjunct) {
                    Some(Role::Ts(range)) => ts.narrow(range),
                    Some(Role::Text(name)) => texts.entry(name).or_default().push(conjunct),
                    None => {}
                }
            }
        }
        let mut condition = |name| {
            let conjuncts = texts.remove(name);
            conjuncts
                .map(|conjuncts| TextCondition::new(name, &conjuncts).map(Arc::new))
                .transpose()
        };
        Ok(Self {
            metric: condition("metric")?,
            tags: condition("tags")?,
            ts,
        })
    }
}

/// The conjuncts over one text column.
pub(crate) struct TextCondition {
    name: &'static str,
    text: String,
    schema: SchemaRef,
    conjuncts: Vec<Arc<dyn PhysicalExpr>>,
    /// The texts that can match, when a conjunct lists them; those that do match.
    candidates: Option<BTreeSet<String>>,
    remembered: Mutex<Remembered>,
}

#[derive(Default)]
struct Remembered {
    dictionaries: Vec<(StringArray, BooleanArray)>,
    texts: HashMap<String, bool>,
}

impl fmt::Debug for TextCondition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl fmt::Display for TextCondition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl PartialEq for TextCondition {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name && self.text == other.text
    }
}

impl Eq for TextCondition {}

impl Hash for TextCondition {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.text.hash(state);
    }
}

impl TextCondition {
    fn new(name: &'static str, conjuncts: &[&Expr]) -> Result<Self> {
        let schema = Arc::new(Schema::new(vec![Field::new(name, schema::text(), false)]));
        let df_schema = DFSchema::try_from(schema.as_ref().clone())?;
        let text: Vec<String> = conjuncts.iter().map(ToString::to_string).collect();
        let physical = conjuncts
            .iter()
            .map(|conjunct| {
                // The filter may name the column by a table alias; the schema here has none.
                let bare = (*conjunct).clone().transform(|e| {
                    Ok(match e {
                        Expr::Column(c) => datafusion::common::tree_node::Transformed::yes(
                            Expr::Column(Column::from_name(c.name)),
                        ),
                        other => datafusion::common::tree_node::Transformed::no(other),
                    })
                })?;
                create_physical_expr(
                    &bare.data,
                    &df_schema,
                    &ExecutionProps::new(),
                    &PhysicalPlanningContext::default(),
                )
            })
            .collect::<Result<Vec<_>>>()?;
        let mut condition = Self {
            name,
            text: text.join(" AND "),
            schema,
            conjuncts: physical,
            candidates: None,
            remembered: Mutex::default(),
        };
        if let Some(listed) = conjuncts.iter().find_map(|conjunct| listed(conjunct)) {
            let listed: StringArray = listed.iter().map(Some).collect();
            let verdicts = condition.evaluate(&listed)?;
            let matching = listed.iter().zip(&verdicts).filter_map(|(text, verdict)| {
                verdict.unwrap_or(false).then(|| text.map(str::to_owned))?
            });
            condition.candidates = Some(matching.collect());
        }
        Ok(condition)
    }

    /// The only texts that match, when the condition lists them.
    pub(crate) fn candidates(&self) -> Option<&BTreeSet<String>> {
        self.candidates.as_ref()
    }

    /// Whether any listed text lies in `[low, high]`; `true` when none are listed.
    pub(crate) fn may_match(&self, low: &str, high: &str) -> bool {
        self.candidates
            .as_ref()
            .is_none_or(|set| any_within(set, low, high))
    }

    fn evaluate(&self, texts: &StringArray) -> Result<BooleanArray> {
        let count = i32::try_from(texts.len()).unwrap_or(i32::MAX);
        let keys = Int32Array::from_iter_values(0..count);
        let column: ArrayRef = Arc::new(DictionaryArray::try_new(keys, Arc::new(texts.clone()))?);
        let batch = RecordBatch::try_new(Arc::clone(&self.schema), vec![column])?;
        let mut all: Option<BooleanArray> = None;
        for conjunct in &self.conjuncts {
            let verdict = conjunct.evaluate(&batch)?.into_array(texts.len())?;
            let Some(verdict) = verdict.as_boolean_opt() else {
                return exec_err!("a condition on {} is no boolean", self.name);
            };
            // NULL is no match.
            let verdict = match verdict.null_count() {
                0 => verdict.clone(),
                _ => arrow::compute::prep_null_mask_filter(verdict),
            };
            all = Some(match all {
                None => verdict,
                Some(all) => arrow::compute::and(&all, &verdict)?,
            });
        }
        Ok(all.unwrap_or_else(|| vec![true; texts.len()].into()))
    }

    /// Which of `texts` match; remembered by their memory, which stays alive for it.
    pub(crate) fn of_dictionary(&self, texts: &StringArray) -> Result<BooleanArray> {
        let mut remembered = self.lock();
        let found = remembered
            .dictionaries
            .iter()
            .rev()
            .find(|(seen, _)| same_memory(seen, texts));
        if let Some((_, verdicts)) = found {
            return Ok(verdicts.clone());
        }
        let verdicts = self.evaluate(texts)?;
        if remembered.dictionaries.len() == 64 {
            remembered.dictionaries.remove(0);
        }
        remembered
            .dictionaries
            .push((texts.clone(), verdicts.clone()));
        Ok(verdicts)
    }

    /// Whether one text matches.
    pub(crate) fn of_text(&self, text: &str) -> Result<bool> {
        if let Some(known) = self.lock().texts.get(text) {
            return Ok(*known);
        }
        let verdict = self.evaluate(&StringArray::from(vec![text]))?.value(0);
        let mut remembered = self.lock();
        if remembered.texts.len() < REMEMBERED_MAX {
            remembered.texts.insert(text.to_owned(), verdict);
        }
        Ok(verdict)
    }

    /// Which rows of a dictionary column match.
    pub(crate) fn of_column(&self, column: &ArrayRef) -> Result<BooleanArray> {
        let Some(column) = column.as_dictionary_opt::<Int32Type>() else {
            return exec_err!("{} is not dictionary-encoded", self.name);
        };
        let Some(texts) = column.values().as_string_opt::<i32>() else {
            return exec_err!("{} is no text", self.name);
        };
        let verdicts = self.of_dictionary(texts)?;
        if verdicts.true_count() == verdicts.len() {
            return Ok(vec![true; column.len()].into());
        }
        let table: Vec<bool> = verdicts.values().iter().collect();
        let keys = column.keys().values();
        let rows = arrow::buffer::BooleanBuffer::collect_bool(column.len(), |row| {
            usize::try_from(keys[row])
                .ok()
                .and_then(|key| table.get(key))
                .copied()
                .unwrap_or(false)
        });
        Ok(BooleanArray::new(rows, None))
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Remembered> {
        self.remembered
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether `set` has a text in `[low, high]`.
pub(crate) fn any_within(set: &BTreeSet<String>, low: &str, high: &str) -> bool {
    low <= high
        && set
            .range::<str, _>((Bound::Included(low), Bound::Included(high)))
            .next()
            .is_some()
}

/// The texts a conjunct of the form `column = 'a'` or `column IN ('a', …)` lists.
fn listed(conjunct: &Expr) -> Option<Vec<String>> {
    let is_column = |e: &Expr| match e {
        Expr::Column(_) => true,
        Expr::Cast(cast) => matches!(cast.expr.as_ref(), Expr::Column(_)),
        _ => false,
    };
    let text = |e: &Expr| match e {
        Expr::Literal(value, _) => value.try_as_str().flatten().map(str::to_owned),
        _ => None,
    };
    match conjunct {
        Expr::BinaryExpr(BinaryExpr {
            left,
            op: Operator::Eq,
            right,
        }) => {
            if is_column(left) {
                Some(vec![text(right)?])
            } else if is_column(right) {
                Some(vec![text(left)?])
            } else {
                None
            }
        }
        Expr::BinaryExpr(BinaryExpr {
            left,
            op: Operator::Or,
            right,
        }) => {
            let mut all = listed(left)?;
            all.extend(listed(right)?);
            Some(all)
        }
        Expr::InList(InList {
            expr,
            list,
            negated: false,
        }) if is_column(expr) => list.iter().map(text).collect(),
        _ => None,
    }
}

#[cfg(test)]
mod tests;
