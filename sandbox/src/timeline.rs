//! The boot timeline: when a sandbox's life reached each step, for whoever looks for lost milliseconds.
//!
//! `cofferdam --debug --log FILE run …` writes it. Times are those of one clock of the host, so the lines of all
//! processes of a sandbox fit together. Beside them stands the processor time that the VMM had used, which a busy host
//! does not stretch.

use rustix::time::{ClockId, clock_gettime};

/// Marks a step; with the VMM's pid, its processor time too. Costs nothing unless debug messages are wanted.
pub fn mark(step: &'static str, vmm: Option<u32>) {
    if !tracing::enabled!(tracing::Level::DEBUG) {
        return;
    }
    let now = clock_gettime(ClockId::Monotonic);
    let milliseconds = now.tv_sec * 1000 + now.tv_nsec / 1_000_000;
    let fraction = now.tv_nsec / 1000 % 1000;
    let vmm_cpu_us = vmm.and_then(processor_time).unwrap_or_default() / 1000;
    tracing::debug!(vmm_cpu_us, "timeline {milliseconds}.{fraction:03} {step}");
}

/// Nanoseconds that all threads of a process have run (Linux `Documentation/scheduler/sched-stats.rst`).
fn processor_time(pid: u32) -> Option<u64> {
    let threads = std::fs::read_dir(format!("/proc/{pid}/task")).ok()?;
    let times = threads.filter_map(|thread| {
        let text = std::fs::read_to_string(thread.ok()?.path().join("schedstat")).ok()?;
        text.split_ascii_whitespace().next()?.parse::<u64>().ok()
    });
    Some(times.sum())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_has_used_processor_time() {
        assert!(processor_time(std::process::id()).is_some_and(|time| time > 0));
        assert_eq!(processor_time(u32::MAX), None);
    }
}
