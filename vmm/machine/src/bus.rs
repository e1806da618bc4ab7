//! Where devices are.

use std::sync::Arc;

use vmm_virtio::{REGISTERS, Transport};

use crate::x86_64::layout;

/// How many devices a machine has room for: one for each interrupt line that a kernel without ACPI knows.
pub const SLOTS: usize = layout::INTERRUPTS.len();

/// One place for a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Slot(pub(crate) usize);

impl Slot {
    /// All of them.
    pub fn all() -> impl Iterator<Item = Self> {
        (0..SLOTS).map(Self)
    }

    /// The guest address of its registers.
    #[must_use]
    pub fn address(self) -> u64 {
        layout::DEVICES + self.0 as u64 * REGISTERS
    }

    /// Its interrupt line.
    #[must_use]
    pub fn interrupt(self) -> u32 {
        layout::INTERRUPTS[self.0]
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
}

impl Bus {
    pub fn new(slots: Vec<Arc<Transport>>) -> Self {
        Self { slots }
    }

    /// Reads as if nothing was there where nothing is.
    pub fn read(&self, address: u64, data: &mut [u8]) {
        match self.find(address) {
            Some((transport, offset)) => transport.read(offset, data),
            None => data.fill(0xff),
        }
    }

    pub fn write(&self, address: u64, data: &[u8]) {
        if let Some((transport, offset)) = self.find(address) {
            transport.write(offset, data);
        }
    }

    fn find(&self, address: u64) -> Option<(&Transport, u64)> {
        let offset = address.checked_sub(layout::DEVICES)?;
        let slot = usize::try_from(offset / REGISTERS).ok()?;
        Some((self.slots.get(slot)?, offset % REGISTERS))
    }
}
