//! What a parsed query may contain: plain reads, and nothing whose size the memory pool cannot see.
//!
//! The pool accounts for the states of aggregates, sorts and joins. It does not see the arrays that
//! expressions make for one batch of rows, so whatever multiplies text or lists there is refused
//! or bounded here.

use std::ops::ControlFlow;

use regex::RegexBuilder;
use sqlparser::ast::{
    BinaryOperator, DuplicateTreatment, Expr, Function, FunctionArg, FunctionArgExpr,
    FunctionArguments, ObjectName, Query, Select, SetExpr, TableFactor, Value, Visit, Visitor,
};

use crate::error::{Error, Result, limit, not_allowed};
use crate::{RELATIONS_MAX, SELECTS_MAX, TABLE_FUNCTION, weight};

/// Columns of a `CUBE`, which stands for 2ⁿ groupings.
const CUBE_MAX: usize = 5;
/// Groupings of a `ROLLUP` or a list of `GROUPING SETS`.
const GROUPINGS_MAX: usize = 32;
/// Expressions of one `SELECT`.
const COLUMNS_MAX: usize = 200;
/// Arguments of one function.
const ARGUMENTS_MAX: usize = 100;
/// Bytes of the format of a time: a letter of it can stand for a long text.
const FORMAT_BYTES_MAX: usize = 64;
/// Regular expressions of one statement: each may take megabytes once it is compiled.
const PATTERNS_MAX: usize = 8;
/// Bytes of one of them once it is compiled.
const PATTERN_BYTES_MAX: usize = 1 << 20;
/// Aggregates whose result grows with the rows.
const LISTS: [&str; 2] = ["array_agg", "string_agg"];
/// Aggregates whose answer costs as much as the rows so far: over a growing window that is the
/// square of the rows, in one step that no deadline can stop.
const NOT_OVER: [&str; 13] = [
    "approx_distinct",
    "approx_median",
    "approx_percentile_cont",
    "array_agg",
    "increase",
    "median",
    "percentile_cont",
    "quantile",
    "quantile_cont",
    "rate",
    "sketch_count",
    "string_agg",
    "grouping",
];

/// Walks a parsed query and stops at the first thing that is not a plain read.
///
/// # Errors
/// Says what is not allowed, or which limit is passed.
pub(crate) fn inspect(query: &Query, is_zone: fn(&str) -> bool) -> Result<()> {
    let mut inspector = Inspector {
        is_zone,
        selects: 0,
        relations: 0,
        patterns: 0,
        groupings: 0,
        lists: false,
        copies: false,
    };
    if let ControlFlow::Break(error) = query.visit(&mut inspector) {
        return Err(*error);
    }
    if inspector.lists && inspector.copies {
        return Err(not_allowed(
            "array_agg or string_agg in a query with joins, subqueries in expressions or windows",
        ));
    }
    weight::check(query)
}

struct Inspector {
    /// Whether the engine knows a time zone.
    is_zone: fn(&str) -> bool,
    selects: usize,
    relations: usize,
    patterns: usize,
    groupings: usize,
    /// An aggregate makes lists.
    lists: bool,
    /// Something repeats values per row.
    copies: bool,
}

fn stop<T>(result: Result<T>) -> ControlFlow<Box<Error>> {
    match result {
        Ok(_) => ControlFlow::Continue(()),
        Err(error) => ControlFlow::Break(Box::new(error)),
    }
}

/// Whether a call in `FROM` is the one that exists.
fn is_bins(name: &ObjectName) -> bool {
    matches!(name.0.as_slice(), [part] if part
        .as_ident()
        .is_some_and(|ident| ident.value.eq_ignore_ascii_case(TABLE_FUNCTION)))
}

fn body_reads_only(body: &SetExpr) -> Result<()> {
    match body {
        SetExpr::Select(_) | SetExpr::Query(_) | SetExpr::Values(_) => Ok(()),
        SetExpr::SetOperation { left, right, .. } => {
            body_reads_only(left)?;
            body_reads_only(right)
        }
        SetExpr::Insert(_) => Err(not_allowed("INSERT")),
        SetExpr::Update(_) => Err(not_allowed("UPDATE")),
        SetExpr::Delete(_) => Err(not_allowed("DELETE")),
        SetExpr::Merge(_) => Err(not_allowed("MERGE")),
        SetExpr::Table(_) => Err(not_allowed("TABLE")),
    }
}

/// A literal text.
fn literal(expr: &Expr) -> Option<&str> {
    match expr {
        Expr::Value(value) => match &value.value {
            Value::SingleQuotedString(text) => Some(text),
            _ => None,
        },
        _ => None,
    }
}

fn arguments(function: &Function) -> &[FunctionArg] {
    match &function.args {
        FunctionArguments::List(list) => &list.args,
        _ => &[],
    }
}

/// A pattern per row would be compiled per row, a batch at a time without a pause.
fn like(pattern: &Expr) -> Result<()> {
    match literal(pattern) {
        Some(_) => Ok(()),
        None => Err(not_allowed("a LIKE pattern that is no literal")),
    }
}

fn is_distinct(function: &Function) -> bool {
    matches!(&function.args, FunctionArguments::List(list)
        if list.duplicate_treatment == Some(DuplicateTreatment::Distinct))
}

