//! One machine.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::fd::{IntoRawFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use kvm_bindings::{
    KVM_API_VERSION, KVM_CAP_SPLIT_IRQCHIP, KVM_IRQ_ROUTING_MSI, KvmIrqRouting, kvm_enable_cap,
    kvm_irq_routing_entry, kvm_userspace_memory_region,
};
use kvm_ioctls::{Cap, Kvm, VcpuFd, VmFd};
use vmm_pmem::{Image, Statistics};
use vmm_virtio::{Device, EventLoop, Memory, Signals};

use crate::Error;
use crate::boot::{self, Guest, Loading};
use crate::bus::{Bus, Slot};
use crate::memory::{Backing, Growth, GuestRam};
use crate::places::{Images, Places};
use crate::vcpu::{Exits, Outcome, Vcpus};
use crate::x86_64::ioapic::{IoApic, Message};
use crate::x86_64::mptable::Shape;
use crate::x86_64::{cpu, layout};

/// The most virtual CPUs.
pub const MAX_VCPUS: u8 = 64;

/// The shape of a machine.
#[derive(Debug, Clone, Copy)]
pub struct Config {
    /// Memory, in bytes: whole MiB, at least 64.
    pub memory_bytes: u64,
    /// Memory that can come while the guest runs, in bytes: whole multiples of 2 MiB.
    pub growth_bytes: u64,
    /// What the memory is made of.
    pub backing: Backing,
    /// Virtual CPUs, 1 to 64.
    pub vcpus: u8,
    /// Places beside those of the devices that are there at the boot: devices can be plugged into them while the guest runs.
    pub spare_places: u8,
}

/// A virtual machine. Dropping it ends it.
pub struct Machine {
    vm: Arc<VmFd>,
    ram: GuestRam,
    loading: Option<Loading>,
    processors: u8,
    spare_places: u8,
    places: Places,
    /// Whether KVM keeps a guest from writing into memory.
    read_only: bool,
    vcpus: Vec<VcpuFd>,
    common: kvm_bindings::CpuId,
    running: Option<Vcpus>,
}

impl Machine {
    /// Makes a machine on an opened `/dev/kvm` and begins to load the guest into its memory; [`boot`](Self::boot) waits for
    /// that. Its devices will be served by `events`.
    ///
    /// # Errors
    /// What KVM or the host refuses.
    pub fn new(
        kvm: OwnedFd,
        config: Config,
        guest: Guest,
        events: &EventLoop,
    ) -> Result<Self, Error> {
        if config.vcpus == 0 || config.vcpus > MAX_VCPUS {
            return Err(Error::Shape("a machine has 1 to 64 virtual CPUs"));
        }
        if config.memory_bytes < 64 << 20 || !config.memory_bytes.is_multiple_of(1 << 20) {
            return Err(Error::Shape(
                "a machine has whole MiB of memory, at least 64",
            ));
        }
        if !config.growth_bytes.is_multiple_of(2 << 20) {
            return Err(Error::Shape("a machine grows by multiples of 2 MiB"));
        }
        if config.backing == Backing::Huge && !config.memory_bytes.is_multiple_of(2 << 20) {
            return Err(Error::Shape("memory of huge pages has whole 2 MiB"));
        }
        let ram = GuestRam::new(config.memory_bytes, config.growth_bytes, config.backing)?;
        let loading = Loading::start(ram.clone(), guest)?;
        let kvm = open(kvm)?;
        let read_only = kvm.check_extension(Cap::ReadonlyMem);
        let vm = kvm.create_vm().map_err(Error::kvm("create a machine"))?;
        vm.set_tss_address(layout::TSS)
            .map_err(Error::kvm("place the task state"))?;
        // The local ones; none of their lines is acknowledged to us.
        let split = kvm_enable_cap {
            cap: KVM_CAP_SPLIT_IRQCHIP,
            ..kvm_enable_cap::default()
        };
        vm.enable_cap(&split)
            .map_err(Error::kvm("create interrupt controllers"))?;
        for (slot, (guest, size, host)) in (0_u32..).zip(ram.regions()) {
            add_memory(&vm, slot, guest, size, host)?;
        }
        let common = cpu::identification(&kvm)?;
        let vcpus = (0..config.vcpus)
            .map(|number| {
                vm.create_vcpu(u64::from(number))
                    .map_err(Error::kvm("create a virtual CPU"))
            })
            .collect::<Result<Vec<_>, _>>()?;
        let vm = Arc::new(vm);
        let images = Images {
            room: layout::images(
                config.memory_bytes,
                config.growth_bytes,
                cpu::address_bits(&common),
            ),
            first_slot: ram.regions().count() as u32,
            taken: BTreeMap::new(),
        };
        let places = Places::new(Arc::clone(&vm), &ram.shared(), events, images)?;
        Ok(Self {
            vm,
            ram,
            loading: Some(loading),
            processors: config.vcpus,
            spare_places: config.spare_places,
            places,
            read_only,
            vcpus,
            common,
            running: None,
        })
    }

