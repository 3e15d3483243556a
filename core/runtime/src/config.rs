//! Settings from `STELE_*` variables, parsed once and validated; the object store's own `AWS_*`
//! variables are collected unparsed.
//!
//! A `STELE_*` variable that no one reads is a mistake in a deployment (a misspelt retention is a
//! retention that does not exist), so it fails the start by name. Command-line flags, where a
//! program has them, win over what is read here.

use std::fmt;

use serde::Serialize;
use stele_model::TenantId;
use stele_model::time::SECOND_US;

use crate::telemetry::LogFormat;

/// Why the environment is not a configuration.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum Error {
    /// A `STELE_*` variable that nothing reads.
    #[error("{name} is not a variable Stele knows; known are {known}")]
    Unknown {
        /// The variable.
        name: String,
        /// All known names.
        known: String,
    },
    /// A value that does not parse.
    #[error("{name}={value:?}: {expected}")]
    Invalid {
        /// The variable.
        name: &'static str,
        /// Its value.
        value: String,
        /// What it should be.
        expected: &'static str,
    },
    /// A name or value that is not UTF-8.
    #[error("{name} is not UTF-8")]
    NotUtf8 {
        /// The name, lossily.
        name: String,
    },
}

/// One documented variable: a row of the README's table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Variable {
    /// Its name.
    pub name: &'static str,
    /// What holds when it is not set.
    pub default: &'static str,
    /// What it does.
    pub meaning: &'static str,
}

/// Bytes a process may hold for its jobs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Budgets {
    /// For one compaction job.
    pub compact_memory_bytes: u64,
    /// For all queries together.
    pub query_memory_bytes: u64,
    /// How long a query may run, µs.
    pub query_deadline_us: i64,
}

impl Default for Budgets {
    fn default() -> Self {
        Self {
            compact_memory_bytes: 192 << 20,
            query_memory_bytes: 256 << 20,
            query_deadline_us: 60 * SECOND_US,
        }
    }
}

/// What the environment says. `None` means "not said", so that a flag or a default may.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Config {
    /// `STELE_STORE`.
    pub store: Option<String>,
    /// `STELE_LISTEN`.
    pub listen: Option<String>,
    /// `STELE_URL`.
    pub url: Option<String>,
    /// `STELE_TOKEN`: a secret.
    pub token: Option<String>,
    /// `STELE_TENANT`.
    pub tenant: Option<TenantId>,
    /// `STELE_SEAL_DELAY_SECS` in µs.
    pub seal_delay_us: Option<i64>,
    /// `STELE_SWEEP_GRACE_SECS` in µs: how long a consumed L0 object outlives its commit.
    pub sweep_grace_us: Option<i64>,
    /// `STELE_HISTORY_SECS` in µs: how long a superseded file or log entry is kept.
    pub history_us: Option<i64>,
    /// `STELE_ABSORB_EVERY_SECS` in µs: from one absorb to the next.
    pub absorb_every_us: Option<i64>,
    /// `STELE_SEAL_EVERY_SECS` in µs: from one seal to the next.
    pub seal_every_us: Option<i64>,
    /// `STELE_SWEEP_EVERY_SECS` in µs: from one sweep to the next.
    pub sweep_every_us: Option<i64>,
    /// `STELE_SYNC_EVERY_SECS` in µs: from one copy to the other tiers to the next.
    pub sync_every_us: Option<i64>,
    /// `STELE_SNAPSHOTS`: how many scheduled snapshots of each rung are kept.
    pub snapshots: Option<String>,
    /// `STELE_QUOTA_SAMPLES_PER_SEC`, for each tenant.
    pub quota_samples_per_sec: Option<u64>,
    /// `STELE_QUOTA_SERIES`, for each tenant.
    pub quota_series: Option<u64>,
    /// `STELE_SKETCH`.
    pub sketch: Option<bool>,
    /// `STELE_HOST_METRICS`.
    pub host_metrics: Option<bool>,
    /// `STELE_LOG`: a filter such as `info` or `stele_compact=debug`.
    pub log: Option<String>,
    /// `STELE_LOG_FORMAT`.
    pub log_format: Option<LogFormat>,
    /// Memory and time budgets.
    pub budgets: Budgets,
    /// `STELE_FAN_OUT`: how many other invocations one compaction tick may ask for help.
    pub fan_out: Option<u32>,
    /// `STELE_RESPONSE_BYTES_MAX`: the longest answer of the query function.
    pub response_bytes_max: Option<u64>,
    /// Every `AWS_*` pair, for the object store.
    pub aws: Vec<(String, String)>,
}

