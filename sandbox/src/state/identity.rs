//! Processes named so that a reused pid is not mistaken for them.

use std::fs;
use std::os::fd::OwnedFd;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use serde::{Deserialize, Serialize};

/// A process: its pid and when it started, in clock ticks since boot (`/proc/PID/stat`, field 22).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessIdentity {
    /// The pid in our pid namespace.
    pub pid: i32,
    /// Clock ticks since boot.
    pub start_time: u64,
}

impl ProcessIdentity {
    /// The process with this pid now; nothing when there is none.
    #[must_use]
    pub fn of(pid: i32) -> Option<Self> {
        let (start_time, _) = read_stat(pid)?;
        Some(Self { pid, start_time })
    }

    /// The calling process.
    #[must_use]
    pub fn current() -> Self {
        let pid = std::process::id().cast_signed();
        Self::of(pid).unwrap_or(Self { pid, start_time: 0 })
    }

    /// Whether it still runs; a zombie does not.
    #[must_use]
    pub fn is_alive(&self) -> bool {
        read_stat(self.pid)
            .is_some_and(|(start, state)| start == self.start_time && state != 'Z' && state != 'X')
    }

    /// A descriptor of exactly this process; nothing when it is gone.
    fn pidfd(&self) -> Option<OwnedFd> {
        let fd = pidfd_open(Pid::from_raw(self.pid)?, PidfdFlags::empty()).ok()?;
        // The pid may have been reused before the descriptor was opened, not after.
        self.is_alive().then_some(fd)
    }

    /// Sends SIGKILL if it still runs, and waits for its end.
    ///
    /// Answers whether it is gone after at most `limit`.
    #[must_use]
    pub fn kill_and_wait(&self, limit: Duration) -> bool {
        let Some(fd) = self.pidfd() else { return true };
        // ESRCH: gone in between, which is what was wanted.
        let _gone = pidfd_send_signal(&fd, Signal::KILL);
        wait_pidfd(&fd, limit)
    }

    /// Waits until it has ended, at most `limit`; answers whether it has.
    #[must_use]
    pub fn wait(&self, limit: Duration) -> bool {
        self.pidfd().is_none_or(|fd| wait_pidfd(&fd, limit))
    }
}

fn wait_pidfd(fd: &OwnedFd, limit: Duration) -> bool {
    let deadline = std::time::Instant::now() + limit;
    loop {
        let left = deadline.saturating_duration_since(std::time::Instant::now());
        let timeout = Timespec {
            tv_sec: i64::try_from(left.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: left.subsec_nanos().into(),
        };
        match poll(&mut [PollFd::new(fd, PollFlags::IN)], Some(&timeout)) {
            Ok(0) => return false,
            Ok(_) => return true,
            Err(rustix::io::Errno::INTR) if !left.is_zero() => {}
            Err(_) => return false,
        }
    }
}

/// Start time and state letter from `/proc/PID/stat`, whose second field may hold anything.
fn read_stat(pid: i32) -> Option<(u64, char)> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, rest) = stat.rsplit_once(')')?;
    let mut fields = rest.split_ascii_whitespace();
    let state = fields.next()?.chars().next()?;
    let start_time = fields.nth(18)?.parse().ok()?;
    Some((start_time, state))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sees_itself_and_not_a_reused_pid() {
        let me = ProcessIdentity::current();
        assert!(me.is_alive());
        let other = ProcessIdentity {
            start_time: me.start_time + 1,
            ..me
        };
        assert!(!other.is_alive());
        assert!(
            other.kill_and_wait(Duration::from_secs(1)),
            "must not be signalled"
        );
    }

    #[test]
    fn kills_exactly_that_process() {
        let mut child = std::process::Command::new("sleep")
            .arg("600")
            .spawn()
            .unwrap();
        let identity = ProcessIdentity::of(child.id().cast_signed()).unwrap();
        assert!(identity.is_alive());
        assert!(!identity.wait(Duration::from_millis(1)));
        assert!(identity.kill_and_wait(Duration::from_secs(10)));
        assert!(!identity.is_alive(), "a zombie counts as gone");
        child.wait().unwrap();
    }
}