    /// The guest's memory.
    #[must_use]
    pub fn memory(&self) -> Arc<Memory> {
        self.ram.shared()
    }

    /// Where memory can come while the guest runs: a device has to tell the guest.
    #[must_use]
    pub fn growth(&self) -> Option<&Growth> {
        self.ram.growth()
    }

    /// Puts a device into a free place. A guest that runs has to be told to look there (`Slot::number`).
    ///
    /// # Errors
    /// [`Error::Full`]; what KVM or the host refuses.
    pub fn plug(&mut self, device: Box<dyn Device>) -> Result<Slot, Error> {
        self.places.plug(device)
    }

    /// Puts an image into the guest's memory, which cannot write there, and a device that tells of it into a free place;
    /// where that counts.
    ///
    /// # Errors
    /// As [`plug`](Self::plug); [`Error::TooLarge`] when the guest has no address for it.
    pub fn plug_image(&mut self, image: Image) -> Result<(Slot, Statistics), Error> {
        if !self.read_only {
            return Err(Error::Lacking("memory that a guest can't write"));
        }
        self.places.plug_image(image)
    }

    /// Takes a device away, whatever its driver does at the moment: the place reads as empty, and what was behind the device
    /// is closed. A guest should be told to let go of it before.
    ///
    /// # Errors
    /// [`Error::Empty`]; what KVM refuses.
    pub fn unplug(&mut self, slot: Slot) -> Result<(), Error> {
        self.places.unplug(slot)
    }

    /// Tells the guest of its machine, with this command line and its devices behind it, and starts the threads of the
    /// virtual CPUs, which stand still until [`resume`](Self::resume): whoever has more to give up before a guest runs can do
    /// so. `begin` runs first in the thread of each; `ended` is told once how the guest has ended. Answers how long it took to
    /// load the guest, beside all else.
    ///
    /// # Errors
    /// When the guest is none, or does not fit, and what KVM or the host refuses.
    pub fn boot(
        &mut self,
        command_line: String,
        begin: Arc<dyn Fn() -> io::Result<()> + Send + Sync>,
        ended: Box<dyn Fn(Outcome) + Send + Sync>,
    ) -> Result<Duration, Error> {
        let loading = self.loading.take();
        let loading = loading.ok_or(Error::Shape("a machine boots once"))?;
        let processors = self.processors;
        let known = self.places.announce(self.spare_places.into())?;
        let devices: Vec<_> = known.iter().map(|slot| slot.parameter()).collect();
        let shape = Shape {
            processors,
            // Up to the last place's, as the kernel programs each of them, which leaves the virtual CPU every time. The first
            // is nobody's.
            lines: known.len() as u8 + 1,
        };
        let loaded = loading.wait()?;
        boot::describe(&self.ram, &loaded, command_line, shape, &devices)?;
        let vcpus = std::mem::take(&mut self.vcpus);
        for (number, vcpu) in (0_u8..).zip(&vcpus) {
            cpu::configure(vcpu, &self.common, number, processors)?;
        }
        cpu::enter(&vcpus[0], &self.ram.shared(), loaded.entry)?;
        let vm = Arc::clone(&self.vm);
        let controller = IoApic::new(shape.lines, Box::new(move |messages| route(&vm, messages)));
        let bus = Bus::new(self.places.transports(), controller);
        self.running = Some(Vcpus::start(vcpus, bus, begin, ended)?);
        Ok(loaded.took)
    }

