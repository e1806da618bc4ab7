//! The file systems of the guest.

use std::ffi::CStr;
use std::fs;

use rustix::fs::{CWD, Mode, mkdirat, symlink};
use rustix::io::Errno;
use rustix::mount::{MountFlags, mount};

use super::InitError;

struct Mount {
    what: &'static str,
    path: &'static str,
    flags: MountFlags,
    data: &'static CStr,
    /// A kernel of the user's own may lack it.
    optional: bool,
}

const fn at(what: &'static str, path: &'static str) -> Mount {
    Mount {
        what,
        path,
        flags: MountFlags::NOSUID
            .union(MountFlags::NODEV)
            .union(MountFlags::NOEXEC),
        data: c"",
        optional: false,
    }
}

const MOUNTS: &[Mount] = &[
    at("sysfs", "/sys"),
    Mount {
        flags: MountFlags::NOSUID,
        data: c"mode=755",
        ..at("devtmpfs", "/dev")
    },
    Mount {
        flags: MountFlags::NOSUID.union(MountFlags::NOEXEC),
        data: c"newinstance,ptmxmode=0666,mode=0620,gid=5",
        ..at("devpts", "/dev/pts")
    },
    Mount {
        data: c"mode=1777",
        ..at("tmpfs", "/dev/shm")
    },
    Mount {
        data: c"mode=755",
        ..at("tmpfs", "/run")
    },
    Mount {
        flags: MountFlags::NOSUID.union(MountFlags::NODEV),
        data: c"mode=1777",
        ..at("tmpfs", "/tmp")
    },
    Mount {
        data: c"nsdelegate",
        ..at("cgroup2", CGROUP)
    },
    Mount {
        optional: true,
        ..at("mqueue", "/dev/mqueue")
    },
    Mount {
        optional: true,
        ..at("securityfs", "/sys/kernel/security")
    },
    Mount {
        optional: true,
        ..at("bpf", "/sys/fs/bpf")
    },
];

const CGROUP: &str = "/sys/fs/cgroup";

/// Mounts /proc, which tells what is to be done at all.
pub(super) fn proc() -> Result<(), InitError> {
    one(&at("proc", "/proc"))
}

/// Mounts the rest and lets every controller of the kernel's be used below the root cgroup.
pub(super) fn all() -> Result<(), InitError> {
    MOUNTS.iter().try_for_each(one)?;
    for (target, link) in [
        ("/proc/self/fd", "/dev/fd"),
        ("/proc/self/fd/0", "/dev/stdin"),
        ("/proc/self/fd/1", "/dev/stdout"),
        ("/proc/self/fd/2", "/dev/stderr"),
    ] {
        // Nothing of ours uses them; a kernel whose devtmpfs brings them is as good.
        let _ = symlink(target, link);
    }
    delegate()
}

fn one(entry: &Mount) -> Result<(), InitError> {
    let failed = |source| InitError::Mount {
        what: entry.what,
        path: entry.path,
        source,
    };
    match mkdirat(CWD, entry.path, Mode::from_raw_mode(0o755)) {
        Ok(()) | Err(Errno::EXIST) => {}
        Err(_) if entry.optional => return Ok(()),
        Err(error) => return Err(failed(error)),
    }
    match mount(entry.what, entry.path, entry.what, entry.flags, entry.data) {
        Err(Errno::NODEV | Errno::NOENT) if entry.optional => Ok(()),
        done => done.map_err(failed),
    }
}

fn delegate() -> Result<(), InitError> {
    let path = "/sys/fs/cgroup/cgroup.controllers";
    let file = |path| move |source| InitError::File { path, source };
    let controllers = fs::read_to_string(path).map_err(file(path))?;
    let orders: Vec<String> = controllers
        .split_ascii_whitespace()
        .map(|controller| format!("+{controller}"))
        .collect();
    let path = "/sys/fs/cgroup/cgroup.subtree_control";
    fs::write(path, orders.join(" ")).map_err(file(path))
}
