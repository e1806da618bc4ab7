//! A task: a container with its execs, as containerd drives it.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use containerd_shim_protos::api::Status;
use containerd_shim_protos::events::task::{TaskExit, TaskOOM, TaskStart};
use containerd_shim_protos::protobuf::MessageField;
use containerd_shim_protos::topics::{
    TASK_EXIT_EVENT_TOPIC, TASK_OOM_EVENT_TOPIC, TASK_START_EVENT_TOPIC,
};
use containerd_shim_protos::ttrpc;
use oci_spec::runtime::Spec;
use sandbox::state::{ExitStatus, Status as State};
use sandbox::{Container, Process, SandboxError};
use tokio::sync::watch;

use crate::events::Publisher;
use crate::rootfs::Mounted;
use crate::status;
use crate::stdio::Names;
use crate::task::machine::Machine;
use crate::task::pause::Pause;
use crate::task::{Exec, Exited, hooks, service};

/// How long what a process wrote before its end may take to be read, when the process is deleted. containerd's shim for runc
/// waits two seconds; on a busy machine a reader needs more.
const READER_PATIENCE: Duration = Duration::from_secs(10);
/// How long execs may take to be told after their container has ended, which ended them.
const EXECS_PATIENCE: Duration = Duration::from_secs(2);
/// How long a process that could not be signalled may take to be seen to have ended.
const END_PATIENCE: Duration = Duration::from_millis(500);

/// What a task is.
#[derive(Debug)]
pub enum Body {
    /// A container in the guest.
    Container(Container),
    /// A pod's sandbox.
    Pause(Pause),
}

/// It.
#[derive(Debug)]
pub struct Task {
    pub(super) id: String,
    pub(super) bundle: PathBuf,
    pub(super) names: Names,
    pub(super) spec: Spec,
    pub(super) machine: Arc<Machine>,
    pub(super) created: SystemTime,
    pub(super) body: Body,
    /// Whether the machine was made for it and ends with it.
    pub(super) owns_machine: bool,
    pub(super) execs: Mutex<HashMap<String, Arc<Exec>>>,
    pub(super) exit: watch::Sender<Option<Exited>>,
    /// Whether it was told that it ran out of memory.
    pub(super) ran_out: AtomicBool,
    /// Held while a start is told: its end is told after it. And by one change at a time.
    pub(super) order: tokio::sync::Mutex<()>,
    pub(super) mounted: Mutex<Option<Mounted>>,
}

impl Task {
    /// Its name.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Its folder.
    pub fn bundle(&self) -> &Path {
        &self.bundle
    }

    /// What was asked for.
    pub fn spec(&self) -> &Spec {
        &self.spec
    }

    /// Since when it is there.
    pub fn created(&self) -> SystemTime {
        self.created
    }

    /// Where its stdio is.
    pub fn names(&self) -> &Names {
        &self.names
    }

    /// What stands for it on the host.
    pub fn pid(&self) -> u32 {
        self.machine.pid
    }

    /// How it ended; nothing while it has not.
    pub fn exit(&self) -> Option<Exited> {
        *self.exit.borrow()
    }

    /// As containerd sees it.
    pub fn status(&self) -> Status {
        if self.exit().is_some() {
            return Status::STOPPED;
        }
        match &self.body {
            Body::Container(container) => match container.status() {
                State::Creating | State::Created => Status::CREATED,
                State::Paused => Status::PAUSED,
                // It has ended when that was told.
                State::Running | State::Stopped => Status::RUNNING,
            },
            Body::Pause(pause) if pause.is_started() => Status::RUNNING,
            Body::Pause(_) => Status::CREATED,
        }
    }

    /// The container in the guest; a pod's sandbox has none.
    pub fn container(&self, action: &str) -> ttrpc::Result<&Container> {
        match &self.body {
            Body::Container(container) => Ok(container),
            Body::Pause(_) => Err(status::wrong_state(format!(
                "cannot {action} {}: the sandbox of a pod has no process, its virtual machine holds the pod's namespaces",
                self.id
            ))),
        }
    }

    /// Its first process; a pod's sandbox has none.
    pub fn init(&self) -> Option<&Process> {
        match &self.body {
            Body::Container(container) => Some(container.init()),
            Body::Pause(_) => None,
        }
    }

    /// One of its execs.
    pub fn exec(&self, id: &str) -> ttrpc::Result<Arc<Exec>> {
        self.execs
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .get(id)
            .cloned()
            .ok_or_else(|| status::not_found(format!("exec process {id} does not exist")))
    }

    /// All of its execs.
    pub fn execs(&self) -> Vec<(String, Arc<Exec>)> {
        let execs = self.execs.lock().unwrap_or_else(PoisonError::into_inner);
        execs
            .iter()
            .map(|(id, exec)| (id.clone(), Arc::clone(exec)))
            .collect()
    }

    /// Runs its process.
    pub async fn start(&self, publisher: &Publisher) -> ttrpc::Result<()> {
        let _order = self.order.lock().await;
        match &self.body {
            Body::Container(container) => container
                .start()
                .await
                .map_err(|error| status::failed("start", &error))?,
            Body::Pause(pause) => {
                if self.exit().is_some() || !pause.start() {
                    return Err(status::wrong_state(format!(
                        "cannot start {} again",
                        self.id
                    )));
                }
            }
        }
        let mut event = TaskStart::new();
        event.container_id.clone_from(&self.id);
        event.pid = self.pid();
        publisher.publish(TASK_START_EVENT_TOPIC, &event);
        if let Some(all) = self.spec.hooks() {
            let state = self.state("running");
            hooks::run_after("poststart", all.poststart().as_ref(), state).await;
        }
        Ok(())
    }

