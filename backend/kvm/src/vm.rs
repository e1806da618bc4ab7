//! One machine.

use std::io;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};

use async_trait::async_trait;
use backend_api::{
    BackendError, BootTimes, Count, Device, Diagnostics, LinkIo, MachineCounters, Pause, Phase,
    Place, Plug, Resize, Vm, VmConfig, VmExit, chain,
};
use backend_host::life::{Life, Vmm, stream_pair};
use backend_host::memory;
use backend_process::{Confinement, Program};
use tokio::net::UnixStream;
use vmm_control::{Create, LINK_PORT, Request, Sockets, Spare};

use crate::backend::vhosts;
use crate::control::{self, Control, ControlError, Descriptors};
use crate::{counters, devices, sockets};

/// A checked configuration with what it needs.
#[derive(Debug)]
pub struct Prepared {
    pub program: PathBuf,
    pub confinement: Confinement,
    pub kvm: OwnedFd,
    pub kernel: OwnedFd,
    pub image: OwnedFd,
    /// Of each card.
    pub vhosts: Vec<Vec<OwnedFd>>,
    /// Whether a card that comes later gets some.
    pub vhost_net: bool,
    pub config: VmConfig,
}

/// A machine and where it is in its life.
#[derive(Debug)]
pub struct KvmVm {
    /// How much memory the guest is to have.
    memory_bytes: AtomicU64,
    vhost_net: bool,
    life: Life<Prepared, Control>,
    times: Option<BootTimes>,
}

impl KvmVm {
    pub fn new(prepared: Prepared) -> Self {
        Self {
            memory_bytes: AtomicU64::new(prepared.config.memory_bytes),
            vhost_net: prepared.vhost_net,
            life: Life::new(prepared),
            times: None,
        }
    }

    async fn command(&self, request: Request) -> Result<(), BackendError> {
        let vmm = self.life.running(Phase::Run)?;
        vmm.control
            .tell(&request, &Descriptors::default())
            .await
            .map_err(|error| vmm.disobeys(Phase::Run, chain(&error)))
    }
}

/// Starts the process; the request that makes its machine, and the link.
fn start(prepared: Prepared) -> io::Result<(Vmm<Control>, Request, Descriptors, UnixStream)> {
    let Prepared {
        program,
        confinement,
        kvm,
        kernel,
        image,
        vhosts,
        vhost_net: _,
        mut config,
    } = prepared;
    let (link, link_end) = stream_pair()?;
    let (console, console_end) = stream_pair()?;
    let (control, control_end) = Control::pair()?;
    let (stderr_end, stderr) = tokio::net::unix::pipe::pipe()?;
    let mut with = Descriptors::default();
    let sockets = match config.sockets.take() {
        Some(sockets) => Some(Sockets {
            listener: with.add(sockets.listener),
            calls: with.add(sockets::serve(sockets.dial)?),
        }),
        None => None,
    };
    let request = Request::Create(Box::new(Create {
        kvm: with.add(kvm),
        kernel: with.add(kernel),
        image: with.add(image),
        command_line: command_line(&config),
        memory_bytes: config.memory_bytes,
        growth_bytes: config.spare_memory_bytes,
        huge_pages: config.huge_pages,
        // Checked: more are refused.
        vcpus: u8::try_from(config.vcpus.saturating_add(config.spare_vcpus)).unwrap_or(u8::MAX),
        console: with.add(console_end),
        link: with.add(link_end),
        sockets,
        share: config.share.map(|share| devices::share(share, &mut with)),
        nics: config
            .nics
            .into_iter()
            .zip(vhosts)
            .map(|(nic, vhosts)| devices::nic(nic, vhosts, &mut with))
            .collect(),
        disks: config
            .disks
            .into_iter()
            .map(|disk| devices::disk(disk, &mut with))
            .collect(),
        images: config
            .images
            .into_iter()
            .map(|image| devices::image(image, &mut with))
            .collect(),
        spare: Spare {
            // Checked: more are refused.
            places: u8::try_from(config.spare_devices.places).unwrap_or(u8::MAX),
            disk_bytes: config.spare_devices.disk_bytes,
            share: config.spare_devices.share,
        },
    }));
    let child = Program {
        path: program,
        args: vec![control::number(&control_end).into()],
        stdin: None,
        stderr: Some(stderr_end.into_blocking_fd()?),
        inherited: vec![control_end],
        network: config.network,
        groups: config.groups,
        confinement,
    }
    .spawn()?;
    let vmm = Vmm::new(control, child, console, stderr);
    Ok((vmm, request, with, link))
}

