//! Waiting for processes as an engine's monitor does: as child subreaper, by pid, with a deadline.

use std::collections::HashMap;
use std::fmt;
use std::fs;
use std::sync::{Condvar, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::process::{
    Pid, PidfdFlags, Signal, WaitId, WaitIdOptions, WaitOptions, WaitStatus, kill_process,
    pidfd_open, waitid,
};

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// It exited with this code.
    Code(i32),
    /// This signal killed it.
    Signal(i32),
}

impl Exit {
    fn from_wait(status: WaitStatus) -> Option<Self> {
        match (status.exit_status(), status.terminating_signal()) {
            (Some(code), _) => Some(Self::Code(code)),
            (None, Some(signal)) => Some(Self::Signal(signal)),
            (None, None) => None,
        }
    }

    /// The code a shell or an engine reports: 128 + n for death by signal n.
    pub fn shell_code(self) -> i32 {
        match self {
            Self::Code(code) => code,
            Self::Signal(signal) => 128 + signal,
        }
    }
}

impl fmt::Display for Exit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Code(code) => write!(f, "exit code {code}"),
            Self::Signal(signal) => write!(f, "death by signal {signal}"),
        }
    }
}

/// The statuses of reaped children, by pid.
static REAPED: Mutex<Option<HashMap<i32, Exit>>> = Mutex::new(None);
/// Tells that `REAPED` has grown.
static NEWS: Condvar = Condvar::new();

/// Orphaned descendants become children of this process from now on, and all children are reaped.
///
/// Reaping everything matters: an unreaped orphan in a container's pid namespace would keep the
/// container's process 1 from ending. From here on `std::process::Child` must not be waited for.
pub fn become_subreaper() -> Result<()> {
    rustix::process::set_child_subreaper(Some(rustix::process::getpid()))
        .context("become child subreaper")?;
    thread::Builder::new()
        .name("reaper".to_owned())
        .spawn(reap)
        .context("start the reaper")?;
    Ok(())
}

fn reap() {
    loop {
        // Only look, so that the status changes hands below while nobody can see it gone but not recorded.
        if waitid(WaitId::All, WaitIdOptions::EXITED | WaitIdOptions::NOWAIT).is_err() {
            // There is no event for "got a first child"; a pause is the price of not owning SIGCHLD.
            thread::sleep(Duration::from_millis(2));
            continue;
        }
        let mut reaped = REAPED.lock().unwrap_or_else(PoisonError::into_inner);
        while let Ok(Some((pid, status))) = rustix::process::wait(WaitOptions::NOHANG) {
            if let Some(exit) = Exit::from_wait(status) {
                reaped
                    .get_or_insert_default()
                    .insert(pid.as_raw_nonzero().get(), exit);
            }
        }
        NEWS.notify_all();
    }
}

/// Turn a number from a file into a pid.
pub fn pid(raw: i32) -> Result<Pid> {
    Pid::from_raw(raw)
        .filter(|_| raw > 0)
        .with_context(|| format!("{raw} is not a process id"))
}

/// Wait until `deadline` for the end of the child `raw`.
pub fn wait(raw: i32, deadline: Instant) -> Result<Exit> {
    let mut reaped = REAPED.lock().unwrap_or_else(PoisonError::into_inner);
    loop {
        if let Some(exit) = reaped.get_or_insert_default().remove(&raw) {
            return Ok(exit);
        }
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            bail!(
                "process {raw} still runs at the deadline ({})",
                describe(raw)
            );
        }
        // The pause bounds how late a process is noticed that is gone but was nobody's child here.
        let pause = left.min(Duration::from_millis(500));
        let (guard, paused) = NEWS
            .wait_timeout(reaped, pause)
            .unwrap_or_else(PoisonError::into_inner);
        reaped = guard;
        if paused.timed_out() && !reaped.get_or_insert_default().contains_key(&raw) {
            let own = rustix::process::getpid().as_raw_nonzero().get();
            match stat(raw) {
                None => bail!(
                    "process {raw} is gone, but was no child of its monitor: its exit status is lost"
                ),
                Some(process) if process.parent != own && !process.is_alive() => {
                    bail!(
                        "process {raw} is a zombie of process {}, not of its monitor: its exit status is lost",
                        process.parent
                    )
                }
                Some(_) => {}
            }
        }
    }
}

