//! The machine of a sandbox, as its driver wants it.

use std::collections::BTreeSet;
use std::fs::File;
use std::io;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use anyhow::{Context, bail};
use vmm_balloon::Balloon;
use vmm_console::{Console, LastWords};
use vmm_control::{Create, Device, LINK_PORT, Received, Request, Spare, Stats, Times};
use vmm_jail::{Jail, Role};
use vmm_machine::{Backing, Config, Guest, Machine, Outcome, Slot};
use vmm_rng::Rng;
use vmm_virtio::EventLoop;
use vmm_vsock::Vsock;

use crate::{clock, devices, growth};

/// How long the driver may take to read what the guest has printed before its end. It reads all the time.
const READING: Duration = Duration::from_secs(2);

/// A machine with its devices.
pub struct Sandbox {
    machine: Machine,
    command_line: String,
    last_words: LastWords,
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
        jail: Jail,
        ready: u64,
    ) -> anyhow::Result<Self> {
        let events = EventLoop::new().context("make an event loop")?;
        let config = Config {
            memory_bytes: wanted.memory_bytes,
            growth_bytes: wanted.growth_bytes,
            backing: if wanted.share.is_some() || wanted.spare.share {
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
        machine.plug(Box::new(console))?;
        machine.plug(Box::new(Rng::new()))?;
        let link = received.take(wanted.link)?;
        let vsock = Vsock::new([(LINK_PORT, link)], None).context("the link")?;
        machine.plug(Box::new(vsock))?;
        let balloon = Balloon::new(
            vmm_balloon::Setup {
                // Memory that the guest takes back is better than a guest that kills.
                deflate_on_oom: true,
                reporting: true,
                statistics: false,
            },
            machine.memory(),
        );
        machine.plug(Box::new(balloon.context("the balloon")?))?;
        let mut memory = None;
        if let Some(growth) = machine.growth() {
            let device = growth::device(growth)?;
            memory = Some(device.handle());
            machine.plug(Box::new(device))?;
        }
        for nic in wanted.nics {
            machine.plug(Box::new(devices::card(nic, &mut received)?))?;
        }
        // What may be written into files: memory that is one has its length, but for what can come.
        let spare = wanted.spare;
        let mut longest = wanted.growth_bytes.max(spare.disk_bytes);
        for disk in &wanted.disks {
            let file = received.take(disk.file)?;
            if !disk.read_only {
                longest = longest.max(devices::file_length(&file)?);
            }
            machine.plug(Box::new(devices::disk(disk, file, None)?))?;
        }
        for image in &wanted.images {
            machine.plug_image(devices::image(image, &mut received)?)?;
        }
        // Last, as it waits for the file server, which is being started.
        if let Some(share) = &wanted.share {
            let fs = devices::share(share, &mut received, &machine.memory())?;
            machine.plug(Box::new(fs))?;
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
            memory_bytes: wanted.memory_bytes,
            memory,
            spare,
            shared: config.backing == Backing::Shared,
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
        let slot = match wanted {
            Device::Disk(disk) => {
                let file = received.take(disk.file)?;
                let limit = Some(self.spare.disk_bytes);
                let disk = devices::disk(&disk, file, limit)?;
                self.machine.plug(Box::new(disk))
            }
            Device::Image(image) => {
                let image = devices::image(&image, &mut received)?;
                self.machine.plug_image(image)
            }
            Device::Nic(nic) => {
                let card = devices::card(nic, &mut received)?;
                self.machine.plug(Box::new(card))
            }
            Device::Share(_) if !self.shared => {
                bail!("the machine's memory was made not to be shared with a file server")
            }
            Device::Share(share) => {
                let fs = devices::share(&share, &mut received, &self.machine.memory())?;
                self.machine.plug(Box::new(fs))
            }
        }?;
        self.plugged.insert(slot.number());
        Ok(slot.number())
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
        Ok(self.machine.unplug(slot)?)
    }

    /// Counters.
    #[must_use]
    pub fn stats(&self) -> Stats {
        let exits = self.machine.exits();
        Stats {
            mmio_reads: exits.mmio_reads,
            mmio_writes: exits.mmio_writes,
            port_reads: exits.port_reads,
            port_writes: exits.port_writes,
            other_exits: exits.others,
        }
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
