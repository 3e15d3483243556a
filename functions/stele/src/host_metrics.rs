//! `--host-metrics`: this machine's own CPU, memory, disk, network and load as samples.
//!
//! Real data within a minute, without an agent. Cumulative values (network bytes) are sent as the
//! counters they are; everything carries the tag `host`.

use std::time::Duration;

use stele_ingest::Ingestor;
use stele_model::{Clock, NO_EXTRA, Row, Rows, Series, tags};
use sysinfo::{Disks, Networks, System};

/// How often the machine is read.
pub const INTERVAL: Duration = Duration::from_secs(10);

/// Reads the machine every [`INTERVAL`] and stores what it read, until `stop` says so. A store
/// that refuses is logged and tried again with the next reading.
pub async fn run(
    ingestor: &Ingestor,
    clock: &dyn Clock,
    mut stop: tokio::sync::watch::Receiver<bool>,
) {
    let mut machine = match Machine::new() {
        Ok(machine) => machine,
        Err(error) => {
            tracing::error!(%error, "host metrics are not available on this machine");
            return;
        }
    };
    let mut tick = tokio::time::interval(INTERVAL);
    loop {
        tokio::select! {
            _ = tick.tick() => {}
            _ = stop.changed() => return,
        }
        if let Err(error) = ingestor.accept(machine.read(clock.now_us())).await {
            tracing::warn!(%error, "host metrics of this reading are not stored");
        }
    }
}

struct Machine {
    host: String,
    system: System,
    disks: Disks,
    networks: Networks,
}

impl Machine {
    fn new() -> Result<Self, sysinfo::Error> {
        Ok(Self {
            host: System::host_name().unwrap_or_else(|_| "localhost".to_owned()),
            system: System::new()?,
            disks: Disks::new_with_refreshed_list()?,
            networks: Networks::new_with_refreshed_list()?,
        })
    }

    fn read(&mut self, now_us: i64) -> Rows {
        self.system.refresh_cpu_usage();
        self.system.refresh_memory();
        self.disks.refresh(true);
        self.networks.refresh(true);
        let mut out = Reading {
            host: &self.host,
            now_us,
            rows: Rows::default(),
        };
        out.push(
            "host.cpu.usage_percent",
            None,
            f64::from(self.system.global_cpu_usage()),
        );
        for (number, cpu) in self.system.cpus().iter().enumerate() {
            let tag = number.to_string();
            out.push(
                "host.cpu.core_usage_percent",
                Some(("cpu", &tag)),
                f64::from(cpu.usage()),
            );
        }
        out.bytes("host.memory.total_bytes", None, self.system.total_memory());
        out.bytes("host.memory.used_bytes", None, self.system.used_memory());
        out.bytes(
            "host.memory.available_bytes",
            None,
            self.system.available_memory(),
        );
        out.bytes("host.swap.used_bytes", None, self.system.used_swap());
        if let Ok(load) = System::load_average() {
            out.push("host.load.1m", None, load.one);
            out.push("host.load.5m", None, load.five);
            out.push("host.load.15m", None, load.fifteen);
        }
        for disk in &self.disks {
            let mount = disk.mount_point().to_string_lossy();
            let tag = Some(("mount", &*mount));
            out.bytes("host.disk.total_bytes", tag, disk.total_space());
            out.bytes("host.disk.available_bytes", tag, disk.available_space());
        }
        for (name, data) in &self.networks {
            let name = name.to_string_lossy();
            let tag = Some(("interface", &*name));
            out.bytes("host.network.received_bytes", tag, data.total_received());
            out.bytes(
                "host.network.transmitted_bytes",
                tag,
                data.total_transmitted(),
            );
        }
        out.rows
    }
}

struct Reading<'a> {
    host: &'a str,
    now_us: i64,
    rows: Rows,
}

impl Reading<'_> {
    fn bytes(&mut self, metric: &str, tag: Option<(&str, &str)>, value: u64) {
        #[expect(clippy::cast_precision_loss, reason = "sizes below 8 PiB are exact")]
        let value = value as f64;
        self.push(metric, tag, value);
    }

    fn push(&mut self, metric: &str, tag: Option<(&str, &str)>, value: f64) {
        let mut pairs = vec![("host", self.host)];
        pairs.extend(tag);
        pairs.sort_unstable();
        let series = u32::try_from(self.rows.series.len()).unwrap_or(u32::MAX);
        self.rows.series.push(Series {
            metric: metric.to_owned(),
            tags: tags::canonical(&pairs),
        });
        self.rows.rows.push(Row {
            ts_us: self.now_us,
            value,
            series,
            extra: NO_EXTRA,
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reading_has_memory_load_and_the_host_tag() {
        let rows = Machine::new().expect("a supported machine").read(1_000_000);
        let metrics: Vec<&str> = rows.series.iter().map(|s| s.metric.as_str()).collect();
        for metric in [
            "host.cpu.usage_percent",
            "host.memory.used_bytes",
            "host.load.1m",
        ] {
            assert!(metrics.contains(&metric), "{metric} in {metrics:?}");
        }
        assert!(
            rows.series
                .iter()
                .all(|s| tags::get(&s.tags, "host").is_some())
        );
        assert!(
            rows.rows
                .iter()
                .all(|row| row.ts_us == 1_000_000 && row.value.is_finite())
        );
    }
}