#[async_trait]
impl Vm for KvmVm {
    async fn boot(&mut self) -> Result<LinkIo, BackendError> {
        let prepared = self.life.begin()?;
        let action = format!("cannot start {}", prepared.program.display());
        let (vmm, create, with, link) = start(prepared).map_err(|source| BackendError::System {
            phase: Phase::Boot,
            action,
            source,
        })?;
        let vmm = self.life.started(vmm);
        let booted = async {
            vmm.control.tell(&create, &with).await?;
            vmm.control.boot().await
        };
        match booted.await {
            Ok(times) => {
                self.times = Some(BootTimes {
                    ready: times.ready,
                    machine: times.machine,
                    devices: times.devices,
                    processors: times.processors,
                    loading: times.loading,
                });
                Ok(Box::new(link))
            }
            Err(error) => {
                let hung_up = matches!(error, ControlError::HungUp);
                Err(vmm.explain(Phase::Boot, hung_up, chain(&error)).await)
            }
        }
    }

    fn pid(&self) -> Option<u32> {
        self.life.pid()
    }

    fn diagnostics(&self) -> Diagnostics {
        self.life.diagnostics()
    }

    async fn wait(&mut self) -> VmExit {
        self.life.wait().await
    }

    async fn stop(&mut self) -> Result<(), BackendError> {
        self.life.stop().await
    }

    fn boot_times(&self) -> Option<BootTimes> {
        self.times
    }

    fn pause(&self) -> Option<&dyn Pause> {
        Some(self)
    }

    fn resize(&self) -> Option<&dyn Resize> {
        Some(self)
    }

    fn plug(&self) -> Option<&dyn Plug> {
        Some(self)
    }

    fn count(&self) -> Option<&dyn Count> {
        Some(self)
    }
}

#[async_trait]
impl Count for KvmVm {
    async fn counters(&self) -> Result<MachineCounters, BackendError> {
        let vmm = self.life.running(Phase::Run)?;
        let stats = vmm.control.stats().await;
        stats
            .map(counters::named)
            .map_err(|error| vmm.disobeys(Phase::Run, chain(&error)))
    }
}

#[async_trait]
impl Pause for KvmVm {
    async fn pause(&self) -> Result<(), BackendError> {
        self.command(Request::Pause).await
    }

    async fn resume(&self) -> Result<(), BackendError> {
        self.command(Request::Resume).await
    }
}

#[async_trait]
impl Resize for KvmVm {
    async fn resize(&self, memory_bytes: u64) -> Result<(), BackendError> {
        let before = self.memory_bytes.load(Ordering::Relaxed);
        memory::check(memory_bytes.saturating_sub(before))?;
        self.command(Request::Resize { memory_bytes }).await?;
        self.memory_bytes.store(memory_bytes, Ordering::Relaxed);
        Ok(())
    }
}

#[async_trait]
impl Plug for KvmVm {
    async fn plug(&self, device: Device) -> Result<Place, BackendError> {
        let vmm = self.life.running(Phase::Run)?;
        let mut with = Descriptors::default();
        let device = match device {
            Device::Disk(disk) => vmm_control::Device::Disk(devices::disk(disk, &mut with)),
            Device::Image(image) => vmm_control::Device::Image(devices::image(image, &mut with)),
            Device::Nic(nic) => {
                let vhosts = vhosts(&nic, self.vhost_net);
                vmm_control::Device::Nic(devices::nic(nic, vhosts, &mut with))
            }
            Device::Share(share) => vmm_control::Device::Share(devices::share(share, &mut with)),
        };
        vmm.control
            .plug(device, &with)
            .await
            .map(Place)
            .map_err(|error| vmm.disobeys(Phase::Run, chain(&error)))
    }

    async fn unplug(&self, place: Place) -> Result<(), BackendError> {
        self.command(Request::Unplug { place: place.0 }).await
    }
}

/// The kernel's command line, without the machine's devices.
fn command_line(config: &VmConfig) -> String {
    let link = format!("cofferdam.link=vsock:{LINK_PORT}");
    let mut spare = Vec::new();
    if config.spare_vcpus > 0 {
        spare.push(format!("maxcpus={}", config.vcpus));
    }
    if config.spare_memory_bytes > 0 {
        // What comes can go again, as far as it is not needed for the kernel's own things.
        spare.push("memory_hotplug.online_policy=auto-movable".to_owned());
    }
    let own = [
        "console=hvc0",
        "quiet",
        // There is none, and looking for it costs.
        "8250.nr_uarts=0",
        // A guest that panics resets at once, which is the machine's end.
        "panic=-1",
        "reboot=t",
        &link,
    ];
    let given = spare.iter().chain(&config.cmdline).map(String::as_str);
    own.into_iter().chain(given).collect::<Vec<_>>().join(" ")
}
