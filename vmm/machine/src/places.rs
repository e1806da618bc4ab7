//! Which device is in which place, before and while the guest runs.
//!
//! ```text
//!             plug                        announce (boot)
//!   empty ──────────▶ taken    of those up to the last taken one and of the spare ones the guest knows
//!     ▲                 │
//!     └───── unplug ────┘      afterwards only these can be plugged: a guest looks at no other
//! ```
//!
//! An empty place answers with device number 0, as virtio has it (1.3, 4.2.2): the driver leaves it until it is told to look
//! again. What is unplugged is taken away whatever the driver does at the moment.
#![expect(unsafe_code, reason = "KVM is given an image by its address")]
// UNSAFETY: KVM may use an image's mapping as long as it has the memory slot. So the mapping goes only when the slot is gone,
// and stays for ever when KVM does not let go.

use std::collections::BTreeMap;
use std::mem::ManuallyDrop;
use std::sync::Arc;

use kvm_bindings::{KVM_MEM_READONLY, kvm_userspace_memory_region};
use kvm_ioctls::{IoEventAddress, VmFd};
use vmm_pmem::{Image, Pmem, Statistics};
use vmm_virtio::{Device, EventFd, EventLoop, Memory, Transport};

use crate::Error;
use crate::bus::{SLOTS, Slot};

/// All places of a machine.
pub(crate) struct Places {
    vm: Arc<VmFd>,
    transports: Vec<Arc<Transport>>,
    /// What the queues of the device in each place are kicked by.
    kicks: Vec<Vec<Arc<EventFd>>>,
    images: Images,
    /// How many the guest knows, once it was told.
    announced: Option<usize>,
}

/// Where images are in the guest's memory.
pub(crate) struct Images {
    /// The first address, and the one behind the last.
    pub room: (u64, u64),
    /// The number of the first memory slot that is free for an image: each place has one.
    pub first_slot: u32,
    /// By their addresses: how long each is.
    pub taken: BTreeMap<u64, Mapped>,
}

/// An image, and the place of the device that tells of it.
pub(crate) struct Mapped {
    place: usize,
    length: u64,
    image: ManuallyDrop<Image>,
}

impl Places {
    /// All empty.
    pub fn new(
        vm: Arc<VmFd>,
        memory: &Arc<Memory>,
        events: &EventLoop,
        images: Images,
    ) -> Result<Self, Error> {
        let transports = Slot::all()
            .map(|slot| {
                Transport::new(&format!("slot {}", slot.0), Arc::clone(memory), events)
                    .map_err(Error::system("make a place for a device"))
            })
            .collect::<Result<Vec<_>, _>>()?;
        Ok(Self {
            vm,
            transports,
            kicks: vec![Vec::new(); SLOTS],
            images,
            announced: None,
        })
    }

    /// A place.
    pub fn at(&self, slot: Slot) -> Option<&Arc<Transport>> {
        self.transports.get(slot.0)
    }

    /// What the bus leads to.
    pub fn transports(&self) -> Vec<Arc<Transport>> {
        self.transports.clone()
    }

    /// Settles which places the guest knows, with so many spare ones, and connects their interrupts.
    ///
    /// # Errors
    /// [`Error::Full`], and what KVM refuses.
    pub fn announce(&mut self, spare: usize) -> Result<Vec<Slot>, Error> {
        let last = self.transports.iter().rposition(|place| place.is_plugged());
        let count = last.map_or(0, |last| last + 1) + spare;
        if count > SLOTS {
            return Err(Error::Full);
        }
        for (slot, transport) in Slot::all().zip(&self.transports).take(count) {
            self.vm
                .register_irqfd(transport.interrupt().event(), slot.interrupt())
                .map_err(Error::kvm("connect a device's interrupt"))?;
        }
        self.announced = Some(count);
        Ok(Slot::all().take(count).collect())
    }

    /// Puts a device into the first free place that the guest knows or will know.
    ///
    /// # Errors
    /// [`Error::Full`]; what KVM or the host refuses.
    pub fn plug(&mut self, device: Box<dyn Device>) -> Result<Slot, Error> {
        let slot = self.free()?;
        self.fill(slot, device)?;
        Ok(slot)
    }

    /// Puts an image into the guest's memory, and a device that tells of it into a place; where that counts.
    ///
    /// # Errors
    /// [`Error::Full`]; [`Error::TooLarge`] when there is no room in the guest's memory; what KVM or the host refuses.
    pub fn plug_image(&mut self, image: Image) -> Result<(Slot, Statistics), Error> {
        let slot = self.free()?;
        let length = image.length() as u64;
        let address = self.images.find(length).ok_or(Error::TooLarge {
            what: "an image",
            size: length,
        })?;
        self.set_image(slot, address, length, image.address() as u64)
            .map_err(Error::kvm("show an image to the guest"))?;
        let mapped = Mapped {
            place: slot.0,
            length,
            image: ManuallyDrop::new(image),
        };
        self.images.taken.insert(address, mapped);
        let device = Pmem::new(address, length);
        let statistics = device.statistics();
        if let Err(error) = self.fill(slot, Box::new(device)) {
            self.remove_image(slot)?;
            return Err(error);
        }
        Ok((slot, statistics))
    }

