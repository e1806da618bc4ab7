//! Sockets to the host.
// UNSAFETY: the kernel reads options and addresses behind pointers. Each call below passes a value of the type that the
// kernel's header gives, alive for the whole call.
#![expect(unsafe_code, reason = "the libraries have no addresses of vsock")]

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::time::Duration;

/// `SO_VM_SOCKETS_CONNECT_TIMEOUT_NEW`, linux/vm_sockets.h.
const CONNECT_TIMEOUT: libc::c_int = 8;

/// Begins to connect to a port of the host, which may take as long as this. The socket does not block: it is ready to
/// be written when that is over, and its `SO_ERROR` tells how it went.
pub(crate) fn connect_to_host(port: u32, patience: Duration) -> io::Result<OwnedFd> {
    let kind = libc::SOCK_STREAM | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK;
    // SAFETY: no pointers.
    let fd = result(unsafe { libc::socket(libc::AF_VSOCK, kind, 0) })?;
    // SAFETY: it was made in the line above and nobody else has it.
    let fd = unsafe { OwnedFd::from_raw_fd(fd) };
    // A `struct __kernel_sock_timeval`: seconds and microseconds.
    let patience = [
        i64::try_from(patience.as_secs()).map_err(io::Error::other)?,
        patience.subsec_micros().into(),
    ];
    // SAFETY: the kernel reads two numbers of 64 bits, which these are.
    let done = unsafe {
        libc::setsockopt(
            fd.as_raw_fd(),
            libc::AF_VSOCK,
            CONNECT_TIMEOUT,
            (&raw const patience).cast(),
            size_of_val(&patience) as libc::socklen_t,
        )
    };
    result(done)?;
    // SAFETY: sockaddr_vm is plain data, for which all zeroes is a value.
    let mut host: libc::sockaddr_vm = unsafe { std::mem::zeroed() };
    host.svm_family = libc::AF_VSOCK as libc::sa_family_t;
    host.svm_cid = libc::VMADDR_CID_HOST;
    host.svm_port = port;
    // SAFETY: the kernel reads a sockaddr_vm, which this is.
    let done = unsafe {
        libc::connect(
            fd.as_raw_fd(),
            (&raw const host).cast(),
            size_of::<libc::sockaddr_vm>() as libc::socklen_t,
        )
    };
    match result(done) {
        Err(error) if error.raw_os_error() != Some(libc::EINPROGRESS) => Err(error),
        _ => Ok(fd),
    }
}

fn result(done: libc::c_int) -> io::Result<libc::c_int> {
    if done < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(done)
}
