//! Seeds of texts and sketches, and how a target writes its seeds.

use std::path::PathBuf;

use stele_model::{Aggregate, Extra};

/// The folder that a target writes its seeds to before it begins.
const FOLDER: &str = "STELE_FUZZ_SEEDS";

/// Writes seeds when the environment names a folder for them.
pub fn write(seeds: impl FnOnce() -> Vec<Vec<u8>>) {
    let Some(folder) = std::env::var_os(FOLDER).map(PathBuf::from) else {
        return;
    };
    std::fs::create_dir_all(&folder).expect("the folder of seeds is writable");
    for (n, seed) in seeds().iter().enumerate() {
        std::fs::write(folder.join(format!("seed-{n:03}")), seed).expect("it is writable");
    }
}

/// The bytes of texts.
pub fn texts<const N: usize>(texts: [&str; N]) -> Vec<Vec<u8>> {
    texts.iter().map(|text| text.as_bytes().to_vec()).collect()
}

/// Of [`crate::wire::line_protocol`].
pub fn line_protocol() -> Vec<Vec<u8>> {
    texts([
        "\0cpu,host=a usage=1.5,idle=2i 1795348800000000000\ncpu,host=a usage=2 1795348801000000000",
        "\u{3}cpu,host=a value=1e3,n=7u,ok=true,s=\"a\\\"b\" 1795348800\n# comment\n\nm x=-0.0",
        "\u{1}my\\ cpu\\,x,ho\\=st=a\\ b,c=d\\,e v\\ x=.5 1795348800000000\r\nbad\nm v=nan,w=1",
    ])
}

/// Of [`crate::wire::native_json`].
pub fn native_json() -> Vec<Vec<u8>> {
    texts([
        r#" {"samples":[{"metric":"cpu","tags":{"host":"a"},"ts":1795348800000000,"value":1.5}]}"#,
        r#" {"samples":[{"metric":"c\u00e9","ts":"2026-11-22T12:00:00Z","value":1e-7},{"metric":1}]}"#,
    ])
}

/// Of [`crate::sketch::sketch`].
pub fn sketch() -> Vec<Vec<u8>> {
    let of = |values: &[f64]| {
        let mut bin = Aggregate::empty(true);
        values
            .iter()
            .for_each(|v| bin.push(0, *v, &Extra::default()));
        let mut out = Vec::new();
        bin.sketch.expect("asked for").encode(&mut out);
        out
    };
    vec![
        of(&[]),
        of(&[50.0, 51.0, 51.0, 52.0, 53.0]),
        of(&[-1.0, 0.0, 0.0, 1e300, f64::INFINITY, f64::NEG_INFINITY]),
    ]
}

/// Of [`crate::names::names`].
pub fn names() -> Vec<Vec<u8>> {
    texts([
        "00112233445566778899aabbccddeeff-498000-498001.parquet",
        "00112233445566778899aabbccddeeff",
        "team_1-x",
        "2026-11-22",
        "2026-11",
        "2026-11-22T12:00:00.000001+01:00",
        "SHOW DATABASES; CREATE DATABASE \"x\"",
        "ms",
    ])
}

/// Of [`crate::wire::librato`].
pub fn librato() -> Vec<Vec<u8>> {
    texts([
        r#" {"measure_time":1795348800,"source":"web-1","gauges":[{"name":"cpu","value":1.5},{"name":"req","count":3,"sum":6,"min":1,"max":3,"sum_squares":14,"source":null}],"counters":{"bytes":{"value":"7"}}}"#,
        r#" {"gauges":{"cpu":{"value":1},"0":{"name":"disk","value":"2e1","measure_time":1795348800.25}},"counters":[{"name":"n","value":4,"period":60}]}"#,
        r#"!{"time":1795348800,"tags":{"Host":"a"},"measurements":[{"name":"cpu","value":1,"tags":{"az":"1","x":null}},{"name":"lat","count":2,"sum":5,"stddev":0.5}]}"#,
        "\"gauges[0][name]=cpu&gauges[0][value]=75&source=a%20b&measure_time=1795348800&counters[n][value]=3",
        "\"gauges[cpu][count]=2&gauges[cpu][sum]=1&gauges%5Bcpu%5D%5Bmax%5D=1&gauges[1][name]=x",
    ])
}

/// Of [`crate::gzip::gzip`].
pub fn gzip() -> Vec<Vec<u8>> {
    let line = b"cpu,host=a usage=1.5\n";
    let members = [
        crate::gzip::packed(line),
        crate::gzip::packed(&line.repeat(9)),
    ]
    .concat();
    let mut seeds: Vec<Vec<u8>> = [&members[..], &crate::gzip::packed(b"")]
        .iter()
        .flat_map(|packed| [0, 1].map(|choice| [&[choice], *packed].concat()))
        .collect();
    seeds.extend([2, 3].map(|choice| [&[choice], &line.repeat(20)[..]].concat()));
    seeds
}

/// Of [`crate::sql::sql`].
pub fn sql() -> Vec<Vec<u8>> {
    texts([
        "WITH a AS (SELECT metric, avg(value) AS v FROM samples GROUP BY metric) SELECT * FROM a JOIN b USING (metric) ORDER BY v DESC LIMIT 5",
        "SELECT date_bin(INTERVAL '1 hour', ts) AS t, quantile(0.99, value) FROM rollup_60s WHERE tags->>'host' IN ('a','b') AND ts > now() - INTERVAL '1 day' GROUP BY CUBE (1, 2)",
        "SELECT CASE WHEN value BETWEEN 1 AND 2 THEN 'x' ELSE tags END, row_number() OVER (PARTITION BY metric ORDER BY ts) FROM bins(now(), now(), INTERVAL '1 m') b, samples s",
        "(SELECT 1) UNION ALL (VALUES (1), (2)) EXCEPT SELECT ts AT TIME ZONE 'UTC' FROM samples FOR UPDATE",
        "SELECT metric ~ '^c\\w+$' AND metric NOT LIKE '%a%' FROM samples; DROP TABLE samples",
        "WITH RECURSIVE t AS (SELECT 1 AS n UNION ALL SELECT n + 1 FROM t) SELECT * INTO x FROM t",
        "WITH x AS (DELETE FROM samples RETURNING *) SELECT $$a$$, U&'b', a[1:2], -(- 1)::int[] FROM x",
        "EXPLAIN ANALYZE SELECT EXISTS (SELECT 1), to_char(ts, '%Y') FROM (TABLE samples) t TABLESAMPLE BERNOULLI (1)",
        "DESCRIBE \"rollup_60s\"",
        "COPY (SELECT 1) TO 's3://bucket/x.parquet'",
    ])
}
