//! A control group (version 2) with little memory.

use std::fs;
use std::path::{Path, PathBuf};

const ROOT: &str = "/sys/fs/cgroup";

/// Removed with the value; whoever was in it must have ended.
pub struct Group(PathBuf);

impl Group {
    /// A new one; nothing where there are no such groups, but in the test host, which has them.
    pub fn with_memory(bytes: u64) -> Option<Self> {
        let root = Path::new(ROOT);
        let control = root.join("cgroup.subtree_control");
        let Ok(enabled) = fs::read_to_string(&control) else {
            let host = std::env::var_os("COFFERDAM_TESTHOST_RESULTS");
            assert!(host.is_none(), "the test host has control groups");
            eprintln!("skipped: {ROOT} is not version 2");
            return None;
        };
        if !enabled.split_whitespace().any(|name| name == "memory") {
            fs::write(&control, "+memory").expect("the memory controller");
        }
        let group = Self(root.join(format!("cofferdam-faults-{}", std::process::id())));
        fs::create_dir(&group.0).expect("a control group");
        fs::write(group.0.join("memory.max"), bytes.to_string()).expect("a limit");
        Some(group)
    }

    pub fn add(&self, pid: u32) {
        fs::write(self.0.join("cgroup.procs"), pid.to_string()).expect("a process");
    }

    /// How many processes the kernel has killed in it for want of memory.
    pub fn killed(&self) -> u64 {
        let events = fs::read_to_string(self.0.join("memory.events")).expect("events");
        let count = events
            .lines()
            .find_map(|line| line.strip_prefix("oom_kill "));
        count
            .and_then(|count| count.parse().ok())
            .expect("a number")
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir(&self.0) {
            eprintln!("{}: {error}", self.0.display());
        }
    }
}