/// Says which `AWS_*` variables are set, never what to.
impl fmt::Debug for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let aws: Vec<&str> = self.aws.iter().map(|(name, _)| name.as_str()).collect();
        f.debug_struct("Config")
            .field("store", &self.store)
            .field("listen", &self.listen)
            .field("url", &self.url)
            .field("token", &self.token.as_ref().map(|_| "…"))
            .field("tenant", &self.tenant)
            .field("seal_delay_us", &self.seal_delay_us)
            .field("sweep_grace_us", &self.sweep_grace_us)
            .field("history_us", &self.history_us)
            .field("snapshots", &self.snapshots)
            .field("absorb_every_us", &self.absorb_every_us)
            .field("seal_every_us", &self.seal_every_us)
            .field("sweep_every_us", &self.sweep_every_us)
            .field("sync_every_us", &self.sync_every_us)
            .field("quota_samples_per_sec", &self.quota_samples_per_sec)
            .field("quota_series", &self.quota_series)
            .field("sketch", &self.sketch)
            .field("host_metrics", &self.host_metrics)
            .field("log", &self.log)
            .field("log_format", &self.log_format)
            .field("budgets", &self.budgets)
            .field("fan_out", &self.fan_out)
            .field("response_bytes_max", &self.response_bytes_max)
            .field("aws", &aws)
            .finish()
    }
}

