//! The machine of a sandbox, as its driver wants it.

use std::fs::File;
use std::io;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use anyhow::{Context, bail};
use vmm_balloon::Balloon;
use vmm_console::{Console, LastWords};
use vmm_control::{Create, Handle, LINK_PORT, Received, Request, Stats, Times};
use vmm_fs::Fs;
use vmm_jail::Jail;
use vmm_machine::{Backing, Config, Guest, Machine, Outcome};
use vmm_net::Net;
use vmm_rng::Rng;
use vmm_virtio::{EventLoop, Rates};
use vmm_vsock::Vsock;

use crate::clock;
use crate::counters::{Source, Sources};
use crate::growth;

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
            backing: match wanted.share {
                _ if wanted.huge_pages => Backing::Huge,
                Some(_) => Backing::Shared,
                None => Backing::Private,
            },
            vcpus: wanted.vcpus,
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
            let mut take = |handles: Vec<Handle>| {
                handles
                    .into_iter()
                    .map(|handle| received.take(handle))
                    .collect::<Result<Vec<_>, _>>()
            };
            let by_kernel = !nic.vhost.is_empty();
            let card = Net::new(vmm_net::Settings {
                mac: nic.mac,
                taps: take(nic.queues)?,
                mtu: None,
                vhosts: take(nic.vhost)?,
                receive: Rates::default(),
                transmit: Rates::default(),
            });
            let card = card.context("a network card")?;
            let source = if by_kernel {
                Source::KernelNetwork
            } else {
                Source::Network(card.statistics())
            };
            sources.add(machine.plug(Box::new(card))?, source);
        }
        // Last, as it waits for the file server, which is being started.
        if let Some(share) = wanted.share {
            let setup = vmm_fs::Setup::new(&share.tag);
            let socket = received.take(share.socket)?;
            let fs = Fs::connect(&setup, socket, &machine.memory()).context("the file share")?;
            let source = Source::Share(fs.handle());
            sources.add(machine.plug(Box::new(fs))?, source);
        }
        // There is no disk yet. Memory that is a file has its length, but for what can come.
        vmm_jail::limit_files(wanted.growth_bytes)?;
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
        self.jail.main.apply()?;
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
