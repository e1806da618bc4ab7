//! Starting a confined child process.
#![expect(
    unsafe_code,
    reason = "code between fork and exec, and names for descriptors that stay open there"
)]
// UNSAFETY: what runs between fork and exec must be async-signal-safe: `enter` only makes system calls on values that
// were prepared before the fork, and allocates nothing.

use std::ffi::{CStr, OsString};
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, chownat, makedev, mknodat, openat};
use rustix::io::{FdFlags, fcntl_setfd};
use rustix::mount::{MountFlags, mount};
use rustix::process::{
    Pid, Resource, Rlimit, Signal, getppid, set_parent_process_death_signal, setrlimit, setsid,
    umask,
};
use rustix::thread::{
    Gid, Uid, set_no_new_privs, set_thread_groups, set_thread_res_gid, set_thread_res_uid,
};

use crate::Child;
use crate::namespace::{Restriction, errno_of, own_namespaces, restrict};

/// A user that a child runs as.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// User id.
    pub uid: u32,
    /// Group id.
    pub gid: u32,
    /// Supplementary groups; no others are kept.
    pub groups: Vec<u32>,
}

/// A character device that the host keeps to root.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Device {
    /// Its name in `/dev`.
    pub name: &'static CStr,
    /// Its major and minor numbers.
    pub number: (u32, u32),
}

/// What a child may not do, beside what every child may not: gain privileges by exec, dump core, use the caller's
/// session, environment, working directory and descriptors, outlive the caller.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Confinement {
    /// The user to become; leaving root drops all capabilities.
    pub identity: Option<Identity>,
    /// Whether the child gets mount, IPC and network namespaces of its own, all mounts seen read-only. Needs root.
    pub namespaces: bool,
    /// A device that the child gets as its own, in a `/dev` that holds nothing else. Needs `namespaces` and an
    /// identity.
    pub device: Option<Device>,
}

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
    /// What it may not do.
    pub confinement: Confinement,
}

impl Program {
    /// Starts the program. It is killed when the calling thread ends: call this from a thread that lives as long as
    /// the child should, inside a tokio runtime with I/O enabled.
    ///
    /// # Errors
    /// The operating system's answer to fork, exec or one of the steps between them; `InvalidInput` for a network namespace
    /// that nothing would move the child into.
    pub fn spawn(self) -> io::Result<Child> {
        if self.network.is_some() && !self.confinement.namespaces {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "a network namespace for a program without namespaces",
            ));
        }
        let mut command = Command::new(&self.path);
        command
            .args(&self.args)
            .env_clear()
            .current_dir("/")
            .stdin(self.stdin.map_or_else(Stdio::null, Stdio::from))
            .stdout(Stdio::null())
            .stderr(self.stderr.map_or_else(Stdio::null, Stdio::from));
        let steps = Steps {
            parent: rustix::process::getpid(),
            inherited: self.inherited.iter().map(AsRawFd::as_raw_fd).collect(),
            network: self.network.as_ref().map(AsRawFd::as_raw_fd),
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
        };
        // SAFETY: `enter` keeps to what is allowed between fork and exec, see the head of this file.
        unsafe { command.pre_exec(move || Ok(steps.enter()?)) };
        let mut child = command.spawn()?;
        drop((self.inherited, self.network));
        let pid = Pid::from_raw(child.id().cast_signed()).ok_or(io::ErrorKind::InvalidData)?;
        // `std::process::Child` neither kills nor reaps when dropped: from here on the pidfd does.
        Child::adopt(pid).inspect_err(|_| {
            // Failures here mean that it is gone already.
            let _ = child.kill();
            let _ = child.wait();
        })
    }
}

/// What the child does to itself before it becomes the program.
struct Steps {
    parent: Pid,
    inherited: Vec<RawFd>,
    network: Option<RawFd>,
    groups: Vec<Gid>,
    confinement: Confinement,
}

impl Steps {
    fn enter(&self) -> rustix::io::Result<()> {
        setsid()?;
        // Close on exec, not now: std reports a failed exec through a descriptor of its own.
        close_all_on_exec()?;
        for &fd in &self.inherited {
            // SAFETY: the descriptor was open when the process forked.
            fcntl_setfd(unsafe { BorrowedFd::borrow_raw(fd) }, FdFlags::empty())?;
        }
        let none = Rlimit {
            current: Some(0),
            maximum: Some(0),
        };
        setrlimit(Resource::Core, none)?;
        umask(Mode::RWXG | Mode::RWXO);
        if self.confinement.namespaces {
            // SAFETY: the descriptor was open when the process forked.
            let network = self.network.map(|fd| unsafe { BorrowedFd::borrow_raw(fd) });
            own_namespaces(network)?;
            if let (Some(device), Some(identity)) =
                (&self.confinement.device, &self.confinement.identity)
            {
                give(device, identity)?;
            }
            let everywhere = Restriction {
                read_only: true,
                inert: false,
                recursive: true,
            };
            restrict(CWD, c"/", everywhere)?;
        }
        if let Some(identity) = &self.confinement.identity {
            let uid = Uid::from_raw(identity.uid);
            let gid = Gid::from_raw(identity.gid);
            set_thread_groups(&self.groups)?;
            set_thread_res_gid(gid, gid, gid)?;
            set_thread_res_uid(uid, uid, uid)?;
        }
        set_no_new_privs(true)?;
        // After the change of user, which clears it.
        set_parent_process_death_signal(Some(Signal::KILL))?;
        if getppid() != Some(self.parent) {
            return Err(rustix::io::Errno::SRCH);
        }
        Ok(())
    }
}

/// Covers `/dev` with one device that belongs to the child.
fn give(device: &Device, identity: &Identity) -> rustix::io::Result<()> {
    let flags = MountFlags::NOSUID | MountFlags::NOEXEC;
    mount(c"tmpfs", c"/dev", c"tmpfs", flags, c"mode=0755,size=64k")?;
    let folder = openat(
        CWD,
        c"/dev",
        OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC,
        Mode::empty(),
    )?;
    let (major, minor) = device.number;
    mknodat(
        &folder,
        device.name,
        FileType::CharacterDevice,
        Mode::RUSR | Mode::WUSR,
        makedev(major, minor),
    )?;
    chownat(
        &folder,
        device.name,
        Some(Uid::from_raw(identity.uid)),
        Some(Gid::from_raw(identity.gid)),
        AtFlags::SYMLINK_NOFOLLOW,
    )
}

fn close_all_on_exec() -> rustix::io::Result<()> {
    // SAFETY: close_range with CLOEXEC only sets a flag on descriptors; nothing is closed before the exec.
    let result = unsafe { libc::close_range(3, u32::MAX, libc::CLOSE_RANGE_CLOEXEC.cast_signed()) };
    errno_of(i64::from(result))
}
