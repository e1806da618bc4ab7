//! Starting a confined child process.
#![expect(unsafe_code, reason = "code between fork and exec")]
// UNSAFETY: what runs between fork and exec is `Steps::enter`, which keeps to what is allowed there.

use std::ffi::OsString;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use rustix::process::{Pid, PidfdFlags, getpid, pidfd_open};
use rustix::thread::Gid;

use crate::Child;
use crate::confinement::Confinement;
use crate::executable::Executable;
use crate::pids::PidNamespace;
use crate::steps::{Parent, Steps};

/// A program to start.
#[derive(Debug)]
pub struct Program {
    /// An absolute path.
    pub path: PathBuf,
    /// Its arguments, without the name.
    pub args: Vec<OsString>,
    /// Its standard input; `/dev/null` when there is none.
    pub stdin: Option<OwnedFd>,
    /// Its standard error; `/dev/null` when there is none.
    pub stderr: Option<OwnedFd>,
    /// Descriptors that stay open in the child under the number they have here. Closed here afterwards.
    pub inherited: Vec<OwnedFd>,
    /// The network namespace that it is in, instead of one of its own; refused without [`Confinement::namespaces`].
    pub network: Option<OwnedFd>,
    /// The control groups that it is in from its beginning, instead of the caller's: their `cgroup.procs`, open for writing.
    pub groups: Vec<OwnedFd>,
    /// What it may not do.
    pub confinement: Confinement,
}

impl Program {
    /// Starts the program. It is killed when the calling thread ends: call this from a thread that lives as long as
    /// the child should, inside a tokio runtime with I/O enabled.
    ///
    /// # Errors
    /// The operating system's answer to fork, exec or one of the steps between them; `InvalidInput` for a network namespace
    /// that nothing would move the child into, a child that is to be alone without namespaces, and a device where nobody
    /// would put it.
    pub fn spawn(self) -> io::Result<Child> {
        let Confinement {
            namespaces,
            alone,
            device,
            ref identity,
            ..
        } = self.confinement;
        let refused = |reason| Err(io::Error::new(io::ErrorKind::InvalidInput, reason));
        if self.network.is_some() && !namespaces {
            return refused("a network namespace for a program without namespaces");
        }
        if alone && !namespaces {
            return refused("a program that is alone without namespaces");
        }
        if device.is_some() && (alone || !namespaces || identity.is_none()) {
            return refused("a device for a program that has no /dev of its own");
        }
        let mut command = Command::new(&self.path);
        command
            .args(&self.args)
            .env_clear()
            .current_dir("/")
            .stdin(self.stdin.map_or_else(Stdio::null, Stdio::from))
            .stdout(Stdio::null())
            .stderr(self.stderr.map_or_else(Stdio::null, Stdio::from));
        let parent = getpid();
        let (parent, executable) = if alone {
            let pidfd = pidfd_open(parent, PidfdFlags::empty())?;
            let executable = Executable::open(&self.path, &self.args)?;
            (Parent::Descriptor(pidfd), Some(executable))
        } else {
            (Parent::Number(parent), None)
        };
        let steps = Steps {
            parent,
            inherited: self.inherited.iter().map(AsRawFd::as_raw_fd).collect(),
            network: self.network.as_ref().map(AsRawFd::as_raw_fd),
            control_groups: self.groups.iter().map(AsRawFd::as_raw_fd).collect(),
            groups: self
                .confinement
                .identity
                .as_ref()
                .map_or_else(Vec::new, |identity| {
                    identity
                        .groups
                        .iter()
                        .map(|&gid| Gid::from_raw(gid))
                        .collect()
                }),
            confinement: self.confinement,
            executable,
        };
        // SAFETY: `enter` keeps to what is allowed between fork and exec, see its file.
        unsafe { command.pre_exec(move || Ok(steps.enter()?)) };
        let pids = alone.then(PidNamespace::for_children).transpose()?;
        let mut child = command.spawn()?;
        let left = pids.map_or(Ok(()), PidNamespace::leave);
        drop((self.inherited, self.network, self.groups));
        let pid = Pid::from_raw(child.id().cast_signed()).ok_or(io::ErrorKind::InvalidData)?;
        // `std::process::Child` neither kills nor reaps when dropped: from here on the pidfd does.
        left.and_then(|()| Child::adopt(pid)).inspect_err(|_| {
            // Failures here mean that it is gone already.
            let _ = child.kill();
            let _ = child.wait();
        })
    }
}
