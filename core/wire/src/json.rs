//! The native format: `{"samples":[{"metric":"cpu","tags":{"host":"a"},"ts":…,"value":1.5}]}`.
//!
//! `ts` is an RFC 3339 text or µs since the epoch; without it a sample gets the receive time.
//! `tags` may be left out. The array is read as a stream, each element on its own, so a malformed
//! sample costs only itself; text that is no JSON, or another top level, refuses the request.

use std::borrow::Cow;
use std::fmt;

use serde::Deserialize;
use serde::de::{self, DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;
use stele_model::time::{SECOND_US, parse_rfc3339};
use stele_model::{Limits, Rejections, tags};

use crate::check::{Builder, Quoted, TimeRange, check_metric, check_tags};
use crate::pairs::{Pairs, Text};
use crate::{Decoded, Error};

/// Decodes the body of one request. A rejection's position is the 0-based index of the sample.
///
/// # Errors
/// [`Error::Json`] when the body as a whole is not `{"samples":[…]}`; [`Error::Samples`] and
/// [`Error::SeriesBytes`] when it is too large.
pub fn decode(body: &[u8], now_us: i64, limits: &Limits) -> Result<Decoded, Error> {
    let mut decoder = JsonDecoder {
        now_us,
        limits,
        range: TimeRange::new(now_us, limits),
        out: Builder::new(limits),
        rejections: Rejections::default(),
        stopped: None,
    };
    let mut parser = serde_json::Deserializer::from_slice(body);
    let read = parser
        .deserialize_map(TopLevel(&mut decoder))
        .and_then(|()| parser.end());
    if let Some(error) = decoder.stopped {
        return Err(error);
    }
    read.map_err(|source| Error::Json { source })?;
    Ok(Decoded {
        rows: decoder.out.rows,
        rejections: decoder.rejections,
        positions: decoder.out.positions,
    })
}

struct JsonDecoder<'l> {
    now_us: i64,
    limits: &'l Limits,
    range: TimeRange,
    out: Builder,
    rejections: Rejections,
    /// The error that ended the stream early.
    stopped: Option<Error>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Sample<'a> {
    #[serde(borrow)]
    metric: Cow<'a, str>,
    #[serde(borrow, default, deserialize_with = "as_sent")]
    tags: Option<&'a RawValue>,
    #[serde(borrow, default)]
    ts: Option<Timestamp<'a>>,
    value: Exact,
}

/// A number read to the nearest double; the parser's own way is off by one bit now and then.
struct Exact(f64);

impl<'de> Deserialize<'de> for Exact {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let raw = <&RawValue>::deserialize(deserializer)?.get();
        // Of JSON's values only numbers parse.
        let value: Option<f64> = raw.parse().ok();
        match value {
            Some(value) if value.is_finite() => Ok(Self(value)),
            Some(_) => Err(de::Error::custom("number out of range")),
            None => {
                let shown = Quoted(raw.as_bytes());
                Err(de::Error::custom(format!("value {shown} is no number")))
            }
        }
    }
}

#[derive(Deserialize)]
#[serde(
    untagged,
    expecting = "ts is neither an RFC 3339 text nor whole µs since the epoch"
)]
enum Timestamp<'a> {
    Us(i64),
    Text(#[serde(borrow)] Cow<'a, str>),
}

/// `tags` as it stands, read only when the rest of the sample holds: by then it is known to be
/// JSON, and how many of its pairs are to be kept.
fn as_sent<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<&'de RawValue>, D::Error> {
    <&RawValue>::deserialize(deserializer).map(Some)
}

struct TopLevel<'d, 'l>(&'d mut JsonDecoder<'l>);

impl<'de> Visitor<'de> for TopLevel<'_, '_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object with the one key \"samples\"")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let mut seen = false;
        while let Some(key) = map.next_key::<Cow<'de, str>>()? {
            if key != "samples" {
                let shown = Quoted(key.as_bytes()).to_string();
                return Err(de::Error::custom(format!("unknown key {shown}")));
            }
            if std::mem::replace(&mut seen, true) {
                return Err(de::Error::duplicate_field("samples"));
            }
            map.next_value_seed(Samples(&mut *self.0))?;
        }
        if seen {
            Ok(())
        } else {
            Err(de::Error::missing_field("samples"))
        }
    }
}

struct Samples<'d, 'l>(&'d mut JsonDecoder<'l>);

impl<'de> DeserializeSeed<'de> for Samples<'_, '_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_seq(self)
    }
}