const VARIABLES: [Variable; 24] = [
    Variable {
        name: "STELE_STORE",
        default: "./stele-data",
        meaning: "a directory, file:///…, s3://bucket/prefix (with AWS_* variables), or memory://",
    },
    Variable {
        name: "STELE_LISTEN",
        default: "127.0.0.1:8686",
        meaning: "address the server listens on",
    },
    Variable {
        name: "STELE_URL",
        default: "http://127.0.0.1:8686",
        meaning: "server that the operator's commands talk to",
    },
    Variable {
        name: "STELE_TOKEN",
        default: "none",
        meaning: "token that the operator's commands send to a server; a secret",
    },
    Variable {
        name: "STELE_TENANT",
        default: "default",
        meaning: "tenant that requests write to and read from",
    },
    Variable {
        name: "STELE_SEAL_DELAY_SECS",
        default: "600",
        meaning: "seconds after its end at which a window is sealed",
    },
    Variable {
        name: "STELE_SWEEP_GRACE_SECS",
        default: "900",
        meaning: "seconds a consumed L0 object outlives its commit; at least twice the deadline",
    },
    Variable {
        name: "STELE_HISTORY_SECS",
        default: "86400",
        meaning: "seconds a superseded file or log entry is kept; at least the sweep grace",
    },
    Variable {
        name: "STELE_ABSORB_EVERY_SECS",
        default: "10",
        meaning: "seconds from one absorb to the next",
    },
    Variable {
        name: "STELE_SEAL_EVERY_SECS",
        default: "60",
        meaning: "seconds from one seal (and consolidate) to the next",
    },
    Variable {
        name: "STELE_SWEEP_EVERY_SECS",
        default: "300",
        meaning: "seconds from one sweep to the next",
    },
    Variable {
        name: "STELE_SYNC_EVERY_SECS",
        default: "60",
        meaning: "seconds from one copy to the other tiers to the next",
    },
    Variable {
        name: "STELE_SNAPSHOTS",
        default: "off",
        meaning: "scheduled snapshots kept: on, or like hourly=24,daily=7,weekly=5,monthly=12",
    },
    Variable {
        name: "STELE_QUOTA_SAMPLES_PER_SEC",
        default: "none",
        meaning: "samples a second that one tenant may send; 429 beyond it",
    },
    Variable {
        name: "STELE_QUOTA_SERIES",
        default: "none",
        meaning: "active series that one tenant may have; new ones beyond it are refused",
    },
    Variable {
        name: "STELE_SKETCH",
        default: "true",
        meaning: "whether rollups keep quantile sketches",
    },
    Variable {
        name: "STELE_HOST_METRICS",
        default: "false",
        meaning: "record this machine's CPU, memory, disk, network and load every 10 s",
    },
    Variable {
        name: "STELE_LOG",
        default: "info",
        meaning: "log filter: a level, or target=level pairs separated by commas",
    },
    Variable {
        name: "STELE_LOG_FORMAT",
        default: "text on a terminal, else json",
        meaning: "text or json",
    },
    Variable {
        name: "STELE_COMPACT_MEMORY_BYTES",
        default: "201326592",
        meaning: "memory budget of one compaction job",
    },
    Variable {
        name: "STELE_QUERY_MEMORY_BYTES",
        default: "268435456",
        meaning: "memory pool of all queries together",
    },
    Variable {
        name: "STELE_QUERY_DEADLINE_SECS",
        default: "60",
        meaning: "seconds a query may run",
    },
    Variable {
        name: "STELE_FAN_OUT",
        default: "0",
        meaning: "functions only: other invocations that one compaction run may ask for help",
    },
    Variable {
        name: "STELE_RESPONSE_BYTES_MAX",
        default: "200000000",
        meaning: "functions only: bytes of the longest answer to a query",
    },
];

/// Variables of scripts that start Stele or measure it; they are theirs, and do nothing here.
const OTHERS: [&str; 4] = ["STELE_BIN", "STELE_ARGS", "STELE_SURFACE", "STELE_FORMATS"];

impl Config {
    /// Reads the process's environment.
    ///
    /// # Errors
    /// The first unknown or invalid `STELE_*` variable.
    pub fn from_env() -> Result<Self, Error> {
        let mut pairs = Vec::new();
        for (name, value) in std::env::vars_os() {
            let text = name.to_string_lossy().into_owned();
            if !text.starts_with("STELE_") && !text.starts_with("AWS_") {
                continue;
            }
            match (name.into_string(), value.into_string()) {
                (Ok(name), Ok(value)) => pairs.push((name, value)),
                _ => return Err(Error::NotUtf8 { name: text }),
            }
        }
        pairs.sort();
        Self::from_vars(pairs)
    }

    /// Parses `vars`; names that start with neither `STELE_` nor `AWS_` are ignored.
    ///
    /// # Errors
    /// The first unknown or invalid `STELE_*` variable.
    pub fn from_vars(vars: impl IntoIterator<Item = (String, String)>) -> Result<Self, Error> {
        let mut config = Self::default();
        for (name, value) in vars {
            if name.starts_with("AWS_") {
                config.aws.push((name, value));
            } else if name.starts_with("STELE_") && !OTHERS.contains(&name.as_str()) {
                config.set(name, value)?;
            }
        }
        Ok(config)
    }

