//! Namespaces and mounts of a confined process. Nothing in here allocates: it may run between fork and exec.
#![expect(
    unsafe_code,
    reason = "unshare, and mount_setattr, which rustix does not have"
)]
// UNSAFETY: system calls on borrowed descriptors and strings.

use std::ffi::CStr;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use rustix::fs::CWD;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MountPropagationFlags, MoveMountFlags, UnmountFlags,
    fsconfig_create, fsconfig_set_flag, fsconfig_set_string, fsmount, fsopen, mount_change,
    move_mount, unmount,
};
use rustix::process::{chdir, fchdir, pivot_root};
use rustix::thread::{LinkNameSpaceType, UnshareFlags, move_into_link_name_space, unshare_unsafe};

/// Gives the calling thread mount, IPC and UTS namespaces of its own, and a network namespace: the given one, or one of its
/// own. No mount made from now on, here or outside, is seen on the other side. Call it while the process has one thread.
///
/// # Errors
/// The operating system's answer, `EPERM` without root.
pub fn own_namespaces(network: Option<BorrowedFd<'_>>) -> rustix::io::Result<()> {
    let mut own = UnshareFlags::NEWNS | UnshareFlags::NEWIPC | UnshareFlags::NEWUTS;
    match network {
        Some(network) => move_into_link_name_space(network, Some(LinkNameSpaceType::Network))?,
        None => own |= UnshareFlags::NEWNET,
    }
    // SAFETY: the descriptor table, the only thing that can be unsafe to unshare, stays.
    unsafe {
        unshare_unsafe(own)?;
    }
    mount_change(
        c"/",
        MountPropagationFlags::PRIVATE | MountPropagationFlags::REC,
    )
}

/// Gives the calling thread a mount namespace of its own, as [`own_namespaces`] does. Call it while the process has one
/// thread.
///
/// # Errors
/// The operating system's answer, `EPERM` without root.
pub fn own_mounts() -> rustix::io::Result<()> {
    // SAFETY: the descriptor table, the only thing that can be unsafe to unshare, stays.
    unsafe {
        unshare_unsafe(UnshareFlags::NEWNS)?;
    }
    mount_change(
        c"/",
        MountPropagationFlags::PRIVATE | MountPropagationFlags::REC,
    )
}

/// Makes an empty folder the root of the calling process, and leaves no way to the one before: nothing can be in it, as
/// it has room for no file, and nothing could be done with what were in it. Call it in a mount namespace of the process's
/// own ([`own_namespaces`]).
///
/// # Errors
/// The operating system's answer.
pub fn empty_root() -> rustix::io::Result<()> {
    let context = fsopen(c"tmpfs", FsOpenFlags::FSOPEN_CLOEXEC)?;
    // The one inode is the root's own.
    for (key, value) in [(c"size", c"4096"), (c"nr_inodes", c"1"), (c"mode", c"0555")] {
        fsconfig_set_string(&context, key, value)?;
    }
    fsconfig_set_flag(&context, c"ro")?;
    fsconfig_create(&context)?;
    let attributes = MountAttrFlags::MOUNT_ATTR_RDONLY
        | MountAttrFlags::MOUNT_ATTR_NOSUID
        | MountAttrFlags::MOUNT_ATTR_NODEV
        | MountAttrFlags::MOUNT_ATTR_NOEXEC;
    let root = fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, attributes)?;
    // On top of the root that is to go: that is there in any case, and names below it lead where they did.
    let itself = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH;
    move_mount(&root, c"", CWD, c"/", itself)?;
    fchdir(&root)?;
    // The old root goes on top of the new one, and away.
    pivot_root(c".", c".")?;
    unmount(c".", UnmountFlags::DETACH)?;
    chdir(c"/")
}

/// What can't be done through a mount.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Restriction {
    /// No writes.
    pub read_only: bool,
    /// No opening of device nodes, no program files, no set-user-id: files are nothing but data.
    pub inert: bool,
    /// All mounts below it are restricted too.
    pub recursive: bool,
}

/// Restricts the mount at `path`, which is relative to `at`; empty, it is the mount that `at` itself stands for.
///
/// # Errors
/// The operating system's answer.
pub fn restrict(at: impl AsFd, path: &CStr, restriction: Restriction) -> rustix::io::Result<()> {
    let mut attributes = no_change();
    attributes.attr_set = libc::MOUNT_ATTR_NOSUID;
    if restriction.read_only {
        attributes.attr_set |= libc::MOUNT_ATTR_RDONLY;
    }
    if restriction.inert {
        attributes.attr_set |= libc::MOUNT_ATTR_NODEV | libc::MOUNT_ATTR_NOEXEC;
    }
    let mut flags = libc::AT_EMPTY_PATH;
    if restriction.recursive {
        flags |= libc::AT_RECURSIVE;
    }
    set_attributes(at, path, flags, &attributes)
}

/// Allows writes through the mount that `at` stands for.
///
/// # Errors
/// The operating system's answer.
pub fn allow_writes(at: impl AsFd) -> rustix::io::Result<()> {
    let mut attributes = no_change();
    attributes.attr_clr = libc::MOUNT_ATTR_RDONLY;
    set_attributes(at, c"", libc::AT_EMPTY_PATH, &attributes)
}

fn no_change() -> libc::mount_attr {
    libc::mount_attr {
        attr_set: 0,
        attr_clr: 0,
        propagation: 0,
        userns_fd: 0,
    }
}

fn set_attributes(
    at: impl AsFd,
    path: &CStr,
    flags: libc::c_int,
    attributes: &libc::mount_attr,
) -> rustix::io::Result<()> {
    // SAFETY: the path and the structure outlive the call, and the size is the structure's.
    let result = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            at.as_fd().as_raw_fd(),
            path.as_ptr(),
            flags,
            std::ptr::from_ref(attributes),
            size_of::<libc::mount_attr>(),
        )
    };
    errno_of(result)
}

pub(crate) fn errno_of(result: i64) -> rustix::io::Result<()> {
    if result < 0 {
        let code = io::Error::last_os_error()
            .raw_os_error()
            .unwrap_or(libc::EIO);
        return Err(rustix::io::Errno::from_raw_os_error(code));
    }
    Ok(())
}
