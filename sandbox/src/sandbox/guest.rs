//! The agent of a running guest, as the host calls it.

use std::collections::HashSet;
use std::future::Future;
use std::num::NonZeroU16;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, SystemTime};

use backend_api::LinkIo;
use cofferdam_protocol::link::{Link, LinkError, LinkStream};
use cofferdam_protocol::ttrpc::context::Context;
use cofferdam_protocol::{
    AgentClient, ConfigureSandboxRequest, Empty, Event as AgentEvent, HelloRequest,
    PROTOCOL_VERSION, ProcessRequest, SHARE_TAG, WaitProcessResponse, connect_agent, no_deadline,
};

use tokio::sync::{mpsc, oneshot};

use crate::error::SandboxError;
use crate::id::ContainerId;
use crate::sandbox::growth::Growth;
use crate::sandbox::machine::{Machine, reason_of};
use crate::sandbox::share::SharedEntries;
use crate::timeline::{GuestTimes, Step};

/// A call that takes longer has hung: the slowest (creating a container from a cold image under emulation) takes seconds.
const CALL_DEADLINE: Duration = Duration::from_secs(120);
/// How long a broken link waits to hear from the machine's task what happened.
const PATIENCE: Duration = Duration::from_secs(2);
/// Entropy for the guest's generator, in bytes.
const ENTROPY: usize = 64;

/// A guest whose agent has answered.
pub(crate) struct Guest {
    machine: Arc<Machine>,
    growth: Growth,
    link: Link,
    agent: AgentClient,
    tokens: AtomicU64,
    /// Names of containers that are there or on their way in or out.
    names: Mutex<HashSet<ContainerId>>,
    /// Asks whoever follows the network to look again, where that is of use.
    settler: OnceLock<mpsc::Sender<oneshot::Sender<()>>>,
}

impl std::fmt::Debug for Guest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Guest").finish_non_exhaustive()
    }
}

impl Guest {
    /// Waits for the agent, checks its version and gives the guest its identity.
    pub(crate) async fn greet(
        machine: Arc<Machine>,
        growth: Growth,
        io: LinkIo,
        id: &str,
        hostname: &str,
        limit: Duration,
    ) -> Result<Arc<Self>, SandboxError> {
        let (link, driver) = Link::host(io);
        tokio::spawn(async move {
            if let Err(error) = driver.await {
                tracing::debug!(%error, "link ended");
            }
        });
        let answered = async {
            let control = link
                .open_control()
                .await
                .map_err(|error| crate::error::chain(&error))?;
            let agent = connect_agent(control);
            let mut hello = HelloRequest::new();
            hello.version = PROTOCOL_VERSION;
            // Both at once, so that the guest does not wait for the host between them. A guest of another version is
            // ended, whatever it made of the second.
            // Not before the guest is there to take it: it holds the time.
            let identity = identity(id, hostname)?;
            let greeting = async {
                let answer = agent.hello(no_deadline(), &hello).await;
                machine.reached(Step::Answered);
                answer
            };
            let (answer, configured) =
                tokio::join!(greeting, agent.configure_sandbox(no_deadline(), &identity));
            let answer = answer.map_err(|error| error.to_string())?;
            let version = answer.version;
            if version != PROTOCOL_VERSION {
                return Err(format!(
                    "its agent speaks version {version} of the protocol, this program version {PROTOCOL_VERSION}: kernel image and programs are of different installations"
                ));
            }
            configured.map_err(|error| error.to_string())?;
            machine.reached(Step::Configured);
            machine.timeline().note(|known| {
                known.guest = Some(GuestTimes {
                    entered: answer.init_entered_ns,
                    answered: answer.answered_ns,
                });
            });
            Ok(agent)
        };
        let reason = match tokio::time::timeout(limit, answered).await {
            Ok(Ok(agent)) => {
                return Ok(Arc::new(Self {
                    machine,
                    growth,
                    link,
                    agent,
                    tokens: AtomicU64::new(1),
                    names: Mutex::default(),
                    settler: OnceLock::new(),
                }));
            }
            Ok(Err(reason)) => match machine.reason(PATIENCE).await {
                Some(gone) => gone,
                None => reason,
            },
            Err(_) => format!("the agent has not answered within {} s", limit.as_secs()),
        };
        // Ending the machine brings its last words.
        machine.stop().await;
        let last = machine.reason(PATIENCE).await.unwrap_or_default();
        let diagnostics = last
            .split_once('\n')
            .filter(|_| !reason.contains('\n'))
            .map(|(_, words)| format!("\n{words}"));
        Err(SandboxError::Boot {
            reason,
            advice: String::new(),
            diagnostics: diagnostics.unwrap_or_default(),
        })
    }

    /// Takes a name for a container.
    pub(crate) fn take_name(&self, id: &ContainerId) -> Result<(), SandboxError> {
        if self.names().insert(id.clone()) {
            Ok(())
        } else {
            Err(SandboxError::Taken(id.clone()))
        }
    }

    /// Frees a name.
    pub(crate) fn free_name(&self, id: &ContainerId) {
        self.names().remove(id);
    }

    fn names(&self) -> MutexGuard<'_, HashSet<ContainerId>> {
        self.names.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Its machine.
    pub(crate) fn machine(&self) -> &Machine {
        &self.machine
    }

    /// The size of its machine.
    pub(crate) fn growth(&self) -> &Growth {
        &self.growth
    }

    /// Whether its machine has ended.
    pub(crate) fn is_gone(&self) -> bool {
        self.machine.gone().borrow().is_some()
    }

