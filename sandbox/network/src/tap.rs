//! Taps: network interfaces whose wire is a file descriptor.
#![expect(unsafe_code, reason = "TUNSETIFF has no safe wrapper")]
// UNSAFETY: ioctl takes an untyped pointer. The one call below passes the `ifreq` that the kernel's header gives for the
// request, alive for the whole call.

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

/// `_IOW('T', 202, int)`, linux/if_tun.h; what is passed is an `ifreq` all the same.
const TUNSETIFF: libc::Ioctl = 0x4004_54ca;

/// Makes a tap in the calling thread's network namespace, with as many queues; answers with its name and a descriptor
/// for each queue. It is gone when all descriptors are closed: nothing can be left of it, whoever is killed.
///
/// Frames carry a virtio-net header in front (`IFF_VNET_HDR`), so that checksums and segmentation are left to whoever
/// does them best.
pub(crate) fn create(queues: u32) -> io::Result<(String, Vec<OwnedFd>)> {
    // The kernel puts a free number in.
    let mut name = String::from("cofferdam%d");
    let mut descriptors = Vec::new();
    for _ in 0..queues.max(1) {
        let file = File::options()
            .read(true)
            .write(true)
            .open("/dev/net/tun")?;
        let mut flags = libc::IFF_TAP | libc::IFF_NO_PI | libc::IFF_VNET_HDR;
        if queues > 1 {
            flags |= libc::IFF_MULTI_QUEUE;
        }
        name = attach(&file, &name, flags)?;
        descriptors.push(file.into());
    }
    Ok((name, descriptors))
}

fn attach(file: &File, name: &str, flags: libc::c_int) -> io::Result<String> {
    // SAFETY: ifreq is plain data, for which all zeroes is a value.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    // The last byte stays zero.
    let room = request.ifr_name.len() - 1;
    for (to, from) in request.ifr_name[..room].iter_mut().zip(name.bytes()) {
        *to = i8::from_ne_bytes([from]);
    }
    request.ifr_ifru.ifru_flags = i16::try_from(flags).map_err(io::Error::other)?;
    // SAFETY: the kernel reads and writes an ifreq, which this is.
    let done = unsafe { libc::ioctl(file.as_raw_fd(), TUNSETIFF, &raw mut request) };
    if done < 0 {
        return Err(io::Error::last_os_error());
    }
    let bytes: Vec<u8> = request
        .ifr_name
        .iter()
        .map(|byte| byte.to_ne_bytes()[0])
        .take_while(|&byte| byte != 0)
        .collect();
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}
