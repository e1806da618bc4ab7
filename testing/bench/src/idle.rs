//! What a sandbox costs while nothing happens in it.

use std::fs;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use harness::Actors;

use crate::bundle::Bundle;
use crate::runtime::Runtime;

/// Time for what starts to settle.
const SETTLE: Duration = Duration::from_secs(3);

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
    /// Makes a sandbox, watches it, removes it.
    pub fn measure(runtime: &Runtime, bundle: &Bundle, watch: Duration) -> Result<Self> {
        let id = "bench-idle";
        let path = bundle.path().display().to_string();
        runtime.call(&["create", "--bundle", &path, id])?;
        let watched = runtime
            .call(&["start", id])
            .and_then(|_| watch_over(runtime, id, watch));
        runtime.call(&["delete", "--force", id])?;
        watched
    }

    /// Of all processes but the VMM, in KiB.
    pub fn host_pss(&self) -> u64 {
        self.processes
            .iter()
            .filter(|process| process.role != "VMM")
            .map(|process| process.pss)
            .sum()
    }

    /// Of all processes, as a part of one processor.
    pub fn processor(&self) -> f64 {
        self.processes.iter().map(|process| process.processor).sum()
    }
}

fn watch_over(runtime: &Runtime, id: &str, watch: Duration) -> Result<Idle> {
    let actors = Actors::read(runtime.state(), id).context("the container has no state")?;
    let processes = [
        ("driver", Some(actors.driver)),
        ("proxy", Some(actors.proxy)),
        ("file server", actors.helper("cofferdam-fs")),
        ("VMM", actors.helper("qemu")),
    ];
    let mut found = Vec::new();
    for (role, pid) in processes {
        found.push((
            role,
            pid.with_context(|| format!("the sandbox has no {role}"))?,
        ));
    }
    sleep(SETTLE);
    let start = Instant::now();
    let before = found
        .iter()
        .map(|&(_, pid)| used(pid))
        .collect::<Result<Vec<_>>>()?;
    sleep(watch);
    let after = found
        .iter()
        .map(|&(_, pid)| used(pid))
        .collect::<Result<Vec<_>>>()?;
    let watched = start.elapsed();
    let mut costs = Vec::new();
    for (&(role, pid), (before, after)) in found.iter().zip(before.iter().zip(&after)) {
        let rollup = read(&format!("/proc/{pid}/smaps_rollup"))?;
        let size =
            |name| value(&rollup, name).with_context(|| format!("smaps_rollup has no {name}"));
        costs.push(Cost {
            role,
            pss: size("Pss")?,
            anonymous: size("Pss_Anon")?,
            file: size("Pss_File")?,
            shared: size("Pss_Shmem")?,
            processor: (after.nanoseconds - before.nanoseconds) / 1e9 / watched.as_secs_f64(),
            wakeups: (after.switches - before.switches) / watched.as_secs_f64(),
        });
    }
    Ok(Idle {
        processes: costs,
        watched,
    })
}

struct Used {
    nanoseconds: f64,
    switches: f64,
}

/// What all threads of a process have used. Their own counters, because those of the process count in ticks of 10 ms.
fn used(pid: i32) -> Result<Used> {
    let mut sum = Used {
        nanoseconds: 0.0,
        switches: 0.0,
    };
    let tasks = format!("/proc/{pid}/task");
    for task in fs::read_dir(&tasks).with_context(|| format!("cannot read {tasks}"))? {
        let task = task.with_context(|| format!("cannot read {tasks}"))?.path();
        let task = task.display();
        let (Ok(times), Ok(status)) = (
            fs::read_to_string(format!("{task}/schedstat")),
            fs::read_to_string(format!("{task}/status")),
        ) else {
            // A thread that has ended.
            continue;
        };
        let ran = times.split_ascii_whitespace().next();
        sum.nanoseconds += ran.and_then(|text| text.parse().ok()).unwrap_or(0.0);
        sum.switches += value(&status, "voluntary_ctxt_switches").map_or(0.0, |count| {
            u32::try_from(count).map_or(f64::MAX, f64::from)
        });
    }
    Ok(sum)
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
