//! The tap: a wire whose other end is a descriptor (Linux, `Documentation/networking/tuntap.rst`).
#![expect(unsafe_code, reason = "a tap's settings have no safe wrapper")]
// UNSAFETY: ioctl takes an untyped pointer. Each call below passes a pointer to what linux/if_tun.h gives for the
// request (an `ifreq`, an `int`, an `unsigned int`) on the stack, alive for the whole call.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsRawFd, OwnedFd, RawFd};

use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};

use crate::error::NetError;
use crate::features::{TAP_USO, tap_offload};

/// The length of `virtio_net_hdr` with the number of buffers, as virtio 1 always has it (5.1.6).
pub(crate) const HEADER: usize = 12;

/// Everything of a packet that a tap can pass: the header, Ethernet's with a tag, IPv6's, and what that can carry.
pub(crate) const LONGEST: usize = HEADER + 18 + 40 + 65_535;

/// One queue of a tap.
pub(crate) struct Tap {
    file: File,
    several: bool,
    attached: bool,
    /// What it may leave to the driver.
    offload: u32,
}

/// So many packets may wait in a tap (`tx_queue_len` is 1000), and a few that come meanwhile.
const WAITING: usize = 2000;

impl Tap {
    /// Takes one of a tap's queues; `several` says whether there are others. All but the first are detached: no packet
    /// goes where no driver looks.
    pub(crate) fn new(fd: OwnedFd, number: usize, several: bool) -> Result<Self, NetError> {
        let not_a_tap = |source| NetError::NotATap { number, source };
        let mut wanted = libc::IFF_TAP | libc::IFF_NO_PI | libc::IFF_VNET_HDR;
        if several {
            wanted |= libc::IFF_MULTI_QUEUE;
        }
        let flags = flags(&fd).map_err(|error| not_a_tap(Some(error)))?;
        if flags & wanted != wanted {
            return Err(not_a_tap(None));
        }
        let status = fcntl_getfl(&fd).map_err(|error| not_a_tap(Some(error.into())))?;
        fcntl_setfl(&fd, status | OFlags::NONBLOCK)
            .map_err(|error| not_a_tap(Some(error.into())))?;
        let mut tap = Self {
            file: fd.into(),
            several,
            attached: true,
            offload: u32::MAX,
        };
        tap.set(libc::TUNSETVNETHDRSZ, &(HEADER as libc::c_int))
            .map_err(failed("the length of headers"))?;
        if number == 0 {
            tap.set_features(0).map_err(failed("offloads"))?;
        } else {
            tap.attach(false).map_err(failed("the queues"))?;
        }
        Ok(tap)
    }

    /// Whether UDP's segmentation can be left to it (Linux 6.2).
    pub(crate) fn has_uso(&mut self) -> bool {
        self.set_offload(libc::TUN_F_CSUM | TAP_USO).is_ok() && self.set_features(0).is_ok()
    }

    /// Has the tap leave to the driver what it accepted; of all queues alike.
    pub(crate) fn set_features(&mut self, features: u64) -> io::Result<()> {
        self.set_offload(tap_offload(features))
    }

    fn set_offload(&mut self, offload: u32) -> io::Result<()> {
        // It is done under a lock that the host's network has one of.
        if self.offload != offload {
            self.set(libc::TUNSETOFFLOAD, offload)?;
            self.offload = offload;
        }
        Ok(())
    }

    /// Loses what waits here.
    pub(crate) fn empty(&self) -> io::Result<()> {
        for _ in 0..WAITING {
            if !self.discard()? {
                break;
            }
        }
        Ok(())
    }

    /// Has packets spread to this queue, too, or not any more; what has come here already is lost then.
    pub(crate) fn attach(&mut self, attached: bool) -> io::Result<()> {
        if !self.several || self.attached == attached {
            return Ok(());
        }
        let flag = if attached {
            libc::IFF_ATTACH_QUEUE
        } else {
            libc::IFF_DETACH_QUEUE
        };
        // SAFETY: ifreq is plain data, for which all zeroes is a value.
        let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
        request.ifr_ifru.ifru_flags = i16::try_from(flag).map_err(io::Error::other)?;
        self.set(libc::TUNSETQUEUE, &request)?;
        self.attached = attached;
        Ok(())
    }

    /// Tells the host whether something is plugged in here.
    pub(crate) fn set_carrier(&self, up: bool) -> io::Result<()> {
        self.set(libc::TUNSETCARRIER, &libc::c_int::from(up))
    }

    /// Takes a packet and loses it; false when there is none.
    pub(crate) fn discard(&self) -> io::Result<bool> {
        match (&self.file).read(&mut [0; HEADER]) {
            Ok(_) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(false),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(true),
            Err(error) => Err(error),
        }
    }

    pub(crate) fn file(&self) -> &File {
        &self.file
    }

    fn set<T: Argument>(&self, request: libc::Ioctl, value: T) -> io::Result<()> {
        // SAFETY: what the request takes, see the head of this file and `Argument`.
        let done = unsafe { libc::ioctl(self.file.as_raw_fd(), request, value.pass()) };
        if done < 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(())
    }
}

impl AsRawFd for Tap {
    fn as_raw_fd(&self) -> RawFd {
        self.file.as_raw_fd()
    }
}

/// What a request takes: a number, or a pointer to what is read during the call.
trait Argument {
    fn pass(&self) -> libc::c_ulong;
}

impl Argument for u32 {
    fn pass(&self) -> libc::c_ulong {
        libc::c_ulong::from(*self)
    }
}

impl Argument for &libc::c_int {
    fn pass(&self) -> libc::c_ulong {
        std::ptr::from_ref::<libc::c_int>(self) as libc::c_ulong
    }
}

impl Argument for &libc::ifreq {
    fn pass(&self) -> libc::c_ulong {
        std::ptr::from_ref::<libc::ifreq>(self) as libc::c_ulong
    }
}

fn failed(what: &'static str) -> impl FnOnce(io::Error) -> NetError {
    move |source| NetError::Tap { what, source }
}

/// The flags that the tap was made with.
fn flags(fd: &OwnedFd) -> io::Result<libc::c_int> {
    // SAFETY: as above.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    // SAFETY: the kernel writes an ifreq, which this is.
    let done = unsafe { libc::ioctl(fd.as_raw_fd(), libc::TUNGETIFF, &raw mut request) };
    if done < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel has written the flags; any bits are a value.
    let flags = unsafe { request.ifr_ifru.ifru_flags };
    Ok(libc::c_int::from(flags) & 0xffff)
}