    fn set(&mut self, name: String, value: String) -> Result<(), Error> {
        match name.as_str() {
            "STELE_STORE" => self.store = Some(value),
            "STELE_LISTEN" => self.listen = Some(value),
            "STELE_URL" => self.url = Some(value),
            "STELE_TOKEN" => self.token = Some(value),
            "STELE_TENANT" => {
                let expected = "expected 1 to 40 characters of a-z, 0-9, _ and -";
                self.tenant = Some(parse("STELE_TENANT", value, expected)?);
            }
            "STELE_SEAL_DELAY_SECS" => {
                self.seal_delay_us = Some(seconds_us("STELE_SEAL_DELAY_SECS", value)?);
            }
            "STELE_SWEEP_GRACE_SECS" => {
                self.sweep_grace_us = Some(seconds_us("STELE_SWEEP_GRACE_SECS", value)?);
            }
            "STELE_HISTORY_SECS" => {
                self.history_us = Some(seconds_us("STELE_HISTORY_SECS", value)?);
            }
            "STELE_ABSORB_EVERY_SECS" => {
                self.absorb_every_us = Some(seconds_us("STELE_ABSORB_EVERY_SECS", value)?);
            }
            "STELE_SEAL_EVERY_SECS" => {
                self.seal_every_us = Some(seconds_us("STELE_SEAL_EVERY_SECS", value)?);
            }
            "STELE_SWEEP_EVERY_SECS" => {
                self.sweep_every_us = Some(seconds_us("STELE_SWEEP_EVERY_SECS", value)?);
            }
            "STELE_SYNC_EVERY_SECS" => {
                self.sync_every_us = Some(seconds_us("STELE_SYNC_EVERY_SECS", value)?);
            }
            "STELE_SNAPSHOTS" => self.snapshots = Some(value),
            "STELE_QUOTA_SAMPLES_PER_SEC" => {
                let expected = "expected a number of samples";
                let n = parse("STELE_QUOTA_SAMPLES_PER_SEC", value, expected)?;
                self.quota_samples_per_sec = Some(n);
            }
            "STELE_QUOTA_SERIES" => {
                let n = parse("STELE_QUOTA_SERIES", value, "expected a number of series")?;
                self.quota_series = Some(n);
            }
            "STELE_SKETCH" => self.sketch = Some(boolean("STELE_SKETCH", value)?),
            "STELE_HOST_METRICS" => {
                self.host_metrics = Some(boolean("STELE_HOST_METRICS", value)?);
            }
            "STELE_LOG" => self.log = Some(value),
            "STELE_LOG_FORMAT" => {
                let format = parse("STELE_LOG_FORMAT", value, "expected text or json")?;
                self.log_format = Some(format);
            }
            "STELE_FAN_OUT" => {
                let n = parse("STELE_FAN_OUT", value, "expected a number of invocations")?;
                self.fan_out = Some(n);
            }
            "STELE_RESPONSE_BYTES_MAX" => {
                let expected = "expected a number of bytes";
                self.response_bytes_max = Some(parse("STELE_RESPONSE_BYTES_MAX", value, expected)?);
            }
            "STELE_COMPACT_MEMORY_BYTES" => {
                self.budgets.compact_memory_bytes = bytes("STELE_COMPACT_MEMORY_BYTES", value)?;
            }
            "STELE_QUERY_MEMORY_BYTES" => {
                self.budgets.query_memory_bytes = bytes("STELE_QUERY_MEMORY_BYTES", value)?;
            }
            "STELE_QUERY_DEADLINE_SECS" => {
                self.budgets.query_deadline_us = seconds_us("STELE_QUERY_DEADLINE_SECS", value)?;
            }
            _ => {
                let known: Vec<&str> = VARIABLES.iter().map(|v| v.name).collect();
                return Err(Error::Unknown {
                    name,
                    known: known.join(", "),
                });
            }
        }
        Ok(())
    }

    /// Every variable, for the README's table.
    #[must_use]
    pub fn table() -> &'static [Variable] {
        &VARIABLES
    }

    /// The values that must never be logged.
    #[must_use]
    pub fn secrets(&self) -> Vec<String> {
        let secret = |name: &str| {
            ["SECRET", "TOKEN", "PASSWORD", "CREDENTIAL"]
                .iter()
                .any(|word| name.contains(word))
        };
        let aws = self.aws.iter().filter(|(name, _)| secret(name));
        let all = aws.map(|(_, value)| value).chain(&self.token);
        all.filter(|value| !value.is_empty()).cloned().collect()
    }
}