    /// What the guest sees of the host.
    pub(crate) fn share(&self) -> &SharedEntries {
        self.machine.share()
    }

    /// One call of the agent; an error names the phase and, when the guest has died of it, how.
    pub(crate) async fn call<T>(
        &self,
        phase: &'static str,
        call: impl AsyncFnOnce(AgentClient, Context) -> cofferdam_protocol::ttrpc::Result<T>,
    ) -> Result<T, SandboxError> {
        let agent = self.agent.clone();
        match tokio::time::timeout(CALL_DEADLINE, call(agent, no_deadline())).await {
            Ok(Ok(answer)) => {
                self.machine.mark(phase);
                Ok(answer)
            }
            Ok(Err(error)) => Err(self.explain(phase, error).await),
            Err(_) => Err(SandboxError::Agent {
                phase,
                message: format!("no answer within {} s", CALL_DEADLINE.as_secs()),
            }),
        }
    }

    async fn explain(
        &self,
        phase: &'static str,
        error: cofferdam_protocol::ttrpc::Error,
    ) -> SandboxError {
        if let cofferdam_protocol::ttrpc::Error::RpcStatus(status) = &error {
            return SandboxError::Agent {
                phase,
                message: status.message().to_owned(),
            };
        }
        match self.machine.reason(PATIENCE).await {
            Some(reason) => SandboxError::Gone { phase, reason },
            None => SandboxError::Agent {
                phase,
                message: error.to_string(),
            },
        }
    }

    /// Waits for a process's end, however long that takes.
    pub(crate) async fn wait_process(
        &self,
        request: &ProcessRequest,
    ) -> Result<WaitProcessResponse, SandboxError> {
        const PHASE: &str = "waiting for the process";
        let agent = self.agent.clone();
        tokio::select! {
            answer = agent.wait_process(no_deadline(), request) => match answer {
                Ok(answer) => {
                    self.machine.mark(PHASE);
                    Ok(answer)
                }
                Err(error) => Err(self.explain(PHASE, error).await),
            },
            reason = reason_of(self.machine.gone()) => Err(SandboxError::Gone { phase: PHASE, reason }),
        }
    }

    /// Waits for something that happens without being asked for, however long that takes.
    pub(crate) async fn next_event(&self) -> Result<AgentEvent, SandboxError> {
        const PHASE: &str = "waiting for an event";
        let agent = self.agent.clone();
        let nothing = Empty::new();
        tokio::select! {
            answer = agent.next_event(no_deadline(), &nothing) => match answer {
                Ok(event) => Ok(event),
                Err(error) => Err(self.explain(PHASE, error).await),
            },
            reason = reason_of(self.machine.gone()) => Err(SandboxError::Gone { phase: PHASE, reason }),
        }
    }

    /// From now on this is asked before a container starts.
    pub(crate) fn settle_by(&self, settler: mpsc::Sender<oneshot::Sender<()>>) {
        // One network is followed, once.
        let _first = self.settler.set(settler);
    }

    /// Has the guest hear of what an engine has set up since the machine was made: it expects its containers to have it
    /// when they start.
    pub(crate) async fn settle_network(&self) {
        let Some(settler) = self.settler.get() else {
            return;
        };
        let (asked, done) = oneshot::channel();
        let settled = async {
            if settler.send(asked).await.is_ok() {
                // An error: the network is not followed any more.
                let _settled = done.await;
            }
        };
        self.unless_gone(settled).await;
    }

    /// Waits for a future unless the machine goes before.
    pub(crate) async fn unless_gone(&self, future: impl Future<Output = ()>) {
        tokio::select! {
            () = future => {}
            _ = reason_of(self.machine.gone()) => {}
        }
    }

    /// A connection to a port of the guest's loopback.
    pub(crate) async fn open_connection(&self, port: NonZeroU16) -> Result<LinkStream, LinkError> {
        self.link.open_connection(port).await
    }

    /// The guest's questions for names.
    pub(crate) async fn open_resolver(&self) -> Result<LinkStream, LinkError> {
        self.link.open_resolver().await
    }

    /// A stream for a process that is about to be asked for, and its token.
    pub(crate) async fn open_stdio(&self) -> Result<(u64, Option<LinkStream>), SandboxError> {
        let token = self.tokens.fetch_add(1, Ordering::Relaxed);
        match self.link.open_stdio(token).await {
            Ok(stream) => Ok((token, Some(stream))),
            Err(error) => {
                const PHASE: &str = "opening a stream to the guest";
                Err(match self.machine.reason(PATIENCE).await {
                    Some(reason) => SandboxError::Gone {
                        phase: PHASE,
                        reason,
                    },
                    None => SandboxError::Agent {
                        phase: PHASE,
                        message: crate::error::chain(&error),
                    },
                })
            }
        }
    }
}

fn identity(id: &str, hostname: &str) -> Result<ConfigureSandboxRequest, String> {
    let mut entropy = vec![0; ENTROPY];
    let filled = rustix::rand::getrandom(&mut entropy, rustix::rand::GetRandomFlags::empty())
        .map_err(|error| format!("no entropy for the guest: {error}"))?;
    entropy.truncate(filled);
    let now = SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default();
    let mut request = ConfigureSandboxRequest::new();
    id.clone_into(&mut request.id);
    hostname.clone_into(&mut request.hostname);
    request.realtime_ns = i64::try_from(now.as_nanos()).unwrap_or(i64::MAX);
    request.entropy = entropy;
    SHARE_TAG.clone_into(&mut request.share_tag);
    Ok(request)
}
