//! From items to rows: names, tags and times are checked, equal gauges merged.

use std::borrow::Cow;
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::fmt;

use stele_model::{Extra, Kind, Limits, Rejections, tags};

use super::item::{Item, List, Raw};
use super::reading::Reading;
use crate::check::{Builder, Quoted, TimeRange, check_metric, check_tags};
use crate::pairs::{Pairs, Text};
use crate::{Decoded, Error};

/// Librato's own limits; those of the store hold besides.
const NAME_BYTES_MAX: u64 = 255;
const TAGS_MAX: u64 = 50;
const TAG_NAME_BYTES_MAX: u64 = 64;
const TAG_VALUE_BYTES_MAX: u64 = 255;

/// What holds for an item that does not say it itself; an error refuses those items.
#[derive(Debug)]
pub(super) struct Defaults {
    pub ts_us: Result<i64, String>,
    /// Canonical.
    pub tags: Result<String, String>,
    /// Why every item is refused.
    pub all: Option<&'static str>,
}

pub(super) const TAGS_ELSEWHERE: &str = "tags belong to /v1/measurements, here there is source";
pub(super) const SOURCE_ELSEWHERE: &str = "source belongs to /v1/metrics, send it as a tag";

/// Rows under construction.
pub(super) struct Gather {
    now_us: i64,
    range: TimeRange,
    /// The store's, lowered to Librato's.
    limits: Limits,
    out: Builder,
    rejections: Rejections,
    /// (series, ts) of gauges and measurements to their row.
    rows: HashMap<(u32, i64), usize>,
    /// The number of items seen.
    position: u64,
}

/// A sample that broke no rule of its own.
struct Checked<'a> {
    metric: Cow<'a, str>,
    tags: Cow<'a, str>,
    ts_us: i64,
    reading: Reading,
}

impl Gather {
    pub(super) fn new(now_us: i64, limits: &Limits) -> Self {
        let lowered = Limits {
            metric_bytes_max: limits.metric_bytes_max.min(NAME_BYTES_MAX),
            tags_max: limits.tags_max.min(TAGS_MAX),
            tag_name_bytes_max: limits.tag_name_bytes_max.min(TAG_NAME_BYTES_MAX),
            tag_value_bytes_max: limits.tag_value_bytes_max.min(TAG_VALUE_BYTES_MAX),
            ..*limits
        };
        Self {
            now_us,
            range: TimeRange::new(now_us, limits),
            limits: lowered,
            out: Builder::new(limits),
            rejections: Rejections::default(),
            rows: HashMap::new(),
            position: 0,
        }
    }

    pub(super) fn finish(self) -> Decoded {
        Decoded {
            rows: self.out.rows,
            rejections: self.rejections,
            positions: self.out.positions,
        }
    }

    /// What the top level of a request says of all its items.
    pub(super) fn defaults(
        &self,
        list: List,
        time: Option<&Raw<'_>>,
        source: Option<&Raw<'_>>,
        tags: Option<&Raw<'_>>,
    ) -> Defaults {
        let above = |reason: String| format!("at the top level, {reason}");
        let ts_us = time.map_or(Ok(self.now_us), |time| time.instant(self.range));
        let (own, all) = match list {
            List::Measurements => (self.tags(tags), source.map(|_| SOURCE_ELSEWHERE)),
            List::Gauges | List::Counters => (self.source(source), tags.map(|_| TAGS_ELSEWHERE)),
        };
        let own = own.map(|tags| tags.unwrap_or_else(|| tags::EMPTY.to_owned()));
        Defaults {
            ts_us: ts_us.map_err(above),
            tags: own.map_err(above),
            all,
        }
    }

    /// Refuses what stands at `place`.
    pub(super) fn refuse(&mut self, place: fmt::Arguments<'_>, reason: &str) {
        self.rejections
            .push(self.position, || format!("{place}: {reason}"));
        self.position += 1;
    }

    /// Takes the item that stands at `index` of `list`, in a map under `key`.
    pub(super) fn take(
        &mut self,
        list: List,
        index: u64,
        key: Option<&str>,
        item: Result<&Item<'_>, String>,
        defaults: &Defaults,
    ) -> Result<(), Error> {
        let checked = item.and_then(|item| self.check(list, key, item, defaults));
        let taken = match checked {
            Ok(checked) => self.push(list, &checked)?,
            Err(reason) => Err(reason),
        };
        match taken {
            Ok(()) => self.position += 1,
            Err(reason) => {
                let list = list.as_str();
                match key {
                    Some(key) => {
                        let key = Quoted(key.as_bytes());
                        self.refuse(
                            format_args!("{list}[{index}]"),
                            &format!("{reason} (key {key})"),
                        );
                    }
                    None => self.refuse(format_args!("{list}[{index}]"), &reason),
                }
            }
        }
        Ok(())
    }

