//! Saying which call was not allowed, in debug builds.
#![expect(unsafe_code, reason = "a signal handler")]
// UNSAFETY: the handler is async-signal-safe: it formats into an array on its stack, and writes that.

use std::io;
use std::mem::MaybeUninit;
use std::ptr;

use crate::JailError;
use crate::process::system;

/// Where `siginfo_t` of a `SIGSYS` has the call's number on 64-bit Linux: behind the signal's number, error and code,
/// padding, and the address of the call.
const NUMBER: usize = 24;

/// From now on a call that is not allowed is named on standard error, where the list says [`Violation::Tell`].
///
/// [`Violation::Tell`]: crate::Violation::Tell
pub(crate) fn install() -> Result<(), JailError> {
    // SAFETY: all zeros are a value of it: no handler, no flags, no signal blocked.
    let mut action: libc::sigaction = unsafe { MaybeUninit::zeroed().assume_init() };
    let handler: extern "C" fn(libc::c_int, *mut libc::siginfo_t, *mut libc::c_void) = tell;
    action.sa_sigaction = handler as libc::sighandler_t;
    action.sa_flags = libc::SA_SIGINFO;
    // SAFETY: the action is complete, and its handler takes what `SA_SIGINFO` gives.
    if unsafe { libc::sigaction(libc::SIGSYS, &raw const action, ptr::null_mut()) } < 0 {
        return Err(system("handle a signal", io::Error::last_os_error()));
    }
    Ok(())
}

extern "C" fn tell(_: libc::c_int, information: *mut libc::siginfo_t, _: *mut libc::c_void) {
    let mut line = *b"system call 0000 is not allowed here\n";
    // SAFETY: the kernel passes 128 bytes, and this is in them.
    let mut number = unsafe { information.byte_add(NUMBER).cast::<u32>().read_unaligned() };
    for digit in line[12..16].iter_mut().rev() {
        *digit = b'0' + (number % 10) as u8;
        number /= 10;
    }
    // SAFETY: the array is that long.
    unsafe { libc::write(2, line.as_ptr().cast(), line.len()) };
    // The signal is blocked in here, so that another such call ends the process by it. No list has this one.
    // SAFETY: the call takes nothing and changes nothing.
    unsafe { libc::syscall(libc::SYS_getppid) };
}
