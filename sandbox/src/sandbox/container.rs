//! A container in a sandbox.

use std::sync::Arc;
use std::sync::Mutex as Shared;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use cofferdam_protocol::{
    ContainerRequest, CreateContainerRequest, ExecProcessRequest, StartFailure,
    UpdateContainerRequest, start_failure,
};
use oci_spec::runtime::{LinuxResources, Process as ProcessSpec};
use sandbox_share::Entry;
use tokio::sync::Mutex;

use crate::control::{Failure, FailureKind, ProcessEntry};
use crate::error::SandboxError;
use crate::id::ContainerId;
use crate::sandbox::guest::Guest;
use crate::sandbox::lifecycle::{Event, Lifecycle, WrongState};
use crate::sandbox::process::{Process, Streams};
use crate::spec::{Demand, GuestSpec, translate_apparmor};
use crate::state::{ExitStatus, Status};
use crate::stdio::Stdio;

/// A container. Its clones are one container.
#[derive(Debug, Clone)]
pub struct Container {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    guest: Arc<Guest>,
    id: ContainerId,
    /// What the guest sees of the host for it.
    entries: Vec<Entry>,
    init: Process,
    state: Shared<Lifecycle>,
    /// One change of state at a time.
    change: Mutex<()>,
    execs: AtomicU64,
    deleted: AtomicBool,
}

impl Container {
    pub(super) async fn create(
        guest: &Arc<Guest>,
        id: &ContainerId,
        spec: &GuestSpec,
        stdio: Stdio,
    ) -> Result<Self, SandboxError> {
        guest.take_name(id)?;
        let made = async {
            guest.provide(id, Demand::of(&spec.spec)).await?;
            guest.share().show(&spec.entries).await?;
            let made = Self::make(guest, id, spec, stdio).await;
            if made.is_err()
                && let Err(error) = guest.share().hide(&spec.entries).await
            {
                tracing::warn!(%error, container = %id, "files are still shown to the guest");
            }
            made
        }
        .await;
        if made.is_err() {
            guest.release(id).await;
            guest.free_name(id);
        }
        made
    }

    async fn make(
        guest: &Arc<Guest>,
        id: &ContainerId,
        spec: &GuestSpec,
        stdio: Stdio,
    ) -> Result<Self, SandboxError> {
        let terminal = spec
            .spec
            .process()
            .as_ref()
            .is_some_and(|process| process.terminal().unwrap_or(false));
        let streams = Streams::open(guest, stdio, terminal).await?;
        let mut request = CreateContainerRequest::new();
        request.id = id.to_string();
        request.spec = json(&spec.spec)?;
        request.stdio = Some(streams.tokens()).into();
        let answer = guest
            .call("creating the container", async |agent, context| {
                agent.create_container(context, &request).await
            })
            .await?;
        started(answer.failure.into_option())?;
        let init = Process::watch(guest, id.as_str(), "", streams, terminal);
        Ok(Self {
            inner: Arc::new(Inner {
                guest: Arc::clone(guest),
                id: id.clone(),
                entries: spec.entries.clone(),
                init,
                state: Shared::new(Lifecycle::Created),
                change: Mutex::new(()),
                execs: AtomicU64::new(0),
                deleted: AtomicBool::new(false),
            }),
        })
    }

    /// Its name.
    #[must_use]
    pub fn id(&self) -> &ContainerId {
        &self.inner.id
    }

    /// Where it is in its life.
    #[must_use]
    pub fn lifecycle(&self) -> Lifecycle {
        let mut state = self
            .inner
            .state
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if let Some(exit) = self.inner.init.exit()
            && let Ok(next) = state.next(Event::Ended(exit))
        {
            *state = next;
        }
        *state
    }

    /// Its state's name.
    #[must_use]
    pub fn status(&self) -> Status {
        self.lifecycle().status()
    }

    /// Its first process.
    #[must_use]
    pub fn init(&self) -> &Process {
        &self.inner.init
    }

    /// Waits for the end of its first process.
    pub async fn wait(&self) -> ExitStatus {
        self.inner.init.wait().await
    }

    fn change(&self, event: Event) -> Result<(), WrongState> {
        let current = self.lifecycle();
        let mut state = self
            .inner
            .state
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        *state = current.next(event)?;
        Ok(())
    }

