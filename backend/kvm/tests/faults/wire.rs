//! A tap in a network namespace of its own.
#![expect(unsafe_code, reason = "a namespace and a tap by libc")]
// UNSAFETY: a system call without pointers, and one that reads and writes an `ifreq` on the stack.

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::process::Command;
use std::thread;

/// The namespace, and what is in it.
pub struct Wire {
    namespace: File,
}

const NAME: &str = "wire0";

impl Wire {
    /// A tap that is up, and its one queue.
    pub fn new() -> (Self, OwnedFd) {
        // The namespace is that of a thread first, which is gone at the end.
        let build = || {
            // SAFETY: no pointers.
            let own = unsafe { libc::unshare(libc::CLONE_NEWNET) };
            assert_eq!(own, 0, "{}", io::Error::last_os_error());
            let namespace = File::open("/proc/thread-self/ns/net").expect("a namespace");
            let queue = tap();
            let wire = Self { namespace };
            wire.ip(&["link", "set", NAME, "up"]);
            (wire, queue)
        };
        thread::spawn(build).join().expect("a wire")
    }

    /// Takes the tap away, whoever has it open.
    pub fn remove(&self) {
        self.ip(&["link", "delete", NAME]);
    }

    /// Gives the host's end an address.
    pub fn answer(&self, address: &str) {
        self.ip(&["address", "add", address, "dev", NAME]);
    }

    fn ip(&self, words: &[&str]) {
        let number = self.namespace.as_raw_fd();
        let namespace = format!("--net=/proc/{}/fd/{number}", std::process::id());
        let done = Command::new("nsenter")
            .arg(namespace)
            .arg("ip")
            .args(words)
            .status();
        assert!(done.expect("nsenter runs").success(), "{words:?}");
    }
}

fn tap() -> OwnedFd {
    let mut options = File::options();
    let file = options.read(true).write(true).open("/dev/net/tun");
    let file = file.expect("/dev/net/tun");
    // SAFETY: plain data, for which all zeros are a value.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(NAME.bytes()) {
        *to = i8::from_ne_bytes([from]);
    }
    let flags = libc::IFF_TAP | libc::IFF_NO_PI | libc::IFF_VNET_HDR;
    request.ifr_ifru.ifru_flags = i16::try_from(flags).expect("flags");
    // SAFETY: the kernel reads and writes an `ifreq`, which this is.
    let done = unsafe { libc::ioctl(file.as_raw_fd(), libc::TUNSETIFF, &raw mut request) };
    assert!(done >= 0, "{}", io::Error::last_os_error());
    file.into()
}
