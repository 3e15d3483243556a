//! Which rows of a file must be read: by its row group statistics, then by its page index.
//!
//! Files are sorted by (metric, tags, ts), so the pages that may hold a match are few and
//! adjacent. Statistics of floating-point columns are never used (a NaN or −0.0 in them prunes
//! live rows), and a bound that is absent or no UTF-8 keeps the page.

use std::collections::BTreeSet;
use std::ops::Range;

use datafusion::datasource::physical_plan::parquet::{ParquetAccessPlan, RowGroupAccess};
use parquet::arrow::arrow_reader::{RowSelection, RowSelector};
use parquet::file::metadata::{ColumnChunkMetaData, ParquetMetaData};
use parquet::file::page_index::column_index::ColumnIndexMetaData;
use parquet::file::statistics::Statistics;

use super::filter::{Conditions, TextCondition, TsRange, any_within};
use super::footer::{METRIC, TAGS, TS};

/// The rows of one row group to read: ascending, disjoint, non-empty ranges.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct GroupRows {
    pub(crate) group: usize,
    /// Rows of the whole row group.
    pub(crate) total: usize,
    pub(crate) ranges: Vec<Range<usize>>,
}

impl GroupRows {
    pub(crate) fn count(&self) -> usize {
        self.ranges.iter().map(Range::len).sum()
    }
}

/// What is known of the tags that match within a row group.
pub(crate) enum Wanted<'a> {
    /// Nothing: keep every page.
    Any,
    /// These and no others.
    Only(&'a BTreeSet<String>),
}

fn text_bounds(column: &ColumnChunkMetaData) -> Option<(&str, &str)> {
    let Some(Statistics::ByteArray(stats)) = column.statistics() else {
        return None;
    };
    let low = std::str::from_utf8(stats.min_bytes_opt()?).ok()?;
    let high = std::str::from_utf8(stats.max_bytes_opt()?).ok()?;
    Some((low, high))
}

fn ts_bounds(column: &ColumnChunkMetaData) -> Option<(i64, i64)> {
    let Some(Statistics::Int64(stats)) = column.statistics() else {
        return None;
    };
    Some((*stats.min_opt()?, *stats.max_opt()?))
}

/// Whether a condition may hold somewhere between two bounds.
fn text_overlaps(condition: Option<&TextCondition>, bounds: Option<(&str, &str)>) -> bool {
    match (condition, bounds) {
        (Some(condition), Some((low, high))) if low == high => {
            condition.of_text(low).unwrap_or(true)
        }
        (Some(condition), Some((low, high))) => condition.may_match(low, high),
        _ => true,
    }
}

/// Whether a row group may hold a match, by its statistics alone.
pub(crate) fn group_may_match(
    metadata: &ParquetMetaData,
    group: usize,
    conditions: &Conditions,
) -> bool {
    let row_group = metadata.row_group(group);
    let ts = ts_bounds(row_group.column(TS));
    ts.is_none_or(|(from, to)| conditions.ts.overlaps(from, to))
        && text_overlaps(
            conditions.metric.as_deref(),
            text_bounds(row_group.column(METRIC)),
        )
        && text_overlaps(
            conditions.tags.as_deref(),
            text_bounds(row_group.column(TAGS)),
        )
}

/// Which conditions every row of a row group satisfies, by its statistics.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Whole {
    pub(crate) metric: bool,
    pub(crate) tags: bool,
    pub(crate) ts: bool,
}

/// Which conditions hold for a whole row group.
pub(crate) fn whole(metadata: &ParquetMetaData, group: usize, conditions: &Conditions) -> Whole {
    let row_group = metadata.row_group(group);
    let text = |condition: Option<&TextCondition>, column: usize| match condition {
        None => true,
        Some(condition) => text_bounds(row_group.column(column))
            .is_some_and(|(low, high)| low == high && condition.of_text(low).unwrap_or(false)),
    };
    let ts = ts_bounds(row_group.column(TS));
    Whole {
        metric: text(conditions.metric.as_deref(), METRIC),
        tags: text(conditions.tags.as_deref(), TAGS),
        ts: conditions.ts == TsRange::ALL
            || ts.is_some_and(|(from, to)| conditions.ts.holds(from, to)),
    }
}

