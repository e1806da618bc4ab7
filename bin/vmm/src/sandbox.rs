//! The machine of a sandbox, as its driver wants it.

use std::collections::BTreeSet;
use std::fs::File;
use std::io;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use anyhow::{Context, bail};
use vmm_balloon::Balloon;
use vmm_blk::Engine;
use vmm_console::{Console, LastWords};
use vmm_control::{Create, Device, LINK_PORT, Received, Request, Spare, Stats, Times};
use vmm_jail::{Jail, Role};
use vmm_machine::{Backing, Config, Guest, Machine, Outcome, Slot};
use vmm_rng::Rng;
use vmm_virtio::EventLoop;
use vmm_vsock::Vsock;

use crate::counters::{Source, Sources};
use crate::devices::Moment;
use crate::{clock, devices, growth};

/// How long the driver may take to read what the guest has printed before its end. It reads all the time.
const READING: Duration = Duration::from_secs(2);

/// A machine with its devices.
pub struct Sandbox {
    machine: Machine,
    command_line: String,
    last_words: LastWords,
    sources: Sources,
    memory_bytes: u64,
    /// What can come and go.
    memory: Option<vmm_mem::Handle>,
    spare: Spare,
    /// Whether a file server can be given the memory.
    shared: bool,
    booted: bool,
    /// The places of what was plugged in while the guest runs.
    plugged: BTreeSet<u8>,
    jail: Jail,
    times: Times,
}

impl Sandbox {
    /// Makes it of what came with the request. The process was `ready` for that then.
    ///
    /// # Errors
    /// What KVM, the host or the file server refuse; a request that does not bring what it names.
    pub fn create(
        wanted: Create,
        mut received: Received<Request>,
        mut jail: Jail,
        ready: u64,
    ) -> anyhow::Result<Self> {
        let events = EventLoop::new().context("make an event loop")?;
        let config = Config {
            memory_bytes: wanted.memory_bytes,
            growth_bytes: wanted.growth_bytes,
            backing: if wanted.huge_pages {
                Backing::Huge
            } else if wanted.share.is_some() || wanted.spare.share {
                Backing::Shared
            } else {
                Backing::Private
            },
            vcpus: wanted.vcpus,
            spare_places: wanted.spare.places,
        };
        let guest = Guest {
            kernel: File::from(received.take(wanted.kernel)?),
            image: Some(File::from(received.take(wanted.image)?)),
        };
        let mut machine = Machine::new(received.take(wanted.kvm)?, config, guest, &events)?;
        let made = clock::now();
        let console = Console::new(received.take(wanted.console)?, None).context("the console")?;
        let last_words = console.last_words();
        let mut sources = Sources::default();
        let source = Source::Console(console.statistics());
        sources.add(machine.plug(Box::new(console))?, source);
        let rng = Rng::new();
        let source = Source::Random(rng.statistics());
        sources.add(machine.plug(Box::new(rng))?, source);
        let link = received.take(wanted.link)?;
        let vsock = match wanted.sockets {
            Some(sockets) => {
                let listener = received.take(sockets.listener)?;
                let calls = received.take(sockets.calls)?;
                let vsock = Vsock::new([(LINK_PORT, link)], Some(listener));
                vsock.and_then(|vsock| vsock.with_calls(calls))
            }
            None => Vsock::new([(LINK_PORT, link)], None),
        };
        let vsock = vsock.context("the link")?;
        let source = Source::Sockets(vsock.control().stats().clone());
        sources.add(machine.plug(Box::new(vsock))?, source);
        // Huge pages that were given back might be missing when the guest wants them again, which would be its end.
        if !wanted.huge_pages {
            let balloon = Balloon::new(
                vmm_balloon::Setup {
                    // Memory that the guest takes back is better than a guest that kills.
                    deflate_on_oom: true,
                    reporting: true,
                    statistics: false,
                },
                machine.memory(),
            );
            let balloon = balloon.context("the balloon")?;
            let source = Source::Balloon(balloon.handle());
            sources.add(machine.plug(Box::new(balloon))?, source);
        }
        let mut memory = None;
        if let Some(growth) = machine.growth() {
            let device = growth::device(growth)?;
            let handle = device.handle();
            memory = Some(handle.clone());
            sources.add(machine.plug(Box::new(device))?, Source::Memory(handle));
        }
        for nic in wanted.nics {
            let (card, source) = devices::card(nic, &mut received)?;
            sources.add(machine.plug(card)?, source);
        }
        // What may be written into files: memory that is one has its length, but for what can come.
        let spare = wanted.spare;
        let mut longest = wanted.growth_bytes.max(spare.disk_bytes);
        let mut rings = false;
        for disk in &wanted.disks {
            let file = received.take(disk.file)?;
            if !disk.read_only {
                longest = longest.max(devices::file_length(&file)?);
            }
            let ((disk, source), engine) = devices::disk(disk, file, &Moment::Boot)?;
            rings |= engine == Engine::Uring;
            sources.add(machine.plug(disk)?, source);
        }
        if rings {
            jail.serve_rings()?;
        }
        if !wanted.disks.is_empty() {
            vmm_jail::limit_locked()?;
        }
        for image in &wanted.images {
            let image = devices::image(image, &mut received)?;
            let (slot, statistics) = machine.plug_image(image)?;
            sources.add(slot, Source::Image(statistics));
        }
        // Last, as it waits for the file server, which is being started.
        if let Some(share) = &wanted.share {
            let (share, source) = devices::share(share, &mut received, &machine.memory())?;
            sources.add(machine.plug(share)?, source);
        }
        vmm_jail::limit_files(longest)?;
        let filter = Arc::clone(&jail.devices);
        thread::Builder::new()
            .name("devices".to_owned())
            .spawn(move || {
                let served = filter
                    .apply()
                    .map_err(io::Error::other)
                    .and_then(|()| events.run());
                if let Err(error) = served {
                    tracing::error!(%error, "the devices cannot be served");
                }
                // Without devices there is no guest.
                std::process::exit(1);
            })
            .context("start the devices' thread")?;
        Ok(Self {
            machine,
            command_line: wanted.command_line,
            last_words,
            sources,
            memory_bytes: wanted.memory_bytes,
            memory,
            spare,
            shared: config.backing != Backing::Private,
            booted: false,
            plugged: BTreeSet::new(),
            jail,
            times: Times {
                ready,
                machine: made,
                devices: clock::now(),
                ..Times::default()
            },
        })
    }

