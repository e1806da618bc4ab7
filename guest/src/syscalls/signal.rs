//! What signals do to this process.
// UNSAFETY: signal(2) can install a handler that runs anywhere; here it only restores a default.
#![expect(unsafe_code, reason = "signal has no safe wrapper")]

/// Lets a write to a closed pipe end the process, as it does by default. Rust's start-up code
/// ignores the signal, and what is ignored stays so in every program that is executed.
pub(crate) fn default_broken_pipe() {
    // SAFETY: SIG_DFL is no function of ours, nothing is called.
    unsafe { libc::signal(libc::SIGPIPE, libc::SIG_DFL) };
}
