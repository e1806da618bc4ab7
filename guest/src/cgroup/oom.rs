//! Noticing that the kernel killed a process for want of memory.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::fs::inotify::{self, CreateFlags, WatchFlags};
use tokio::io::unix::AsyncFd;

use super::{Cgroup, field};
use crate::syscalls::watch;

/// Tells whether a process that was just killed was killed for want of memory.
#[derive(Debug)]
pub struct OomCount {
    cgroup: Cgroup,
    seen: AtomicU64,
}

impl OomCount {
    /// Counts from now on.
    #[must_use]
    pub fn new(cgroup: Cgroup) -> Self {
        let seen = AtomicU64::new(oom_kills(&cgroup));
        Self { cgroup, seen }
    }

    /// Whether the kernel has killed for want of memory since this was asked last.
    ///
    /// The kernel counts before it kills, so the answer is there when the process is reaped.
    pub fn has_risen(&self) -> bool {
        let now = oom_kills(&self.cgroup);
        self.seen.swap(now, Ordering::Relaxed) < now
    }
}

/// How many processes of `cgroup` were killed for want of memory.
fn oom_kills(cgroup: &Cgroup) -> u64 {
    cgroup
        .read("memory.events")
        .ok()
        .and_then(|events| field(&events, "oom_kill")?.parse().ok())
        .unwrap_or_default()
}

/// Watches one group.
#[derive(Debug)]
pub struct OomWatch {
    cgroup: Cgroup,
    inotify: AsyncFd<OwnedFd>,
    seen: u64,
}

impl OomWatch {
    /// Begins to watch.
    ///
    /// # Errors
    /// When the group has no memory controller.
    pub fn new(cgroup: Cgroup) -> io::Result<Self> {
        let fd = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK)?;
        let file = cgroup.path().join("memory.events");
        inotify::add_watch(&fd, &file, WatchFlags::MODIFY)?;
        Ok(Self {
            seen: oom_kills(&cgroup),
            inotify: watch(fd)?,
            cgroup,
        })
    }

    /// Waits for the next kill. `false`: the group is gone.
    ///
    /// # Errors
    /// When the watch cannot be read.
    pub async fn next(&mut self) -> io::Result<bool> {
        loop {
            // The kernel announces that memory ran out before it has killed; only a count that
            // rises is a kill.
            let kills = oom_kills(&self.cgroup);
            if kills > self.seen {
                self.seen = kills;
                return Ok(true);
            }
            if !self.cgroup.path().exists() {
                return Ok(false);
            }
            let mut ready = self.inotify.readable().await?;
            let mut events = [0; 4096];
            if let Ok(read) = ready.try_io(|fd| Ok(rustix::io::read(fd, &mut events)?)) {
                read?;
            }
        }
    }
}
