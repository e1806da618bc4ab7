//! What a child does to itself before it becomes its program.
#![expect(
    unsafe_code,
    reason = "names for descriptors that stay open between fork and exec"
)]
// UNSAFETY: what runs between fork and exec must be async-signal-safe: `enter` only makes system calls on values that
// were prepared before the fork, and allocates nothing.

use std::os::fd::{BorrowedFd, OwnedFd, RawFd};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, chownat, makedev, mknodat, openat};
use rustix::io::{Errno, FdFlags, fcntl_setfd, write};
use rustix::mount::{MountFlags, mount};
use rustix::process::{
    Pid, Resource, Rlimit, Signal, getppid, getrlimit, set_parent_process_death_signal, setrlimit,
    setsid, umask,
};
use rustix::thread::{
    Gid, Uid, set_no_new_privs, set_thread_groups, set_thread_res_gid, set_thread_res_uid,
};

use crate::confinement::{Confinement, Device, Identity, Limits};
use crate::executable::Executable;
use crate::namespace::{Restriction, empty_root, errno_of, own_namespaces, restrict};

/// The process that starts the child, as the child can recognize it.
pub(crate) enum Parent {
    /// By its number.
    Number(Pid),
    /// By a pidfd: seen from another PID namespace it has no number.
    Descriptor(OwnedFd),
}

impl Parent {
    /// Whether it has gone before it was to be told of its end.
    fn gone(&self) -> rustix::io::Result<bool> {
        match self {
            Self::Number(pid) => Ok(getppid() != Some(*pid)),
            Self::Descriptor(pidfd) => {
                let mut ended = [PollFd::new(pidfd, PollFlags::IN)];
                let now = Timespec {
                    tv_sec: 0,
                    tv_nsec: 0,
                };
                Ok(poll(&mut ended, Some(&now))? != 0)
            }
        }
    }
}

pub(crate) struct Steps {
    pub parent: Parent,
    pub inherited: Vec<RawFd>,
    pub network: Option<RawFd>,
    pub control_groups: Vec<RawFd>,
    pub groups: Vec<Gid>,
    pub confinement: Confinement,
    /// What to become, if not what std does next.
    pub executable: Option<Executable>,
}

impl Steps {
    pub fn enter(&self) -> rustix::io::Result<()> {
        setsid()?;
        // First of all: what it is from here on is accounted and limited there. 0 is whoever writes.
        for &fd in &self.control_groups {
            // SAFETY: the descriptor was open when the process forked.
            write(unsafe { BorrowedFd::borrow_raw(fd) }, b"0")?;
        }
        // Close on exec, not now: std reports a failed exec through a descriptor of its own.
        close_all_on_exec()?;
        for &fd in &self.inherited {
            // SAFETY: the descriptor was open when the process forked.
            fcntl_setfd(unsafe { BorrowedFd::borrow_raw(fd) }, FdFlags::empty())?;
        }
        umask(Mode::RWXG | Mode::RWXO);
        if self.confinement.namespaces {
            self.separate()?;
        }
        restrain(&self.confinement.limits)?;
        if let Some(identity) = &self.confinement.identity {
            let uid = Uid::from_raw(identity.uid);
            let gid = Gid::from_raw(identity.gid);
            set_thread_groups(&self.groups)?;
            set_thread_res_gid(gid, gid, gid)?;
            set_thread_res_uid(uid, uid, uid)?;
        }
        set_no_new_privs(true)?;
        // After the change of user, which clears it. It reaches into a PID namespace as well: there is nothing that a
        // process could do about a signal from outside.
        set_parent_process_death_signal(Some(Signal::KILL))?;
        if self.parent.gone()? {
            return Err(Errno::SRCH);
        }
        match &self.executable {
            Some(executable) => Err(executable.execute()),
            None => Ok(()),
        }
    }

    fn separate(&self) -> rustix::io::Result<()> {
        // SAFETY: the descriptor was open when the process forked.
        let network = self.network.map(|fd| unsafe { BorrowedFd::borrow_raw(fd) });
        own_namespaces(network)?;
        if self.confinement.alone {
            return empty_root();
        }
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
        restrict(CWD, c"/", everywhere)
    }
}

fn restrain(limits: &Limits) -> rustix::io::Result<()> {
    let all = [
        (Resource::Core, Some(0)),
        (Resource::Nofile, limits.descriptors),
        (Resource::Nproc, limits.processes),
        (Resource::Memlock, limits.locked_bytes),
    ];
    for (resource, most) in all {
        let Some(most) = most else {
            continue;
        };
        // No more than the caller has: that takes a right which not every root has.
        let most = getrlimit(resource)
            .maximum
            .map_or(most, |own| own.min(most));
        let both = Rlimit {
            current: Some(most),
            maximum: Some(most),
        };
        setrlimit(resource, both)?;
    }
    Ok(())
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
