//! Which column of a table is metric, time, value and tag.

use crate::error::{Error, Result};
use crate::time::TimeUnit;

/// Columns named in an error.
const NAMED_MAX: usize = 50;
/// Names a time column has when none is named.
const TIMES: [&str; 5] = ["ts", "time", "timestamp", "_time", "date"];

/// What was asked for; what is `None` or empty is found by name.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Columns {
    /// The metric of every row; with several value columns it is `<metric>.<column>`.
    pub metric: Option<String>,
    /// The column that holds the metric's name [`metric`].
    pub metric_column: Option<String>,
    /// The column of timestamps [`ts`, `time`, `timestamp`, `_time` or `date`].
    pub time_column: Option<String>,
    /// The unit of numeric timestamps; told by their magnitude when absent.
    pub time_unit: Option<TimeUnit>,
    /// The columns of values [`value`].
    pub value_columns: Vec<String>,
    /// The columns of tags [all others; of them, `tags` is a JSON object].
    pub tag_columns: Option<Vec<String>>,
}

/// The columns of one file, by index.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Plan {
    pub metric: Metric,
    pub time: usize,
    pub time_unit: Option<TimeUnit>,
    /// Index and, when the metric's name is to be extended by it, the column's name.
    pub values: Vec<(usize, Option<String>)>,
    pub tags: Vec<(usize, String)>,
    /// A column of JSON objects.
    pub tags_json: Option<usize>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Metric {
    Column(usize),
    Fixed(String),
}

impl Columns {
    /// Finds the columns in a file that has `names`; `reserved` are neither values nor tags.
    pub(crate) fn plan(&self, names: &[String], reserved: &[&str]) -> Result<Plan> {
        let find = |name: &str| names.iter().position(|n| n == name);
        let need = |name: &str, what| {
            find(name).ok_or_else(|| Error::NoColumn {
                name: name.to_owned(),
                what,
                has: names.iter().take(NAMED_MAX).cloned().collect(),
            })
        };
        let metric = match (&self.metric, &self.metric_column) {
            (Some(name), None) => Metric::Fixed(name.clone()),
            (_, Some(column)) => Metric::Column(need(column, "the metric (metric column)")?),
            (None, None) => Metric::Column(need("metric", "the metric (or name one for all)")?),
        };
        let time = match &self.time_column {
            Some(name) => need(name, "the time")?,
            None => match TIMES.iter().find_map(|name| find(name)) {
                Some(time) => time,
                None => need(TIMES[0], "the time")?,
            },
        };
        let values = self.values(&need)?;
        let tags_json = find("tags").filter(|_| self.tag_columns.is_none());
        let is_other = |at: usize| {
            let used = [Some(time), tags_json, metric.column()];
            !used.contains(&Some(at)) && !values.iter().any(|(value, _)| *value == at)
        };
        let tags = match &self.tag_columns {
            Some(named) => named
                .iter()
                .map(|name| Ok((need(name, "a tag")?, name.clone())))
                .collect::<Result<_>>()?,
            None => (0..names.len())
                .filter(|at| is_other(*at) && !reserved.contains(&names[*at].as_str()))
                .map(|at| (at, names[at].clone()))
                .collect(),
        };
        Ok(Plan {
            metric,
            time,
            time_unit: self.time_unit,
            values,
            tags,
            tags_json,
        })
    }

    fn values(
        &self,
        need: &impl Fn(&str, &'static str) -> Result<usize>,
    ) -> Result<Vec<(usize, Option<String>)>> {
        match self.value_columns.as_slice() {
            [] => Ok(vec![(need("value", "the value")?, None)]),
            [one] => Ok(vec![(need(one, "the value")?, None)]),
            several => several
                .iter()
                .map(|name| Ok((need(name, "a value")?, Some(name.clone()))))
                .collect(),
        }
    }
}

impl Metric {
    fn column(&self) -> Option<usize> {
        match self {
            Self::Column(at) => Some(*at),
            Self::Fixed(_) => None,
        }
    }
}

/// The name of a value's metric.
pub(crate) fn metric_name(metric: &str, field: Option<&str>) -> String {
    match field {
        None => metric.to_owned(),
        Some(field) => format!("{metric}.{field}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(text: &str) -> Vec<String> {
        text.split(',').map(str::to_owned).collect()
    }

    #[test]
    fn a_plain_table_needs_no_mapping() {
        let plan = Columns::default().plan(&names("ts,metric,host,value,tags"), &[]);
        let plan = plan.unwrap();
        assert_eq!((plan.time, plan.metric), (0, Metric::Column(1)));
        assert_eq!(plan.values, [(3, None)]);
        assert_eq!(plan.tags, [(2, "host".to_owned())]);
        assert_eq!(plan.tags_json, Some(4));
    }

    #[test]
    fn several_values_of_a_named_metric_are_metrics_of_their_own() {
        let columns = Columns {
            metric: Some("disk".to_owned()),
            value_columns: names("read,write"),
            tag_columns: Some(names("dev")),
            ..Columns::default()
        };
        let plan = columns
            .plan(&names("time,dev,read,write,note"), &[])
            .unwrap();
        assert_eq!(plan.metric, Metric::Fixed("disk".to_owned()));
        assert_eq!(plan.values[1], (3, Some("write".to_owned())));
        assert_eq!(plan.tags, [(1, "dev".to_owned())]);
        assert_eq!(metric_name("disk", Some("read")), "disk.read");
    }

    #[test]
    fn a_missing_column_is_named_with_those_there_are() {
        let error = Columns::default().plan(&names("a,b"), &[]).unwrap_err();
        let text = "there is no column \"metric\" for the metric (or name one for all); \
                    the file has a, b";
        assert_eq!(error.to_string(), text);
    }
}