impl Inspector {
    fn function(&mut self, function: &Function) -> Result<()> {
        let name = function.name.0.last().and_then(|part| part.as_ident());
        let name = name.map(|ident| ident.value.to_lowercase());
        let name = name.unwrap_or_default();
        let arguments = arguments(function);
        limit("arguments of a function", arguments.len(), ARGUMENTS_MAX)?;
        self.lists |= LISTS.contains(&name.as_str());
        if function.over.is_some() {
            self.copies = true;
            if NOT_OVER.contains(&name.as_str()) {
                return Err(not_allowed(format!("{name} with OVER")));
            }
            if is_distinct(function) {
                return Err(not_allowed("DISTINCT with OVER"));
            }
        }
        let second = arguments.get(1).and_then(|argument| match argument {
            FunctionArg::Unnamed(FunctionArgExpr::Expr(expr)) => literal(expr),
            _ => None,
        });
        match name.as_str() {
            "to_char" | "date_format" => match second {
                Some(format) => limit("bytes of a time format", format.len(), FORMAT_BYTES_MAX),
                None => Err(not_allowed("a time format that is no literal")),
            },
            "regexp_like" | "regexp_count" => self.pattern(second),
            _ => Ok(()),
        }
    }

    fn pattern(&mut self, pattern: Option<&str>) -> Result<()> {
        self.patterns += 1;
        limit("regular expressions", self.patterns, PATTERNS_MAX)?;
        let Some(pattern) = pattern else {
            return Err(not_allowed("a regular expression that is no literal"));
        };
        let compiled = RegexBuilder::new(pattern)
            .size_limit(PATTERN_BYTES_MAX)
            .build();
        compiled.map(drop).map_err(Error::Pattern)
    }

    fn grouping(&mut self, what: &'static str, size: usize, most: usize) -> Result<()> {
        self.groupings += 1;
        limit("CUBE, ROLLUP and GROUPING SETS", self.groupings, 1)?;
        limit(what, size, most)
    }

    fn expression(&mut self, expr: &Expr) -> Result<()> {
        match expr {
            Expr::Cube(sets) => self.grouping("columns in a CUBE", sets.len(), CUBE_MAX),
            Expr::Rollup(sets) | Expr::GroupingSets(sets) => {
                self.grouping("groupings", sets.len(), GROUPINGS_MAX)
            }
            Expr::Function(function) => self.function(function),
            Expr::BinaryOp {
                op:
                    BinaryOperator::PGRegexMatch
                    | BinaryOperator::PGRegexIMatch
                    | BinaryOperator::PGRegexNotMatch
                    | BinaryOperator::PGRegexNotIMatch
                    | BinaryOperator::Regexp,
                right,
                ..
            } => self.pattern(literal(right)),
            Expr::Like { pattern, .. } | Expr::ILike { pattern, .. } => like(pattern),
            Expr::BinaryOp {
                op:
                    BinaryOperator::PGLikeMatch
                    | BinaryOperator::PGILikeMatch
                    | BinaryOperator::PGNotLikeMatch
                    | BinaryOperator::PGNotILikeMatch,
                right,
                ..
            } => like(right),
            Expr::SimilarTo { .. } | Expr::RLike { .. } => Err(not_allowed("SIMILAR TO")),
            Expr::Subquery(_) | Expr::InSubquery { .. } | Expr::Exists { .. } => {
                self.copies = true;
                Ok(())
            }
            Expr::AtTimeZone { time_zone, .. } => match literal(time_zone) {
                Some(zone) if (self.is_zone)(zone) => Ok(()),
                Some(zone) => Err(Error::NoSuchZone {
                    name: zone.chars().take(100).collect(),
                }),
                None => Err(not_allowed("a time zone that is no literal")),
            },
            _ => Ok(()),
        }
    }
}

impl Visitor for Inspector {
    type Break = Box<Error>;

    fn pre_visit_query(&mut self, query: &Query) -> ControlFlow<Box<Error>> {
        let refused = if query.with.as_ref().is_some_and(|with| with.recursive) {
            Some("WITH RECURSIVE")
        } else if !query.locks.is_empty() || query.for_clause.is_some() {
            Some("FOR")
        } else if query.settings.is_some() || query.format_clause.is_some() {
            Some("SETTINGS or FORMAT")
        } else if !query.pipe_operators.is_empty() {
            Some("a pipe operator")
        } else {
            None
        };
        stop(match refused {
            Some(what) => Err(not_allowed(what)),
            None => body_reads_only(&query.body),
        })
    }

    fn pre_visit_select(&mut self, select: &Select) -> ControlFlow<Box<Error>> {
        self.selects += 1;
        self.copies |= select.from.len() > 1;
        self.copies |= select.from.iter().any(|from| !from.joins.is_empty());
        stop(if select.into.is_some() {
            Err(not_allowed("SELECT INTO"))
        } else {
            limit("SELECTs", self.selects, SELECTS_MAX)
                .and_then(|()| limit("columns", select.projection.len(), COLUMNS_MAX))
        })
    }

    fn pre_visit_table_factor(&mut self, factor: &TableFactor) -> ControlFlow<Box<Error>> {
        self.relations += 1;
        let plain = match factor {
            TableFactor::Table {
                name,
                args,
                version,
                sample,
                json_path,
                with_ordinality,
                with_hints,
                partitions,
                index_hints,
                ..
            } => {
                args.as_ref().is_none_or(|_| is_bins(name))
                    && version.is_none()
                    && sample.is_none()
                    && json_path.is_none()
                    && !with_ordinality
                    && with_hints.is_empty()
                    && partitions.is_empty()
                    && index_hints.is_empty()
            }
            TableFactor::Derived { sample, .. } => sample.is_none(),
            TableFactor::NestedJoin { .. } => true,
            _ => false,
        };
        stop(if plain {
            limit("relations", self.relations, RELATIONS_MAX)
        } else {
            Err(not_allowed("a table function"))
        })
    }

    fn pre_visit_expr(&mut self, expr: &Expr) -> ControlFlow<Box<Error>> {
        stop(self.expression(expr))
    }
}