    /// Makes all ready for the guest, and confines the calling thread: it makes no machine any more. The virtual CPUs wait for
    /// [`resume`](Self::resume). Answers when all that was.
    ///
    /// # Errors
    /// When it was booted, when the guest does not fit, and what KVM refuses.
    pub fn boot(&mut self) -> anyhow::Result<Times> {
        let filter = Arc::clone(&self.jail.vcpu);
        let begin = move || filter.apply().map_err(io::Error::other);
        let line = std::mem::take(&mut self.command_line);
        let last_words = self.last_words.clone();
        let ended = move |outcome| end(outcome, &last_words);
        let loading = self.machine.boot(line, Arc::new(begin), Box::new(ended))?;
        if self.spare.places > 0 {
            Jail::also(Role::Plugger)?.apply()?;
        } else {
            self.jail.main.apply()?;
        }
        self.booted = true;
        Ok(Times {
            processors: clock::now(),
            loading: u64::try_from(loading.as_nanos()).unwrap_or(u64::MAX),
            ..self.times
        })
    }

    /// Freezes the virtual CPUs.
    pub fn pause(&self) {
        self.machine.pause();
    }

    /// Lets them go on.
    pub fn resume(&self) {
        self.machine.resume();
    }

    /// Has the guest take more memory or give some back, in its own time.
    ///
    /// # Errors
    /// When that is less than the guest began with, more than it can have, or not whole steps.
    pub fn resize(&self, memory_bytes: u64) -> anyhow::Result<()> {
        let more = memory_bytes
            .checked_sub(self.memory_bytes)
            .context("a machine keeps the memory that it began with")?;
        match &self.memory {
            Some(memory) => Ok(memory.set_requested(more)?),
            None if more == 0 => Ok(()),
            None => bail!("the machine's memory was made not to grow"),
        }
    }

    /// Puts a device into a spare place of the guest that runs: its number.
    ///
    /// # Errors
    /// When the machine was not made for that, when no place is left, and what is wrong with the device.
    pub fn plug(&mut self, wanted: Device, mut received: Received<Request>) -> anyhow::Result<u8> {
        if !self.booted {
            bail!("a machine gets its first devices when it is made");
        }
        if self.spare.places == 0 {
            bail!("the machine was made without spare places for devices");
        }
        let (device, source) = match wanted {
            Device::Image(image) => {
                let image = devices::image(&image, &mut received)?;
                let (slot, statistics) = self.machine.plug_image(image)?;
                return Ok(self.plugged(slot, Source::Image(statistics)));
            }
            Device::Disk(disk) => {
                let file = received.take(disk.file)?;
                devices::disk(&disk, file, &Moment::Later(self.spare.disk_bytes))?.0
            }
            Device::Nic(nic) => devices::card(nic, &mut received)?,
            Device::Share(_) if !self.shared => {
                bail!("the machine's memory was made not to be shared with a file server")
            }
            Device::Share(share) => devices::share(&share, &mut received, &self.machine.memory())?,
        };
        let slot = self.machine.plug(device)?;
        Ok(self.plugged(slot, source))
    }

    fn plugged(&mut self, slot: Slot, source: Source) -> u8 {
        self.plugged.insert(slot.number());
        self.sources.add(slot, source);
        slot.number()
    }

    /// Takes away what was plugged in while the guest runs.
    ///
    /// # Errors
    /// When nothing was plugged into this place, and what KVM refuses.
    pub fn unplug(&mut self, place: u8) -> anyhow::Result<()> {
        if !self.plugged.remove(&place) {
            bail!("nothing was plugged into place {place}");
        }
        let slot = Slot::at(place).context("there is no such place")?;
        self.sources.remove(slot);
        Ok(self.machine.unplug(slot)?)
    }

    /// Counters.
    #[must_use]
    pub fn stats(&self) -> Stats {
        self.sources.read(&self.machine)
    }
}

/// The guest's end is the process's.
fn end(outcome: Outcome, last_words: &LastWords) {
    let code = match outcome {
        Outcome::Reset => 0,
        // The process ends already.
        Outcome::Stopped => return,
        Outcome::Failed(reason) => {
            tracing::error!("{reason}");
            1
        }
    };
    // With the process would go what the driver has not taken yet of the guest's messages, its panic's first of all.
    last_words.write(READING);
    std::process::exit(code);
}
