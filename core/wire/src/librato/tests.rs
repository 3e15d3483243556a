use proptest::prelude::*;
use stele_model::time::rfc3339;
use stele_model::{Aggregate, Kind, Limits};

use super::*;
use crate::{Decoded, Error};

/// 2026-11-22T12:00:00Z.
const NOW_US: i64 = 1_795_348_800_000_000;

type Decoder = fn(&[u8], i64, &Limits) -> Result<Decoded, Error>;

fn run(decode: Decoder, body: &str) -> Decoded {
    decode(body.as_bytes(), NOW_US, &Limits::default()).unwrap()
}

fn show(decoded: &Decoded) -> String {
    let rows = &decoded.rows;
    let mut out = String::new();
    for row in &rows.rows {
        let series = &rows.series[row.series as usize];
        let extra = rows.extra(row);
        let at = rfc3339(row.ts_us);
        let (name, tags, value) = (&series.metric, &series.tags, row.value);
        out += &format!("{:?} {name} {tags} {value:?} {at}", extra.kind);
        if let Some(s) = extra.summary {
            let (min, max, squares) = (s.min, s.max, s.sum_squares);
            out += &format!(
                " count={} sum={:?} {min:?} {max:?} {squares:?}",
                s.count, s.sum
            );
        }
        out.push('\n');
    }
    for rejection in &decoded.rejections.named {
        out += &format!("! {} {}\n", rejection.position, rejection.reason);
    }
    out
}

