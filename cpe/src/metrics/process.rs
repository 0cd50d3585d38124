//! The process's own figures, by the names that every Prometheus client gives them. Read from /proc when they are asked for.

use std::fmt;
use std::fs;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;

/// Reads /proc/self at each scrape.
#[derive(Debug)]
pub(super) struct Process;

/// What /proc says; what it does not say is left out.
#[derive(Debug, Default)]
struct Figures {
    cpu_seconds: Option<f64>,
    start_seconds: Option<f64>,
    threads: Option<i64>,
    resident_bytes: Option<i64>,
    open_files: Option<i64>,
    max_files: Option<i64>,
}

impl Collector for Process {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let figures = Figures::read();
        if let Some(seconds) = figures.cpu_seconds {
            counter(&mut encoder, "process_cpu_seconds", "User and system CPU time", seconds)?;
        }
        let gauges = [
            ("process_start_time_seconds", "Start of the process, since 1970", figures.start_seconds),
            ("process_threads", "Threads", figures.threads.map(float)),
            ("process_resident_memory_bytes", "Resident memory", figures.resident_bytes.map(float)),
            ("process_open_fds", "Open file descriptors", figures.open_files.map(float)),
            ("process_max_fds", "Limit of open file descriptors", figures.max_files.map(float)),
        ];
        for (name, help, value) in gauges {
            if let Some(value) = value {
                gauge(&mut encoder, name, help, value)?;
            }
        }
        Ok(())
    }
}

fn counter(
    encoder: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    value: f64,
) -> Result<(), fmt::Error> {
    let metric = ConstCounter::new(value);
    metric.encode(encoder.encode_descriptor(name, help, None, metric.metric_type())?)
}

fn gauge(encoder: &mut DescriptorEncoder<'_>, name: &str, help: &str, value: f64) -> Result<(), fmt::Error> {
    let metric = ConstGauge::new(value);
    metric.encode(encoder.encode_descriptor(name, help, None, metric.metric_type())?)
}

// Exact below 2^53: files and bytes of one process.
fn float(number: i64) -> f64 {
    number as f64
}

impl Figures {
    fn read() -> Self {
        let mut figures = Self {
            open_files: fs::read_dir("/proc/self/fd")
                .ok()
                .and_then(|files| i64::try_from(files.count()).ok()),
            max_files: rustix::process::getrlimit(rustix::process::Resource::Nofile)
                .current
                .and_then(|limit| i64::try_from(limit).ok()),
            resident_bytes: resident_bytes(),
            ..Self::default()
        };
        if let Ok(stat) = fs::read_to_string("/proc/self/stat") {
            figures.take_stat(&stat);
        }
        figures
    }

    /// proc_pid_stat(5); the name in brackets may hold spaces, so fields are counted after it: the state is field 3.
    fn take_stat(&mut self, stat: &str) {
        let Some((_, rest)) = stat.rsplit_once(") ") else { return };
        let fields: Vec<&str> = rest.split(' ').collect();
        let field = |number: usize| fields.get(number - 3).and_then(|text| text.trim().parse::<i64>().ok());
        let ticks = float(i64::try_from(rustix::param::clock_ticks_per_second()).unwrap_or(100));
        self.cpu_seconds = field(14).zip(field(15)).map(|(user, system)| float(user + system) / ticks);
        self.threads = field(20);
        self.start_seconds = field(22).zip(boot_seconds()).map(|(since, boot)| boot + float(since) / ticks);
    }
}

fn resident_bytes() -> Option<i64> {
    let statm = fs::read_to_string("/proc/self/statm").ok()?;
    let pages: i64 = statm.split(' ').nth(1)?.parse().ok()?;
    Some(pages * i64::try_from(rustix::param::page_size()).ok()?)
}

/// When the machine booted, in seconds since 1970.
fn boot_seconds() -> Option<f64> {
    let stat = fs::read_to_string("/proc/stat").ok()?;
    let line = stat.lines().find_map(|line| line.strip_prefix("btime "))?;
    line.trim().parse().ok()
}
