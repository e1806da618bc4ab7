//! PID 1 of the guest.
//!
//! Does only what must be done before the agent can run, forks it, and then reaps what nobody
//! else waits for. Each millisecond here is a millisecond of every start of a sandbox.

mod mounts;
mod root;
mod supervise;

use std::io::Write;
use std::process::ExitCode;

use cofferdam_protocol::{PROBE_FLAG, PROBE_OK};
use rustix::system::{RebootCommand, reboot};
use rustix::time::{ClockId, clock_gettime};

use crate::agent;
use crate::syscalls::{Fork, fork};

/// Why the guest could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum InitError {
    /// A file system could not be mounted or moved.
    #[error("cannot mount {what} on {path}: {source}")]
    Mount {
        /// Type of the file system.
        what: &'static str,
        /// Where to.
        path: &'static str,
        /// Why not.
        source: rustix::io::Errno,
    },
    /// A file of the kernel's could not be read or written.
    #[error("cannot use {path}: {source}")]
    File {
        /// Which one.
        path: &'static str,
        /// Why not.
        source: std::io::Error,
    },
    /// The root could not be changed.
    #[error("cannot change the root: {0}")]
    Root(#[source] rustix::io::Errno),
    /// There is no process for the agent.
    #[error("cannot fork the agent: {0}")]
    Fork(#[source] std::io::Error),
}

/// The life of PID 1. Returns only in the agent's process, with its exit code.
#[must_use]
pub fn main() -> ExitCode {
    let entered = boot_nanoseconds();
    match start() {
        Ok(Some(Fork::Child)) => agent::main(entered),
        Ok(Some(Fork::Parent(agent))) => supervise::until_dead(agent),
        Ok(None) => restart(),
        Err(error) => {
            console(&format!("cofferdam-init: {error}"));
            restart()
        }
    }
}

/// Nanoseconds since the guest's boot.
pub(crate) fn boot_nanoseconds() -> u64 {
    let now = clock_gettime(ClockId::Boottime);
    let seconds = u64::try_from(now.tv_sec).unwrap_or_default();
    seconds * 1_000_000_000 + u64::try_from(now.tv_nsec).unwrap_or_default()
}

/// `None`: this was only a probe.
fn start() -> Result<Option<Fork>, InitError> {
    mounts::proc()?;
    if probing()? {
        console(PROBE_OK);
        return Ok(None);
    }
    root::switch()?;
    mounts::all()?;
    // The guest gets its name when it becomes a sandbox; a hostname nobody set would be "(none)".
    rustix::system::sethostname(b"cofferdam").map_err(InitError::Root)?;
    // The out-of-memory killer must look elsewhere: the guest ends with these two.
    std::fs::write("/proc/self/oom_score_adj", "-1000").map_err(|source| InitError::File {
        path: "/proc/self/oom_score_adj",
        source,
    })?;
    fork().map(Some).map_err(InitError::Fork)
}

fn probing() -> Result<bool, InitError> {
    let path = "/proc/cmdline";
    let words = std::fs::read_to_string(path).map_err(|source| InitError::File { path, source })?;
    Ok(words
        .split_ascii_whitespace()
        .any(|word| word == PROBE_FLAG))
}

/// Writes a line where the host can see it.
fn console(line: &str) {
    // Nobody is left to tell if the console itself cannot be written.
    let _ = writeln!(std::io::stderr(), "{line}");
}

/// Restarts the machine, which ends it: the host runs it with the order not to start again.
///
/// Without writing anything back: what is written to the share goes through to the host at once,
/// and a server of the share that has gone would keep the guest for ever.
fn restart() -> ! {
    let _ = reboot(RebootCommand::Restart);
    // Not reached unless the kernel refuses; PID 1 must not return.
    loop {
        std::thread::park();
    }
}
