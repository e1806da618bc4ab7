//! One machine.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::PathBuf;
use std::time::Duration;

use async_trait::async_trait;
use backend_api::{
    Accelerator, BackendError, Diagnostics, LinkIo, Pause, Phase, Share, Tail, Vm, VmConfig, VmExit,
};
use backend_process::{Child, Confinement, Exit, Program};
use tokio::net::UnixStream;

use crate::command::{self, Boot, Clock, Machine, NicPlug, Start};
use crate::monitor::{Monitor, MonitorError};
use crate::template::{Restore, RestoreError, Restoring};
use backend_host::image::Image;

/// How much of the guest's console is kept.
const CONSOLE_KEPT: usize = 64 << 10;

/// How much of QEMU's stderr is kept.
const STDERR_KEPT: usize = 8 << 10;

/// How long the last words of a dead QEMU may take to arrive.
const LAST_WORDS: Duration = Duration::from_millis(200);

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
    state: State,
}

#[derive(Debug)]
enum State {
    Created(Box<Prepared>),
    Booted(Box<Running>),
    NeverStarted,
}

#[derive(Debug)]
struct Running {
    child: Child,
    /// How it ended, when [`Child`] could not tell.
    lost: bool,
    monitor: Monitor,
    console: Tail,
    stderr: Tail,
}

impl QemuVm {
    pub fn new(prepared: Prepared) -> Self {
        Self {
            state: State::Created(Box::new(prepared)),
        }
    }

    fn running(&self, phase: Phase) -> Result<&Running, BackendError> {
        match &self.state {
            State::Booted(running) if running.child.pid().is_some() => Ok(running),
            State::Created(_) => Err(BackendError::State {
                phase,
                state: "not booted",
            }),
            State::Booted(_) | State::NeverStarted => Err(BackendError::State {
                phase,
                state: "stopped",
            }),
        }
    }

    /// The control channel of a running machine.
    pub fn monitor(&self, phase: Phase) -> Result<&Monitor, BackendError> {
        self.running(phase).map(|running| &running.monitor)
    }

    /// Why it did not obey. It has ended then.
    pub async fn explain(&mut self, phase: Phase, error: MonitorError) -> BackendError {
        match &mut self.state {
            State::Booted(running) => running.explain(phase, error).await,
            State::Created(_) | State::NeverStarted => BackendError::State {
                phase,
                state: "not booted",
            },
        }
    }

    async fn command(&self, command: &'static str) -> Result<(), BackendError> {
        let running = self.running(Phase::Run)?;
        running
            .monitor
            .execute(command)
            .await
            .map_err(|error| running.monitor_error(Phase::Run, &error))
    }
}

impl Running {
    fn start(prepared: Prepared) -> io::Result<(Self, UnixStream, Option<Restoring>)> {
        let Prepared {
            program,
            confinement,
            accelerator,
            origin,
            config,
        } = prepared;
        let (link, link_end) = socket_pair()?;
        let (console, console_end) = socket_pair()?;
        let (monitor, monitor_end) = socket_pair()?;
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
            confinement,
        }
        .spawn()?;
        let running = Self {
            child,
            lost: false,
            monitor: Monitor::new(monitor),
            console: Tail::of(console, CONSOLE_KEPT),
            stderr: Tail::of(stderr, STDERR_KEPT),
        };
        Ok((running, link, restoring))
    }

    async fn wait(&mut self) -> VmExit {
        if self.lost {
            return VmExit::Unknown;
        }
        let exit = match self.child.wait().await {
            Ok(exit) => from_exit(exit),
            Err(error) => {
                tracing::warn!(%error, "cannot wait for QEMU");
                self.lost = true;
                VmExit::Unknown
            }
        };
        self.settle().await;
        exit
    }

    async fn settle(&self) {
        tokio::join!(
            self.console.settle(LAST_WORDS),
            self.stderr.settle(LAST_WORDS)
        );
    }

    /// Why the machine did not come up, or does not obey.
    async fn explain(&mut self, phase: Phase, error: MonitorError) -> BackendError {
        if matches!(error, MonitorError::HungUp)
            && let Ok(exit) = tokio::time::timeout(LAST_WORDS, self.wait()).await
        {
            return BackendError::Exited {
                phase,
                exit,
                diagnostics: Box::new(self.diagnostics()),
            };
        }
        let explained = self.monitor_error(phase, &error);
        // Neither running nor gone: nobody can use it.
        let _ = self.child.kill().await;
        explained
    }

    fn monitor_error(&self, phase: Phase, error: &MonitorError) -> BackendError {
        BackendError::Monitor {
            phase,
            reason: error.to_string(),
            diagnostics: Box::new(self.diagnostics()),
        }
    }

    fn diagnostics(&self) -> Diagnostics {
        Diagnostics::new(&self.console, &self.stderr)
    }
}

