//! The thirteen query types of the comparison run, on the surface of raw samples and on that of
//! rollups, against answers computed here from the same arithmetic that made the data.

use std::collections::BTreeMap;

use crate::fixture::{Fixture, Made, us};

const FIELDS: [&str; 10] = [
    "usage_user",
    "usage_system",
    "usage_idle",
    "usage_nice",
    "usage_iowait",
    "usage_irq",
    "usage_softirq",
    "usage_steal",
    "usage_guest",
    "usage_guest_nice",
];
const HOSTS: i64 = 9;
const STEP_S: i64 = 30;
const START: &str = "2026-11-22T00:00:00Z";
const HOURS: i64 = 4;

/// Integers from 0 to 100, so that sums are exact in any order.
fn value(field: i64, host: i64, i: i64) -> f64 {
    let mixed = (i * 7_919 + host * 104_729 + field * 1_299_709) % 101;
    mixed as f64
}

type Cells = BTreeMap<(i64, String, String), f64>;

async fn fleet() -> Fixture {
    let fixture = Fixture::new();
    for hour in 0..HOURS {
        let mut made = Made::default();
        for (f, field) in (0..).zip(FIELDS) {
            for host in 0..HOSTS {
                let tags = format!(
                    "{{\"hostname\":\"host_{host}\",\"region\":\"r{}\"}}",
                    host % 3
                );
                let s = made.series(&format!("cpu.{field}"), &tags);
                let per_hour = 3_600 / STEP_S;
                for i in hour * per_hour..(hour + 1) * per_hour {
                    made.push(s, us(START) + i * STEP_S * 1_000_000, value(f, host, i));
                }
            }
        }
        fixture.put(made.0).await;
    }
    fixture
}

/// Every (second, host, field, value) for which `keep` holds.
fn cells(keep: impl Fn(i64, i64, i64) -> bool) -> Vec<(i64, i64, i64, f64)> {
    let mut all = Vec::new();
    for f in 0..10 {
        for host in 0..HOSTS {
            for i in 0..HOURS * 3_600 / STEP_S {
                let at = i * STEP_S;
                if keep(at, host, f) {
                    all.push((at, host, f, value(f, host, i)));
                }
            }
        }
    }
    all
}

fn stamp(at: i64) -> String {
    let text = stele_model::time::rfc3339(us(START) + at * 1_000_000);
    text[..19].replace('T', " ")
}

fn metrics(n: usize) -> String {
    let names: Vec<String> = FIELDS[..n].iter().map(|f| format!("'cpu.{f}'")).collect();
    format!("metric IN ({})", names.join(","))
}

async fn got(fixture: &Fixture, sql: &str, timed: bool) -> Cells {
    let answer = fixture.json(sql).await;
    let mut cells = Cells::new();
    for row in answer.as_array().expect("rows") {
        let at = if timed {
            let b = us(row["b"].as_str().expect("a time"));
            (b - us(START)) / 1_000_000
        } else {
            0
        };
        let host = row["hostname"].as_str().unwrap_or("").to_owned();
        let metric = row["metric"].as_str().expect("a metric");
        let field = metric.strip_prefix("cpu.").expect("cpu").to_owned();
        let v = row["v"].as_f64().expect("a number");
        assert_eq!(
            cells.insert((at, host, field), v),
            None,
            "a cell twice: {row}"
        );
    }
    cells
}

struct Aggregation {
    fields: usize,
    hosts: &'static [i64],
    from: i64,
    to: i64,
    bin: i64,
    mean: bool,
    by_host: bool,
}

impl Aggregation {
    fn sql(&self, raw: bool) -> String {
        let host = if self.by_host {
            ", tags->>'hostname' AS hostname"
        } else {
            ""
        };
        let group = if self.by_host {
            "b, metric, hostname"
        } else {
            "b, metric"
        };
        let hosts = if self.hosts.is_empty() {
            String::new()
        } else {
            let names: Vec<String> = self.hosts.iter().map(|h| format!("'host_{h}'")).collect();
            format!("tags->>'hostname' IN ({}) AND ", names.join(","))
        };
        let interval = if self.bin == 60 { "1 minute" } else { "1 hour" };
        let (table, bin, v) = match (raw, self.mean) {
            (true, mean) => {
                let function = if mean { "avg" } else { "max" };
                let bin = format!("date_bin(INTERVAL '{interval}', ts)");
                ("samples", bin, format!("{function}(value)"))
            }
            (false, mean) => {
                let v = if mean {
                    "sum(sum) / sum(count)"
                } else {
                    "max(max)"
                };
                let table = if self.bin == 60 {
                    "rollup_60s"
                } else {
                    "rollup_60m"
                };
                (table, "ts".to_owned(), v.to_owned())
            }
        };
        format!(
            "SELECT {bin} AS b, metric{host}, {v} AS v FROM {table} WHERE {} AND {hosts}\
             ts >= TIMESTAMP '{}' AND ts < TIMESTAMP '{}' GROUP BY {group} ORDER BY {group}",
            metrics(self.fields),
            stamp(self.from),
            stamp(self.to)
        )
    }

