//! Descriptors that are waited for.
// UNSAFETY: a registered descriptor must stay the same file until it is taken back; tokio cannot
// know that of every type, but an OwnedFd is exactly that.
#![expect(unsafe_code, reason = "tokio has no safe function for an OwnedFd")]

use std::io;
use std::os::fd::OwnedFd;

use tokio::io::unix::AsyncFd;

/// Makes `fd`, which must not block, something to wait for.
pub(crate) fn watch(fd: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: an OwnedFd names one open file from its making to its drop, and AsyncFd gives out
    // no mutable access by which it could be exchanged unnoticed.
    unsafe { AsyncFd::register(fd) }.map_err(Into::into)
}