#[async_trait]
impl Vm for QemuVm {
    async fn boot(&mut self) -> Result<LinkIo, BackendError> {
        let state = std::mem::replace(&mut self.state, State::NeverStarted);
        let prepared = match state {
            State::Created(prepared) => *prepared,
            other => {
                let state = match &other {
                    State::Booted(running) if running.child.pid().is_some() => "already booted",
                    _ => "stopped",
                };
                self.state = other;
                return Err(BackendError::State {
                    phase: Phase::Boot,
                    state,
                });
            }
        };
        let action = format!("cannot start {}", prepared.program.display());
        let (running, link, restoring) =
            Running::start(prepared).map_err(|source| BackendError::System {
                phase: Phase::Boot,
                action,
                source,
            })?;
        let running = self.state.insert_running(running);
        if let Err(error) = running.monitor.negotiate().await {
            return Err(running.explain(Phase::Boot, error).await);
        }
        if let Some(restoring) = restoring {
            match restoring.finish(&running.monitor).await {
                Ok(()) => {}
                Err(RestoreError::Monitor(error)) => {
                    return Err(running.explain(Phase::Boot, error).await);
                }
                Err(RestoreError::Fill(source)) => {
                    // It has no use without its memory.
                    let _ = running.child.kill().await;
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
        self.running(Phase::Run).ok()?.child.pid()
    }

    fn diagnostics(&self) -> Diagnostics {
        match &self.state {
            State::Booted(running) => running.diagnostics(),
            State::Created(_) | State::NeverStarted => Diagnostics::default(),
        }
    }

    async fn wait(&mut self) -> VmExit {
        match &mut self.state {
            State::Booted(running) => running.wait().await,
            State::Created(_) => std::future::pending().await,
            State::NeverStarted => VmExit::NeverStarted,
        }
    }

    async fn stop(&mut self) -> Result<(), BackendError> {
        match &mut self.state {
            State::Created(_) => self.state = State::NeverStarted,
            State::NeverStarted => {}
            State::Booted(running) if running.lost => {}
            State::Booted(running) => {
                running
                    .child
                    .kill()
                    .await
                    .map_err(|source| BackendError::System {
                        phase: Phase::Stop,
                        action: "cannot wait for QEMU's end".to_owned(),
                        source,
                    })?;
                running.settle().await;
            }
        }
        Ok(())
    }

    fn pause(&self) -> Option<&dyn Pause> {
        Some(self)
    }
}

impl State {
    fn insert_running(&mut self, running: Running) -> &mut Running {
        *self = Self::Booted(Box::new(running));
        match self {
            Self::Booted(running) => running,
            Self::Created(_) | Self::NeverStarted => unreachable!("it was set one line above"),
        }
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

fn from_exit(exit: Exit) -> VmExit {
    match exit {
        Exit::Code(code) => VmExit::Code(code),
        Exit::Signal(signal) => VmExit::Signal(signal),
    }
}

/// A connected pair: ours for tokio, and one for QEMU.
fn socket_pair() -> io::Result<(UnixStream, OwnedFd)> {
    let (ours, theirs) = std::os::unix::net::UnixStream::pair()?;
    ours.set_nonblocking(true)?;
    Ok((UnixStream::from_std(ours)?, theirs.into()))
}