    fn request(&self) -> ContainerRequest {
        let mut request = ContainerRequest::new();
        request.container_id = self.inner.id.to_string();
        request
    }

    /// Runs its process.
    ///
    /// # Errors
    /// [`SandboxError::Wrong`] unless it is created; [`SandboxError::Process`] when its command cannot be run.
    pub async fn start(&self) -> Result<(), SandboxError> {
        let _alone = self.inner.change.lock().await;
        // Asks the state first: nothing may happen in the guest when it is wrong.
        self.lifecycle().next(Event::Started)?;
        self.inner.guest.settle_network().await;
        let request = self.request();
        let answer = self
            .inner
            .guest
            .call("starting the container", async |agent, context| {
                agent.start_container(context, &request).await
            })
            .await?;
        started(answer.failure.into_option())?;
        // It may have ended already, and then that is its state.
        let _ended = self.change(Event::Started);
        Ok(())
    }

    /// Freezes all its processes.
    ///
    /// # Errors
    /// [`SandboxError::Wrong`] unless it runs.
    pub async fn pause(&self) -> Result<(), SandboxError> {
        let _alone = self.inner.change.lock().await;
        self.lifecycle().next(Event::Paused)?;
        let request = self.request();
        self.inner
            .guest
            .call("pausing the container", async |agent, context| {
                agent.pause_container(context, &request).await
            })
            .await?;
        Ok(self.change(Event::Paused)?)
    }

    /// Thaws it.
    ///
    /// # Errors
    /// [`SandboxError::Wrong`] unless it is paused.
    pub async fn resume(&self) -> Result<(), SandboxError> {
        let _alone = self.inner.change.lock().await;
        self.lifecycle().next(Event::Resumed)?;
        let request = self.request();
        self.inner
            .guest
            .call("resuming the container", async |agent, context| {
                agent.resume_container(context, &request).await
            })
            .await?;
        Ok(self.change(Event::Resumed)?)
    }

    /// Signals its first process, or all.
    ///
    /// # Errors
    /// [`SandboxError::Wrong`] when it has ended.
    pub async fn kill(&self, signal: u8, all: bool) -> Result<(), SandboxError> {
        let state = self.lifecycle();
        if !state.is_alive() {
            return Err(WrongState {
                action: "signal",
                status: state.status(),
            }
            .into());
        }
        self.inner.init.signal(signal, all).await
    }

    /// Kills what is left of it, frees its name, and takes from the guest what it had of the host's files. The same
    /// name may be used again afterwards. Deleting it again does nothing.
    ///
    /// # Errors
    /// What the agent refused; [`SandboxError::Share`] when the host's files cannot be taken back.
    pub async fn delete(&self) -> Result<(), SandboxError> {
        let _alone = self.inner.change.lock().await;
        if self.inner.deleted.load(Ordering::Relaxed) {
            return Ok(());
        }
        let guest = &self.inner.guest;
        let request = self.request();
        let deleted = guest
            .call("deleting the container", async |agent, context| {
                agent.delete_container(context, &request).await
            })
            .await;
        match deleted {
            Err(SandboxError::Gone { .. }) => {}
            deleted => {
                // Whatever the guest says: the host's files are no longer its.
                let hidden = guest.share().hide(&self.inner.entries).await;
                // With the machine everything of it is gone, whenever that went.
                if !guest.is_gone() {
                    deleted?;
                    hidden?;
                }
            }
        }
        self.inner.deleted.store(true, Ordering::Relaxed);
        guest.release(&self.inner.id).await;
        guest.free_name(&self.inner.id);
        Ok(())
    }

