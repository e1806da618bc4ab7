//! New namespaces.
// UNSAFETY: unshare can take files away from other threads; a new user namespace cannot be made
// by a process that has any, the kernel refuses.
#![expect(unsafe_code, reason = "unshare has no safe wrapper")]

use std::io;

/// Enters a new user namespace without mappings.
pub(crate) fn new_user_namespace() -> io::Result<()> {
    // SAFETY: unshare takes a number and touches no memory of ours.
    if unsafe { libc::unshare(libc::CLONE_NEWUSER) } < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}