    /// Freezes the virtual CPUs; done when this returns. Nothing happens before the boot.
    pub fn pause(&self) {
        if let Some(vcpus) = &self.running {
            vcpus.pause();
        }
    }

    /// Lets the virtual CPUs go on.
    pub fn resume(&self) {
        if let Some(vcpus) = &self.running {
            vcpus.resume();
        }
    }

    /// How often the device here and its driver have told each other something.
    #[must_use]
    pub fn signals(&self, slot: Slot) -> Signals {
        let transport = self.places.at(slot);
        transport.map(|place| place.signals()).unwrap_or_default()
    }

    /// How often the driver has broken the device here.
    #[must_use]
    pub fn breaks(&self, slot: Slot) -> u32 {
        let transport = self.places.at(slot);
        transport.map_or(0, |place| place.breaks())
    }

    /// How often the guest was left.
    #[must_use]
    pub fn exits(&self) -> Exits {
        self.running.as_ref().map(Vcpus::exits).unwrap_or_default()
    }
}

#[expect(unsafe_code, reason = "a descriptor becomes KVM's")]
fn open(kvm: OwnedFd) -> Result<Kvm, Error> {
    use std::os::fd::FromRawFd;
    // SAFETY: the descriptor is owned, and is so by the value that is made of it. That it is KVM's is asked next: another
    // device answers an ioctl of KVM's with an error.
    let kvm = unsafe { Kvm::from_raw_fd(File::from(kvm).into_raw_fd()) };
    if kvm.get_api_version() != KVM_API_VERSION as i32 {
        return Err(Error::Lacking("device of the only version there is"));
    }
    for (capability, name) in [
        (Cap::SplitIrqchip, "local interrupt controllers"),
        (Cap::Irqfd, "interrupts by descriptors"),
        (Cap::Ioeventfd, "events by descriptors"),
        (Cap::UserMemory, "memory of programs"),
        (Cap::TscDeadlineTimer, "deadline timer"),
        (Cap::ImmediateExit, "immediate exit"),
    ] {
        if !kvm.check_extension(capability) {
            return Err(Error::Lacking(name));
        }
    }
    Ok(kvm)
}

/// Tells KVM what the lines of the interrupt controller send.
fn route(vm: &VmFd, messages: &[Message]) -> Result<(), kvm_ioctls::Error> {
    let entries: Vec<_> = messages
        .iter()
        .map(|message| {
            let mut entry = kvm_irq_routing_entry {
                gsi: message.line,
                type_: KVM_IRQ_ROUTING_MSI,
                ..kvm_irq_routing_entry::default()
            };
            entry.u.msi.address_lo = message.address;
            entry.u.msi.data = message.data;
            entry
        })
        .collect();
    let routing =
        KvmIrqRouting::from_entries(&entries).map_err(|_| kvm_ioctls::Error::new(libc::E2BIG))?;
    vm.set_gsi_routing(&routing)
}

#[expect(unsafe_code, reason = "KVM is given memory by its address")]
fn add_memory(vm: &VmFd, slot: u32, guest: u64, size: u64, host: u64) -> Result<(), Error> {
    let region = kvm_userspace_memory_region {
        slot,
        flags: 0,
        guest_phys_addr: guest,
        memory_size: size,
        userspace_addr: host,
    };
    // SAFETY: the range is mapped memory that is never unmapped (`memory.rs`), and each slot has another.
    unsafe { vm.set_user_memory_region(region) }.map_err(Error::kvm("give a machine its memory"))
}
