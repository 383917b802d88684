//! Process metrics, read from the operating system when Prometheus scrapes.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;

/// Number of log lines that were lost, because standard error did not accept them. The logger counts
/// them here.
pub static LOST_LOG_LINES: AtomicU64 = AtomicU64::new(0);

/// Metrics of this process.
#[derive(Debug)]
pub(super) struct Process {
    started: SystemTime,
}

impl Process {
    /// Creates the metrics; the start time of the process is now.
    pub(super) fn new() -> Self {
        Self { started: SystemTime::now() }
    }
}

impl Collector for Process {
    fn encode(&self, mut to: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let started = self.started.duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO).as_secs_f64();
        let help = "Start time of the process in seconds since the Unix epoch";
        ConstGauge::new(started).encode(to.encode_descriptor("process_start_time_seconds", help, None, MetricType::Gauge)?)?;
        let help = "User and system CPU time of the process";
        let cpu = ConstCounter::new(cpu_time().as_secs_f64());
        cpu.encode(to.encode_descriptor("process_cpu_seconds", help, None, MetricType::Counter)?)?;
        let help = "Resident memory of the process";
        let memory = ConstGauge::new(resident_bytes() as i64);
        memory.encode(to.encode_descriptor("process_resident_memory_bytes", help, None, MetricType::Gauge)?)?;
        let help = "Log lines lost because standard error did not accept them";
        let lost = ConstCounter::new(LOST_LOG_LINES.load(Ordering::Relaxed));
        lost.encode(to.encode_descriptor("log_lines_lost", help, None, MetricType::Counter)?)
    }
}

/// Returns the user and system time of all threads, including those that have ended.
fn cpu_time() -> Duration {
    let used = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    Duration::new(used.tv_sec.try_into().unwrap_or(0), used.tv_nsec.try_into().unwrap_or(0))
}

/// Returns the resident memory in bytes; 0 if there is no `/proc`.
fn resident_bytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    line.and_then(|line| line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()).unwrap_or(0) * 1024
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_uses_time_and_memory() {
        assert!(cpu_time() > Duration::ZERO);
        assert!(resident_bytes() > 1 << 20);
    }
}
