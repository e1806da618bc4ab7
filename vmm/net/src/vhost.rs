//! Packets carried by the kernel: vhost-net (Linux, `linux/vhost.h`).
//!
//! The kernel is told where the guest's memory and the rings are, gets the events by which driver and device call each
//! other, and takes packets from the tap and to it by itself. This process sees no packet, and does not notice when the tap
//! is removed. Each pair of queues has an
//! own descriptor of `/dev/vhost-net`, and by that a thread of its own (one of this process, from Linux 6.4 on).
#![expect(
    unsafe_code,
    reason = "requests of vhost-net that have no safe wrapper"
)]
// UNSAFETY: ioctl takes an untyped pointer. Each call below passes a pointer to what linux/vhost.h gives for the request,
// on the stack, alive for the whole call. The addresses that the kernel keeps are those of guest memory, owned by
// `Carrier`; it takes the tap away, by which the kernel stops, before it lets the memory go.

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::sync::Arc;

use vhost::vhost_kern::VhostKernBackend;
use vhost::vhost_kern::vhost_binding::{
    VHOST_GET_FEATURES, VHOST_NET_SET_BACKEND, VHOST_SET_OWNER, vhost_vring_file,
};
use vhost::{VhostBackend, VhostUserMemoryRegionInfo, VringConfigData};
use vm_memory::{Address, GuestMemory, GuestMemoryRegion};
use vmm_sys_util::ioctl::{ioctl, ioctl_with_mut_ref, ioctl_with_ref};
use vmm_virtio::{Broken, EventFd, Flags, Memory, Queue, Registrar, Watch};

use crate::error::NetError;
use crate::features::OF_RINGS;
use crate::tap::Tap;

/// The rings of a pair: receive and transmit.
const RINGS: usize = 2;

/// An opened `/dev/vhost-net` that this process owns.
pub(crate) struct Vhost {
    file: Arc<File>,
    features: u64,
}

impl Vhost {
    pub(crate) fn new(fd: OwnedFd, number: usize) -> Result<Self, NetError> {
        let failed = || NetError::Vhost {
            number,
            source: io::Error::last_os_error(),
        };
        let file = File::from(fd);
        // SAFETY: it takes nothing.
        if unsafe { ioctl(&file, VHOST_SET_OWNER()) } < 0 {
            return Err(failed());
        }
        let mut features = 0_u64;
        // SAFETY: the kernel writes 64 bits.
        if unsafe { ioctl_with_mut_ref(&file, VHOST_GET_FEATURES(), &mut features) } < 0 {
            return Err(failed());
        }
        Ok(Self {
            file: Arc::new(file),
            features,
        })
    }

    /// Those features of rings that it does not know.
    pub(crate) fn lacks(&self) -> u64 {
        OF_RINGS & !self.features
    }

    /// Tells the kernel all but the tap.
    pub(crate) fn start(
        &self,
        memory: &Arc<Memory>,
        features: u64,
        queues: [Queue; RINGS],
        events: &Registrar,
        token: u32,
    ) -> Result<Carrier, Broken> {
        let rings = Rings {
            file: Arc::clone(&self.file),
            memory: Arc::clone(memory),
        };
        let failed = |error: io::Error| {
            tracing::warn!(%error, "vhost-net can't be started");
            Broken("vhost-net can't be started")
        };
        let error = EventFd::new(libc::EFD_NONBLOCK | libc::EFD_CLOEXEC).map_err(failed)?;
        rings
            .set_up(features, &queues, &error)
            .map_err(|error| failed(io::Error::other(error)))?;
        let watch = events.watch(&error, Flags::READ, token).map_err(failed)?;
        Ok(Carrier {
            started: false,
            _watch: watch,
            error,
            rings,
            _queues: queues,
        })
    }
}

/// A pair of queues that the kernel serves, while it has a tap. Fields are dropped in order: the watch before what it
/// watches.
pub(crate) struct Carrier {
    started: bool,
    _watch: Watch,
    error: EventFd,
    rings: Rings,
    _queues: [Queue; RINGS],
}

impl Carrier {
    /// Has packets carried from now on, if there is a link.
    pub(crate) fn start(&mut self, tap: &Tap, up: bool) -> Result<(), Broken> {
        self.started = true;
        self.set_link(tap, up)
    }