    fn want(&self) -> Cells {
        let kept = cells(|at, host, f| {
            at >= self.from
                && at < self.to
                && (f as usize) < self.fields
                && (self.hosts.is_empty() || self.hosts.contains(&host))
        });
        let mut groups: BTreeMap<(i64, String, String), Vec<f64>> = BTreeMap::new();
        for (at, host, f, v) in kept {
            let host = if self.by_host {
                format!("host_{host}")
            } else {
                String::new()
            };
            let key = (
                at / self.bin * self.bin,
                host,
                FIELDS[f as usize].to_owned(),
            );
            groups.entry(key).or_default().push(v);
        }
        let fold = |values: Vec<f64>| {
            if self.mean {
                values.iter().sum::<f64>() / values.len() as f64
            } else {
                values.into_iter().fold(f64::MIN, f64::max)
            }
        };
        groups
            .into_iter()
            .map(|(key, values)| (key, fold(values)))
            .collect()
    }
}

const fn max(fields: usize, hosts: &'static [i64], from: i64, to: i64, bin: i64) -> Aggregation {
    Aggregation {
        fields,
        hosts,
        from,
        to,
        bin,
        mean: false,
        by_host: false,
    }
}

const fn mean(fields: usize) -> Aggregation {
    Aggregation {
        fields,
        hosts: &[],
        from: 0,
        to: 3 * 3_600,
        bin: 3_600,
        mean: true,
        by_host: true,
    }
}

const EIGHT: &[i64] = &[8, 0, 3, 5, 1, 7, 2, 6];

/// The eleven aggregations: six single-groupby, two cpu-max-all, three double-groupby.
const AGGREGATIONS: [Aggregation; 11] = [
    max(1, &[4], 600, 4_200, 60),
    max(1, &[4], 0, 4 * 3_600, 60),
    max(1, EIGHT, 3_600, 7_200, 60),
    max(5, &[2], 660, 4_260, 60),
    max(5, &[2], 0, 4 * 3_600, 60),
    max(5, EIGHT, 7_200, 10_800, 60),
    max(10, &[1], 0, 3 * 3_600, 3_600),
    max(10, EIGHT, 3_600, 4 * 3_600, 3_600),
    mean(1),
    mean(5),
    mean(10),
];

async fn high_cpu(fixture: &Fixture, hosts: &[i64]) {
    let names: Vec<String> = hosts.iter().map(|h| format!("'host_{h}'")).collect();
    let only = if hosts.is_empty() {
        String::new()
    } else {
        format!("tags->>'hostname' IN ({}) AND ", names.join(","))
    };
    let (from, to) = (3_600, 3 * 3_600);
    let time = format!(
        "ts >= TIMESTAMP '{}' AND ts < TIMESTAMP '{}'",
        stamp(from),
        stamp(to)
    );
    let sql = format!(
        "SELECT s.ts AS b, s.metric, s.tags->>'hostname' AS hostname, s.value AS v FROM samples s \
         JOIN (SELECT tags, ts FROM samples WHERE metric = 'cpu.usage_user' AND value > 90.0 AND \
         {only}{time}) h ON s.tags = h.tags AND s.ts = h.ts WHERE s.{} AND {}{}",
        metrics(10),
        only.replace("tags->>", "s.tags->>"),
        time.replace("ts ", "s.ts ")
    );
    let kept = cells(|at, host, _| {
        let i = at / STEP_S;
        let wanted = hosts.is_empty() || hosts.contains(&host);
        wanted && at >= from && at < to && value(0, host, i) > 90.0
    });
    let want: Cells = kept
        .into_iter()
        .map(|(at, host, f, v)| {
            (
                (at, format!("host_{host}"), FIELDS[f as usize].to_owned()),
                v,
            )
        })
        .collect();
    assert!(!want.is_empty());
    assert_eq!(got(fixture, &sql, true).await, want, "{sql}");
}

async fn last_point(fixture: &Fixture) {
    let sql = format!(
        "SELECT metric, tags->>'hostname' AS hostname, last_value(value ORDER BY ts) AS v \
         FROM samples WHERE {} GROUP BY metric, hostname",
        metrics(10)
    );
    let end = HOURS * 3_600 - STEP_S;
    let want: Cells = cells(|at, _, _| at == end)
        .into_iter()
        .map(|(_, host, f, v)| {
            (
                (0, format!("host_{host}"), FIELDS[f as usize].to_owned()),
                v,
            )
        })
        .collect();
    assert_eq!(got(fixture, &sql, false).await, want);
}

async fn group_order_limit(fixture: &Fixture) {
    let end = 2 * 3_600 + 240;
    let sql = format!(
        "SELECT date_bin(INTERVAL '1 minute', ts) AS b, 'cpu.usage_user' AS metric, max(value) AS v \
         FROM samples WHERE metric = 'cpu.usage_user' AND ts < TIMESTAMP '{}' GROUP BY b \
         ORDER BY b DESC LIMIT 5",
        stamp(end)
    );
    let wanted = Aggregation {
        from: end - 300,
        to: end,
        ..max(1, &[], 0, 0, 60)
    };
    assert_eq!(got(fixture, &sql, true).await, wanted.want());
}

async fn all(fixture: &Fixture) {
    for aggregation in &AGGREGATIONS {
        let want = aggregation.want();
        for raw in [true, false] {
            // A rollup of an hour cannot answer for a part of it; the ranges are whole bins.
            let sql = aggregation.sql(raw);
            assert_eq!(got(fixture, &sql, true).await, want, "{sql}");
        }
    }
    high_cpu(fixture, &[6]).await;
    high_cpu(fixture, &[]).await;
    last_point(fixture).await;
    group_order_limit(fixture).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_type_of_the_comparison_is_right_before_absorb_and_after_seal() {
    let fixture = fleet().await;
    all(&fixture).await;
    fixture.settle().await;
    all(&fixture).await;
}