impl<'de> Visitor<'de> for Samples<'_, '_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an array of samples")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
        let mut position = 0;
        while let Some(raw) = seq.next_element::<&'de RawValue>()? {
            if let Err(error) = self.0.sample(position, raw.get()) {
                // The text is ours and is not shown: `stopped` is.
                let stop = de::Error::custom("over a limit");
                self.0.stopped = Some(error);
                return Err(stop);
            }
            position += 1;
        }
        Ok(())
    }
}

impl JsonDecoder<'_> {
    fn sample(&mut self, position: u64, raw: &str) -> Result<(), Error> {
        // A derived struct would also read an array of its fields.
        if !raw.starts_with('{') {
            self.rejections.push(position, || {
                let shown = Quoted(raw.as_bytes());
                format!("{shown} is no object of metric, tags, ts and value")
            });
            return Ok(());
        }
        let kept = self.out.rows.rows.len();
        let refused = match serde_json::from_str::<Sample<'_>>(raw) {
            Ok(sample) => self.accept(&sample)?,
            Err(error) => Err(unplaced(&error)),
        };
        if let Err(reason) = refused {
            self.rejections.push(position, || reason);
        }
        let rows = self.out.rows.rows.len() - kept;
        self.out.positions.note(kept, rows, position);
        Ok(())
    }

    /// The inner error says why the sample is refused.
    fn accept(&mut self, sample: &Sample<'_>) -> Result<Result<(), String>, Error> {
        let ts_us = match self.ts_us(sample.ts.as_ref()) {
            Ok(ts_us) => ts_us,
            Err(reason) => return Ok(Err(reason)),
        };
        if let Err(fault) = check_metric(&sample.metric, self.limits) {
            return Ok(Err(fault.to_string()));
        }
        let tags = match self.tags(sample.tags) {
            Ok(tags) => tags,
            Err(reason) => return Ok(Err(reason)),
        };
        let series = self.out.series_of(&sample.metric, &tags)?;
        self.out.push(series, ts_us, sample.value.0)?;
        Ok(Ok(()))
    }

    /// The canonical text of an object of tags.
    fn tags(&self, sent: Option<&RawValue>) -> Result<String, String> {
        let sent = sent.map_or(tags::EMPTY, RawValue::get);
        let sent = Pairs::<Text<'_>>::read(sent, self.limits).map_err(|e| unplaced(&e))?;
        let all = sent.all(self.limits).map_err(|fault| fault.to_string())?;
        let mut pairs: Vec<(&str, &str)> = all.iter().map(|(k, v)| (&*k.0, &*v.0)).collect();
        pairs.sort_unstable();
        check_tags(&pairs, self.limits).map_err(|fault| fault.to_string())?;
        Ok(tags::canonical(&pairs))
    }

    fn ts_us(&self, ts: Option<&Timestamp<'_>>) -> Result<i64, String> {
        let (ts_us, number) = match ts {
            None => (self.now_us, None),
            Some(Timestamp::Us(us)) => (*us, Some(*us)),
            Some(Timestamp::Text(text)) => {
                let parsed = parse_rfc3339(text);
                let shown = Quoted(text.as_bytes());
                let ts_us = parsed.ok_or_else(|| format!("ts {shown} is not RFC 3339"))?;
                (ts_us, None)
            }
        };
        if self.range.contains(ts_us) {
            return Ok(ts_us);
        }
        let reason = self.range.reason(ts_us);
        let units = [(1_000, "ms"), (SECOND_US, "seconds")];
        let slip = units.iter().find(|(factor, _)| {
            let meant = number.and_then(|n| n.checked_mul(*factor));
            meant.is_some_and(|ts| self.range.contains(ts))
        });
        Err(match slip {
            Some((_, unit)) => format!("{reason}: ts is in µs since the epoch, is this {unit}?"),
            None => reason,
        })
    }
}

/// The parser's message without its line and column, which count inside one sample, and cut: it
/// may quote the sender's text.
fn unplaced(error: &serde_json::Error) -> String {
    let text = error.to_string();
    let place = format!(" at line {} column {}", error.line(), error.column());
    let text = text.strip_suffix(&place).unwrap_or(&text);
    text.chars().take(200).collect()
}

#[cfg(test)]
mod tests {
    use stele_model::time::rfc3339;

    use super::*;

    const NOW_US: i64 = 1_795_000_000_000_000;

    fn run(body: &str) -> Decoded {
        decode(body.as_bytes(), NOW_US, &Limits::default()).unwrap()
    }

