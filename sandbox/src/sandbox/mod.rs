//! A sandbox: one virtual machine, which holds containers, which hold processes.

mod container;
mod growth;
mod guest;
mod lifecycle;
mod loopback;
mod machine;
mod names;
mod network;
mod process;
mod share;
mod sockets;

use std::fs::File;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use backend_api::{Accelerator, Backend, BackendError, Nic, Sockets};
use cofferdam_protocol::event;
use sandbox_network::{Loopback, Namespace, Network, Options as NetworkOptions, Rates};
use sandbox_share::Entry;
use tokio::sync::oneshot;

pub(crate) use machine::vm_config;

pub use container::Container;
pub use lifecycle::{Event, Lifecycle, WrongState};
pub use process::Process;

use crate::backend;
use crate::boot_time::BootTime;
use crate::cgroup::{Own, own_folders};
use crate::config::Config;
use crate::control::MachineCounters;
use crate::error::{SandboxError, chain};
use crate::id::ContainerId;
use crate::sandbox::growth::Growth;
use crate::sandbox::guest::Guest;
use crate::sandbox::loopback::Forwarding;
use crate::sandbox::machine::{Machine, reason_of};
use crate::sandbox::network::Following;
use crate::sandbox::sockets::Door;
use crate::spec::{GuestSpec, Size};
use crate::stdio::Stdio;
use crate::template::{self, Search};

/// How long a guest may take to write back what it holds for files of the host.
const SYNC_DEADLINE: Duration = Duration::from_secs(30);

/// What VMM, file server and driver take at most for themselves.
const OVERHEAD: u64 = 256 << 20;
/// What an emulating VMM keeps of translated code at most.
const TRANSLATIONS: u64 = 1 << 30;

/// How long a copy of a template may take until its agent answers, before it is given up and a guest is booted. Usually
/// it takes a tenth of a second.
const COPY_DEADLINE: Duration = Duration::from_secs(15);

/// The host's control groups that VMM and file server are in.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum HostGroups {
    /// New ones with the sandbox's name, which go with it. Without root, who alone could make them: the caller's.
    #[default]
    New,
    /// The same in these folders ([`own_folders`](crate::cgroup::own_folders)), which the caller has written down so that they
    /// are removed should it be killed.
    At(Vec<PathBuf>),
    /// The caller's.
    Callers,
}

/// What a sandbox is made of.
#[derive(Debug)]
pub struct SandboxOptions {
    /// Its name, for logs and for the guest.
    pub name: String,
    /// The host name inside, where containers have no own.
    pub hostname: String,
    /// Memory and processors.
    pub size: Size,
    /// What the guest sees of the host from the beginning. [`Sandbox::create`] shows what is missing; for the first
    /// container it is faster to name its [`entries`](GuestSpec::entries) here.
    pub entries: Vec<Entry>,
    /// The network namespace whose interfaces are to be the guest's; without one it has nothing but loopback.
    pub network: Option<Namespace>,
    /// Whether the VMM is in that namespace: for engines that look for it behind a pid of the sandbox. Needs root.
    pub shows_network: bool,
    /// Whether connections to loopback of that namespace, 127.0.0.0/8 and ::1, go to the guest's loopback: for engines
    /// that look for a pod's ports there.
    pub loopback: bool,
    /// The folder where the sandbox's socket for programs of the host is made, with [`Config::vsock`]; without a folder there
    /// is none.
    pub folder: Option<PathBuf>,
    /// Its control groups on the host.
    pub groups: HostGroups,
    /// Limits of each interface.
    pub rates: Rates,
    /// Whether what [`Sandbox::boot_time`] answers is wanted; a guest that starts from a template has none.
    pub timed: bool,
}

impl SandboxOptions {
    /// A sandbox that shows nothing yet.
    #[must_use]
    pub fn new(name: impl Into<String>, hostname: impl Into<String>, size: Size) -> Self {
        Self {
            name: name.into(),
            hostname: hostname.into(),
            size,
            entries: Vec::new(),
            network: None,
            shows_network: false,
            loopback: false,
            folder: None,
            groups: HostGroups::New,
            rates: Rates::default(),
            timed: false,
        }
    }
}