    /// Empties a place, whatever its driver does at the moment.
    ///
    /// # Errors
    /// [`Error::Empty`]; what KVM refuses. The device is gone even then.
    pub fn unplug(&mut self, slot: Slot) -> Result<(), Error> {
        let device = self.transports[slot.0].unplug().ok_or(Error::Empty)?;
        drop(device);
        let disconnected = self.disconnect(slot);
        self.remove_image(slot)?;
        disconnected
    }

    fn free(&self) -> Result<Slot, Error> {
        Slot::all()
            .zip(&self.transports)
            .take(self.announced.unwrap_or(SLOTS))
            .find(|(_, transport)| !transport.is_plugged())
            .map(|(slot, _)| slot)
            .ok_or(Error::Full)
    }

    fn fill(&mut self, slot: Slot, device: Box<dyn Device>) -> Result<(), Error> {
        let transport = &self.transports[slot.0];
        let kicks = transport
            .plug(device)
            .map_err(Error::system("plug a device"))?;
        let address = IoEventAddress::Mmio(slot.address() + Transport::NOTIFY);
        for (queue, kick) in (0_u32..).zip(kicks) {
            let connected = self.vm.register_ioevent(&kick, &address, queue);
            if let Err(source) = connected {
                drop(transport.unplug());
                // The first failure is the one that says why.
                let _ = self.disconnect(slot);
                return Err(Error::kvm("connect a device's queue")(source));
            }
            self.kicks[slot.0].push(kick);
        }
        Ok(())
    }

    fn disconnect(&mut self, slot: Slot) -> Result<(), Error> {
        let address = IoEventAddress::Mmio(slot.address() + Transport::NOTIFY);
        let mut all = Ok(());
        for (queue, kick) in (0_u32..).zip(std::mem::take(&mut self.kicks[slot.0])) {
            let one = self.vm.unregister_ioevent(&kick, &address, queue);
            all = all.and(one.map_err(Error::kvm("disconnect a device's queue")));
        }
        all
    }

    fn remove_image(&mut self, slot: Slot) -> Result<(), Error> {
        let taken = self.images.taken.iter();
        let found = taken.into_iter().find(|(_, one)| one.place == slot.0);
        let Some(address) = found.map(|(&address, _)| address) else {
            return Ok(());
        };
        // A length of 0 is none.
        self.set_image(slot, address, 0, 0)
            .map_err(Error::kvm("take an image from the guest"))?;
        if let Some(mapped) = self.images.taken.remove(&address) {
            drop(ManuallyDrop::into_inner(mapped.image));
        }
        Ok(())
    }

    fn set_image(
        &self,
        slot: Slot,
        guest: u64,
        length: u64,
        host: u64,
    ) -> Result<(), kvm_ioctls::Error> {
        let region = kvm_userspace_memory_region {
            slot: self.images.first_slot + slot.0 as u32,
            flags: KVM_MEM_READONLY,
            guest_phys_addr: guest,
            memory_size: length,
            userspace_addr: host,
        };
        // SAFETY: the range is an image's mapping, which is there as long as the slot, see the head of this file; no other
        // place has this slot.
        unsafe { self.vm.set_user_memory_region(region) }
    }
}

impl Images {
    /// A free address for so many bytes, all of which are multiples of what images are aligned to.
    fn find(&self, length: u64) -> Option<u64> {
        let (mut address, end) = self.room;
        for (&taken, mapped) in &self.taken {
            if taken.checked_sub(address)? >= length {
                break;
            }
            address = taken + mapped.length;
        }
        (end.checked_sub(address)? >= length).then_some(address)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    fn images(taken: &[(u64, u64)]) -> Images {
        let mapped = |&(address, length): &(u64, u64)| {
            let file = tempfile::tempfile().expect("a file");
            file.set_len(1).expect("sets");
            let mapped = Mapped {
                place: 0,
                length,
                image: ManuallyDrop::new(Image::map(file.into()).expect("maps")),
            };
            (address, mapped)
        };
        Images {
            room: (64 * MIB, 128 * MIB),
            first_slot: 0,
            taken: taken.iter().map(mapped).collect(),
        }
    }

    #[test]
    fn images_are_put_where_there_is_room() {
        let none = images(&[]);
        assert_eq!(none.find(2 * MIB), Some(64 * MIB));
        assert_eq!(none.find(64 * MIB), Some(64 * MIB));
        assert_eq!(none.find(66 * MIB), None);
        assert_eq!(none.find(u64::MAX), None);
        let gaps = images(&[(64 * MIB, 4 * MIB), (72 * MIB, 2 * MIB)]);
        assert_eq!(gaps.find(4 * MIB), Some(68 * MIB));
        assert_eq!(gaps.find(6 * MIB), Some(74 * MIB));
        assert_eq!(gaps.find(54 * MIB), Some(74 * MIB));
        assert_eq!(gaps.find(56 * MIB), None);
    }
}