    #[test]
    fn accepted_samples_keep_their_positions() {
        let decoded = run(
            r#"{"samples":[{"metric":"a","value":1},{},{"metric":"b","value":1},{"metric":"a","value":2}]}"#,
        );
        let positions: Vec<u64> = (0..3).map(|row| decoded.positions.of(row)).collect();
        assert_eq!(positions, [0, 2, 3]);
    }

    fn show(decoded: &Decoded) -> String {
        let mut out = String::new();
        for row in &decoded.rows.rows {
            let series = &decoded.rows.series[row.series as usize];
            out += &format!(
                "{} {} {:?} {}\n",
                series.metric,
                series.tags,
                row.value,
                rfc3339(row.ts_us)
            );
        }
        for rejection in &decoded.rejections.named {
            out += &format!("! {}: {}\n", rejection.position, rejection.reason);
        }
        out
    }

    #[test]
    fn samples_are_read_in_every_allowed_form() {
        insta::assert_snapshot!(show(&run(r#"{"samples":[
            {"metric":"cpu","tags":{"host":"a\n","az":"1"},"ts":"2023-11-14T22:13:20.1234569+00:00","value":1.5},
            {"metric":"cpu","tags":{"az":"1","host":"a\n"},"ts":1700000000000000,"value":9007199254740993},
            {"value":-0.0,"metric":"c\u0070u"},
            {"metric":"cpu","ts":null,"tags":{},"value":1e300}]}"#)), @r#"
        cpu {"az":"1","host":"a\n"} 1.5 2023-11-14T22:13:20.123456Z
        cpu {"az":"1","host":"a\n"} 9007199254740992.0 2023-11-14T22:13:20.000000Z
        cpu {} -0.0 2026-11-18T11:06:40.000000Z
        cpu {} 1e300 2026-11-18T11:06:40.000000Z
        "#);
    }

    #[test]
    fn a_malformed_sample_never_costs_its_neighbours() {
        insta::assert_snapshot!(show(&run(r#"{"samples":[
            {"metric":"a","value":1},
            {"metric":"a","value":"1"},
            {"metric":"a","value":1e999},
            {"metric":"a"},
            {"value":1},
            {"metric":"","value":1},
            {"metric":"a","value":1,"tags":{"x":1}},
            {"metric":"a","value":1,"tags":{"x":"1","x":"2"}},
            {"metric":"a","value":1,"tags":{"":"1"}},
            {"metric":"a","value":1,"tags":{"x":""}},
            {"metric":"a","value":1,"ts":"yesterday"},
            {"metric":"a","value":1,"ts":1.5},
            {"metric":"a","value":1,"ts":1700000000},
            {"metric":"a","value":1,"ts":1700000000000},
            {"metric":"a","value":1,"ts":9223372036854775807},
            {"metric":"a","value":1,"time":1},
            5, null, [],
            {"metric":"b","value":2}]}"#)), @r#"
        a {} 1.0 2026-11-18T11:06:40.000000Z
        b {} 2.0 2026-11-18T11:06:40.000000Z
        ! 1: value "\"1\"" is no number
        ! 2: number out of range
        ! 3: missing field `value`
        ! 4: missing field `metric`
        ! 5: the metric has no name
        ! 6: invalid type: integer `1`, expected a string
        ! 7: tag "x" stands twice
        ! 8: a tag has no name
        ! 9: tag "x" has no value
        ! 10: ts "yesterday" is not RFC 3339
        ! 11: ts is neither an RFC 3339 text nor whole µs since the epoch
        ! 12: timestamp 1970-01-01T00:28:20.000000Z is before 2000-01-01T00:00:00.000000Z (timestamp_us_min): ts is in µs since the epoch, is this seconds?
        ! 13: timestamp 1970-01-20T16:13:20.000000Z is before 2000-01-01T00:00:00.000000Z (timestamp_us_min): ts is in µs since the epoch, is this ms?
        ! 14: timestamp 9223372036854775807us is after 2026-11-18T11:16:40.000000Z (future_us_max)
        ! 15: unknown field `time`, expected one of `metric`, `tags`, `ts`, `value`
        ! 16: "5" is no object of metric, tags, ts and value
        ! 17: "null" is no object of metric, tags, ts and value
        ! 18: "[]" is no object of metric, tags, ts and value
        "#);
    }

    proptest::proptest! {
        #[test]
        fn any_double_is_read_back_bit_for_bit(bits in proptest::prelude::any::<u64>()) {
            let value = f64::from_bits(bits);
            if value.is_finite() {
                let decoded = run(&format!(r#"{{"samples":[{{"metric":"a","value":{value:e}}}]}}"#));
                proptest::prop_assert_eq!(decoded.rows.rows[0].value.to_bits(), bits);
            }
        }
    }

    #[test]
    fn a_flood_of_tags_costs_its_sample_alone() {
        // Beyond the limit no value is looked at.
        let value = |i: usize| if i < 64 { "\"x\"" } else { "[null]" };
        let tags: Vec<String> = (0..100_000)
            .map(|i| format!("\"{i}\":{}", value(i)))
            .collect();
        let body = |tags: &str| {
            format!(
                r#"{{"samples":[{{"metric":"a","value":1}},
                {{"metric":"b","value":1,"tags":{{{tags}}}}},
                {{"metric":"b","value":1,"tags":{{"x":1,{tags}}}}},
                {{"metric":"c","value":2}}]}}"#
            )
        };
        insta::assert_snapshot!(show(&run(&body(&tags.join(",")))), @r"
        a {} 1.0 2026-11-18T11:06:40.000000Z
        c {} 2.0 2026-11-18T11:06:40.000000Z
        ! 1: 100000 tags are over the limit of 64 (tags_max)
        ! 2: invalid type: integer `1`, expected a string
        ");
        // It is read all the same.
        let broken = tags.join(",").replace("\"99999\":[", "\"99999\":{");
        let error = decode(body(&broken).as_bytes(), NOW_US, &Limits::default()).unwrap_err();
        assert!(matches!(error, Error::Json { .. }), "{error}");
    }

    #[test]
    fn another_top_level_is_refused_whole() {
        let refuse = |body: &str| {
            let error = decode(body.as_bytes(), NOW_US, &Limits::default()).unwrap_err();
            assert_eq!(error.kind().status(), 400);
            error.to_string()
        };
        let bodies = [
            "",
            "[]",
            "{}",
            "{\"samples\":{}}",
            "{\"samples\":[],\"x\":1}",
            "{\"samples\":[],\"samples\":[]}",
            "{\"samples\":[{\"metric\":\"a\",\"value\":1}",
            "{\"samples\":[]} x",
        ];
        insta::assert_snapshot!(bodies.map(refuse).join("\n"), @r#"
        the body is not {"samples":[…]}: EOF while parsing a value at line 1 column 0
        the body is not {"samples":[…]}: invalid type: sequence, expected an object with the one key "samples" at line 1 column 0
        the body is not {"samples":[…]}: missing field `samples` at line 1 column 2
        the body is not {"samples":[…]}: invalid type: map, expected an array of samples at line 1 column 11
        the body is not {"samples":[…]}: unknown key "x" at line 1 column 17
        the body is not {"samples":[…]}: duplicate field `samples` at line 1 column 23
        the body is not {"samples":[…]}: EOF while parsing a list at line 1 column 36
        the body is not {"samples":[…]}: trailing characters at line 1 column 16
        "#);
    }

    #[test]
    fn each_limit_names_value_and_limit() {
        let limits = Limits {
            tags_max: 1,
            metric_bytes_max: 3,
            tag_name_bytes_max: 3,
            tag_value_bytes_max: 3,
            samples_max: 2,
            series_bytes_max: 10,
            ..Limits::default()
        };
        let run = |body: &str| decode(body.as_bytes(), NOW_US, &limits);
        insta::assert_snapshot!(show(&run(r#"{"samples":[
            {"metric":"long","value":1},
            {"metric":"m","value":1,"tags":{"a":"1","b":"2"}},
            {"metric":"m","value":1,"tags":{"name":"1"}},
            {"metric":"m","value":1,"tags":{"a":"four"}}]}"#).unwrap()), @r#"
        ! 0: metric name "long" has 4 bytes, over the limit of 3 (metric_bytes_max)
        ! 1: 2 tags are over the limit of 1 (tags_max)
        ! 2: tag name "name" has 4 bytes, over the limit of 3 (tag_name_bytes_max)
        ! 3: the value of tag "a" has 4 bytes, over the limit of 3 (tag_value_bytes_max)
        "#);
        let one = "{\"metric\":\"m\",\"value\":1}";
        let three = format!("{{\"samples\":[{one},{one},{one}]}}");
        insta::assert_snapshot!(run(&three).unwrap_err(), @r#"the request holds more than 2 samples (samples_max); send it in parts"#);
        let long = r#"{"samples":[{"metric":"m","value":1,"tags":{"abc":"def"}}]}"#;
        insta::assert_snapshot!(run(long).unwrap_err(), @r#"the distinct series of the request take more than 10 bytes (series_bytes_max); send it in parts"#);
    }
}
