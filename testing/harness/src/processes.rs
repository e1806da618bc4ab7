//! The processes that stand behind a container.

use std::fs;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::patience::patient;

/// Pids of the processes behind one container, as its state file names them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Actors {
    /// Owns the sandbox.
    pub driver: i32,
    /// Stands for the container's first process.
    pub proxy: i32,
    /// VMM and file server, in no particular order.
    pub helpers: Vec<i32>,
}

impl Actors {
    /// Reads a state file; nothing while the container is not made.
    #[must_use]
    pub fn read(root: &Path, id: &str) -> Option<Self> {
        let text = fs::read(root.join(id).join("state.json")).ok()?;
        let state: Value = serde_json::from_slice(&text).ok()?;
        let pid = |value: &Value| i32::try_from(value.get("pid")?.as_i64()?).ok();
        Some(Self {
            driver: pid(&state["driver"])?,
            proxy: pid(&state["init"])?,
            helpers: state["helpers"]
                .as_array()?
                .iter()
                .filter_map(pid)
                .collect(),
        })
    }

    /// The helper whose program's name contains this, or [`VMM`].
    #[must_use]
    pub fn helper(&self, name: &str) -> Option<i32> {
        self.helpers.iter().copied().find(|&pid| runs(pid, name))
    }

    /// All of them.
    #[must_use]
    pub fn all(&self) -> Vec<i32> {
        let mut all = vec![self.driver, self.proxy];
        all.extend(&self.helpers);
        all
    }
}

/// The programs that run in a control group, in order. With version 2 the host's kernel has threads of its own there, which
/// work for a VMM: KVM's and vhost-net's. They have no program.
///
/// # Panics
/// When the group cannot be read.
#[must_use]
pub fn members(group: &Path) -> Vec<i32> {
    let listed = fs::read_to_string(group.join("cgroup.procs")).expect("a control group");
    let mut members: Vec<_> = listed
        .lines()
        .filter_map(|pid| pid.parse().ok())
        .filter(|pid: &i32| fs::read_link(format!("/proc/{pid}/exe")).is_ok())
        .collect();
    members.sort_unstable();
    members
}

/// Whether a process runs; a zombie does not.
#[must_use]
pub fn is_alive(pid: i32) -> bool {
    fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| {
        stat.rsplit_once(") ")
            .is_some_and(|(_, rest)| !rest.starts_with(['Z', 'X']))
    })
}

/// Stands for the program of whichever virtual machine monitor a sandbox has, where a program's name is asked for.
pub const VMM: &str = "the virtual machine monitor";

/// Their programs.
const VMMS: [&str; 2] = ["qemu-system", "cofferdam-vmm"];

/// Whether a process runs a program whose name contains this.
fn runs(pid: i32, name: &str) -> bool {
    fs::read_link(format!("/proc/{pid}/exe")).is_ok_and(|program| {
        let program = program.to_string_lossy();
        if name == VMM {
            VMMS.iter().any(|name| program.contains(name))
        } else {
            program.contains(name)
        }
    })
}

/// A child of a process, or a child of one, whose program's name contains this, or [`VMM`].
#[must_use]
pub fn descendant(pid: i32, name: &str) -> Option<i32> {
    let children: Vec<i32> = fs::read_dir("/proc")
        .ok()?
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .filter(|&child| parent(child) == Some(pid))
        .collect();
    let direct = children.iter().copied().find(|&child| runs(child, name));
    direct.or_else(|| {
        children
            .into_iter()
            .find_map(|child| descendant(child, name))
    })
}

fn parent(pid: i32) -> Option<i32> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit_once(") ")?.1.split(' ').nth(1)?.parse().ok()
}

/// Waits until something is so; answers whether it came about within the limit, see [`patient`].
pub fn wait_until(limit: Duration, mut is_so: impl FnMut() -> bool) -> bool {
    let deadline = Instant::now() + patient(limit);
    loop {
        if is_so() {
            return true;
        }
        if Instant::now() >= deadline {
            return false;
        }
        thread::sleep(Duration::from_millis(20));
    }
}

/// Sends a signal by number.
pub(crate) fn signal(pid: i32, number: i32) {
    let target = Pid::from_raw(pid).expect("a pid");
    let signal = Signal::from_named_raw(number).expect("a signal");
    kill_process(target, signal).unwrap_or_else(|error| panic!("cannot signal {pid}: {error}"));
}
