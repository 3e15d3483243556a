//! What line protocol bodies mean, by example and against the `influxdb-line-protocol` crate.

use influxdb_line_protocol::{FieldValue, parse_lines};
use proptest::prelude::*;
use stele_model::time::{parse_rfc3339, rfc3339};

use super::*;
use crate::influx::{partial_v1, partial_v2};

const NOW: &str = "2026-11-22T12:00:00.000001Z";

fn run_with(body: &[u8], precision: Precision, limits: &Limits) -> Result<Decoded, Error> {
    decode(body, precision, parse_rfc3339(NOW).unwrap(), limits)
}

fn run(body: &str) -> Decoded {
    run_with(body.as_bytes(), Precision::Nanoseconds, &Limits::default()).unwrap()
}

/// One line per accepted sample, then one per rejection.
fn show(decoded: &Decoded) -> String {
    let mut out = String::new();
    for row in &decoded.rows.rows {
        let series = &decoded.rows.series[row.series as usize];
        let ts = if row.ts_us == parse_rfc3339(NOW).unwrap() {
            "now".to_owned()
        } else {
            rfc3339(row.ts_us)
        };
        out += &format!("{} {} {:?} {ts}\n", series.metric, series.tags, row.value);
    }
    for rejection in &decoded.rejections.named {
        out += &format!("! {}: {}\n", rejection.position, rejection.reason);
    }
    if !decoded.rejections.is_empty() {
        out += &format!("! total {}\n", decoded.rejections.total);
    }
    out
}

