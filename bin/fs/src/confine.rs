//! What the server gives up before it serves: see each list for what is left and why.

use std::io;

use rustix::process::{
    Resource, Rlimit, Signal, getrlimit, set_parent_process_death_signal, setrlimit,
};
use rustix::thread::{
    CapabilitySet, CapabilitySets, remove_capability_from_bounding_set, set_capabilities,
};
use sandbox_share::EntryError;
use seccompiler::{BpfProgram, SeccompAction, SeccompFilter};

use crate::{reason, step};

/// What it takes to act on files as the guest's root and its users.
const CAPABILITIES: CapabilitySet = CapabilitySet::CHOWN
    .union(CapabilitySet::DAC_OVERRIDE)
    .union(CapabilitySet::FOWNER)
    .union(CapabilitySet::FSETID)
    .union(CapabilitySet::MKNOD)
    .union(CapabilitySet::SETFCAP)
    // Files are made as the guest's user, so that quotas and set-group-id directories work.
    .union(CapabilitySet::SETGID)
    .union(CapabilitySet::SETUID);

/// Below this many descriptors, one per file that the guest knows is too few.
const MANY_FILES: u64 = 200_000;

/// How the server holds the files that the guest knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FileLimit {
    /// How many descriptors the server may have.
    pub descriptors: u64,
    /// Whether descriptors are too few, and file handles stand in for them. That needs `CAP_DAC_READ_SEARCH`, with
    /// which a server that was taken over could open any file of the file systems it serves from; so it is done only
    /// where it must be.
    pub handles: bool,
}

/// Raises the number of descriptors as far as allowed.
pub fn raise_file_limit() -> Result<FileLimit, EntryError> {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: limit.maximum,
        maximum: limit.maximum,
    };
    setrlimit(Resource::Nofile, raised).map_err(step("cannot raise the number of open files"))?;
    let descriptors = limit.maximum.unwrap_or(u64::MAX);
    Ok(FileLimit {
        descriptors,
        handles: descriptors < MANY_FILES,
    })
}

/// Drops capabilities and system calls. Threads that start later inherit both.
pub fn drop_privileges(limit: FileLimit) -> Result<(), EntryError> {
    let mut kept = CAPABILITIES;
    if limit.handles {
        kept |= CapabilitySet::DAC_READ_SEARCH;
    }
    for capability in CapabilitySet::all().difference(kept).iter() {
        match remove_capability_from_bounding_set(capability) {
            // A capability that this kernel does not know.
            Ok(()) | Err(rustix::io::Errno::INVAL) => {}
            Err(errno) => return Err(step("cannot drop capabilities")(errno)),
        }
    }
    let sets = CapabilitySets {
        effective: kept,
        permitted: kept,
        inheritable: CapabilitySet::empty(),
    };
    set_capabilities(None, sets).map_err(step("cannot drop capabilities"))?;
    // Said again because a change of credentials may clear it. The driver's end of the control socket tells whether it
    // died before.
    set_parent_process_death_signal(Some(Signal::KILL))
        .map_err(step("cannot tie to the driver"))?;
    install_filter().map_err(|error| EntryError::Confine {
        step: "cannot install the system call filter".to_owned(),
        reason: match error {
            seccompiler::Error::Prctl(source) | seccompiler::Error::Seccomp(source) => {
                reason(source)
            }
            other => reason(io::Error::other(other)),
        },
    })
}

fn install_filter() -> Result<(), seccompiler::Error> {
    let rules = ALLOWED.iter().map(|&call| (call, Vec::new())).collect();
    let filter = SeccompFilter::new(
        rules,
        // Refused instead of killed: the C library probes for newer calls and falls back.
        SeccompAction::Errno(libc::EPERM.cast_unsigned()),
        SeccompAction::Allow,
        std::env::consts::ARCH.try_into()?,
    )?;
    seccompiler::apply_filter(&BpfProgram::try_from(filter)?)
}

/// Every system call that the server may make. No exec, no mounts, no sockets beyond the one it has, no other
/// processes.
#[rustfmt::skip]
const ALLOWED: &[i64] = &[
    // Memory.
    libc::SYS_brk, libc::SYS_madvise, libc::SYS_mmap, libc::SYS_mprotect, libc::SYS_mremap, libc::SYS_munmap,
    libc::SYS_membarrier,
    // Threads: the request pool.
    libc::SYS_clone, libc::SYS_clone3, libc::SYS_exit, libc::SYS_exit_group, libc::SYS_futex, libc::SYS_gettid,
    libc::SYS_getpid, libc::SYS_rseq, libc::SYS_sched_getaffinity, libc::SYS_sched_yield, libc::SYS_set_robust_list,
    libc::SYS_sigaltstack, libc::SYS_rt_sigaction, libc::SYS_rt_sigprocmask, libc::SYS_rt_sigreturn,
    libc::SYS_tgkill, libc::SYS_prctl,
    // Each thread has a working directory of its own: extended attributes of special files are reached through it.
    libc::SYS_unshare, libc::SYS_fchdir, libc::SYS_umask,
    // Acting as the guest's user.
    libc::SYS_capget, libc::SYS_capset, libc::SYS_getegid, libc::SYS_geteuid, libc::SYS_getuid, libc::SYS_getgid,
    libc::SYS_setgroups, libc::SYS_setresgid, libc::SYS_setresuid,
    // The vhost-user socket, and the queues' event descriptors.
    libc::SYS_accept4, libc::SYS_recvmsg, libc::SYS_recvfrom, libc::SYS_sendmsg, libc::SYS_sendto,
    libc::SYS_epoll_create1, libc::SYS_epoll_ctl, libc::SYS_epoll_pwait, libc::SYS_epoll_wait, libc::SYS_eventfd2,
    libc::SYS_ioctl, libc::SYS_poll,
    // Descriptors.
    libc::SYS_close, libc::SYS_dup, libc::SYS_fcntl,
    // Files.
    libc::SYS_copy_file_range, libc::SYS_fallocate, libc::SYS_fdatasync, libc::SYS_flock, libc::SYS_fstat,
    libc::SYS_fstatfs, libc::SYS_fsync, libc::SYS_ftruncate, libc::SYS_lseek, libc::SYS_newfstatat, libc::SYS_open,
    libc::SYS_openat, libc::SYS_openat2, libc::SYS_pread64, libc::SYS_preadv, libc::SYS_preadv2,
    libc::SYS_pwrite64, libc::SYS_pwritev, libc::SYS_pwritev2, libc::SYS_read, libc::SYS_readv, libc::SYS_statx,
    libc::SYS_syncfs, libc::SYS_write, libc::SYS_writev,
    libc::SYS_name_to_handle_at, libc::SYS_open_by_handle_at,
    // Directories and names.
    libc::SYS_getdents64, libc::SYS_linkat, libc::SYS_mkdirat, libc::SYS_mknodat, libc::SYS_readlinkat,
    libc::SYS_renameat, libc::SYS_renameat2, libc::SYS_symlinkat, libc::SYS_unlinkat,
    // Owners, modes, times, attributes.
    libc::SYS_fchmod, libc::SYS_fchmodat, libc::SYS_fchownat, libc::SYS_utimensat,
    libc::SYS_fgetxattr, libc::SYS_flistxattr, libc::SYS_fremovexattr, libc::SYS_fsetxattr,
    libc::SYS_getxattr, libc::SYS_listxattr, libc::SYS_removexattr, libc::SYS_setxattr,
    // Time and chance.
    libc::SYS_clock_gettime, libc::SYS_gettimeofday, libc::SYS_getrandom,
];