    fn check<'i>(
        &self,
        list: List,
        key: Option<&'i str>,
        item: &'i Item<'_>,
        defaults: &'i Defaults,
    ) -> Result<Checked<'i>, String> {
        if let Some(reason) = defaults.all {
            return Err(reason.to_owned());
        }
        let metric = self.metric(key, item)?;
        let own = match list {
            List::Measurements if item.source.is_some() => return Err(SOURCE_ELSEWHERE.to_owned()),
            List::Measurements => self.tags(item.tags.as_ref())?,
            List::Gauges | List::Counters if item.tags.is_some() => {
                return Err(TAGS_ELSEWHERE.to_owned());
            }
            List::Gauges | List::Counters => self.source(item.source.as_ref())?,
        };
        let tags = match own {
            Some(own) => Cow::Owned(own),
            None => Cow::Borrowed(defaults.tags.as_deref().map_err(Clone::clone)?),
        };
        let ts_us = match &item.time {
            Some(time) => time.instant(self.range)?,
            None => defaults.ts_us.clone()?,
        };
        Ok(Checked {
            metric,
            tags,
            ts_us,
            reading: Reading::of(item, list)?,
        })
    }

    fn metric<'i>(&self, key: Option<&'i str>, item: &'i Item<'_>) -> Result<Cow<'i, str>, String> {
        let is_index = |key: &&str| key.bytes().all(|b| b.is_ascii_digit());
        let metric = match &item.name {
            Some(name) => {
                let shown = Quoted(name.as_sent().as_bytes());
                name.text()
                    .ok_or_else(|| format!("name {shown} is no text"))?
            }
            None => Cow::Borrowed(key.filter(|key| !is_index(key)).unwrap_or_default()),
        };
        check_metric(&metric, &self.limits).map_err(|fault| fault.to_string())?;
        allowed("metric name", &metric, ".:_-")?;
        Ok(metric)
    }

    /// The canonical tags of a `source`; `None` when it says nothing.
    fn source(&self, source: Option<&Raw<'_>>) -> Result<Option<String>, String> {
        let Some(raw) = source else {
            return Ok(None);
        };
        let shown = Quoted(raw.as_sent().as_bytes());
        let source = raw
            .text()
            .ok_or_else(|| format!("source {shown} is no text"))?;
        if source.is_empty() {
            return Ok(None);
        }
        let pairs = [("source", &*source)];
        check_tags(&pairs, &self.limits).map_err(|fault| fault.to_string())?;
        allowed("source", &source, VALUE_SIGNS)?;
        Ok(Some(tags::canonical(&pairs)))
    }

    /// The canonical text of an object of tags; `None` when there is none in it.
    fn tags(&self, tags: Option<&Raw<'_>>) -> Result<Option<String>, String> {
        let Some(raw) = tags else {
            return Ok(None);
        };
        let no_map = || {
            let shown = Quoted(raw.as_sent().as_bytes());
            format!("tags {shown} are no object of texts")
        };
        let Raw::Json(json) = raw else {
            return Err(no_map());
        };
        let sent = Pairs::<Option<Text<'_>>>::read(json, &self.limits).map_err(|_| no_map())?;
        let all = sent.all(&self.limits).map_err(|fault| fault.to_string())?;
        let lower = |text: &str| text.to_ascii_lowercase();
        let given = all.iter().filter_map(|(name, value)| {
            // `null` unsets a tag, and here nothing is inherited that could be unset.
            let value = value.as_ref()?;
            Some((lower(&name.0), lower(&value.0)))
        });
        let mut given: Vec<(String, String)> = given.collect();
        given.sort_unstable();
        let pairs: Vec<(&str, &str)> = given.iter().map(|(k, v)| (&**k, &**v)).collect();
        check_tags(&pairs, &self.limits).map_err(|fault| fault.to_string())?;
        for (name, value) in &pairs {
            allowed("tag name", name, ".:_-")?;
            allowed("tag value", value, VALUE_SIGNS)?;
        }
        Ok((!pairs.is_empty()).then(|| tags::canonical(&pairs)))
    }

    /// The inner error refuses the sample.
    fn push(&mut self, list: List, sample: &Checked<'_>) -> Result<Result<(), String>, Error> {
        let series = self.out.series_of(&sample.metric, &sample.tags)?;
        let kind = match list {
            List::Counters => Kind::Counter,
            List::Gauges | List::Measurements => Kind::Gauge,
        };
        let mut reading = sample.reading;
        if kind == Kind::Gauge
            && let Entry::Occupied(known) = self.rows.entry((series, sample.ts_us))
        {
            let row = *known.get();
            let before = Reading {
                value: self.out.rows.rows[row].value,
                summary: self.out.rows.extra(&self.out.rows.rows[row]).summary,
            };
            let Some(merged) = before.merge(&reading) else {
                let reason =
                    "with the others of its name, tags and time its sum is beyond a double";
                return Ok(Err(reason.to_owned()));
            };
            reading = merged;
            self.out.set(row, reading.value, extra(kind, &reading));
            return Ok(Ok(()));
        }
        self.out
            .positions
            .note(self.out.rows.len(), 1, self.position);
        let row = self
            .out
            .push_with(series, sample.ts_us, reading.value, extra(kind, &reading))?;
        if kind == Kind::Gauge {
            self.rows.insert((series, sample.ts_us), row);
        }
        Ok(Ok(()))
    }
}

fn extra(kind: Kind, reading: &Reading) -> Extra {
    Extra {
        kind,
        rank: None,
        summary: reading.summary,
    }
}

/// What a tag value or a source may hold besides letters and digits.
const VALUE_SIGNS: &str = ".:_-?\\/ ";

/// Whether `text` holds nothing but ASCII letters, digits and `signs`.
fn allowed(what: &str, text: &str, signs: &str) -> Result<(), String> {
    let bad = text
        .chars()
        .find(|c| !c.is_ascii_alphanumeric() && !signs.contains(*c));
    match bad {
        None => Ok(()),
        Some(bad) => Err(format!(
            "{what} {} holds {bad:?}: only A-Z, a-z, 0-9 and {signs:?} may stand in it",
            Quoted(text.as_bytes())
        )),
    }
}