fn parse<T: std::str::FromStr>(
    name: &'static str,
    value: String,
    expected: &'static str,
) -> Result<T, Error> {
    value.parse().map_err(|_| Error::Invalid {
        name,
        value,
        expected,
    })
}

fn seconds_us(name: &'static str, value: String) -> Result<i64, Error> {
    let seconds: u32 = parse(name, value, "expected a number of seconds")?;
    Ok(i64::from(seconds) * SECOND_US)
}

/// Below 16 MiB no job can make progress.
fn bytes(name: &'static str, value: String) -> Result<u64, Error> {
    let expected = "expected a number of bytes, at least 16777216";
    let n: u64 = parse(name, value.clone(), expected)?;
    if n < 16 << 20 {
        return Err(Error::Invalid {
            name,
            value,
            expected,
        });
    }
    Ok(n)
}

fn boolean(name: &'static str, value: String) -> Result<bool, Error> {
    match value.as_str() {
        "true" | "1" => Ok(true),
        "false" | "0" => Ok(false),
        _ => Err(Error::Invalid {
            name,
            value,
            expected: "expected true or false",
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(pairs: &[(&str, &str)]) -> Result<Config, Error> {
        Config::from_vars(
            pairs
                .iter()
                .map(|(k, v)| ((*k).to_owned(), (*v).to_owned())),
        )
    }

    #[test]
    fn an_unknown_variable_fails_by_name() {
        let error = config(&[("STELE_STOER", "x")]).unwrap_err().to_string();
        assert!(
            error.starts_with("STELE_STOER is not a variable"),
            "{error}"
        );
        assert!(error.contains("STELE_STORE"), "{error}");
    }

    #[test]
    fn an_invalid_value_fails_with_what_was_expected() {
        for (name, value) in [
            ("STELE_SEAL_DELAY_SECS", "-1"),
            ("STELE_TENANT", "../x"),
            ("STELE_SKETCH", "maybe"),
            ("STELE_LOG_FORMAT", "xml"),
            ("STELE_QUERY_MEMORY_BYTES", "1"),
        ] {
            let error = config(&[(name, value)]).unwrap_err().to_string();
            assert!(
                error.contains(name) && error.contains("expected"),
                "{error}"
            );
        }
    }

    #[test]
    fn every_documented_variable_is_read() {
        for variable in Config::table() {
            let values = ["1", "default", "text", "16777216"];
            assert!(
                values.iter().any(|v| config(&[(variable.name, v)]).is_ok()),
                "{}",
                variable.name
            );
        }
    }

    #[test]
    fn documented_defaults_are_the_real_ones() {
        let default = |name: &str| {
            Config::table()
                .iter()
                .find(|v| v.name == name)
                .map(|v| v.default.to_owned())
        };
        for name in [
            "STELE_COMPACT_MEMORY_BYTES",
            "STELE_QUERY_MEMORY_BYTES",
            "STELE_QUERY_DEADLINE_SECS",
        ] {
            let set = config(&[(name, &default(name).unwrap())]).unwrap();
            assert_eq!(set.budgets, Budgets::default(), "{name}");
        }
    }

    #[test]
    fn aws_values_are_kept_but_never_shown() {
        let vars = [
            ("AWS_SECRET_ACCESS_KEY", "hunter2"),
            ("AWS_SESSION_TOKEN", "hunter3"),
            ("AWS_REGION", "here"),
            ("HOME", "/"),
        ];
        let config = config(&vars).unwrap();
        assert_eq!(config.aws.len(), 3);
        assert_eq!(config.secrets(), ["hunter2", "hunter3"]);
        let shown = format!("{config:?}");
        assert!(
            shown.contains("AWS_SECRET_ACCESS_KEY") && !shown.contains("hunter"),
            "{shown}"
        );
    }
}
