//! CPU time and memory of processes, read from `/proc` on Linux. On other systems the values are
//! unknown.

use std::time::Instant;

/// Clock ticks per second (`USER_HZ`) on every Linux platform that Rust supports.
const TICKS: f64 = 100.0;

/// A group of processes, such as a gateway and its workers.
pub(super) struct Processes {
    ids: Vec<u32>,
    last: Option<Sample>,
}

/// Total CPU time of a group of processes at one time.
struct Sample {
    at: Instant,
    cpu_seconds: f64,
}

/// Resources used by a group of processes.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(super) struct Usage {
    /// Mean CPU usage in cores since the previous call of [`Processes::look`]; `None` in the first
    /// call, or if it is unknown.
    pub(super) cpu_cores: Option<f64>,
    /// Resident memory in MiB; `None` if it is unknown.
    pub(super) memory_mb: Option<f64>,
}

impl Processes {
    /// Creates a group from process IDs.
    pub(super) fn new(ids: Vec<u32>) -> Self {
        Self { ids, last: None }
    }

    /// Creates a group of this process only.
    pub(super) fn own() -> Self {
        Self::new(vec![std::process::id()])
    }

    /// Returns the first process that does not exist.
    pub(super) fn missing(&self) -> Option<u32> {
        self.ids.iter().copied().find(|id| cpu_seconds(*id).is_none())
    }

    /// Returns the CPU usage since the last call, and the current memory.
    pub(super) fn look(&mut self, now: Instant) -> Usage {
        if self.ids.is_empty() {
            return Usage::default();
        }
        let seconds: Option<f64> = self.ids.iter().map(|id| cpu_seconds(*id)).sum();
        let last = std::mem::replace(&mut self.last, seconds.map(|cpu_seconds| Sample { at: now, cpu_seconds }));
        let cpu_cores = seconds.zip(last).map(|(seconds, last)| {
            let elapsed = now.saturating_duration_since(last.at).as_secs_f64();
            (seconds - last.cpu_seconds).max(0.0) / elapsed.max(1e-3)
        });
        Usage { cpu_cores, memory_mb: self.ids.iter().map(|id| memory_mb(*id)).sum() }
    }
}

/// Returns the total CPU time of a process in seconds, including that of its finished threads.
fn cpu_seconds(process: u32) -> Option<f64> {
    let text = std::fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
    // The process name in parentheses may contain spaces. The 12th and 13th fields after it are the
    // ticks in user and kernel mode.
    let mut fields = text.rsplit(')').next()?.split_whitespace().skip(11);
    let mut ticks = || fields.next()?.parse::<f64>().ok();
    Some((ticks()? + ticks()?) / TICKS)
}

fn memory_mb(process: u32) -> Option<f64> {
    let text = std::fs::read_to_string(format!("/proc/{process}/status")).ok()?;
    let kib = text.lines().find_map(|line| line.strip_prefix("VmRSS:"))?.split_whitespace().next()?.parse::<f64>().ok()?;
    Some(kib / 1024.0)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn own_use_is_known_from_the_second_look_on() {
        let mut own = Processes::own();
        let now = Instant::now();
        assert_eq!(own.missing(), None);
        let first = own.look(now);
        assert!(first.cpu_cores.is_none() && first.memory_mb.unwrap() > 1.0);
        assert!(own.look(now + Duration::from_secs(1)).cpu_cores.is_some());
    }

    #[test]
    fn of_a_process_that_is_not_there_nothing_is_known() {
        let mut none = Processes::new(vec![u32::MAX]);
        assert_eq!(none.missing(), Some(u32::MAX));
        assert_eq!(none.look(Instant::now()), Usage::default());
        assert_eq!(Processes::new(Vec::new()).missing(), None);
    }
}