#[test]
fn fields_become_samples_of_their_own_metric() {
    insta::assert_snapshot!(show(&run(
        "cpu,host=b,az=a value=1.5,idle=98i,up=t,n=7u 1700000000000001999\n\
         \n  # a comment, with=fields 1\n\
         mem used=-3 \r\n\
         mem used=4"
    )), @r#"
    cpu {"az":"a","host":"b"} 1.5 2023-11-14T22:13:20.000001Z
    cpu.idle {"az":"a","host":"b"} 98.0 2023-11-14T22:13:20.000001Z
    cpu.up {"az":"a","host":"b"} 1.0 2023-11-14T22:13:20.000001Z
    cpu.n {"az":"a","host":"b"} 7.0 2023-11-14T22:13:20.000001Z
    mem.used {} -3.0 now
    mem.used {} 4.0 now
    "#);
}

#[test]
fn a_bad_item_never_costs_its_neighbours() {
    insta::assert_snapshot!(show(&run(
        "cpu a=1\n\
         cpu\n\
         cpu s=\"text, with = and\nnewline\",b=2\n\
         cpu,x=1,x=2 a=1\n\
         cpu,x= a=1\n\
         cpu,x a=1\n\
         cpu a=nan,b=3\n\
         cpu a=1,b=2 17x\n\
         cpu a=1,b=2 5 6\n\
         ,t=1 a=1\n\
         cpu a=1,=2\n\
         cpu a=1,b\n\
         cpu s=\"open,a=1\n\
         cpu a=4\n\
         cpu\ttab a=1\n\
         cpu t\\ a=1,b\\,c=2\n\
         cpu a=5\n"
    )), @r#"
    cpu.a {} 1.0 now
    cpu.b {} 2.0 now
    cpu.b {} 3.0 now
    cpu.a {} 4.0 now
    cpu.t a {} 1.0 now
    cpu.b,c {} 2.0 now
    cpu.a {} 5.0 now
    ! 2: the line has no fields
    ! 3: field "s" is a string; only numbers are kept
    ! 5: tag "x" stands twice
    ! 6: tag "x" has no value
    ! 7: tag "x" is not name=value
    ! 8: field "a": "nan" is no number, 12i, 12u, true or false
    ! 9: timestamp "17x" is no integer
    ! 10: "6" stands after the timestamp
    ! 11: the measurement has no name
    ! 12: a field has no name
    ! 13: field "b" is not name=value
    ! 14: the string of field "s" has no end
    ! 16: "cpu\ttab" holds a tab or a NUL
    ! total 15
    "#);
}

#[test]
fn an_open_quote_costs_its_own_line_only() {
    insta::assert_snapshot!(show(&run("a s=\"x\nb s=\"y\",v=1\nc v=2\nd s=\"z\ne v=3")), @r#"
    b.v {} 1.0 now
    c.v {} 2.0 now
    e.v {} 3.0 now
    ! 1: the string of field "s" has no end
    ! 2: field "s" is a string; only numbers are kept
    ! 4: the string of field "s" has no end
    ! total 3
    "#);
}

#[test]
fn positions_are_lines_also_after_strings_that_span_lines() {
    let body = "a s=\"x\ny\",=1\n# c\na s=\"x\n\ny\" 1\na v=x";
    let lines = run(body).rejections.named.into_iter().map(|r| r.position);
    assert_eq!(lines.collect::<Vec<_>>(), [1, 1, 4, 7]);
}

#[test]
fn a_byte_that_is_not_utf8_costs_its_own_line_only() {
    let body = b"a,t=\xff v=1\nb \xfe=1,v=2\nc v=\xff,w=1\nd v=4\n";
    let decoded = run_with(body, Precision::Seconds, &Limits::default()).unwrap();
    insta::assert_snapshot!(show(&decoded), @r#"
    c.w {} 1.0 now
    d.v {} 4.0 now
    ! 1: "a,t=�" is not UTF-8
    ! 2: "�" is not UTF-8
    ! 3: field "v": "�" is no number, 12i, 12u, true or false
    ! total 3
    "#);
}

#[test]
fn a_timestamp_of_another_unit_is_refused_with_the_unit_that_fits() {
    let body = b"a v=1,w=2 1700000000\na v=1 1700000000000000000\na v=1 -1\n\
        a v=1 99999999999999999999\na v=1 9223372036854775807\na v=1 1800000000\n";
    for (precision, want) in [(Precision::Nanoseconds, 1), (Precision::Seconds, 2)] {
        let decoded = run_with(body, precision, &Limits::default()).unwrap();
        assert_eq!(decoded.rows.len(), want, "{precision}");
        insta::assert_snapshot!(format!("units_{precision}"), show(&decoded));
    }
}

#[test]
fn every_precision_means_the_same_instant() {
    for (precision, raw) in [
        (Precision::Nanoseconds, "1699999200000000000"),
        (Precision::Microseconds, "1699999200000000"),
        (Precision::Milliseconds, "1699999200000"),
        (Precision::Seconds, "1699999200"),
        (Precision::Minutes, "28333320"),
        (Precision::Hours, "472222"),
    ] {
        let body = format!("a v=1 {raw}");
        let decoded = run_with(body.as_bytes(), precision, &Limits::default()).unwrap();
        assert_eq!(
            decoded.rows.rows[0].ts_us, 1_699_999_200_000_000,
            "{precision}"
        );
    }
}

#[test]
fn each_limit_names_value_and_limit() {
    let limits = Limits {
        tags_max: 2,
        metric_bytes_max: 8,
        tag_name_bytes_max: 4,
        tag_value_bytes_max: 4,
        ..Limits::default()
    };
    let body = b"m,a=1,b=2,c=3 v=1\nm long_field=1,v=2\nm,tname=1 v=1\nm,t=vvvvv v=1\n\
        long_measurement value=1";
    let decoded = run_with(body, Precision::Nanoseconds, &limits).unwrap();
    insta::assert_snapshot!(show(&decoded), @r#"
    m.v {} 2.0 now
    ! 1: 3 tags are over the limit of 2 (tags_max)
    ! 2: metric name "m.long_field" has 12 bytes, over the limit of 8 (metric_bytes_max)
    ! 3: tag name "tname" has 5 bytes, over the limit of 4 (tag_name_bytes_max)
    ! 4: the value of tag "t" has 5 bytes, over the limit of 4 (tag_value_bytes_max)
    ! 5: metric name "long_measurement" has 16 bytes, over the limit of 8 (metric_bytes_max)
    ! total 5
    "#);
}

#[test]
fn a_flood_of_tags_costs_its_line_alone() {
    let flood: String = (0..100_000).map(|i| format!(",t{i}=1")).collect();
    let decoded = run(&format!("a v=1\nb{flood} v=1\nb{flood},x v=1\nc v=2"));
    insta::assert_snapshot!(show(&decoded), @r#"
    a.v {} 1.0 now
    c.v {} 2.0 now
    ! 2: 100000 tags are over the limit of 64 (tags_max)
    ! 3: tag "x" is not name=value
    ! total 2
    "#);
}

#[test]
fn a_request_over_a_limit_is_refused_whole() {
    let limits = Limits {
        samples_max: 2,
        series_bytes_max: 20,
        ..Limits::default()
    };
    let run = |body: &str| run_with(body.as_bytes(), Precision::Nanoseconds, &limits);
    assert_eq!(run("a v=1\na v=2").unwrap().rows.len(), 2);
    insta::assert_snapshot!(run("a v=1\na v=2\na v=3").unwrap_err(), @r#"the request holds more than 2 samples (samples_max); send it in parts"#);
    insta::assert_snapshot!(run("a,t=1234567890 v=1,w=2").unwrap_err(), @r#"the distinct series of the request take more than 20 bytes (series_bytes_max); send it in parts"#);
    assert_eq!(run("a v=1\na v=2\na v=3").unwrap_err().kind().status(), 413);
}

#[test]
fn only_the_first_hundred_rejections_are_named_and_all_are_counted() {
    let decoded = run(&"a v=x\n".repeat(250));
    assert_eq!(
        decoded.rejections.named.len(),
        stele_model::rejection::NAMED_MAX
    );
    assert_eq!(decoded.rejections.total, 250);
}

#[test]
fn a_line_with_many_distinct_fields_is_read_in_linear_time() {
    let fields: Vec<String> = (0..60_000).rev().map(|i| format!("f{i}=1")).collect();
    let mut body = format!("a {}\n", fields.join(","));
    let reversed: Vec<String> = (0..60_000).map(|i| format!("f{i}=2")).collect();
    body += &format!("a {}\n", reversed.join(","));
    let decoded = run(&body);
    assert_eq!(
        (decoded.rows.len(), decoded.rows.series.len()),
        (120_000, 60_000)
    );
}

#[test]
fn reply_bodies_name_what_was_dropped() {
    let rejections = run("a v=x\nb s=\"q\"").rejections;
    insta::assert_snapshot!(partial_v1(3, &rejections), @r#"{"error":"partial write: line 1: field \"v\": \"x\" is no number, 12i, 12u, true or false; line 2: field \"s\" is a string; only numbers are kept dropped=2"}"#);
    insta::assert_snapshot!(partial_v1(0, &rejections), @r#"{"error":"unable to parse: line 1: field \"v\": \"x\" is no number, 12i, 12u, true or false; line 2: field \"s\" is a string; only numbers are kept dropped=2"}"#);
    insta::assert_snapshot!(partial_v2(3, &rejections).1, @r#"{"code":"unprocessable entity","message":"failure writing points to database: partial write: line 1: field \"v\": \"x\" is no number, 12i, 12u, true or false; line 2: field \"s\" is a string; only numbers are kept dropped=2"}"#);
    insta::assert_snapshot!(partial_v2(0, &rejections).1, @r#"{"code":"invalid","message":"unable to parse: line 1: field \"v\": \"x\" is no number, 12i, 12u, true or false; line 2: field \"s\" is a string; only numbers are kept dropped=2"}"#);
    assert_eq!(
        (partial_v2(3, &rejections).0, partial_v2(0, &rejections).0),
        (422, 400)
    );
}

/// What the other parser makes of a body it accepts: (metric, tags, bits, ts).
fn oracle(body: &str, now_us: i64) -> Option<Vec<(String, String, u64, i64)>> {
    let mut out = Vec::new();
    for line in parse_lines(body) {
        let line = line.ok()?;
        let measurement = line.series.measurement.to_string();
        let mut pairs: Vec<(String, String)> = Vec::new();
        for (name, value) in line.series.tag_set.iter().flatten() {
            pairs.push((name.to_string(), value.to_string()));
        }
        pairs.sort();
        if pairs.windows(2).any(|two| two[0].0 == two[1].0) {
            return None;
        }
        let pairs: Vec<(&str, &str)> = pairs
            .iter()
            .map(|(k, v)| (k.as_str(), v.as_str()))
            .collect();
        let tags = stele_model::tags::canonical(&pairs);
        for (name, value) in &line.field_set {
            let value = match value {
                FieldValue::I64(n) => *n as f64,
                FieldValue::U64(n) => *n as f64,
                FieldValue::F64(n) => *n,
                FieldValue::Boolean(b) => f64::from(u8::from(*b)),
                FieldValue::String(_) => continue,
            };
            let metric = if name.as_str() == "value" {
                measurement.clone()
            } else {
                format!("{measurement}.{name}")
            };
            let ts_us = line.timestamp.map_or(now_us, |ts| ts.div_euclid(1_000));
            out.push((metric, tags.clone(), value.to_bits(), ts_us));
        }
    }
    Some(out)
}

fn ours(decoded: &Decoded) -> Vec<(String, String, u64, i64)> {
    let rows = &decoded.rows;
    rows.rows
        .iter()
        .map(|row| {
            let series = &rows.series[row.series as usize];
            (
                series.metric.clone(),
                series.tags.clone(),
                row.value.to_bits(),
                row.ts_us,
            )
        })
        .collect()
}

fn any_line(strings: bool) -> impl Strategy<Value = String> {
    let name = if strings {
        "([a-c_#é-]|\\\\[ ,=\\\\n\"]){1,3}x"
    } else {
        "([a-c_#é-]|\\\\[ ,=\\\\n]){1,3}x"
    };
    let string = "\"([a ,=\n#]|\\\\[\"\\\\n]){0,5}\"";
    let number = "-?[0-9]{1,19}(\\.[0-9]{1,9})?([eE]-?[0-9])?|-?[0-9]{1,18}i|[0-9]{1,18}u|t|F|true";
    let value = prop_oneof![4 => number, u32::from(strings) => string];
    let tags = proptest::collection::vec((name, name), 0..3);
    let fields = proptest::collection::vec((name, value), 1..4);
    let ts = proptest::option::of(1_000_000_000_000_000_000i64..1_790_000_000_000_000_000);
    (name, tags, fields, ts).prop_map(|(measurement, tags, fields, ts)| {
        let tags: String = tags.iter().map(|(k, v)| format!(",{k}={v}")).collect();
        let fields: Vec<String> = fields.iter().map(|(k, v)| format!("{k}={v}")).collect();
        let ts = ts.map_or(String::new(), |ts| format!(" {ts}"));
        format!("m{measurement}{tags} {}{ts}", fields.join(","))
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn well_formed_bodies_read_as_the_other_parser_reads_them(
        lines in proptest::collection::vec(any_line(true), 1..6), repeat in 1usize..3
    ) {
        let body = (lines.join("\n") + "\n").repeat(repeat);
        let decoded = run(&body);
        if let Some(want) = oracle(&body, parse_rfc3339(NOW).unwrap()) {
            prop_assert_eq!(ours(&decoded), want);
        } else {
            prop_assert!(!decoded.rejections.is_empty());
        }
    }

    #[test]
    fn a_mangled_line_leaves_every_other_line_whole(
        before in any_line(false), after in any_line(false), mangled in any_line(false),
        cut in any::<prop::sample::Index>(), noise in "[ ,=\\\\#0a]{1,2}"
    ) {
        let marked = |line: &str| line.replacen('m', "kept", 1);
        let at = cut.index(mangled.len());
        prop_assume!(mangled.is_char_boundary(at));
        let mangled = format!("{}{noise}{}", &mangled[..at], &mangled[at..]);
        let alone = run(&format!("{}\n{}", marked(&before), marked(&after)));
        let together = run(&format!("{}\n{mangled}\n{}", marked(&before), marked(&after)));
        let kept: Vec<_> = ours(&together).into_iter().filter(|s| s.0.starts_with("kept")).collect();
        prop_assert_eq!(kept, ours(&alone));
    }

    #[test]
    fn any_bytes_are_read_without_a_panic(body in proptest::collection::vec(
        prop_oneof![Just(b' '), Just(b','), Just(b'='), Just(b'"'), Just(b'\\'), Just(b'\n'), Just(b'1'),
            Just(b'i'), Just(b'a'), Just(b'-'), Just(b'#'), Just(b'\r'), any::<u8>()], 0..60)) {
        let decoded = run_with(&body, Precision::Milliseconds, &Limits::default()).unwrap();
        for row in &decoded.rows.rows {
            prop_assert!((row.series as usize) < decoded.rows.series.len());
        }
    }
}

#[test]
fn accepted_samples_keep_their_lines() {
    let decoded = run("a v=1,w=2\n\n# x\nb v=oops\nb v=1,w=bad,x=3\nc v=\"s\"\nd v=1\n");
    let rows = decoded.rows.len();
    let lines: Vec<u64> = (0..rows).map(|row| decoded.positions.of(row)).collect();
    assert_eq!(lines, [1, 1, 5, 5, 7]);
}
