//! Where devices are.

use std::sync::Arc;

use vmm_virtio::{REGISTERS, Transport};

use crate::x86_64::ioapic::{self, IoApic};
use crate::x86_64::layout;

/// How many devices a machine has room for.
pub const SLOTS: usize = layout::DEVICE_LIMIT as usize;

/// One place for a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Slot(pub(crate) usize);

impl Slot {
    /// All of them.
    pub fn all() -> impl Iterator<Item = Self> {
        (0..SLOTS).map(Self)
    }

    /// Its number: they are counted from 0.
    #[must_use]
    pub fn number(self) -> u8 {
        // There are fewer.
        u8::try_from(self.0).unwrap_or(u8::MAX)
    }

    /// The guest address of its registers.
    #[must_use]
    pub fn address(self) -> u64 {
        layout::DEVICES + self.0 as u64 * REGISTERS
    }

    /// Its interrupt line.
    #[must_use]
    pub fn interrupt(self) -> u32 {
        self.0 as u32 + 1
    }

    /// As the kernel's command line has it (Linux `Documentation/admin-guide/kernel-parameters.txt`).
    #[must_use]
    pub fn parameter(self) -> String {
        format!(
            "virtio_mmio.device={}K@{:#x}:{}",
            REGISTERS >> 10,
            self.address(),
            self.interrupt()
        )
    }
}

/// All accesses that KVM passes on.
pub(crate) struct Bus {
    slots: Vec<Arc<Transport>>,
    controller: IoApic,
}

impl Bus {
    pub fn new(slots: Vec<Arc<Transport>>, controller: IoApic) -> Self {
        Self { slots, controller }
    }

    /// Reads as if nothing was there where nothing is.
    pub fn read(&self, address: u64, data: &mut [u8]) {
        if let Some((transport, offset)) = self.find(address) {
            transport.read(offset, data);
        } else if let Some(offset) = controller(address) {
            self.controller.read(offset, data);
        } else {
            data.fill(0xff);
        }
    }

    /// Writes; nothing happens where nothing is.
    ///
    /// # Errors
    /// KVM's, where an interrupt is to arrive.
    pub fn write(&self, address: u64, data: &[u8]) -> Result<(), kvm_ioctls::Error> {
        if let Some((transport, offset)) = self.find(address) {
            transport.write(offset, data);
        } else if let Some(offset) = controller(address) {
            self.controller.write(offset, data)?;
        }
        Ok(())
    }

    fn find(&self, address: u64) -> Option<(&Transport, u64)> {
        let offset = address.checked_sub(layout::DEVICES)?;
        let slot = usize::try_from(offset / REGISTERS).ok()?;
        Some((self.slots.get(slot)?, offset % REGISTERS))
    }
}

/// How far into the interrupt controller this is.
fn controller(address: u64) -> Option<u64> {
    let offset = address.checked_sub(layout::IOAPIC.into())?;
    (offset < ioapic::SIZE).then_some(offset)
}
