//! The machine that is measured on.

use std::fs;
use std::path::Path;
use std::process::Command;

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};

/// State and bundles lie in memory, as `/run` does on most hosts: a disk that others use would be measured too.
pub const MEMORY_FOLDER: &str = "/dev/shm";

/// Where a host with both cgroup versions has the second.
const UNIFIED: &str = "/sys/fs/cgroup/unified";

/// Leaves the second cgroup hierarchy out of sight of this process and its children, where there are both: crun does not
/// work with both. Answers whether there were. Call it while there is one thread.
pub fn hide_unified_cgroup() -> nix::Result<bool> {
    if !Path::new(UNIFIED).join("cgroup.controllers").exists() {
        return Ok(false);
    }
    unshare(CloneFlags::CLONE_NEWNS)?;
    let none: Option<&str> = None;
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none)?;
    umount2(UNIFIED, MntFlags::MNT_DETACH)?;
    Ok(true)
}

/// The load averages of the last one, five and fifteen minutes.
pub fn load() -> String {
    let text = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split(' ').take(3).collect::<Vec<_>>().join(" ")
}

/// Lines that describe the machine.
pub fn description() -> Vec<(&'static str, String)> {
    let unknown = || "unknown".to_owned();
    let processors = std::thread::available_parallelism().map_or(0, usize::from);
    let model = field("/proc/cpuinfo", "model name").unwrap_or_else(unknown);
    let uname = rustix::system::uname();
    let qemu = Command::new("qemu-system-x86_64").arg("--version").output();
    let qemu = qemu
        .ok()
        .and_then(|done| {
            let text = String::from_utf8_lossy(&done.stdout).into_owned();
            text.lines().next().map(str::to_owned)
        })
        .unwrap_or_else(unknown);
    vec![
        ("Processor", format!("{processors} × {model}")),
        (
            "Memory",
            field("/proc/meminfo", "MemTotal").unwrap_or_else(unknown),
        ),
        (
            "Host kernel",
            uname.release().to_string_lossy().into_owned(),
        ),
        ("QEMU", format!("{qemu}, emulation (TCG)")),
    ]
}

/// The first value of a name in a file of lines `name : value`.
fn field(path: &str, name: &str) -> Option<String> {
    let text = fs::read_to_string(path).ok()?;
    text.lines().find_map(|line| {
        let (key, value) = line.split_once(':')?;
        (key.trim() == name).then(|| value.trim().to_owned())
    })
}
