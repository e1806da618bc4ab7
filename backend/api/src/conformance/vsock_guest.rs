//! A program of the suite's guest: `vsock PORT PROGRAM…` runs a program whose input and output are a stream to a port of
//! the host; `vsock -l PORT PROGRAM…` waits until the host connects to a port of the guest. It is compiled where the suite
//! runs, by `rustc` alone.
// UNSAFETY: calls pass an address of the length that they say, or none.
#![expect(unsafe_code, reason = "the standard library has no vsock")]

use std::ffi::c_int;
use std::fs::File;
use std::io::Error;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::ptr::null_mut;

unsafe extern "C" {
    fn socket(domain: c_int, kind: c_int, protocol: c_int) -> c_int;
    fn connect(fd: c_int, address: *const Address, length: u32) -> c_int;
    fn bind(fd: c_int, address: *const Address, length: u32) -> c_int;
    fn listen(fd: c_int, backlog: c_int) -> c_int;
    fn accept(fd: c_int, address: *mut Address, length: *mut u32) -> c_int;
}

/// `struct sockaddr_vm`, linux/vm_sockets.h.
#[repr(C)]
struct Address {
    family: u16,
    reserved: u16,
    port: u32,
    cid: u32,
    flags: u32,
}

const AF_VSOCK: u16 = 40;
const SOCK_STREAM: c_int = 1;
const HOST: u32 = 2;
const ANY: u32 = u32::MAX;

fn main() {
    let mut words = std::env::args().skip(1).peekable();
    let listens = words.next_if_eq("-l").is_some();
    let port = words.next().and_then(|word| word.parse().ok());
    let address = Address {
        family: AF_VSOCK,
        reserved: 0,
        port: port.expect("a port"),
        cid: if listens { ANY } else { HOST },
        flags: 0,
    };
    // SAFETY: no pointers.
    let fd = unsafe { socket(AF_VSOCK.into(), SOCK_STREAM, 0) };
    assert!(fd >= 0, "no vsock: {}", Error::last_os_error());
    // SAFETY: it was made above and nobody else has it.
    let socket = File::from(unsafe { OwnedFd::from_raw_fd(fd) });
    let length = size_of::<Address>() as u32;
    let stream = if listens {
        // SAFETY: the kernel reads a sockaddr_vm, which this is.
        let done = unsafe { bind(socket.as_raw_fd(), &address, length) };
        assert!(done == 0, "cannot bind: {}", Error::last_os_error());
        // SAFETY: no pointers.
        let done = unsafe { listen(socket.as_raw_fd(), 1) };
        assert!(done == 0, "cannot listen: {}", Error::last_os_error());
        // SAFETY: nobody wants to know who it is.
        let fd = unsafe { accept(socket.as_raw_fd(), null_mut(), null_mut()) };
        assert!(fd >= 0, "cannot accept: {}", Error::last_os_error());
        // SAFETY: it was made above and nobody else has it.
        File::from(unsafe { OwnedFd::from_raw_fd(fd) })
    } else {
        // SAFETY: the kernel reads a sockaddr_vm, which this is.
        let done = unsafe { connect(socket.as_raw_fd(), &address, length) };
        assert!(done == 0, "cannot connect: {}", Error::last_os_error());
        socket
    };
    let input = stream.try_clone().expect("a descriptor");
    let program = words.next().expect("a program");
    let failed = Command::new(program)
        .args(words)
        .stdin(input)
        .stdout(stream)
        .exec();
    panic!("cannot run: {failed}");
}