/// Whether one of `fds` became ready before `deadline`.
pub fn poll_until(fds: &mut [PollFd<'_>], deadline: Instant) -> Result<bool> {
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        match poll(fds, Some(&timespec(left))) {
            Ok(0) => return Ok(false),
            Ok(_) => return Ok(true),
            Err(Errno::INTR) => {}
            Err(error) => return Err(error).context("poll"),
        }
    }
}

fn timespec(left: Duration) -> Timespec {
    Timespec {
        tv_sec: i64::try_from(left.as_secs()).unwrap_or(i64::MAX),
        tv_nsec: left.subsec_nanos().into(),
    }
}

/// Send a signal, without minding a process that is gone.
pub fn signal(raw: i32, signal: Signal) {
    if let Ok(pid) = pid(raw) {
        let _ = kill_process(pid, signal);
    }
}

/// A process as `/proc/PID/stat` shows it.
#[derive(Debug, Clone)]
pub struct Process {
    /// Its id.
    pub pid: i32,
    /// Its parent's id.
    pub parent: i32,
    /// The state letter.
    pub state: char,
    /// The name in parentheses.
    pub name: String,
}

impl Process {
    /// Whether it is not just a status that nobody has collected.
    pub fn is_alive(&self) -> bool {
        !matches!(self.state, 'Z' | 'X')
    }
}

/// Read one process; `None` when it does not exist.
pub fn stat(pid: i32) -> Option<Process> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (head, tail) = text.rsplit_once(')')?;
    let name = head.split_once('(')?.1.to_owned();
    let mut fields = tail.split_whitespace();
    let state = fields.next()?.chars().next()?;
    let parent = fields.next()?.parse().ok()?;
    Some(Process {
        pid,
        parent,
        state,
        name,
    })
}

/// A line for people about a process.
pub fn describe(pid: i32) -> String {
    let Some(process) = stat(pid) else {
        return format!("{pid}: gone");
    };
    let command = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    let command: String = String::from_utf8_lossy(&command)
        .replace('\0', " ")
        .chars()
        .take(160)
        .collect();
    format!(
        "{pid} ({}) state {} parent {}: {}",
        process.name,
        process.state,
        process.parent,
        command.trim_end()
    )
}

/// All processes below `ancestor`, parents first.
pub fn descendants(ancestor: i32) -> Vec<Process> {
    let Ok(entries) = fs::read_dir("/proc") else {
        return Vec::new();
    };
    let mut rest: Vec<Process> = entries
        .flatten()
        .filter_map(|entry| stat(entry.file_name().to_str()?.parse().ok()?))
        .collect();
    let mut found: Vec<Process> = Vec::new();
    let mut parents = vec![ancestor];
    while let Some(parent) = parents.pop() {
        let (children, others): (Vec<_>, Vec<_>) = rest
            .into_iter()
            .partition(|process| process.parent == parent);
        parents.extend(children.iter().map(|process| process.pid));
        found.extend(children);
        rest = others;
    }
    found
}

/// The living processes below this one.
pub fn living_descendants() -> Vec<Process> {
    let own = rustix::process::getpid().as_raw_nonzero().get();
    descendants(own)
        .into_iter()
        .filter(Process::is_alive)
        .collect()
}

/// Kill everything below this process until nothing is left or `deadline` passes.
pub fn kill_descendants(deadline: Instant) {
    loop {
        let alive = living_descendants();
        if alive.is_empty() || Instant::now() >= deadline {
            return;
        }
        for process in &alive {
            signal(process.pid, Signal::KILL);
        }
        for process in &alive {
            wait_gone(
                process.pid,
                deadline.min(Instant::now() + Duration::from_secs(2)),
            );
        }
    }
}

/// Wait until the process has ended, whoever reaps it.
pub fn wait_gone(raw: i32, deadline: Instant) -> bool {
    let Ok(pid) = pid(raw) else { return true };
    let Ok(fd) = pidfd_open(pid, PidfdFlags::empty()) else {
        return true;
    };
    poll_until(&mut [PollFd::new(&fd, PollFlags::IN)], deadline).unwrap_or(false)
}
