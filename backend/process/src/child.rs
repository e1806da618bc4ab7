//! A running child process.

use std::fmt;
use std::io;
use std::os::fd::{AsFd, OwnedFd};

use rustix::process::{
    Pid, PidfdFlags, Signal, WaitId, WaitIdOptions, pidfd_open, pidfd_send_signal, waitid,
};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// It exited with this code.
    Code(i32),
    /// This signal ended it.
    Signal(i32),
}

impl fmt::Display for Exit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Code(code) => write!(f, "exited with code {code}"),
            Self::Signal(signal) => write!(f, "was ended by signal {signal}"),
        }
    }
}

/// A child process. Dropping it kills and reaps it.
#[derive(Debug)]
pub struct Child {
    pid: u32,
    pidfd: AsyncFd<OwnedFd>,
    exit: Option<Exit>,
}

impl Child {
    /// Takes over a child of this process that nothing else waits for.
    pub(crate) fn adopt(pid: Pid) -> io::Result<Self> {
        // A pidfd of an unreaped child can't name another process.
        let pidfd = pidfd_open(pid, PidfdFlags::empty())?;
        #[expect(
            deprecated,
            reason = "unsound only for types that change their descriptor, which an OwnedFd can't"
        )]
        let pidfd = AsyncFd::with_interest(pidfd, Interest::READABLE)?;
        Ok(Self {
            pid: pid.as_raw_nonzero().get().cast_unsigned(),
            pidfd,
            exit: None,
        })
    }

    /// The process id, while the process was not reaped.
    #[must_use]
    pub fn pid(&self) -> Option<u32> {
        self.exit.is_none().then_some(self.pid)
    }

    /// Waits for the end of the process and reaps it. Cancel-safe; answers at once when called again.
    ///
    /// # Errors
    /// When something else has reaped the child.
    pub async fn wait(&mut self) -> io::Result<Exit> {
        loop {
            if let Some(exit) = self.try_wait()? {
                return Ok(exit);
            }
            self.pidfd.readable().await?.clear_ready();
        }
    }

    /// Reaps the process if it has ended.
    ///
    /// # Errors
    /// As for [`wait`](Child::wait).
    pub fn try_wait(&mut self) -> io::Result<Option<Exit>> {
        if self.exit.is_none() {
            self.exit = self.reap(WaitIdOptions::EXITED | WaitIdOptions::NOHANG)?;
        }
        Ok(self.exit)
    }

    /// Kills the process and reaps it. Does nothing when it has ended.
    ///
    /// # Errors
    /// As for [`wait`](Child::wait).
    pub async fn kill(&mut self) -> io::Result<Exit> {
        self.send_kill();
        self.wait().await
    }

    fn send_kill(&self) {
        if self.exit.is_none() {
            // The only failure that can come is that the process has ended.
            let _ = pidfd_send_signal(self.pidfd.get_ref(), Signal::KILL);
        }
    }

    fn reap(&self, options: WaitIdOptions) -> io::Result<Option<Exit>> {
        loop {
            match waitid(WaitId::PidFd(self.pidfd.get_ref().as_fd()), options) {
                Ok(None) => return Ok(None),
                Ok(Some(status)) => {
                    return Ok(Some(match status.exit_status() {
                        Some(code) => Exit::Code(code),
                        None => Exit::Signal(status.terminating_signal().unwrap_or(0)),
                    }));
                }
                Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        if self.exit.is_none() {
            self.send_kill();
            // Blocks for the milliseconds that a killed process needs to give its memory back.
            let _ = self.reap(WaitIdOptions::EXITED);
        }
    }
}