/// The rows of one row group whose pages may hold a match.
pub(crate) fn group_rows(
    metadata: &ParquetMetaData,
    group: usize,
    conditions: &Conditions,
    tags: &Wanted<'_>,
) -> GroupRows {
    let total = usize::try_from(metadata.row_group(group).num_rows()).unwrap_or(0);
    let mut ranges: Vec<_> = std::iter::once(0..total).collect();
    let mut keep = |column: usize, wanted: &dyn Fn(&ColumnIndexMetaData, usize) -> bool| {
        if let Some(kept) = page_rows(metadata, group, column, total, wanted) {
            ranges = intersect(&ranges, &kept);
        }
    };
    if let Some(metric) = &conditions.metric {
        keep(METRIC, &|index, page| {
            text_overlaps(Some(metric), text_page(index, page))
        });
    }
    match tags {
        Wanted::Only(set) => keep(TAGS, &|index, page| {
            text_page(index, page).is_none_or(|(low, high)| any_within(set, low, high))
        }),
        Wanted::Any => {}
    }
    if conditions.ts != TsRange::ALL {
        keep(TS, &|index, page| {
            ts_page(index, page).is_none_or(|(from, to)| conditions.ts.overlaps(from, to))
        });
    }
    GroupRows {
        group,
        total,
        ranges,
    }
}

fn text_page(index: &ColumnIndexMetaData, page: usize) -> Option<(&str, &str)> {
    let ColumnIndexMetaData::BYTE_ARRAY(index) = index else {
        return None;
    };
    let low = std::str::from_utf8(index.min_value(page)?).ok()?;
    let high = std::str::from_utf8(index.max_value(page)?).ok()?;
    Some((low, high))
}

fn ts_page(index: &ColumnIndexMetaData, page: usize) -> Option<(i64, i64)> {
    let ColumnIndexMetaData::INT64(index) = index else {
        return None;
    };
    Some((*index.min_value(page)?, *index.max_value(page)?))
}

/// The rows of the pages of one column that `wanted` keeps; `None` without a page index.
fn page_rows(
    metadata: &ParquetMetaData,
    group: usize,
    column: usize,
    total: usize,
    wanted: &dyn Fn(&ColumnIndexMetaData, usize) -> bool,
) -> Option<Vec<Range<usize>>> {
    let index = metadata.column_index()?.get(group)?.get(column)?;
    let pages = metadata.offset_index()?.get(group)?.get(column)?;
    let pages = pages.page_locations();
    if index.num_pages() != pages.len() as u64 {
        return None;
    }
    let first = |page: usize| {
        pages.get(page).map_or(Some(total), |location| {
            usize::try_from(location.first_row_index).ok()
        })
    };
    let mut kept: Vec<Range<usize>> = Vec::new();
    for page in (0..pages.len()).filter(|page| wanted(index, *page)) {
        let (start, end) = (first(page)?, first(page + 1)?);
        match kept.last_mut() {
            Some(last) if last.end == start => last.end = end,
            _ => kept.push(start..end),
        }
    }
    Some(kept)
}

fn intersect(a: &[Range<usize>], b: &[Range<usize>]) -> Vec<Range<usize>> {
    let (mut i, mut j) = (0, 0);
    let mut both = Vec::new();
    while let (Some(x), Some(y)) = (a.get(i), b.get(j)) {
        let (start, end) = (x.start.max(y.start), x.end.min(y.end));
        if start < end {
            both.push(start..end);
        }
        if x.end < y.end {
            i += 1;
        } else {
            j += 1;
        }
    }
    both
}

/// The reader's form of `groups`, which must ascend by row group.
pub(crate) fn access_plan(metadata: &ParquetMetaData, groups: &[GroupRows]) -> ParquetAccessPlan {
    let mut plan = ParquetAccessPlan::new_none(metadata.num_row_groups());
    for rows in groups {
        if rows.count() == rows.total {
            plan.scan(rows.group);
        } else {
            plan.set(rows.group, RowGroupAccess::Selection(selection(rows)));
        }
    }
    plan
}

fn selection(rows: &GroupRows) -> RowSelection {
    let mut selectors = Vec::with_capacity(rows.ranges.len() * 2 + 1);
    let mut at = 0;
    for range in &rows.ranges {
        if range.start > at {
            selectors.push(RowSelector::skip(range.start - at));
        }
        selectors.push(RowSelector::select(range.len()));
        at = range.end;
    }
    if at < rows.total {
        selectors.push(RowSelector::skip(rows.total - at));
    }
    selectors.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_intersect_like_sets_of_rows() {
        let a = [0..4, 6..10, 12..13];
        let b = [2..7, 9..13];
        let rows = |ranges: &[Range<usize>]| -> BTreeSet<usize> {
            ranges.iter().cloned().flatten().collect()
        };
        let both = intersect(&a, &b);
        assert_eq!(rows(&both), &rows(&a) & &rows(&b));
        assert_eq!(both, [2..4, 6..7, 9..10, 12..13]);
    }

    #[test]
    fn a_selection_covers_the_whole_row_group() {
        let rows = GroupRows {
            group: 0,
            total: 10,
            ranges: vec![2..4, 7..8],
        };
        let selection = selection(&rows);
        assert_eq!(selection.row_count(), 3);
        let selectors: Vec<RowSelector> = selection.into();
        assert_eq!(selectors.iter().map(|s| s.row_count).sum::<usize>(), 10);
    }
}
