//! The life of a machine whose VMM is a process: the same whichever VMM it is.

use std::io;
use std::os::fd::OwnedFd;
use std::time::Duration;

use backend_api::{BackendError, Diagnostics, Phase, Tail, VmExit};
use backend_process::{Child, Exit};
use tokio::io::AsyncRead;
use tokio::net::UnixStream;

/// How much of the guest's console is kept.
const CONSOLE_KEPT: usize = 64 << 10;

/// How much of the VMM's stderr is kept.
const STDERR_KEPT: usize = 8 << 10;

/// How long the last words of a dead VMM may take to arrive.
const LAST_WORDS: Duration = Duration::from_millis(200);

/// How long a VMM that has hung up may take to be gone: descriptors are closed first, and a busy host takes its time with
/// memory and namespaces.
const ENDING: Duration = Duration::from_secs(10);

/// Where a machine is in its life: made of `P`, then a VMM that `C` controls.
#[derive(Debug)]
pub struct Life<P, C> {
    state: State<P, C>,
}

#[derive(Debug)]
enum State<P, C> {
    Created(Box<P>),
    Booted(Box<Vmm<C>>),
    NeverStarted,
}

impl<P, C> Life<P, C> {
    /// Of a machine that is still to be booted.
    #[must_use]
    pub fn new(prepared: P) -> Self {
        Self {
            state: State::Created(Box::new(prepared)),
        }
    }

    /// What the machine is booted of: the boot is allowed once, and counts as one that has failed until there is a VMM.
    ///
    /// # Errors
    /// [`BackendError::State`] unless the machine is newly created.
    pub fn begin(&mut self) -> Result<P, BackendError> {
        let state = match std::mem::replace(&mut self.state, State::NeverStarted) {
            State::Created(prepared) => return Ok(*prepared),
            other => {
                self.state = other;
                match &self.state {
                    State::Booted(vmm) if vmm.child.pid().is_some() => "already booted",
                    _ => "stopped",
                }
            }
        };
        Err(BackendError::State {
            phase: Phase::Boot,
            state,
        })
    }

    /// The VMM has been started.
    pub fn started(&mut self, vmm: Vmm<C>) -> &mut Vmm<C> {
        self.state = State::Booted(Box::new(vmm));
        match &mut self.state {
            State::Booted(vmm) => vmm,
            State::Created(_) | State::NeverStarted => unreachable!("it was set one line above"),
        }
    }

    /// The VMM, if it was ever started.
    pub fn vmm(&mut self) -> Option<&mut Vmm<C>> {
        match &mut self.state {
            State::Booted(vmm) => Some(vmm),
            State::Created(_) | State::NeverStarted => None,
        }
    }

    /// The VMM while it runs.
    ///
    /// # Errors
    /// [`BackendError::State`] when it does not.
    pub fn running(&self, phase: Phase) -> Result<&Vmm<C>, BackendError> {
        let refused = |state| Err(BackendError::State { phase, state });
        match &self.state {
            State::Booted(vmm) if vmm.child.pid().is_some() => Ok(vmm),
            State::Created(_) => refused("not booted"),
            State::Booted(_) | State::NeverStarted => refused("stopped"),
        }
    }

    /// As [`Vm::pid`](backend_api::Vm::pid).
    #[must_use]
    pub fn pid(&self) -> Option<u32> {
        self.running(Phase::Run).ok()?.child.pid()
    }

    /// As [`Vm::diagnostics`](backend_api::Vm::diagnostics).
    #[must_use]
    pub fn diagnostics(&self) -> Diagnostics {
        match &self.state {
            State::Booted(vmm) => vmm.diagnostics(),
            State::Created(_) | State::NeverStarted => Diagnostics::default(),
        }
    }

    /// As [`Vm::wait`](backend_api::Vm::wait).
    pub async fn wait(&mut self) -> VmExit {
        match &mut self.state {
            State::Booted(vmm) => vmm.wait().await,
            State::Created(_) => std::future::pending().await,
            State::NeverStarted => VmExit::NeverStarted,
        }
    }

    /// As [`Vm::stop`](backend_api::Vm::stop).
    ///
    /// # Errors
    /// When the operating system refuses to end the process.
    pub async fn stop(&mut self) -> Result<(), BackendError> {
        match &mut self.state {
            State::Created(_) => self.state = State::NeverStarted,
            State::NeverStarted => {}
            State::Booted(vmm) if vmm.lost => {}
            State::Booted(vmm) => {
                vmm.child
                    .kill()
                    .await
                    .map_err(|source| BackendError::System {
                        phase: Phase::Stop,
                        action: "cannot wait for the VMM's end".to_owned(),
                        source,
                    })?;
                vmm.settle().await;
            }
        }
        Ok(())
    }
}

/// A VMM that was started, and what it and its guest say.
#[derive(Debug)]
pub struct Vmm<C> {
    /// What obeys.
    pub control: C,
    child: Child,
    /// How it ended, when [`Child`] could not tell.
    lost: bool,
    console: Tail,
    stderr: Tail,
}

impl<C> Vmm<C> {
    /// Begins to listen. Call it inside a tokio runtime.
    #[must_use]
    pub fn new(
        control: C,
        child: Child,
        console: impl AsyncRead + Send + Unpin + 'static,
        stderr: impl AsyncRead + Send + Unpin + 'static,
    ) -> Self {
        Self {
            control,
            child,
            lost: false,
            console: Tail::of(console, CONSOLE_KEPT),
            stderr: Tail::of(stderr, STDERR_KEPT),
        }
    }

    /// Why the machine did not come up, or does not obey: it has ended then. `hung_up` tells that its control channel is
    /// closed, which is mostly the process's end.
    pub async fn explain(&mut self, phase: Phase, hung_up: bool, reason: String) -> BackendError {
        if hung_up && let Ok(exit) = tokio::time::timeout(ENDING, self.wait()).await {
            return BackendError::Exited {
                phase,
                exit,
                diagnostics: Box::new(self.diagnostics()),
            };
        }
        self.kill().await;
        self.settle().await;
        self.disobeys(phase, reason)
    }

    /// That it gave no answer or a refusal.
    #[must_use]
    pub fn disobeys(&self, phase: Phase, reason: String) -> BackendError {
        BackendError::Monitor {
            phase,
            reason,
            diagnostics: Box::new(self.diagnostics()),
        }
    }

    /// Ends what is neither running nor gone: nobody can use it.
    pub async fn kill(&mut self) {
        // That it cannot be waited for is told by whoever waits next.
        let _ = self.child.kill().await;
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

    fn diagnostics(&self) -> Diagnostics {
        Diagnostics::new(&self.console, &self.stderr)
    }
}

/// A connected pair of streams: ours, and one for the VMM.
///
/// # Errors
/// When there are no descriptors left.
pub fn stream_pair() -> io::Result<(UnixStream, OwnedFd)> {
    let (ours, theirs) = std::os::unix::net::UnixStream::pair()?;
    ours.set_nonblocking(true)?;
    Ok((UnixStream::from_std(ours)?, theirs.into()))
}
