//! One more process in a container: added first, started later.

use std::sync::{Arc, Mutex, PoisonError};

use containerd_shim_protos::api::Status;
use containerd_shim_protos::events::task::{TaskExecStarted, TaskExit};
use containerd_shim_protos::protobuf::MessageField;
use containerd_shim_protos::topics::{TASK_EXEC_STARTED_EVENT_TOPIC, TASK_EXIT_EVENT_TOPIC};
use containerd_shim_protos::ttrpc;
use oci_spec::runtime::Process as ProcessSpec;
use sandbox::{Process, SandboxError, spec};
use tokio::sync::watch;

use crate::events::Publisher;
use crate::status;
use crate::stdio::{Names, Owner};
use crate::task::container::{self, Task};
use crate::task::{Exited, service};

/// It.
#[derive(Debug)]
pub struct Exec {
    id: String,
    names: Names,
    spec: ProcessSpec,
    stage: Mutex<Stage>,
    exit: watch::Sender<Option<Exited>>,
    /// Held while a start is told: its end is told after it.
    order: tokio::sync::Mutex<()>,
}

#[derive(Debug, Clone)]
enum Stage {
    Added,
    Starting,
    Started(Process),
}

impl Exec {
    /// One that is only known by name yet.
    pub fn new(id: &str, names: Names, mut spec: ProcessSpec) -> Self {
        spec.set_terminal(Some(names.terminal));
        Self {
            id: id.to_owned(),
            names,
            spec,
            stage: Mutex::new(Stage::Added),
            exit: watch::Sender::new(None),
            order: tokio::sync::Mutex::new(()),
        }
    }

    /// Where its stdio is.
    pub fn names(&self) -> &Names {
        &self.names
    }

    /// How it ended; nothing while it has not.
    pub fn exit(&self) -> Option<Exited> {
        *self.exit.borrow()
    }

    /// As containerd sees it.
    pub fn status(&self) -> Status {
        match self.stage() {
            _ if self.exit().is_some() => Status::STOPPED,
            Stage::Started(_) => Status::RUNNING,
            Stage::Added | Stage::Starting => Status::CREATED,
        }
    }

    /// Its process, once it was started.
    pub fn process(&self) -> Option<Process> {
        match self.stage() {
            Stage::Started(process) => Some(process),
            Stage::Added | Stage::Starting => None,
        }
    }

    fn stage(&self) -> Stage {
        self.stage
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    fn set(&self, stage: Stage) {
        *self.stage.lock().unwrap_or_else(PoisonError::into_inner) = stage;
    }

    /// Begins a start, if none has begun.
    fn begin(&self) -> bool {
        let mut stage = self.stage.lock().unwrap_or_else(PoisonError::into_inner);
        let added = matches!(*stage, Stage::Added);
        if added {
            *stage = Stage::Starting;
        }
        added
    }

    /// Starts it. One that cannot be started stays as it was.
    pub async fn start(
        self: &Arc<Self>,
        task: &Arc<Task>,
        publisher: &Publisher,
        namespace: &str,
    ) -> ttrpc::Result<()> {
        let container = task.container("exec into")?;
        if !self.begin() {
            return Err(status::wrong_state(format!(
                "exec {} was started already",
                self.id
            )));
        }
        let _order = self.order.lock().await;
        let started = async {
            spec::check_process(&self.spec).map_err(SandboxError::from)?;
            let owner = Owner {
                namespace,
                container: task.id(),
            };
            let stdio = self.names.open(owner).await.map_err(container::stdio)?;
            container.exec(&self.spec, stdio).await
        };
        let process = match started.await {
            Ok(process) => process,
            Err(error) => {
                self.set(Stage::Added);
                return Err(status::failed("exec", &error));
            }
        };
        self.set(Stage::Started(process.clone()));
        let mut event = TaskExecStarted::new();
        task.id().clone_into(&mut event.container_id);
        event.exec_id.clone_from(&self.id);
        event.pid = task.pid();
        publisher.publish(TASK_EXEC_STARTED_EVENT_TOPIC, &event);
        let (exec, task, publisher) = (Arc::clone(self), Arc::clone(task), publisher.clone());
        tokio::spawn(async move {
            let exited = Exited::now(process.wait().await);
            let _order = exec.order.lock().await;
            exec.exit.send_replace(Some(exited));
            let mut event = TaskExit::new();
            task.id().clone_into(&mut event.container_id);
            event.id.clone_from(&exec.id);
            event.pid = task.pid();
            event.exit_status = exited.status;
            event.exited_at = MessageField::some(exited.at.into());
            publisher.publish(TASK_EXIT_EVENT_TOPIC, &event);
        });
        Ok(())
    }

    /// Waits for its end.
    pub async fn wait(&self) -> Exited {
        service::ended(self.exit.subscribe()).await
    }

    /// Sends it a signal.
    pub async fn kill(&self, signal: u8, all: bool) -> ttrpc::Result<()> {
        let process = match (self.exit(), self.process()) {
            (Some(_), _) => return Err(status::not_found("process already finished")),
            (None, None) => return Err(status::wrong_state("process not created")),
            (None, Some(process)) => process,
        };
        container::signalled(process.signal(signal, all).await, &process).await
    }

    /// Gives up what was not read of its output.
    pub async fn release(&self) {
        if let Some(process) = self.process() {
            container::release(&process).await;
        }
    }
}
