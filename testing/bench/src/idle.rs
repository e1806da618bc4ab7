//! What a sandbox costs while nothing happens in it.

use std::collections::HashMap;
use std::fs;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

/// Time for what starts to settle: threads that have nothing more to do go after ten seconds.
const SETTLE: Duration = Duration::from_secs(12);

/// A process to watch, and what it is.
pub type Role = (&'static str, i32);

/// One process of a sandbox.
#[derive(Debug)]
pub struct Cost {
    /// What it is.
    pub role: &'static str,
    /// Proportional set size: a page shared by n processes counts as one n-th; in KiB.
    pub pss: u64,
    /// Its part that no file holds.
    pub anonymous: u64,
    /// Its part that is cached files: programs and libraries.
    pub file: u64,
    /// Its part that is shared memory: that of the guest.
    pub shared: u64,
    /// Processor time per second of idling.
    pub processor: f64,
    /// Voluntary switches per second: how often it woke up.
    pub wakeups: f64,
}

/// All processes of an idle sandbox.
#[derive(Debug)]
pub struct Idle {
    pub processes: Vec<Cost>,
    /// How long it was watched.
    pub watched: Duration,
}

impl Idle {
    /// Watches several sandboxes at the same time.
    pub fn measure(sandboxes: &[Vec<Role>], watch: Duration) -> Result<Vec<Self>> {
        sleep(SETTLE);
        let start = Instant::now();
        let used_now = || {
            sandboxes
                .iter()
                .flatten()
                .map(|&(_, pid)| used(pid))
                .collect::<Result<Vec<_>>>()
        };
        let before = used_now()?;
        sleep(watch);
        let after = used_now()?;
        let watched = start.elapsed();
        let mut between = before.iter().zip(&after);
        sandboxes
            .iter()
            .map(|sandbox| {
                let processes = sandbox.iter().zip(between.by_ref());
                let processes = processes
                    .map(|(&role, (before, after))| Cost::of(role, before, after, watched))
                    .collect::<Result<Vec<_>>>()?;
                Ok(Self { processes, watched })
            })
            .collect()
    }

    /// Proportional set size of all processes but the VMM, in KiB.
    pub fn host_pss(&self) -> u64 {
        self.ours().map(|process| process.pss).sum()
    }

    /// How often processes but the VMM woke up, per second.
    pub fn host_wakeups(&self) -> f64 {
        self.ours().map(|process| process.wakeups).sum()
    }

    /// Processor time of all processes, as a part of one processor.
    pub fn processor(&self) -> f64 {
        self.processes.iter().map(|process| process.processor).sum()
    }

    /// The process that is this.
    pub fn role(&self, role: &str) -> Option<&Cost> {
        self.processes.iter().find(|process| process.role == role)
    }

    fn ours(&self) -> impl Iterator<Item = &Cost> {
        let processes = self.processes.iter();
        processes.filter(|process| process.role != "VMM")
    }
}

impl Cost {
    fn of((role, pid): Role, before: &Used, after: &Used, watched: Duration) -> Result<Self> {
        let rollup = read(&format!("/proc/{pid}/smaps_rollup"))?;
        let size =
            |name| value(&rollup, name).with_context(|| format!("smaps_rollup has no {name}"));
        let (nanoseconds, switches) = spent(before, after);
        Ok(Self {
            role,
            pss: size("Pss")?,
            anonymous: size("Pss_Anon")?,
            file: size("Pss_File")?,
            shared: size("Pss_Shmem")?,
            processor: nanoseconds / 1e9 / watched.as_secs_f64(),
            wakeups: switches / watched.as_secs_f64(),
        })
    }
}

/// What each thread of a process has used since it began: nanoseconds of a processor, voluntary switches. Their own
/// counters, because those of the process count in ticks of 10 ms.
type Used = HashMap<String, (u64, u64)>;

fn used(pid: i32) -> Result<Used> {
    let mut threads = HashMap::new();
    let tasks = format!("/proc/{pid}/task");
    for task in fs::read_dir(&tasks).with_context(|| format!("cannot read {tasks}"))? {
        let task = task.with_context(|| format!("cannot read {tasks}"))?;
        let path = task.path();
        let (Ok(times), Ok(status)) = (
            fs::read_to_string(path.join("schedstat")),
            fs::read_to_string(path.join("status")),
        ) else {
            // A thread that has ended.
            continue;
        };
        let ran = times.split_ascii_whitespace().next();
        let ran = ran.and_then(|text| text.parse().ok()).unwrap_or_default();
        let switches = value(&status, "voluntary_ctxt_switches").unwrap_or_default();
        threads.insert(
            task.file_name().to_string_lossy().into_owned(),
            (ran, switches),
        );
    }
    Ok(threads)
}

/// Nanoseconds and wake-ups between two looks. A thread that has ended in between took its counters along: it woke up
/// once at least.
fn spent(before: &Used, after: &Used) -> (f64, f64) {
    let mut nanoseconds = 0;
    let mut switches = before
        .keys()
        .filter(|thread| !after.contains_key(*thread))
        .count() as u64;
    for (thread, &(ran, switched)) in after {
        let (ran_before, switched_before) = before.get(thread).copied().unwrap_or_default();
        nanoseconds += ran.saturating_sub(ran_before);
        switches += switched.saturating_sub(switched_before);
    }
    let float = |number: u64| u32::try_from(number).map_or(f64::MAX, f64::from);
    // Of a processor's second in microseconds there are fewer than u32 has numbers.
    (float(nanoseconds / 1000) * 1000.0, float(switches))
}

fn read(path: &str) -> Result<String> {
    fs::read_to_string(path).with_context(|| format!("cannot read {path}"))
}

fn value(text: &str, name: &str) -> Option<u64> {
    let rest = text
        .lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
    rest.split_ascii_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn threads(list: &[(&str, u64, u64)]) -> Used {
        list.iter()
            .map(|&(name, ran, switches)| (name.to_owned(), (ran, switches)))
            .collect()
    }

    #[test]
    fn a_thread_that_ended_takes_nothing_back() {
        let before = threads(&[("1", 5_000, 3), ("2", 900_000, 70)]);
        let after = threads(&[("1", 7_000, 4)]);
        assert_eq!(spent(&before, &after), (2_000.0, 2.0));
    }

    #[test]
    fn a_thread_that_began_counts_whole() {
        let before = threads(&[("1", 5_000, 3)]);
        let after = threads(&[("1", 5_000, 3), ("2", 4_000, 2)]);
        assert_eq!(spent(&before, &after), (4_000.0, 2.0));
    }
}
