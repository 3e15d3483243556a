//! JSON bodies. The top level is read once, as slices of its values; then each list is read as a
//! stream, each item on its own, so a malformed item costs only itself and nesting costs nothing.

use std::borrow::Cow;

use serde::de::{self, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;
use stele_model::Limits;

use super::MEASUREMENTS_MAX;
use super::gather::{Defaults, Gather};
use super::item::{Item, List, Raw};
use crate::check::Quoted;
use crate::pairs::Text;
use crate::{Decoded, Error};

/// The top level of either body.
#[derive(serde::Deserialize)]
#[serde(expecting = "an object")]
struct Top<'a> {
    #[serde(borrow)]
    gauges: Option<Raw<'a>>,
    #[serde(borrow)]
    counters: Option<Raw<'a>>,
    #[serde(borrow)]
    measurements: Option<Raw<'a>>,
    #[serde(borrow, alias = "measure_time")]
    time: Option<Raw<'a>>,
    #[serde(borrow)]
    source: Option<Raw<'a>>,
    #[serde(borrow)]
    tags: Option<Raw<'a>>,
    #[serde(rename = "resourceMetrics", alias = "resource_metrics")]
    otlp: Option<IgnoredAny>,
}

/// Decodes the JSON of `POST /v1/metrics`.
///
/// # Errors
/// [`Error::Body`] when it is no JSON object, [`Error::Nothing`] when it holds neither list,
/// [`Error::Otlp`] when it is OTLP, [`Error::Samples`] and [`Error::SeriesBytes`] when it is too
/// large.
pub fn metrics(body: &[u8], now_us: i64, limits: &Limits) -> Result<Decoded, Error> {
    let top = top(body, "a JSON object of gauges and counters")?;
    if top.gauges.is_none() && top.counters.is_none() {
        return Err(match top.otlp {
            Some(_) => Error::Otlp,
            None => Error::Nothing {
                expected: "gauges or counters",
            },
        });
    }
    let mut gather = Gather::new(now_us, limits);
    let (time, source, tags) = (top.time.as_ref(), top.source.as_ref(), top.tags.as_ref());
    let defaults = gather.defaults(List::Gauges, time, source, tags);
    for (list, raw) in [(List::Gauges, &top.gauges), (List::Counters, &top.counters)] {
        if let Some(raw) = raw {
            read(list, raw, &mut gather, &defaults, None)?;
        }
    }
    Ok(gather.finish())
}

/// Decodes the JSON of `POST /v1/measurements`.
///
/// # Errors
/// [`Error::Body`] when it is no JSON object, [`Error::Nothing`] when it holds no measurements,
/// [`Error::Items`], [`Error::Samples`] and [`Error::SeriesBytes`] when it is too large.
pub fn measurements(body: &[u8], now_us: i64, limits: &Limits) -> Result<Decoded, Error> {
    let top = top(body, "a JSON object of measurements")?;
    let Some(raw) = &top.measurements else {
        return Err(Error::Nothing {
            expected: "measurements",
        });
    };
    let mut gather = Gather::new(now_us, limits);
    let list = List::Measurements;
    let (time, source, tags) = (top.time.as_ref(), top.source.as_ref(), top.tags.as_ref());
    let defaults = gather.defaults(list, time, source, tags);
    read(list, raw, &mut gather, &defaults, Some(MEASUREMENTS_MAX))?;
    Ok(gather.finish())
}

fn top<'a>(body: &'a [u8], expected: &'static str) -> Result<Top<'a>, Error> {
    let first = body.iter().find(|b| !b.is_ascii_whitespace());
    // A derived struct would also read an array of its fields.
    let read = match first {
        Some(b'[') => Err(de::Error::custom("an array, expected an object")),
        _ => serde_json::from_slice(body),
    };
    read.map_err(|source| Error::Body { expected, source })
}

/// Takes every item of `list`.
fn read(
    list: List,
    raw: &Raw<'_>,
    gather: &mut Gather,
    defaults: &Defaults,
    items_max: Option<u64>,
) -> Result<(), Error> {
    let text = raw.as_sent();
    let mut items = Items {
        list,
        gather,
        defaults,
        items_max,
        index: 0,
        stopped: None,
    };
    let mut parser = serde_json::Deserializer::from_str(text);
    let read = match text.as_bytes().first() {
        Some(b'[') => parser.deserialize_seq(&mut items),
        Some(b'{') if list != List::Measurements => parser.deserialize_map(&mut items),
        _ => {
            let forms = match list {
                List::Measurements => "no array",
                List::Gauges | List::Counters => "neither an array nor an object",
            };
            let reason = format!("{} is {forms}", Quoted(text.as_bytes()));
            items
                .gather
                .refuse(format_args!("{}", list.as_str()), &reason);
            Ok(())
        }
    };
    if let Some(error) = items.stopped {
        return Err(error);
    }
    let expected = list.as_str();
    read.map_err(|source| Error::Body { expected, source })
}

struct Items<'g> {
    list: List,
    gather: &'g mut Gather,
    defaults: &'g Defaults,
    items_max: Option<u64>,
    index: u64,
    /// The error that ended the stream early.
    stopped: Option<Error>,
}

impl<'de> Visitor<'de> for &mut Items<'_> {
    type Value = ();

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("an array or an object")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
        while let Some(raw) = seq.next_element::<&'de RawValue>()? {
            self.item(None, raw.get())?;
        }
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        while let Some((key, raw)) = map.next_entry::<&'de RawValue, &'de RawValue>()? {
            self.item(Some(key.get()), raw.get())?;
        }
        Ok(())
    }
}

impl Items<'_> {
    fn item<E: de::Error>(&mut self, key: Option<&str>, raw: &str) -> Result<(), E> {
        let taken = self.take(key, raw);
        taken.map_err(|error| {
            self.stopped = Some(error);
            // This text is ours and is not shown: `stopped` is.
            E::custom("over a limit")
        })
    }

    fn take(&mut self, key: Option<&str>, raw: &str) -> Result<(), Error> {
        if let Some(limit) = self.items_max.filter(|limit| self.index >= *limit) {
            return Err(Error::Items { limit });
        }
        let name = key.map(|key| serde_json::from_str::<Text<'_>>(key).map(|text| text.0));
        let (name, item) = match name.transpose() {
            Ok(name) => (name, parse(raw)),
            Err(error) => (key.map(Cow::Borrowed), Err(unplaced(&error))),
        };
        let index = self.index;
        self.index += 1;
        let item = item.as_ref().map_err(Clone::clone);
        self.gather
            .take(self.list, index, name.as_deref(), item, self.defaults)
    }
}

fn parse(raw: &str) -> Result<Item<'_>, String> {
    // A derived struct would also read an array of its fields.
    if !raw.starts_with('{') {
        return Err(format!("{} is no object", Quoted(raw.as_bytes())));
    }
    serde_json::from_str(raw).map_err(|error| unplaced(&error))
}

/// The parser's message without its line and column, which count inside one item, and cut: it may
/// quote the sender's text.
fn unplaced(error: &serde_json::Error) -> String {
    let text = error.to_string();
    let place = format!(" at line {} column {}", error.line(), error.column());
    let text = text.strip_suffix(&place).unwrap_or(&text);
    text.chars().take(200).collect()
}
