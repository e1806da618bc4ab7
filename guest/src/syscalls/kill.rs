//! Signals without a name.
// UNSAFETY: rustix sends the signals it has names for; real-time ones have none.
#![expect(unsafe_code, reason = "real-time signals have no safe wrapper")]

use rustix::io::Errno;

/// Sends the signal with this number, real-time ones included.
pub(crate) fn kill_realtime(pid: i32, signal: i32) -> Result<(), Errno> {
    // SAFETY: kill takes two numbers and touches no memory of ours.
    if unsafe { libc::kill(pid, signal) } < 0 {
        let error = std::io::Error::last_os_error();
        return Err(Errno::from_io_error(&error).unwrap_or(Errno::INVAL));
    }
    Ok(())
}