/// One try to start a machine.
struct Wanted<'a> {
    options: &'a SandboxOptions,
    groups: Arc<Own>,
    nics: Vec<Nic>,
    sockets: Option<Sockets>,
    /// Where the VMM is to be found.
    namespace: Option<&'a Namespace>,
    template: Option<File>,
    limit: Duration,
}

/// Makes the taps of a sandbox's network; without cards there is nothing to follow.
fn connect(
    config: &Config,
    backend: &dyn Backend,
    options: &SandboxOptions,
    namespace: Option<&Arc<Namespace>>,
) -> Result<(Option<Network>, Vec<Nic>), SandboxError> {
    let Some(namespace) = namespace else {
        return Ok((None, Vec::new()));
    };
    let able = backend.capabilities();
    let (network, plugs) = Network::connect(
        namespace,
        NetworkOptions {
            // One for each processor, as far as cards go.
            queues: options.size.vcpus.min(able.nic_queues),
            spares: config.spare_network_cards,
            most: able.nics,
            anti_spoofing: config.anti_spoofing,
            rates: options.rates,
        },
    )?;
    let nics: Vec<_> = plugs
        .into_iter()
        .map(|plug| Nic {
            mac: plug.mac,
            queues: plug.queues,
        })
        .collect();
    Ok(((!nics.is_empty()).then_some(network), nics))
}

/// Takes connections to a namespace's loopback. Where that cannot be, the sandbox does without.
fn take_loopback(namespace: &Namespace) -> Option<Loopback> {
    Loopback::take(namespace)
        .inspect_err(|error| {
            tracing::warn!(
                error = chain(error),
                "ports cannot be forwarded to the guest's loopback"
            );
        })
        .ok()
}

/// The same taps once more, for a boot that follows a copy which failed.
fn copies(nics: &[Nic]) -> Result<Vec<Nic>, SandboxError> {
    let copy = |nic: &Nic| {
        let queues = nic.queues.iter().map(OwnedFd::try_clone);
        Ok(Nic {
            mac: nic.mac,
            queues: queues.collect::<Result<_, _>>()?,
        })
    };
    nics.iter()
        .map(copy)
        .collect::<std::io::Result<_>>()
        .map_err(SandboxError::system("duplicate a tap's descriptor"))
}

/// Makes the sandbox's socket for programs of the host, if it is to have one.
fn open_door(
    config: &Config,
    backend: &dyn Backend,
    options: &SandboxOptions,
) -> Result<(Option<Door>, Option<Sockets>), SandboxError> {
    let Some(folder) = options.folder.as_deref().filter(|_| config.vsock) else {
        return Ok((None, None));
    };
    if !backend.capabilities().sockets {
        return Err(BackendError::Unsupported {
            setting: "vsock = true".to_owned(),
            reason: "is not to be had with QEMU: set backend = \"kvm\", or vsock = false",
        }
        .into());
    }
    let (door, sockets) = Door::open(folder)?;
    Ok((Some(door), Some(sockets)))
}

/// A running virtual machine whose agent has answered. Dropping it ends it.
///
/// Everything here needs a Tokio runtime, and the thread that calls [`Sandbox::boot`] has to outlive the sandbox: the
/// kernel ends VMM and file server with it, so that they never outlive their owner.
#[derive(Debug)]
pub struct Sandbox {
    machine: Arc<Machine>,
    guest: Arc<Guest>,
    network: Option<Following>,
    forwarding: Option<Forwarding>,
    template_wanted: bool,
    door: Option<Door>,
}

