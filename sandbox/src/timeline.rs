//! The boot timeline: when a sandbox's life reached each step, for whoever looks for lost milliseconds.
//!
//! `cofferdam --debug --log FILE run …` writes it. Times are those of one clock of the host, so the lines of all
//! processes of a sandbox fit together. Beside them stands the processor time that the VMM had used, which a busy host
//! does not stretch. What is marked of a machine's boot can be kept, too: [`BootTime`](crate::BootTime) is made of it.

use std::sync::{Mutex, PoisonError};

use backend_api::BootTimes;
use rustix::time::{ClockId, clock_gettime};

/// Marks a step; with the VMM's pid, its processor time too. Costs nothing unless debug messages are wanted.
pub fn mark(step: &'static str, vmm: Option<u32>) {
    if tracing::enabled!(tracing::Level::DEBUG) {
        log(step, Reached::now(vmm));
    }
}

fn log(step: &'static str, reached: Reached) {
    let milliseconds = reached.at / 1_000_000;
    let fraction = reached.at / 1000 % 1000;
    let vmm_cpu_us = reached.vmm_cpu.unwrap_or_default() / 1000;
    tracing::debug!(vmm_cpu_us, "timeline {milliseconds}.{fraction:03} {step}");
}

/// A step on the way to a guest that answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step {
    Begun,
    FileServer,
    Prepared,
    Booted,
    Share,
    Answered,
    Configured,
}

impl Step {
    fn name(self) -> &'static str {
        match self {
            Self::Begun => "the machine is begun",
            Self::FileServer => "the file server is spawned",
            Self::Prepared => "the VMM is to start",
            Self::Booted => "the VMM obeys",
            Self::Share => "the share is laid out",
            Self::Answered => "the agent has answered",
            Self::Configured => "the guest is configured",
        }
    }
}

/// When a step was reached, in nanoseconds.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Reached {
    /// Of `CLOCK_MONOTONIC`.
    pub at: u64,
    /// That the VMM's threads have run, where it was looked at.
    pub vmm_cpu: Option<u64>,
}

impl Reached {
    fn now(vmm: Option<u32>) -> Self {
        let now = clock_gettime(ClockId::Monotonic);
        let part = |value: i64| u64::try_from(value).unwrap_or_default();
        Self {
            at: part(now.tv_sec) * 1_000_000_000 + part(now.tv_nsec),
            vmm_cpu: vmm.and_then(processor_time),
        }
    }
}

/// What a guest says of itself, in nanoseconds of its own clock. It may say anything.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct GuestTimes {
    /// PID 1 was entered.
    pub entered: u64,
    /// The agent answered.
    pub answered: u64,
}

/// What is known of one boot.
#[derive(Debug, Default)]
pub(crate) struct Known {
    steps: Vec<(Step, Reached)>,
    pub vmm: Option<BootTimes>,
    pub guest: Option<GuestTimes>,
}

impl Known {
    pub fn add(&mut self, step: Step, reached: Reached) {
        self.steps.push((step, reached));
    }

    pub fn reached(&self, step: Step) -> Option<Reached> {
        let mut steps = self.steps.iter();
        steps.find_map(|&(one, reached)| (one == step).then_some(reached))
    }
}

/// The steps of one machine: logged, and kept if that is wanted.
#[derive(Debug)]
pub(crate) struct Timeline(Option<Mutex<Known>>);

impl Timeline {
    pub fn new(kept: bool) -> Self {
        Self(kept.then(Mutex::default))
    }

    /// As [`mark`].
    pub fn mark(&self, step: Step, vmm: Option<u32>) {
        if self.0.is_none() {
            mark(step.name(), vmm);
            return;
        }
        let reached = Reached::now(vmm);
        if tracing::enabled!(tracing::Level::DEBUG) {
            log(step.name(), reached);
        }
        self.note(|known| known.add(step, reached));
    }

    /// Notes what somebody else says, if it is kept.
    pub fn note(&self, what: impl FnOnce(&mut Known)) {
        if let Some(known) = &self.0 {
            what(&mut known.lock().unwrap_or_else(PoisonError::into_inner));
        }
    }

    /// Makes something of what is known, if it is kept.
    pub fn look<T>(&self, what: impl FnOnce(&Known) -> Option<T>) -> Option<T> {
        let known = self.0.as_ref()?;
        what(&known.lock().unwrap_or_else(PoisonError::into_inner))
    }
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

    #[test]
    fn steps_are_kept_only_if_that_is_wanted() {
        let timeline = Timeline::new(true);
        timeline.mark(Step::Begun, None);
        timeline.mark(Step::Booted, Some(std::process::id()));
        let both = timeline.look(|known| {
            known
                .reached(Step::Begun)
                .zip(known.reached(Step::Booted))
                .filter(|_| known.reached(Step::Answered).is_none())
        });
        let (begun, booted) = both.expect("both are kept, and no other");
        assert!(0 < begun.at && begun.at <= booted.at);
        assert!(begun.vmm_cpu.is_none() && booted.vmm_cpu.is_some());

        let timeline = Timeline::new(false);
        timeline.mark(Step::Begun, None);
        assert_eq!(timeline.look(|_| Some(())), None);
    }
}
