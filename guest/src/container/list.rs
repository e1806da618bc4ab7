//! The processes of a container.

use std::collections::HashMap;
use std::fs;
use std::os::unix::fs::MetadataExt;

use cofferdam_protocol::ProcessInfo;
use rustix::param::clock_ticks_per_second;
use rustix::time::{ClockId, clock_gettime};

use super::{ContainerError, Containers};

/// Longest command that is told.
const COMMAND_MAX: usize = 4096;

/// Most processes that are told: an answer has room for 4 MiB.
const PROCESSES_MAX: usize = 8192;

impl Containers {
    /// The processes of a container, as ps would show them.
    ///
    /// # Errors
    /// When there is no such container, or its cgroup cannot be read.
    pub fn list(&self, id: &str) -> Result<Vec<ProcessInfo>, ContainerError> {
        let container = self.get(id)?;
        let cgroup = &container.cgroup;
        let pids = cgroup
            .processes()
            .map_err(ContainerError::file("list the processes in", cgroup.path()))?;
        let execs: HashMap<i32, String> = {
            let inner = container.inner();
            let named = inner.execs.iter();
            named
                .filter_map(|(name, process)| Some((process.as_ref()?.pid(), name.clone())))
                .collect()
        };
        // One that ends while it is looked at is not told.
        let infos = pids.into_iter().filter_map(|pid| {
            let mut info = info(pid)?;
            info.exec_id = execs.get(&pid).cloned().unwrap_or_default();
            Some(info)
        });
        // The longest answer must fit a message.
        let mut room = 3 * 1024 * 1024usize;
        Ok(infos
            .take(PROCESSES_MAX)
            .take_while(|info| {
                let size = info.command.len() + info.exec_id.len() + 64;
                let fits = size <= room;
                room = room.saturating_sub(size);
                fits
            })
            .collect())
    }
}

fn info(pid: i32) -> Option<ProcessInfo> {
    let folder = format!("/proc/{pid}");
    let uid = fs::metadata(&folder).ok()?.uid();
    let stat = fs::read_to_string(format!("{folder}/stat")).ok()?;
    // The name, in parentheses, may contain anything: what follows is behind the last one.
    let (head, tail) = stat.rsplit_once(')')?;
    let name = head
        .split_once('(')
        .map(|(_, name)| name)
        .unwrap_or_default();
    let fields: Vec<&str> = tail.split_ascii_whitespace().collect();
    // Numbered from 3 (state) in proc(5): ppid 4, utime 14, stime 15, starttime 22.
    let number = |field: usize| fields.get(field - 3)?.parse::<u64>().ok();
    let ticks = clock_ticks_per_second().max(1);
    let milliseconds = |ticks_used: u64| ticks_used.saturating_mul(1000) / ticks;
    let started = number(22)? / ticks;
    let command = fs::read(format!("{folder}/cmdline")).ok()?;
    let command = if command.is_empty() {
        format!("[{name}]")
    } else {
        let end = command.len().min(COMMAND_MAX);
        let words = String::from_utf8_lossy(&command[..end]).replace('\0', " ");
        words.trim_end().to_owned()
    };
    Some(ProcessInfo {
        pid: u32::try_from(pid).ok()?,
        ppid: u32::try_from(number(4)?).ok()?,
        uid,
        cpu_time_ms: milliseconds(number(14)?.saturating_add(number(15)?)),
        started: boot_time() + i64::try_from(started).ok()?,
        command,
        ..ProcessInfo::default()
    })
}

/// When the guest was booted, in seconds since the epoch.
fn boot_time() -> i64 {
    clock_gettime(ClockId::Realtime).tv_sec - clock_gettime(ClockId::Boottime).tv_sec
}
