//! What a runtime must not leave behind: processes, mounts, state, cgroups.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::fs::statfs;
use rustix::mount::{UnmountFlags, unmount};

use crate::reaper;

/// `CGROUP_SUPER_MAGIC` and `CGROUP2_SUPER_MAGIC` of linux/magic.h.
const CGROUP_MAGIC: [i64; 2] = [0x0027_e0eb, 0x6367_7270];

/// How long processes may take to go after `delete` has returned.
const GRACE: Duration = Duration::from_secs(5);

/// Describe everything that is left of the containers `ids` whose case lived in `dir` with state under `root`.
pub fn find(dir: &Path, root: &Path, ids: &[String]) -> Vec<String> {
    let mut found = Vec::new();
    let deadline = Instant::now() + GRACE;
    for process in reaper::living_descendants() {
        if !reaper::wait_gone(process.pid, deadline) {
            found.push(format!("process {}", reaper::describe(process.pid)));
        }
    }
    found.extend(
        mounts_below(dir)
            .iter()
            .map(|point| format!("mount {point}")),
    );
    for id in ids {
        if let Some(path) = named(root, id, 1) {
            found.push(format!("state {path}"));
        }
        // Only a real cgroup counts: crun makes plain directories where it takes a hierarchy for mounted.
        if let Some(path) = named(Path::new("/sys/fs/cgroup"), id, 3)
            && statfs(&path).is_ok_and(|fs| CGROUP_MAGIC.contains(&fs.f_type))
        {
            found.push(format!("cgroup {path}"));
        }
    }
    found
}

/// Mount points below `dir`, as they were mounted.
pub fn mounts_below(dir: &Path) -> Vec<String> {
    let table = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    table
        .lines()
        .filter_map(|line| line.split(' ').nth(4))
        .filter(|point| Path::new(point).starts_with(dir))
        .map(str::to_owned)
        .collect()
}

/// Unmount everything below `dir`, so that removing `dir` cannot reach what a runtime left mounted there.
pub fn unmount_below(dir: &Path) {
    for point in mounts_below(dir).iter().rev() {
        let _ = unmount(point.as_str(), UnmountFlags::DETACH);
    }
}

/// A directory entry at most `depth` levels below `dir` whose name contains `id`.
fn named(dir: &Path, id: &str, depth: u8) -> Option<String> {
    let mut below = Vec::new();
    for entry in fs::read_dir(dir).ok()?.flatten() {
        if entry.file_name().to_string_lossy().contains(id) {
            return Some(entry.path().display().to_string());
        }
        if depth > 0 && entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            below.push(entry.path());
        }
    }
    below.iter().find_map(|path| named(path, id, depth - 1))
}