    /// Tells that it ran out of memory; when it has ended, only if that was not told before.
    pub fn tell_out_of_memory(&self, publisher: &Publisher) {
        let was_told = self.ran_out.swap(true, Ordering::Relaxed);
        if was_told && self.exit().is_some() {
            return;
        }
        let mut event = TaskOOM::new();
        event.container_id.clone_from(&self.id);
        publisher.publish(TASK_OOM_EVENT_TOPIC, &event);
    }

    /// What its hooks read.
    pub fn state(&self, status: &str) -> Vec<u8> {
        hooks::state(&self.id, status, self.pid(), &self.bundle, &self.spec)
    }

    /// Waits for its end.
    pub async fn wait(&self) -> Exited {
        service::ended(self.exit.subscribe()).await
    }

    /// Signals its first process, or all.
    pub async fn kill(&self, signal: u8, all: bool) -> ttrpc::Result<()> {
        if self.exit().is_some() {
            return Err(status::not_found("process already finished"));
        }
        match &self.body {
            Body::Container(container) => {
                let done = match container.kill(signal, all).await {
                    Err(SandboxError::Wrong(_)) => {
                        return Err(status::not_found("process already finished"));
                    }
                    done => done,
                };
                signalled(done, container.init()).await
            }
            Body::Pause(pause) => {
                pause.signal(signal);
                Ok(())
            }
        }
    }

    /// Waits for its end and tells of it. The machine ends before, if it was made for it: the files that the container
    /// wrote are on the host when anybody hears of the end.
    pub async fn watch(self: Arc<Self>, publisher: Publisher) {
        let status = match &self.body {
            Body::Container(container) => container.wait().await,
            Body::Pause(pause) => tokio::select! {
                status = pause.wait() => status,
                reason = self.machine.sandbox.gone() => {
                    tracing::warn!("the pod's virtual machine is gone: {reason}");
                    ExitStatus::LOST
                }
            },
        };
        // What tells of it while it runs may not have been heard in time.
        if status.oom_killed && !self.ran_out.load(Ordering::Relaxed) {
            self.tell_out_of_memory(&publisher);
        }
        let exited = Exited::now(status);
        // A reader that does not read may be waiting for the end: the rest stays with us until it does.
        let unread = self.init().filter(|init| !init.is_drained());
        if self.owns_machine && unread.is_none() {
            self.machine.sandbox.stop().await;
        }
        let execs = async {
            for (_, exec) in self.execs() {
                if exec.process().is_some() {
                    exec.wait().await;
                }
            }
        };
        if tokio::time::timeout(EXECS_PATIENCE, execs).await.is_err() {
            tracing::warn!("execs of {} outlive it", self.id);
        }
        {
            let _order = self.order.lock().await;
            self.exit.send_replace(Some(exited));
            let mut event = TaskExit::new();
            event.container_id.clone_from(&self.id);
            event.id.clone_from(&self.id);
            event.pid = self.pid();
            event.exit_status = exited.status;
            event.exited_at = MessageField::some(exited.at.into());
            publisher.publish(TASK_EXIT_EVENT_TOPIC, &event);
        }
        tracing::debug!(id = self.id, ?exited, "task ended");
        if let Some(init) = unread.filter(|_| self.owns_machine) {
            init.drained().await;
            self.machine.sandbox.stop().await;
        }
    }

    /// Gives back what belongs to it, once it has ended.
    pub async fn release(&self) {
        if let Some(init) = self.init() {
            release(init).await;
        }
        for (_, exec) in self.execs() {
            exec.release().await;
        }
        match &self.body {
            _ if self.owns_machine => self.machine.end().await,
            Body::Container(container) => {
                if let Err(error) = container.delete().await {
                    tracing::warn!("{} is not removed: {}", self.id, sandbox::chain(&error));
                }
            }
            Body::Pause(_) => {}
        }
        drop(
            self.mounted
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .take(),
        );
        if let Some(all) = self.spec.hooks() {
            let state = self.state("stopped");
            hooks::run_after("poststop", all.poststop().as_ref(), state).await;
        }
    }
}

/// Waits for whoever reads a process's output, then gives up what is left.
pub async fn release(process: &Process) {
    if tokio::time::timeout(READER_PATIENCE, process.drained())
        .await
        .is_err()
    {
        tracing::warn!("output is left that nobody reads");
    }
    process.abandon();
}

/// What became of a signal: a process that is just ending is not there any more.
pub async fn signalled(done: Result<(), SandboxError>, process: &Process) -> ttrpc::Result<()> {
    let Err(error) = done else { return Ok(()) };
    match tokio::time::timeout(END_PATIENCE, process.wait()).await {
        Ok(_) => Err(status::not_found("process already finished")),
        Err(_) => Err(status::of(&error)),
    }
}

/// An error of opening stdio.
pub fn stdio(error: anyhow::Error) -> SandboxError {
    SandboxError::System {
        action: "open stdio".to_owned(),
        source: std::io::Error::other(format!("{error:#}")),
    }
}
