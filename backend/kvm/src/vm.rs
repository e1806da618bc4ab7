//! One machine.

use std::io;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::time::Duration;

use async_trait::async_trait;
use backend_api::{BackendError, Diagnostics, LinkIo, Pause, Phase, Tail, Vm, VmConfig, VmExit};
use backend_process::{Child, Confinement, Exit, Program};
use tokio::net::UnixStream;
use vmm_control::{Create, LINK_PORT, Nic, Reply, Request, Share};

use crate::control::{self, Control, ControlError, Descriptors};

/// How much of the guest's console is kept.
const CONSOLE_KEPT: usize = 64 << 10;

/// How much of the VMM's stderr is kept.
const STDERR_KEPT: usize = 8 << 10;

/// How long the last words of a dead VMM may take to arrive.
const LAST_WORDS: Duration = Duration::from_millis(200);

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
    pub config: VmConfig,
}

/// A machine and where it is in its life.
#[derive(Debug)]
pub struct KvmVm {
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
    control: Control,
    console: Tail,
    stderr: Tail,
}

impl KvmVm {
    pub fn new(prepared: Prepared) -> Self {
        Self {
            state: State::Created(Box::new(prepared)),
        }
    }

    fn running(&self, phase: Phase) -> Result<&Running, BackendError> {
        let refused = |state| Err(BackendError::State { phase, state });
        match &self.state {
            State::Booted(running) if running.child.pid().is_some() => Ok(running),
            State::Created(_) => refused("not booted"),
            State::Booted(_) | State::NeverStarted => refused("stopped"),
        }
    }

    async fn command(&self, request: Request) -> Result<(), BackendError> {
        let running = self.running(Phase::Run)?;
        let answer = running.control.ask(&request, &Descriptors::default()).await;
        answer
            .map(drop)
            .map_err(|error| running.control_error(Phase::Run, &error))
    }
}

impl Running {
    /// Starts the process; the request that makes its machine, and the link.
    fn start(prepared: Prepared) -> io::Result<(Self, Request, Descriptors, UnixStream)> {
        let Prepared {
            program,
            confinement,
            kvm,
            kernel,
            image,
            vhosts,
            config,
        } = prepared;
        let (link, link_end) = socket_pair()?;
        let (console, console_end) = socket_pair()?;
        let (control, control_end) = Control::pair()?;
        let (stderr_end, stderr) = tokio::net::unix::pipe::pipe()?;
        let mut with = Descriptors::default();
        let request = Request::Create(Box::new(Create {
            kvm: with.add(kvm),
            kernel: with.add(kernel),
            image: with.add(image),
            command_line: command_line(&config.cmdline),
            memory_bytes: config.memory_bytes,
            vcpus: u8::try_from(config.vcpus).unwrap_or(u8::MAX),
            console: with.add(console_end),
            link: with.add(link_end),
            share: config.share.map(|share| Share {
                tag: share.tag,
                socket: with.add(share.socket),
            }),
            nics: config
                .nics
                .into_iter()
                .zip(vhosts)
                .map(|(nic, vhosts)| Nic {
                    mac: nic.mac,
                    queues: nic.queues.into_iter().map(|fd| with.add(fd)).collect(),
                    vhost: vhosts.into_iter().map(|fd| with.add(fd)).collect(),
                })
                .collect(),
        }));
        let child = Program {
            path: program,
            args: vec![control::number(&control_end).into()],
            stdin: None,
            stderr: Some(stderr_end.into_blocking_fd()?),
            inherited: vec![control_end],
            network: config.network,
            confinement,
        }
        .spawn()?;
        let running = Self {
            child,
            lost: false,
            control,
            console: Tail::of(console, CONSOLE_KEPT),
            stderr: Tail::of(stderr, STDERR_KEPT),
        };
        Ok((running, request, with, link))
    }

    async fn wait(&mut self) -> VmExit {
        if self.lost {
            return VmExit::Unknown;
        }
        let exit = match self.child.wait().await {
            Ok(Exit::Code(code)) => VmExit::Code(code),
            Ok(Exit::Signal(signal)) => VmExit::Signal(signal),
            Err(error) => {
                tracing::warn!(%error, "cannot wait for the VMM");
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

    /// Why the machine did not come up.
    async fn explain(&mut self, phase: Phase, error: ControlError) -> BackendError {
        if matches!(error, ControlError::HungUp)
            && let Ok(exit) = tokio::time::timeout(LAST_WORDS, self.wait()).await
        {
            return BackendError::Exited {
                phase,
                exit,
                diagnostics: Box::new(self.diagnostics()),
            };
        }
        let explained = self.control_error(phase, &error);
        // Neither running nor gone: nobody can use it.
        let _ = self.child.kill().await;
        explained
    }

    fn control_error(&self, phase: Phase, error: &ControlError) -> BackendError {
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
impl Vm for KvmVm {
    async fn boot(&mut self) -> Result<LinkIo, BackendError> {
        let prepared = match std::mem::replace(&mut self.state, State::NeverStarted) {
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
        let (running, create, with, link) =
            Running::start(prepared).map_err(|source| BackendError::System {
                phase: Phase::Boot,
                action,
                source,
            })?;
        self.state = State::Booted(Box::new(running));
        let State::Booted(running) = &mut self.state else {
            unreachable!("it was set one line above");
        };
        for (request, with) in [(create, with), (Request::Boot, Descriptors::default())] {
            match running.control.ask(&request, &with).await {
                Ok(Reply::Done) => {}
                Ok(_) => {
                    let error = ControlError::Refused("it answers something else".to_owned());
                    return Err(running.explain(Phase::Boot, error).await);
                }
                Err(error) => return Err(running.explain(Phase::Boot, error).await),
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
                        action: "cannot wait for the VMM's end".to_owned(),
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

#[async_trait]
impl Pause for KvmVm {
    async fn pause(&self) -> Result<(), BackendError> {
        self.command(Request::Pause).await
    }

    async fn resume(&self) -> Result<(), BackendError> {
        self.command(Request::Resume).await
    }
}

/// The kernel's command line, without the machine's devices.
fn command_line(parameters: &[String]) -> String {
    let link = format!("cofferdam.link=vsock:{LINK_PORT}");
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
    let given = parameters.iter().map(String::as_str);
    own.into_iter().chain(given).collect::<Vec<_>>().join(" ")
}

/// A connected pair: ours for tokio, and one for the VMM.
fn socket_pair() -> io::Result<(UnixStream, OwnedFd)> {
    let (ours, theirs) = std::os::unix::net::UnixStream::pair()?;
    ours.set_nonblocking(true)?;
    Ok((UnixStream::from_std(ours)?, theirs.into()))
}
