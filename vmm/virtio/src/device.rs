//! The trait.

use std::sync::Arc;

use crate::events::{Flags, Registrar};
use crate::{Interrupt, Memory, Queue};

/// The driver, or what stands behind the device, has done what the device cannot go on from. The text is for the host's
/// log; nothing from the guest is in it.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Broken(pub &'static str);

/// What a device offers to a driver. It stays the same as long as the device lives.
#[derive(Debug, Clone)]
pub struct Offer {
    /// Virtio's number of the kind of device (virtio 1.3, section 5).
    pub kind: u32,
    /// Feature bits of the device and of its rings; the transport adds `VIRTIO_F_VERSION_1`.
    pub features: u64,
    /// The largest size of each queue: powers of two, at most 32768.
    pub queues: Vec<u16>,
}

/// A device's configuration, read by the driver as bytes (virtio 1.3, 2.5). Little-endian.
#[derive(Debug, Clone, Copy)]
pub struct ConfigSpace<'a>(pub &'a [u8]);

impl ConfigSpace<'_> {
    /// Fills `data` with what is at `offset`, and with zeros behind the end.
    pub fn read(self, offset: u64, data: &mut [u8]) {
        data.fill(0);
        let begin = usize::try_from(offset).unwrap_or(usize::MAX);
        if let Some(rest) = self.0.get(begin..) {
            let count = rest.len().min(data.len());
            data[..count].copy_from_slice(&rest[..count]);
        }
    }
}

/// What a driver has set up: given to the device when it writes `DRIVER_OK`.
pub struct Activation {
    /// The guest's memory.
    pub memory: Arc<Memory>,
    /// The features that the driver accepted: a part of those offered.
    pub features: u64,
    /// The queues; `None` for one that the driver left alone.
    pub queues: Vec<Option<Queue>>,
    /// Registers descriptors with the event loop in this device's name.
    pub events: Registrar,
    /// The device's interrupt, for changes of its configuration. Queues have it, too.
    pub interrupt: Interrupt,
}

/// One virtio device.
///
/// ```text
///            activate                 event…
///   idle ──────────────▶ active ◀──────────────┐
///    ▲                     │  └────────────────┘
///    └──────── reset ──────┘
/// ```
///
/// All methods are called with the transport's lock held, `activate`, `reset` and `write_config` from threads of virtual
/// CPUs: none may block.
pub trait Device: Send {
    /// What it offers.
    fn offer(&self) -> Offer;

    /// Reads its configuration; [`ConfigSpace`] does it for bytes at hand.
    fn read_config(&self, offset: u64, data: &mut [u8]);

    /// The driver writes into the configuration. Most devices have nothing to write.
    fn write_config(&mut self, _offset: u64, _data: &[u8]) {}

    /// The driver is ready. The device takes the queues, and watches what it wants to be woken by: mostly
    /// [`Queue::watch`] with the queue's number as the token.
    ///
    /// # Errors
    /// [`Broken`] when the driver has left out what the device can't do without.
    fn activate(&mut self, activation: Activation) -> Result<(), Broken>;

    /// A descriptor that was watched under this token is ready, or was, or seems to be: try, never wait.
    ///
    /// # Errors
    /// [`Broken`] as the driver has left the device; it is reset then.
    fn event(&mut self, token: u32, flags: Flags) -> Result<(), Broken>;

    /// Forgets the driver: drops queues and watches. Afterwards `activate` may be called again. Memory of the guest may
    /// not be touched any more on the old queues' behalf when this returns.
    fn reset(&mut self);
}
