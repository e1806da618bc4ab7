//! Processes that are copies of this one.
// UNSAFETY: fork has no safe wrapper, because a child of a process with threads may find locks
// held for ever. Both functions are called only by processes that have a single thread: PID 1,
// the agent before its runtime exists, and the helper.
#![expect(unsafe_code, reason = "fork and clone have no safe wrapper")]

use std::io;

/// Which side of a fork this is.
pub(crate) enum Fork {
    /// The caller; the child's process id.
    Parent(i32),
    /// The child.
    Child,
}

fn side(pid: i64) -> io::Result<Fork> {
    match i32::try_from(pid) {
        Ok(0) => Ok(Fork::Child),
        Ok(pid) if pid > 0 => Ok(Fork::Parent(pid)),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Forks. The caller must have one thread only.
pub(crate) fn fork() -> io::Result<Fork> {
    // SAFETY: the process has a single thread (see the head of the module), so that the child
    // finds no lock held and may do all that the parent may.
    side(i64::from(unsafe { libc::fork() }))
}

/// Forks a child of this process's own parent. The caller must have one thread only.
pub(crate) fn fork_sibling() -> io::Result<Fork> {
    let flags = libc::CLONE_PARENT | libc::SIGCHLD;
    // SAFETY: as for `fork`. Without CLONE_VM the child has its own memory, a null stack means a
    // copy of the caller's, and the other arguments are unused with these flags.
    side(unsafe { libc::syscall(libc::SYS_clone, flags, 0, 0, 0, 0) })
}
