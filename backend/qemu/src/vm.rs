//! One machine.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::PathBuf;

use async_trait::async_trait;
use backend_api::{
    Accelerator, BackendError, Diagnostics, LinkIo, Pause, Phase, Share, Vm, VmConfig, VmExit,
};
use backend_host::image::Image;
use backend_host::life::{Life, Vmm, stream_pair};
use backend_process::{Confinement, Program};
use tokio::net::UnixStream;

use crate::command::{self, Boot, Clock, Machine, NicPlug, Start};
use crate::monitor::{Monitor, MonitorError};
use crate::template::{Restore, RestoreError, Restoring};

/// A checked configuration with what it needs.
#[derive(Debug)]
pub struct Prepared {
    pub program: PathBuf,
    pub confinement: Confinement,
    pub accelerator: Accelerator,
    pub origin: Origin,
    pub config: VmConfig,
}

/// What a machine begins with.
#[derive(Debug)]
pub enum Origin {
    /// It boots.
    Kernel(Kernel),
    /// It is the copy of a template.
    Template(Restore),
}

/// What is booted.
#[derive(Debug)]
pub struct Kernel {
    pub kernel: Image,
    pub initrd: Image,
    pub clock: Clock,
    /// The memory of what is to become a template.
    pub memory: Option<OwnedFd>,
}

impl Origin {
    /// As the command line has it, with the descriptors that QEMU inherits for it.
    fn hand_over(self, share: Option<&str>) -> (Start, Vec<OwnedFd>, Option<Restoring>) {
        match self {
            Self::Kernel(Kernel {
                kernel,
                initrd,
                clock,
                memory,
            }) => {
                let (kernel, initrd) = (kernel.into_fd(), initrd.into_fd());
                let boot = Boot {
                    kernel: kernel.as_raw_fd(),
                    initrd: initrd.as_raw_fd(),
                    clock,
                };
                let start = match &memory {
                    None => Start::Boot(boot),
                    Some(memory) => Start::Template(boot, memory.as_raw_fd()),
                };
                let inherited = [kernel, initrd].into_iter().chain(memory);
                (start, inherited.collect(), None)
            }
            Self::Template(restore) => {
                let ([memory, state], restoring) = restore.hand_over(share.map(str::to_owned));
                let start = Start::Copy(memory.as_raw_fd());
                (start, vec![memory, state], Some(restoring))
            }
        }
    }
}

/// A machine and where it is in its life.
#[derive(Debug)]
pub struct QemuVm {
    life: Life<Prepared, Monitor>,
}

impl QemuVm {
    pub fn new(prepared: Prepared) -> Self {
        Self {
            life: Life::new(prepared),
        }
    }

    /// The control channel of a running machine.
    pub fn monitor(&self, phase: Phase) -> Result<&Monitor, BackendError> {
        self.life.running(phase).map(|vmm| &vmm.control)
    }

    /// Why it did not obey. It has ended then.
    pub async fn explain(&mut self, phase: Phase, error: MonitorError) -> BackendError {
        match self.life.vmm() {
            Some(vmm) => explain(vmm, phase, error).await,
            None => BackendError::State {
                phase,
                state: "not booted",
            },
        }
    }

    async fn command(&self, command: &'static str) -> Result<(), BackendError> {
        let vmm = self.life.running(Phase::Run)?;
        vmm.control
            .execute(command)
            .await
            .map_err(|error| vmm.disobeys(Phase::Run, error.to_string()))
    }
}

async fn explain(vmm: &mut Vmm<Monitor>, phase: Phase, error: MonitorError) -> BackendError {
    let hung_up = matches!(error, MonitorError::HungUp);
    vmm.explain(phase, hung_up, error.to_string()).await
}

fn start(prepared: Prepared) -> io::Result<(Vmm<Monitor>, UnixStream, Option<Restoring>)> {
    let Prepared {
        program,
        confinement,
        accelerator,
        origin,
        config,
    } = prepared;
    let (link, link_end) = stream_pair()?;
    let (console, console_end) = stream_pair()?;
    let (monitor, monitor_end) = stream_pair()?;
    let (stderr_end, stderr) = tokio::net::unix::pipe::pipe()?;
    let (tag, share) = match config.share {
        Some(Share { tag, socket }) => (tag, Some(socket)),
        None => (String::new(), None),
    };
    let nics: Vec<_> = config
        .nics
        .iter()
        .map(|nic| NicPlug {
            mac: nic.mac,
            queues: nic.queues.iter().map(AsRawFd::as_raw_fd).collect(),
        })
        .collect();
    let shared = share.as_ref().map(|_| tag.as_str());
    let (start, mut inherited, restoring) = origin.hand_over(shared);
    let args = command::arguments(&Machine {
        name: &config.name,
        accelerator,
        memory_mib: config.memory_bytes >> 20,
        vcpus: config.vcpus,
        parameters: &config.cmdline,
        start,
        link: link_end.as_raw_fd(),
        console: console_end.as_raw_fd(),
        monitor: monitor_end.as_raw_fd(),
        share: share
            .as_ref()
            .map(|socket| (tag.as_str(), socket.as_raw_fd())),
        nics: &nics,
    });
    inherited.extend([link_end, console_end, monitor_end]);
    inherited.extend(share);
    inherited.extend(config.nics.into_iter().flat_map(|nic| nic.queues));
    let child = Program {
        path: program,
        args,
        stdin: None,
        stderr: Some(stderr_end.into_blocking_fd()?),
        inherited,
        network: config.network,
        groups: config.groups,
        confinement,
    }
    .spawn()?;
    let vmm = Vmm::new(Monitor::new(monitor), child, console, stderr);
    Ok((vmm, link, restoring))
}

#[async_trait]
impl Vm for QemuVm {
    async fn boot(&mut self) -> Result<LinkIo, BackendError> {
        let prepared = self.life.begin()?;
        let action = format!("cannot start {}", prepared.program.display());
        let (vmm, link, restoring) = start(prepared).map_err(|source| BackendError::System {
            phase: Phase::Boot,
            action,
            source,
        })?;
        let vmm = self.life.started(vmm);
        if let Err(error) = vmm.control.negotiate().await {
            return Err(explain(vmm, Phase::Boot, error).await);
        }
        if let Some(restoring) = restoring {
            match restoring.finish(&vmm.control).await {
                Ok(()) => {}
                Err(RestoreError::Monitor(error)) => {
                    return Err(explain(vmm, Phase::Boot, error).await);
                }
                Err(RestoreError::Fill(source)) => {
                    // It has no use without its memory.
                    vmm.kill().await;
                    return Err(BackendError::Template {
                        phase: Phase::Boot,
                        problem: "cannot be copied",
                        source: Some(source.into()),
                    });
                }
            }
        }
        Ok(Box::new(link))
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

    fn pause(&self) -> Option<&dyn Pause> {
        Some(self)
    }
}

#[async_trait]
impl Pause for QemuVm {
    async fn pause(&self) -> Result<(), BackendError> {
        self.command("stop").await
    }

    async fn resume(&self) -> Result<(), BackendError> {
        self.command("cont").await
    }
}
