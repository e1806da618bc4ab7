//! One machine.

use std::fs::File;
use std::io;
use std::os::fd::{IntoRawFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use kvm_bindings::{
    KVM_API_VERSION, KVM_CAP_SPLIT_IRQCHIP, KVM_IRQ_ROUTING_MSI, KvmIrqRouting, kvm_enable_cap,
    kvm_irq_routing_entry, kvm_userspace_memory_region,
};
use kvm_ioctls::{Cap, IoEventAddress, Kvm, VcpuFd, VmFd};
use vmm_virtio::{Device, EventLoop, Memory, Signals, Transport};

use crate::Error;
use crate::boot::{self, Guest, Loading};
use crate::bus::{Bus, Slot};
use crate::memory::{Backing, Growth, GuestRam};
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
}

/// A virtual machine. Dropping it ends it.
pub struct Machine {
    vm: Arc<VmFd>,
    ram: GuestRam,
    loading: Option<Loading>,
    processors: u8,
    slots: Vec<Arc<Transport>>,
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
        let slots = Slot::all()
            .map(|slot| {
                Transport::new(&format!("slot {}", slot.0), ram.shared(), events)
                    .map_err(Error::system("make a place for a device"))
            })
            .collect::<Result<Vec<_>, _>>()?;
        Ok(Self {
            vm: Arc::new(vm),
            ram,
            loading: Some(loading),
            processors: config.vcpus,
            slots,
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

    /// Puts a device into a free place, before the boot: the guest is told of its devices then, and has interrupts for those.
    ///
    /// # Errors
    /// [`Error::Full`]; a machine that was booted; what KVM or the host refuses.
    pub fn plug(&mut self, device: Box<dyn Device>) -> Result<Slot, Error> {
        if self.loading.is_none() {
            return Err(Error::Shape("a machine gets its devices before it boots"));
        }
        let (slot, transport) = Slot::all()
            .zip(&self.slots)
            .find(|(_, transport)| !transport.is_plugged())
            .ok_or(Error::Full)?;
        let kicks = transport
            .plug(device)
            .map_err(Error::system("plug a device"))?;
        let connected = self
            .vm
            .register_irqfd(transport.interrupt().event(), slot.interrupt())
            .map_err(Error::kvm("connect a device's interrupt"))
            .and_then(|()| {
                let address = IoEventAddress::Mmio(slot.address() + Transport::NOTIFY);
                for (queue, kick) in (0_u32..).zip(&kicks) {
                    self.vm
                        .register_ioevent(kick, &address, queue)
                        .map_err(Error::kvm("connect a device's queue"))?;
                }
                Ok(())
            });
        if let Err(error) = connected {
            transport.unplug();
            return Err(error);
        }
        Ok(slot)
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
        let devices: Vec<_> = Slot::all()
            .zip(&self.slots)
            .filter(|(_, transport)| transport.is_plugged())
            .map(|(slot, _)| slot.parameter())
            .collect();
        let shape = Shape {
            processors,
            lines: self.lines(),
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
        let bus = Bus::new(self.slots.clone(), controller);
        self.running = Some(Vcpus::start(vcpus, bus, begin, ended)?);
        Ok(loaded.took)
    }

    /// The lines of the interrupt controller: up to the last device's, as the kernel programs each of them, which leaves the
    /// virtual CPU every time.
    fn lines(&self) -> u8 {
        let last = self.slots.iter().rposition(|slot| slot.is_plugged());
        last.map_or(1, |slot| slot as u8 + 2)
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
        let transport = self.slots.get(slot.0);
        transport.map(|place| place.signals()).unwrap_or_default()
    }

    /// How often the driver has broken the device here.
    #[must_use]
    pub fn breaks(&self, slot: Slot) -> u32 {
        let transport = self.slots.get(slot.0);
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