impl Sandbox {
    /// Starts a virtual machine, from a template where there is one.
    ///
    /// # Errors
    /// Whatever kept it from coming up, with the ends of the guest's console and of the VMM's messages.
    pub async fn boot(config: &Config, mut options: SandboxOptions) -> Result<Self, SandboxError> {
        let backend::Choice { backend, because } = backend::choose(config).await?;
        if let Some(because) = because {
            tracing::info!(because, "no hardware virtualization");
        }
        tracing::info!(backend = backend.name(), accelerator = %backend.capabilities().accelerator, "booting");
        let groups = match std::mem::take(&mut options.groups) {
            HostGroups::New => own_folders(&options.name)?,
            HostGroups::At(folders) => folders,
            HostGroups::Callers => Vec::new(),
        };
        let groups = Arc::new(Own::make(groups)?);
        let (door, sockets) = open_door(config, &*backend, &options)?;
        let limit = Duration::from_secs(config.boot_timeout_seconds);
        let namespace = options.network.take().map(Arc::new);
        let shown = namespace.as_deref().filter(|_| options.shows_network);
        let (network, nics) = connect(config, &*backend, &options, namespace.as_ref())?;
        let loopback = namespace
            .clone()
            .filter(|_| options.loopback)
            .and_then(|namespace| take_loopback(&namespace));
        let mut search = template::search(&*backend, config, options.size, nics.len());
        if let Search::Found(mut found) = search {
            let wanted = Wanted {
                options: &options,
                groups: Arc::clone(&groups),
                nics: copies(&nics)?,
                sockets: None,
                namespace: shown,
                template: found.file.take(),
                limit: limit.min(COPY_DEADLINE),
            };
            match Self::start(config, &backend, wanted).await {
                Err(error) if template::is_to_blame(&error) => search = found.discard(&error),
                Err(error) => return Err(error),
                Ok(copy) => return copy.follow(network, loopback).await,
            }
        }
        let wanted = Wanted {
            options: &options,
            groups,
            nics,
            sockets,
            namespace: shown,
            template: None,
            limit,
        };
        let booted = Self::start(config, &backend, wanted).await;
        let mut booted = booted.map_err(|error| error.with_advice(config))?;
        booted.door = door;
        booted.template_wanted = matches!(search, Search::Wanted);
        booted.follow(network, loopback).await
    }

    async fn start(
        config: &Config,
        backend: &Arc<dyn Backend>,
        wanted: Wanted<'_>,
    ) -> Result<Self, SandboxError> {
        let Wanted {
            options,
            groups,
            nics,
            sockets,
            namespace,
            template,
            limit,
        } = wanted;
        if template.is_some() {
            tracing::info!("starting a guest from a template");
        }
        let able = backend.capabilities();
        let spare = growth::spare(config, able, options.size);
        let (machine, link) = Machine::start(
            backend,
            config,
            options,
            (groups, nics, sockets),
            namespace,
            template,
            spare,
        )
        .await?;
        let machine = Arc::new(machine);
        let overhead = OVERHEAD
            + match able.accelerator {
                Accelerator::Emulation => TRANSLATIONS,
                Accelerator::Kvm => 0,
            };
        let guest = Guest::greet(
            Arc::clone(&machine),
            Growth::new(config, options.size, spare, overhead),
            link,
            &options.name,
            &options.hostname,
            limit,
        )
        .await?;
        Ok(Self {
            machine,
            guest,
            network: None,
            forwarding: None,
            template_wanted: false,
            door: None,
        })
    }

    /// Has the guest follow the network that its cards belong to.
    async fn follow(
        mut self,
        network: Option<Network>,
        loopback: Option<Loopback>,
    ) -> Result<Self, SandboxError> {
        self.forwarding =
            loopback.map(|loopback| Forwarding::start(loopback, Arc::clone(&self.guest)));
        let Some(network) = network else {
            return Ok(self);
        };
        match Following::start(network, Arc::clone(&self.guest)).await {
            Ok(following) => {
                self.network = Some(following);
                Ok(self)
            }
            Err(error) => {
                self.machine.stop().await;
                Err(error)
            }
        }
    }

