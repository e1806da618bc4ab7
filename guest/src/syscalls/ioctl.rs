//! Device controls.
// UNSAFETY: ioctl takes an untyped pointer. Each call below passes a value of the type that the
// kernel's header gives for the request, alive for the whole call.
#![expect(unsafe_code, reason = "these controls have no safe wrapper")]

use std::io;
use std::os::fd::{AsFd, AsRawFd};

use rustix::net::{AddressFamily, SocketType, socket};

/// `_IOW('R', 0x03, int[2])`, linux/random.h.
const RNDADDENTROPY: libc::Ioctl = 0x4008_5203;

/// `_IO('R', 0x07)`, linux/random.h.
const RNDRESEEDCRNG: libc::Ioctl = 0x5207;

/// Most bytes taken at once.
pub(crate) const ENTROPY_MAX: usize = 512;

#[repr(C)]
struct PoolInfo {
    bits: libc::c_int,
    bytes: libc::c_int,
    data: [u8; ENTROPY_MAX],
}

/// Feeds the kernel's random generator, counts every bit as unpredictable, and has all random numbers made from them at
/// once: by itself a generator that is ready would take them into account within a minute.
pub(crate) fn reseed(entropy: &[u8]) -> io::Result<()> {
    let mut info = PoolInfo {
        bits: 0,
        bytes: 0,
        data: [0; ENTROPY_MAX],
    };
    let data = info
        .data
        .get_mut(..entropy.len())
        .ok_or(io::ErrorKind::InvalidInput)?;
    data.copy_from_slice(entropy);
    info.bytes = i32::try_from(entropy.len()).map_err(io::Error::other)?;
    info.bits = info.bytes * 8;
    let random = std::fs::OpenOptions::new()
        .write(true)
        .open("/dev/random")?;
    // SAFETY: the kernel reads a rand_pool_info, which PoolInfo is with room for ENTROPY_MAX
    // bytes of data, and of the data no more than `bytes`, which is within it.
    let done = unsafe { libc::ioctl(random.as_raw_fd(), RNDADDENTROPY, &raw const info) };
    result(done)?;
    // SAFETY: takes no argument.
    result(unsafe { libc::ioctl(random.as_raw_fd(), RNDRESEEDCRNG) })
}

/// Brings up the loopback interface; the kernel gives it 127.0.0.1 and ::1.
pub(crate) fn raise_loopback() -> io::Result<()> {
    let socket = socket(AddressFamily::INET, SocketType::DGRAM, None)?;
    let fd = socket.as_fd().as_raw_fd();
    // SAFETY: ifreq is plain data, for which all zeroes is a value.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(b"lo") {
        *to = i8::from_ne_bytes([*from]);
    }
    // SAFETY: the kernel reads and writes an ifreq, which this is.
    result(unsafe { libc::ioctl(fd, libc::SIOCGIFFLAGS, &raw mut request) })?;
    // SAFETY: SIOCGIFFLAGS has just filled in this member of the union.
    let flags = unsafe { request.ifr_ifru.ifru_flags };
    request.ifr_ifru.ifru_flags = flags | i16::try_from(libc::IFF_UP).unwrap_or_default();
    // SAFETY: as above; the kernel only reads.
    result(unsafe { libc::ioctl(fd, libc::SIOCSIFFLAGS, &raw const request) })
}

fn result(done: libc::c_int) -> io::Result<()> {
    if done < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}