#[test]
fn every_json_form_of_gauges_and_counters_is_read() {
    insta::assert_snapshot!(show(&run(metrics, r#"{
        "measure_time": 1700000000, "source": "web-1", "period": 60,
        "gauges": [
            {"name": "cpu", "value": 1.5, "attributes": {"deep": [[[1]]]}, "period": null},
            {"name": "cpu", "value": "2e1", "source": "web 2", "measure_time": 1700000000.25},
            {"name": "req", "count": 3, "sum": 6, "min": 1, "max": 3, "sum_squares": 14, "source": null},
            {"name": "lat", "count": 2.0, "sum": 5, "value": null}],
        "counters": [{"name": "bytes", "value": 9007199254740993, "source": "", "measure_time": "1700000001"}]}"#)), @r#"
    Gauge cpu {"source":"web-1"} 1.5 2023-11-14T22:13:20.000000Z
    Gauge cpu {"source":"web 2"} 20.0 2023-11-14T22:13:20.250000Z
    Gauge req {"source":"web-1"} 2.0 2023-11-14T22:13:20.000000Z count=3 sum=6.0 Some(1.0) Some(3.0) Some(14.0)
    Gauge lat {"source":"web-1"} 2.5 2023-11-14T22:13:20.000000Z count=2 sum=5.0 None None None
    Counter bytes {"source":"web-1"} 9007199254740992.0 2023-11-14T22:13:21.000000Z
    "#);
    insta::assert_snapshot!(show(&run(metrics, r#"{
        "gauges": {"cpu": {"value": 1}, "m\u0065m": {"value": 2}, "0": {"name": "disk", "value": 3}},
        "counters": {"bytes": {"value": 4}}}"#)), @r#"
    Gauge cpu {} 1.0 2026-11-22T12:00:00.000000Z
    Gauge mem {} 2.0 2026-11-22T12:00:00.000000Z
    Gauge disk {} 3.0 2026-11-22T12:00:00.000000Z
    Counter bytes {} 4.0 2026-11-22T12:00:00.000000Z
    "#);
}

#[test]
fn every_form_of_a_form_is_read() {
    insta::assert_snapshot!(show(&run(metrics_form, "source=a&measure_time=1700000000&period=60\
        &counters[7][value]=5&gauges%5B0%5D%5Bname%5D=cpu&counters[7][name]=n&gauges[0][value]=1.5\
        &gauges[mem][value]=2&gauges[0][source]=b+c&gauges[0][period]=&gauges[0][attributes][x]=1\
        &gauges[s][count]=2&gauges[s][sum]=3&gauges[s][min]=")), @r#"
    Gauge cpu {"source":"b c"} 1.5 2023-11-14T22:13:20.000000Z
    Gauge mem {"source":"a"} 2.0 2023-11-14T22:13:20.000000Z
    Gauge s {"source":"a"} 1.5 2023-11-14T22:13:20.000000Z count=2 sum=3.0 None None None
    Counter n {"source":"a"} 5.0 2023-11-14T22:13:20.000000Z
    "#);
    insta::assert_snapshot!(show(&run(metrics_form, "gauges[0]=1&gauges[a][value]=1&gauges[a][value]=2\
        &counters[1][value]=3&gauges[b][value]=4&counters=&gauges[c][tags][x]=y&gauges[c][tags][z]=y")), @r#"
    Gauge b {} 4.0 2026-11-22T12:00:00.000000Z
    ! 0 form[0]: "gauges[0]" is not gauges[key][field]
    ! 1 form[1]: "counters" is not gauges[key][field]
    ! 2 gauges[0]: value stands twice (key "a")
    ! 4 gauges[2]: tags belong to /v1/measurements, here there is source (key "c")
    ! 5 counters[0]: the metric has no name (key "1")
    "#);
    let doubled = show(&run(metrics_form, "source=a&source=b&gauges[a][value]=1"));
    insta::assert_snapshot!(doubled, @r#"! 0 gauges[0]: source stands twice (key "a")"#);
}

#[test]
fn a_measurements_own_tags_replace_the_top_level_ones() {
    insta::assert_snapshot!(show(&run(measurements, r#"{
        "tags": {"Region": "US-East", "name": "web/prod?3"}, "time": 1700000000, "period": 60,
        "measurements": [
            {"name": "AWS.EC2", "value": 4.5},
            {"name": "cpu", "value": 1, "tags": {"AZ": "E 1\\", "gone": null}, "time": 1700000001},
            {"name": "mem", "value": 2, "tags": {}},
            {"name": "mem", "value": 3, "tags": {"gone": null}, "attributes": {"aggregate": false}},
            {"name": "one", "sum": 7, "count": 1},
            {"name": "full", "sum": 35.0, "count": 3, "min": 4.5, "max": 6.7, "last": 2.5, "stddev": 1, "stddev_m2": 9}]}"#)), @r#"
    Gauge AWS.EC2 {"name":"web/prod?3","region":"us-east"} 4.5 2023-11-14T22:13:20.000000Z
    Gauge cpu {"az":"e 1\\"} 1.0 2023-11-14T22:13:21.000000Z
    Gauge mem {"name":"web/prod?3","region":"us-east"} 2.5 2023-11-14T22:13:20.000000Z count=2 sum=5.0 Some(2.0) Some(3.0) Some(13.0)
    Gauge one {"name":"web/prod?3","region":"us-east"} 7.0 2023-11-14T22:13:20.000000Z
    Gauge full {"name":"web/prod?3","region":"us-east"} 11.666666666666666 2023-11-14T22:13:20.000000Z count=3 sum=35.0 Some(4.5) Some(6.7) Some(411.33333333333326)
    "#);
}

#[test]
fn a_bad_gauge_never_costs_its_neighbours() {
    let long = "x".repeat(256);
    let body = r#"{"gauges": [
        {"name": "first", "value": 1},
        {"value": 1}, {"name": "", "value": 1}, {"name": 5, "value": 1}, {"name": "a b", "value": 1},
        {"name": "LONG", "value": 1}, {"name": "\ud800", "value": 1}, {"name": "ä", "value": 1},
        {"name": "a"}, {"name": "a", "value": "x"}, {"name": "a", "value": true},
        {"name": "a", "value": 1e999}, {"name": "a", "value": "NaN"}, {"name": "a", "value": {}},
        {"name": "a", "value": 1, "count": 1}, {"name": "a", "value": 1, "min": 1},
        {"name": "a", "sum": 1}, {"name": "a", "count": 1}, {"name": "a", "min": 1},
        {"name": "a", "count": 0, "sum": 1}, {"name": "a", "count": 1.5, "sum": 1},
        {"name": "a", "count": 1e13, "sum": 1}, {"name": "a", "count": 2, "sum": 1, "min": 2, "max": 1},
        {"name": "a", "count": 2, "sum": 1, "sum_squares": -1}, {"name": "a", "count": 2, "sum": 1, "stddev": -1},
        {"name": "a", "value": 1, "measure_time": "noon"}, {"name": "a", "value": 1, "measure_time": 0},
        {"name": "a", "value": 1, "measure_time": 1700000000000}, {"name": "a", "value": 1, "measure_time": 1700000000000000},
        {"name": "a", "value": 1, "measure_time": 1700000000000000000}, {"name": "a", "value": 1, "measure_time": 1e300},
        {"name": "a", "value": 1, "measure_time": 1795349401}, {"name": "a", "value": 1, "time": 1, "measure_time": 1},
        {"name": "a", "value": 1, "source": 5}, {"name": "a", "value": 1, "source": "a&b"}, {"name": "a", "value": 1, "source": "LONG"},
        {"name": "a", "value": 1, "tags": {"x": "y"}}, {"name": "a", "value": 1, "value": 2},
        5, null, [], "x",
        {"name": "last", "value": 2}],
        "counters": [{"name": "c", "count": 2, "sum": 1}, {"name": "c"}, {"name": "c", "value": 3}]}"#;
    let decoded = run(metrics, &body.replace("LONG", &long));
    assert_eq!(decoded.rejections.total, 43);
    insta::assert_snapshot!(show(&decoded));
}

#[test]
fn a_bad_measurement_never_costs_its_neighbours() {
    let names = |n: usize| {
        (0..n)
            .map(|i| format!("\"t{i}\":\"v\""))
            .collect::<Vec<_>>()
            .join(",")
    };
    let (fifty, over, many) = (names(50), names(51), names(5_000));
    let long = "x".repeat(256);
    let name = &long[..65];
    let body = format!(
        r#"{{"measurements": [{{"name": "a", "value": 1, "tags": {{{fifty}}}}},
        {{"name": "a", "value": 1, "tags": {{{over}}}}}, {{"name": "a", "value": 1, "tags": {{{many}}}}},
        {{"name": "a", "value": 1, "tags": {{"{name}": "v"}}}}, {{"name": "a", "value": 1, "tags": {{"t": "{long}"}}}},
        {{"name": "a", "value": 1, "tags": {{"a b": "v"}}}}, {{"name": "a", "value": 1, "tags": {{"t": "a&b"}}}},
        {{"name": "a", "value": 1, "tags": {{"": "v"}}}}, {{"name": "a", "value": 1, "tags": {{"t": ""}}}},
        {{"name": "a", "value": 1, "tags": {{"T": "v", "t": "w"}}}}, {{"name": "a", "value": 1, "tags": {{"t": 1}}}},
        {{"name": "a", "value": 1, "tags": []}}, {{"name": "a", "value": 1, "tags": "t"}},
        {{"name": "a", "value": 1, "source": "s"}}, {{"name": "b", "value": 2}}]}}"#
    );
    let decoded = run(measurements, &body);
    assert_eq!((decoded.rows.len(), decoded.rejections.total), (2, 13));
    let rejected = show(&decoded);
    let (_, rejected) = rejected.split_once("\n!").unwrap();
    insta::assert_snapshot!(rejected);
}

#[test]
fn a_fault_of_the_top_level_costs_only_the_items_that_rely_on_it() {
    insta::assert_snapshot!(show(&run(metrics, r#"{"measure_time": "soon", "source": "a\n",
        "gauges": [{"name": "a", "value": 1}, {"name": "a", "value": 1, "measure_time": 1700000000},
                   {"name": "a", "value": 1, "measure_time": 1700000000, "source": "b"}], "counters": 5}"#)), @r#"
    Gauge a {"source":"b"} 1.0 2023-11-14T22:13:20.000000Z
    ! 0 gauges[0]: at the top level, source "a\n" holds '\n': only A-Z, a-z, 0-9 and ".:_-?\\/ " may stand in it
    ! 1 gauges[1]: at the top level, source "a\n" holds '\n': only A-Z, a-z, 0-9 and ".:_-?\\/ " may stand in it
    ! 3 counters: "5" is neither an array nor an object
    "#);
    insta::assert_snapshot!(show(&run(measurements, r#"{"source": "s", "measurements": [{"name": "a", "value": 1}]}"#)), @r#"! 0 measurements[0]: source belongs to /v1/metrics, send it as a tag"#);
    insta::assert_snapshot!(show(&run(measurements, r#"{"measurements": {"a": {"value": 1}}}"#)), @r#"! 0 measurements: "{\"a\": {\"value\": 1}}" is no array"#);
    insta::assert_snapshot!(show(&run(metrics, r#"{"tags": {"a": "b"}, "gauges": [{"name": "a", "value": 1}]}"#)), @r#"! 0 gauges[0]: tags belong to /v1/measurements, here there is source"#);
}

#[test]
fn another_body_is_refused_whole() {
    let limits = Limits {
        samples_max: 2,
        series_bytes_max: 40,
        ..Limits::default()
    };
    let deep = format!("{{\"gauges\":{}", "[".repeat(200_000));
    let many = vec!["{\"name\":\"a\",\"value\":1}"; 1_001].join(",");
    let many = format!("{{\"measurements\":[{many}]}}");
    let long = format!("{{\"gauges\":{{\"{}\":{{\"value\":1}}}}}}", "x".repeat(50));
    let cases: [(Decoder, &str); 20] = [
        (metrics, ""),
        (metrics, "[]"),
        (metrics, "{}"),
        (metrics, "null"),
        (metrics, "{\"gauges\":null}"),
        (metrics, "{\"gauges\":[],\"gauges\":[]}"),
        (metrics, "{\"gauges\":[{\"name\":\"a\"}"),
        (metrics, "{\"gauges\":[]} x"),
        (metrics, "{\"measurements\":[]}"),
        (metrics, "{\"resourceMetrics\":[]}"),
        (metrics, &deep),
        (metrics, &long),
        (
            metrics,
            "{\"counters\":{\"a\":{\"value\":1},\"b\":{\"value\":1},\"c\":{\"value\":1}}}",
        ),
        (measurements, "{\"gauges\":[]}"),
        (measurements, "{}"),
        (measurements, "[{}]"),
        (measurements, &many),
        (metrics_form, ""),
        (metrics_form, "source=a&x=y"),
        (
            metrics_form,
            "gauges[a][value]=1&gauges[b][value]=1&gauges[c][value]=1",
        ),
    ];
    let mut out = String::new();
    for (decode, body) in cases {
        let error = decode(body.as_bytes(), NOW_US, &limits).unwrap_err();
        let start: String = body.chars().take(50).collect();
        out += &format!("{start}\n  {} {error}\n", error.kind().status());
    }
    insta::assert_snapshot!(out);
}

#[test]
fn empty_lists_are_a_request_of_nothing() {
    for (decode, body) in [
        (metrics as Decoder, "{\"gauges\":[],\"counters\":{}}"),
        (measurements, "{\"measurements\":[]}"),
    ] {
        let decoded = run(decode, body);
        assert!(decoded.rows.is_empty() && decoded.rejections.is_empty());
    }
}

#[test]
fn deeply_nested_items_are_refused_without_a_deep_stack() {
    let deep = "[".repeat(500_000) + &"]".repeat(500_000);
    let body = format!(
        r#"{{"gauges": [{{"name": "a", "value": {deep}}}, {{"name": "a", "x": {deep}, "value": 1}}, {deep}]}}"#
    );
    let decoded = run(metrics, &body);
    assert_eq!((decoded.rows.len(), decoded.rejections.total), (1, 2));
    let tags =
        format!(r#"{{"measurements": [{{"name": "a", "value": 1, "tags": {{"t": {deep}}}}}]}}"#);
    assert_eq!(run(measurements, &tags).rejections.total, 1);
}

#[test]
fn equal_gauges_of_one_request_merge_into_one_summary() {
    insta::assert_snapshot!(show(&run(metrics, r#"{"gauges": [
        {"name": "a", "value": 1}, {"name": "a", "value": 3}, {"name": "a", "value": 2, "source": "s"},
        {"name": "a", "count": 4, "sum": 20, "min": -1}, {"name": "a", "value": 1, "measure_time": 1700000000},
        {"name": "b", "value": 1e308}, {"name": "b", "value": 1e308}],
        "counters": [{"name": "c", "value": 5}, {"name": "c", "value": 7}, {"name": "a", "value": 9}]}"#)), @r#"
    Gauge a {} 4.0 2026-11-22T12:00:00.000000Z count=6 sum=24.0 Some(-1.0) Some(5.0) Some(110.0)
    Gauge a {"source":"s"} 2.0 2026-11-22T12:00:00.000000Z
    Gauge a {} 1.0 2023-11-14T22:13:20.000000Z
    Gauge b {} 1e308 2026-11-22T12:00:00.000000Z
    Counter c {} 5.0 2026-11-22T12:00:00.000000Z
    Counter c {} 7.0 2026-11-22T12:00:00.000000Z
    Counter a {} 9.0 2026-11-22T12:00:00.000000Z
    ! 6 gauges[6]: with the others of its name, tags and time its sum is beyond a double
    "#);
}

/// One generated gauge as (value) or (count, sum, min, max, sum_squares), small whole numbers.
#[derive(Debug, Clone)]
enum Sent {
    Value(i32),
    Summary(i64, i32, Option<i32>, Option<i32>),
}

fn any_sent() -> impl Strategy<Value = Sent> {
    let edge = || proptest::option::of(0i32..50);
    prop_oneof![
        (-50i32..50).prop_map(Sent::Value),
        // A power of two divides exactly.
        (0u32..5, -64i32..64, edge(), edge()).prop_map(|(power, mean, below, above)| {
            let count = 1i64 << power;
            let sum = mean << power;
            Sent::Summary(count, sum, below.map(|b| mean - b), above.map(|a| mean + a))
        }),
    ]
}

impl Sent {
    fn json(&self, time: i64) -> String {
        let optional = |name: &str, figure: Option<i32>| {
            figure.map_or_else(String::new, |figure| format!(",\"{name}\":{figure}"))
        };
        match self {
            Self::Value(value) => {
                format!(r#"{{"name":"m","value":{value},"measure_time":{time}}}"#)
            }
            Self::Summary(count, sum, min, max) => {
                let (min, max) = (optional("min", *min), optional("max", *max));
                format!(
                    r#"{{"name":"m","count":{count},"sum":{sum}{min}{max},"measure_time":{time}}}"#
                )
            }
        }
    }
}

/// The fold of all rows, which must be of one series.
fn fold(decoded: &Decoded) -> Aggregate {
    let mut rows = decoded.rows.rows.clone();
    rows.sort_by_key(|row| row.ts_us);
    let mut all = Aggregate::empty(true);
    for row in &rows {
        all.push(row.ts_us, row.value, &decoded.rows.extra(row));
    }
    all
}

proptest! {
    #[test]
    fn no_bytes_make_a_decoder_panic(body in proptest::collection::vec(any::<u8>(), 0..200)) {
        for decode in [metrics as Decoder, measurements, metrics_form] {
            let _ = decode(&body, NOW_US, &Limits::default());
        }
    }

    #[test]
    fn no_text_that_looks_right_makes_a_decoder_panic(
        body in r#"(\{"(gauges|counters|measurements|source|tags|measure_time)":|[\[\]{},:"]|"(name|value|count|sum|0)":|-?[0-9]{1,20}(\.[0-9]|e[0-9]{1,3})?|"[a-z]{1,3}"|null|gauges\[[a-z0-9]\]\[(name|value)\]=[a-z0-9]&){1,40}"#) {
        for decode in [metrics as Decoder, measurements, metrics_form] {
            let _ = decode(body.as_bytes(), NOW_US, &Limits::default());
        }
    }

    #[test]
    fn any_double_is_read_back_bit_for_bit(bits in proptest::collection::vec(any::<u64>(), 1..20), seconds in 946_684_800i64..1_795_348_800) {
        let values: Vec<f64> = bits.into_iter().map(f64::from_bits).filter(|v| v.is_finite()).collect();
        let item = |(i, v): (usize, &f64)| format!(r#"{{"name":"m{i}","value":{v:e},"measure_time":{seconds}}}"#);
        let items: Vec<String> = values.iter().enumerate().map(item).collect();
        let decoded = run(metrics, &format!("{{\"gauges\":[{}]}}", items.join(",")));
        prop_assert!(decoded.rejections.is_empty());
        let read: Vec<u64> = decoded.rows.rows.iter().map(|row| row.value.to_bits()).collect();
        prop_assert_eq!(read, values.iter().map(|v| v.to_bits()).collect::<Vec<_>>());
        prop_assert!(decoded.rows.rows.iter().all(|row| row.ts_us == seconds * 1_000_000));
    }

    #[test]
    fn json_array_json_map_and_form_are_the_same_rows(
        names in proptest::collection::btree_map("[A-Za-z.:_-][A-Za-z0-9.:_-]{0,20}", (-1000i32..1000, "[a-z ?/.]{0,5}"), 1..20)) {
        let encode = |text: &str| form_urlencoded::byte_serialize(text.as_bytes()).collect::<String>();
        let (mut array, mut map, mut form) = (Vec::new(), Vec::new(), Vec::new());
        for (i, (name, (value, source))) in names.iter().enumerate() {
            let rest = format!(r#""value":{value},"source":"{source}","measure_time":1700000000"#);
            array.push(format!(r#"{{"name":"{name}",{rest}}}"#));
            map.push(format!(r#""{name}":{{{rest}}}"#));
            let (name, source) = (encode(name), encode(source));
            form.push(format!("gauges[{i}][name]={name}&gauges[{i}][value]={value}&gauges[{i}][source]={source}&gauges[{i}][measure_time]=1700000000"));
        }
        let array = run(metrics, &format!("{{\"gauges\":[{}]}}", array.join(",")));
        let map = run(metrics, &format!("{{\"gauges\":{{{}}}}}", map.join(",")));
        let form = run(metrics_form, &form.join("&"));
        prop_assert_eq!(array.rows.len(), names.len());
        prop_assert_eq!(show(&array), show(&map));
        prop_assert_eq!(show(&array), show(&form));
    }

    #[test]
    fn merged_gauges_fold_to_what_they_fold_to_one_by_one(sent in proptest::collection::vec(any_sent(), 1..20)) {
        let together: Vec<String> = sent.iter().map(|s| s.json(1_700_000_000)).collect();
        let apart: Vec<String> = (0..).zip(&sent).map(|(i, s)| s.json(1_700_000_000 + i)).collect();
        let of = |items: Vec<String>| run(metrics, &format!("{{\"gauges\":[{}]}}", items.join(",")));
        let (together, apart) = (of(together), of(apart));
        prop_assert_eq!((together.rows.len(), apart.rows.len()), (1, sent.len()));
        prop_assert!(together.rejections.is_empty() && apart.rejections.is_empty());
        prop_assert_eq!(together.rows.extra(&together.rows.rows[0]).kind, Kind::Gauge);
        let (a, b) = (fold(&together), fold(&apart));
        prop_assert_eq!((a.count, a.sum, a.min, a.max, a.sum_squares), (b.count, b.sum, b.min, b.max, b.sum_squares));
    }
}

#[test]
fn every_reply_body_has_librato_s_form() {
    let decoded = run(
        metrics,
        r#"{"gauges": [{"name": "a", "value": 1}, {"name": "a: b", "value": 1}, 5], "counters": 7}"#,
    );
    insta::assert_snapshot!(partial(1, &decoded.rejections), @r#"{"accepted":1,"rejected":3,"errors":{"params":{"gauges[1]":["metric name \"a: b\" holds ' ': only A-Z, a-z, 0-9 and \".:_-\" may stand in it"],"gauges[2]":["\"5\" is no object"],"counters":["\"7\" is neither an array nor an object"]}}}"#);
    insta::assert_snapshot!(error(stele_model::ErrorKind::Malformed, "no \"x\""), @r#"{"errors":{"request":["no \"x\""]}}"#);
    insta::assert_snapshot!(error(stele_model::ErrorKind::Unavailable, "later"), @r#"{"errors":{"system":["later"]}}"#);
}