    /// Whether it was booted for want of a template that [`template::make`] should make.
    #[must_use]
    pub fn wants_template(&self) -> bool {
        self.template_wanted
    }

    /// Shows the guest what the container needs of the host's files, and makes the container, as far as its process
    /// waiting to be started. After an error, or when this is given up half way, nothing of it is left.
    ///
    /// # Errors
    /// [`SandboxError::Taken`] when there is a container of that name; [`SandboxError::Share`] when files cannot be
    /// shown; [`SandboxError::Process`] when its command cannot be run; what the agent refused.
    pub async fn create(
        &self,
        id: &ContainerId,
        spec: &GuestSpec,
        stdio: Stdio,
    ) -> Result<Container, SandboxError> {
        let (guest, id, spec) = (Arc::clone(&self.guest), id.clone(), spec.clone());
        let (sender, made) = oneshot::channel();
        // On its own: what is begun has to be undone, also when nobody waits any more.
        tokio::spawn(async move {
            let container = Container::create(&guest, &id, &spec, stdio).await;
            if let Err(Ok(unwanted)) = sender.send(container)
                && let Err(error) = unwanted.delete().await
            {
                tracing::warn!(%error, container = %id, "unwanted container not deleted");
            }
        });
        match made.await {
            Ok(container) => container,
            Err(_) => Err(SandboxError::Gone {
                phase: "creating the container",
                reason: "its task ended early".to_owned(),
            }),
        }
    }

    /// Limits the memory of these control groups of the host to what the machine needs for its size, generously, also when
    /// that grows.
    ///
    /// # Errors
    /// [`SandboxError::Cgroup`] when the kernel refuses.
    pub async fn limit_memory(&self, groups: &[PathBuf]) -> Result<(), SandboxError> {
        self.guest.limit_memory(groups).await
    }

    /// Pids of its VMM and its file server on the host.
    #[must_use]
    pub fn processes(&self) -> &[u32] {
        self.machine.processes()
    }

    /// Where the time of its boot went, if [`SandboxOptions::timed`] was set and it was booted.
    #[must_use]
    pub fn boot_time(&self) -> Option<BootTime> {
        self.machine.timeline().look(BootTime::of)
    }

    /// Waits until a process of a container is killed for want of memory; answers that container's name. One caller at
    /// a time.
    ///
    /// # Errors
    /// When the machine ends, or another call waits.
    pub async fn out_of_memory(&self) -> Result<String, SandboxError> {
        loop {
            if let Some(event::Event::Oom(oom)) = self.guest.next_event().await?.event {
                return Ok(oom.container_id);
            }
        }
    }

    /// What processors and devices of the machine have done.
    ///
    /// # Errors
    /// When the machine is gone, and of a backend that does not count.
    pub async fn counters(&self) -> Result<MachineCounters, SandboxError> {
        self.machine.counters().await
    }

    /// Waits until the machine has ended, and tells how.
    pub async fn gone(&self) -> String {
        reason_of(self.machine.gone()).await
    }

    /// Lets the guest write back what it holds for the host's files, then ends it.
    pub async fn stop(&self) {
        let shutdown = self.guest.call("shutting down", async |agent, context| {
            agent
                .shutdown(context, &cofferdam_protocol::Empty::new())
                .await
        });
        match tokio::time::timeout(SYNC_DEADLINE, shutdown).await {
            Ok(Ok(_)) => {}
            Ok(Err(error)) => tracing::debug!(%error, "guest not shut down"),
            Err(_) => tracing::warn!("the guest does not shut down"),
        }
        self.kill().await;
    }

    /// Ends it at once, whatever it holds.
    pub async fn kill(&self) {
        self.machine.stop().await;
        if let Some(forwarding) = &self.forwarding {
            forwarding.end();
        }
        if let Some(network) = &self.network {
            network.stop().await;
        }
    }
}

impl Drop for Sandbox {
    fn drop(&mut self) {
        // Containers that outlive it would keep the machine otherwise.
        self.machine.end();
    }
}