    /// Has the kernel carry packets, or let go of the tap and of the guest's memory; when this returns, it has.
    pub(crate) fn set_link(&self, tap: &Tap, up: bool) -> Result<(), Broken> {
        // Also that of a pair that is not started.
        let tap = (up && self.started).then_some(tap);
        self.rings.set_tap(tap).map_err(|error| {
            tracing::warn!(%error, "vhost-net does not take or leave a tap");
            Broken("vhost-net does not take or leave a tap")
        })
    }

    /// Has it let go of them for good.
    pub(crate) fn stop(&mut self, tap: &Tap) -> Result<(), Broken> {
        self.started = false;
        self.set_link(tap, false)
    }

    /// Whether the kernel has met a ring that it can't follow.
    pub(crate) fn has_failed(&self) -> bool {
        self.error.read().is_ok()
    }
}

impl Drop for Carrier {
    fn drop(&mut self) {
        if let Err(error) = self.rings.set_tap(None) {
            tracing::warn!(%error, "vhost-net can't be stopped");
        }
    }
}

struct Rings {
    file: Arc<File>,
    memory: Arc<Memory>,
}

impl Rings {
    fn set_up(&self, features: u64, queues: &[Queue], error: &EventFd) -> vhost::Result<()> {
        self.set_features(features & OF_RINGS)?;
        let regions: Vec<VhostUserMemoryRegionInfo> = self
            .memory
            .iter()
            .map(|region| VhostUserMemoryRegionInfo {
                guest_phys_addr: region.start_addr().raw_value(),
                memory_size: region.len(),
                userspace_addr: region.as_ptr() as u64,
                mmap_offset: 0,
                mmap_handle: -1,
            })
            .collect();
        self.set_mem_table(&regions)?;
        for (index, queue) in queues.iter().enumerate() {
            self.set_vring_num(index, queue.size())?;
            self.set_vring_base(index, 0)?;
            let [descriptors, driver, device] = queue.addresses();
            let addresses = VringConfigData {
                queue_max_size: queue.size(),
                queue_size: queue.size(),
                flags: 0,
                desc_table_addr: descriptors.raw_value(),
                avail_ring_addr: driver.raw_value(),
                used_ring_addr: device.raw_value(),
                log_addr: None,
            };
            self.set_vring_addr(index, &addresses)?;
            self.set_vring_err(index, error)?;
            self.set_vring_call(index, queue.interrupt().event())?;
            self.set_vring_kick(index, queue.kick())?;
        }
        Ok(())
    }

    fn set_tap(&self, tap: Option<&Tap>) -> io::Result<()> {
        let mut result = Ok(());
        for index in 0..RINGS as u32 {
            let backend = vhost_vring_file {
                index,
                fd: tap.map_or(-1, AsRawFd::as_raw_fd),
            };
            // SAFETY: the kernel reads a `vhost_vring_file`, which this is.
            if unsafe { ioctl_with_ref(self, VHOST_NET_SET_BACKEND(), &backend) } < 0 {
                // The other one all the same: it may have to be let go of.
                result = Err(io::Error::last_os_error());
            }
        }
        result
    }
}

impl AsRawFd for Rings {
    fn as_raw_fd(&self) -> RawFd {
        self.file.as_raw_fd()
    }
}

impl VhostKernBackend for Rings {
    type AS = Arc<Memory>;

    fn mem(&self) -> &Arc<Memory> {
        &self.memory
    }
}

#[cfg(test)]
mod tests {
    use vhost::vhost_kern::vhost_binding::*;

    #[test]
    fn what_the_card_asks_vhost_net_for_is_in_the_list() {
        let requests = [
            VHOST_SET_FEATURES(),
            VHOST_SET_MEM_TABLE(),
            VHOST_SET_VRING_NUM(),
            VHOST_SET_VRING_ADDR(),
            VHOST_SET_VRING_BASE(),
            VHOST_SET_VRING_KICK(),
            VHOST_SET_VRING_CALL(),
            VHOST_SET_VRING_ERR(),
            super::VHOST_NET_SET_BACKEND(),
        ];
        assert_eq!(
            crate::IOCTLS[3..].to_vec(),
            requests.map(|request| request as u32)
        );
    }
}