    /// Runs one more process in it.
    ///
    /// # Errors
    /// [`SandboxError::Wrong`] unless it is created or runs; [`SandboxError::Process`] when the command cannot be run.
    pub async fn exec(&self, process: &ProcessSpec, stdio: Stdio) -> Result<Process, SandboxError> {
        let state = self.lifecycle();
        if !matches!(state, Lifecycle::Created | Lifecycle::Running) {
            return Err(WrongState {
                action: "exec in",
                status: state.status(),
            }
            .into());
        }
        let terminal = process.terminal().unwrap_or(false);
        let streams = Streams::open(&self.inner.guest, stdio, terminal).await?;
        let mut request = ExecProcessRequest::new();
        request.container_id = self.inner.id.to_string();
        request.exec_id = format!("exec-{}", self.inner.execs.fetch_add(1, Ordering::Relaxed));
        let mut inside = process.clone();
        translate_apparmor(&mut inside);
        request.process = json(&inside)?;
        request.stdio = Some(streams.tokens()).into();
        let answer = self
            .inner
            .guest
            .call("executing in the container", async |agent, context| {
                agent.exec_process(context, &request).await
            })
            .await?;
        started(answer.failure.into_option())?;
        let process = Process::watch(
            &self.inner.guest,
            self.inner.id.as_str(),
            &request.exec_id,
            streams,
            terminal,
        );
        let ended = process.clone();
        tokio::spawn(async move {
            ended.drained().await;
            ended.forget().await;
        });
        Ok(process)
    }

    /// Changes its limits; what is not named stays. The machine grows with them and shrinks again, where it can.
    ///
    /// # Errors
    /// [`SandboxError::Spec`] for what no guest can keep, what the agent refused, and [`SandboxError::Backend`] when the
    /// host has not as much memory.
    pub async fn update(&self, resources: &LinuxResources) -> Result<(), SandboxError> {
        crate::spec::check_resources(resources)?;
        let _alone = self.inner.change.lock().await;
        let Inner { guest, id, .. } = &*self.inner;
        let before = guest.demand(id).await;
        let after = before.changed(resources);
        // What is limited is there before it may be used, and goes when it may not any more.
        guest.provide(id, before.larger(after)).await?;
        let updated = self.change_limits(resources).await;
        let demand = if updated.is_ok() { after } else { before };
        if let Err(error) = guest.provide(id, demand).await {
            tracing::warn!(
                error = crate::error::chain(&error),
                "the machine keeps its size"
            );
        }
        updated
    }

    async fn change_limits(&self, resources: &LinuxResources) -> Result<(), SandboxError> {
        let mut request = UpdateContainerRequest::new();
        request.container_id = self.inner.id.to_string();
        request.resources = json(resources)?;
        self.inner
            .guest
            .call("updating the container", async |agent, context| {
                agent.update_container(context, &request).await
            })
            .await?;
        Ok(())
    }

    /// Its use of resources: the `data` object of runc's `events --stats`.
    ///
    /// # Errors
    /// What the agent refused.
    pub async fn stats(&self) -> Result<serde_json::Value, SandboxError> {
        const PHASE: &str = "reading statistics";
        let request = self.request();
        let answer = self
            .inner
            .guest
            .call(PHASE, async |agent, context| {
                agent.container_stats(context, &request).await
            })
            .await?;
        serde_json::from_slice(&answer.stats).map_err(|error| SandboxError::Agent {
            phase: PHASE,
            message: error.to_string(),
        })
    }

    /// Its processes.
    ///
    /// # Errors
    /// What the agent refused.
    pub async fn processes(&self) -> Result<Vec<ProcessEntry>, SandboxError> {
        let request = self.request();
        let answer = self
            .inner
            .guest
            .call("listing processes", async |agent, context| {
                agent.list_processes(context, &request).await
            })
            .await?;
        Ok(answer
            .processes
            .into_iter()
            .map(|process| ProcessEntry {
                pid: process.pid,
                ppid: process.ppid,
                uid: process.uid,
                cpu_time_ms: process.cpu_time_ms,
                started: process.started,
                command: process.command,
            })
            .collect())
    }
}

fn started(failure: Option<StartFailure>) -> Result<(), SandboxError> {
    let Some(failure) = failure else {
        return Ok(());
    };
    let kind = match failure.kind.enum_value_or_default() {
        start_failure::Kind::COMMAND_NOT_FOUND => FailureKind::CommandNotFound,
        start_failure::Kind::COMMAND_NOT_EXECUTABLE => FailureKind::CommandNotExecutable,
        start_failure::Kind::OTHER => FailureKind::Other,
    };
    Err(SandboxError::Process(Failure {
        kind,
        message: failure.message,
    }))
}

fn json(value: &impl serde::Serialize) -> Result<Vec<u8>, SandboxError> {
    serde_json::to_vec(value).map_err(|error| SandboxError::System {
        action: "encode a request".to_owned(),
        source: error.into(),
    })
}
