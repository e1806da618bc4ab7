//! What a shim holds: tasks, and the pod that they are of.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use containerd_shim_protos::api::Status;
use containerd_shim_protos::events::task::TaskDelete;
use containerd_shim_protos::protobuf::MessageField;
use containerd_shim_protos::topics::TASK_DELETE_EVENT_TOPIC;
use containerd_shim_protos::ttrpc::{self, Code};
use tokio::sync::watch;

use crate::events::Publisher;
use crate::status::{self, refuse};
use crate::task::machine::Machine;
use crate::task::pod::Pod;
use crate::task::{Exited, Task};

const KILL: u8 = 9;
/// How long a container that was never started may take to be gone.
const KILL_DEADLINE: Duration = Duration::from_secs(10);
/// How long an answer waits for the events before it.
const EVENTS_PATIENCE: Duration = Duration::from_secs(2);
/// A guest that runs out of memory all the time is not told of more often.
const OOM_PAUSE: Duration = Duration::from_millis(100);

/// It.
#[derive(Debug)]
pub struct Shim {
    pub(super) namespace: String,
    pub publisher: Publisher,
    tasks: Mutex<HashMap<String, Entry>>,
    pod: Mutex<Option<Arc<Pod>>>,
    dismissed: watch::Sender<bool>,
}

#[derive(Debug)]
enum Entry {
    /// Its name is taken.
    Creating,
    /// It is there.
    Made(Arc<Task>),
}

impl Shim {
    /// One without tasks.
    pub fn new(namespace: &str, publisher: Publisher) -> Self {
        Self {
            namespace: namespace.to_owned(),
            publisher,
            tasks: Mutex::default(),
            pod: Mutex::default(),
            dismissed: watch::Sender::new(false),
        }
    }

    fn tasks(&self) -> std::sync::MutexGuard<'_, HashMap<String, Entry>> {
        self.tasks.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A task that is made.
    pub fn task(&self, id: &str) -> ttrpc::Result<Arc<Task>> {
        match self.tasks().get(id) {
            Some(Entry::Made(task)) => Ok(Arc::clone(task)),
            Some(Entry::Creating) | None => {
                Err(status::not_found(format!("container {id} not created")))
            }
        }
    }

    /// Takes a name for a task that is about to be made.
    pub(super) fn reserve(self: &Arc<Self>, id: &str) -> ttrpc::Result<Reserved> {
        let mut tasks = self.tasks();
        if tasks.contains_key(id) {
            return Err(refuse(
                Code::ALREADY_EXISTS,
                format!("container {id} already exists"),
            ));
        }
        tasks.insert(id.to_owned(), Entry::Creating);
        Ok(Reserved {
            shim: Arc::clone(self),
            id: id.to_owned(),
        })
    }

    /// The pod that this shim is for.
    pub(super) fn pod(&self) -> ttrpc::Result<Arc<Pod>> {
        let pod = self.pod.lock().unwrap_or_else(PoisonError::into_inner);
        pod.clone()
            .ok_or_else(|| status::wrong_state("the pod's sandbox does not run"))
    }

    /// From now on containers of the pod go there.
    pub(super) fn set_pod(&self, pod: Option<Arc<Pod>>) {
        *self.pod.lock().unwrap_or_else(PoisonError::into_inner) = pod;
    }

    /// Tells of containers that run out of memory, as long as their machine lives.
    pub(super) fn watch_memory(self: &Arc<Self>, machine: &Arc<Machine>) {
        let (shim, machine) = (Arc::clone(self), Arc::downgrade(machine));
        tokio::spawn(async move {
            while let Some(machine) = machine.upgrade() {
                let id = match machine.sandbox.out_of_memory().await {
                    Ok(id) => id,
                    Err(error) => {
                        tracing::debug!("no more events: {}", sandbox::chain(&error));
                        return;
                    }
                };
                // The guest says the name: it has to be one.
                if let Ok(task) = shim.task(&id)
                    && task.pid() == machine.pid
                {
                    task.tell_out_of_memory(&shim.publisher);
                }
                drop(machine);
                tokio::time::sleep(OOM_PAUSE).await;
            }
        });
    }

    /// Removes a task that has ended, or was never started, and all that belongs to it.
    pub async fn delete(&self, id: &str) -> ttrpc::Result<(u32, Exited)> {
        let task = self.task(id)?;
        if task.exit().is_none() {
            if task.status() != Status::CREATED {
                return Err(status::wrong_state(format!(
                    "cannot delete a running process: {id}"
                )));
            }
            // It may end by itself.
            let _gone = task.kill(KILL, true).await;
            if tokio::time::timeout(KILL_DEADLINE, task.wait())
                .await
                .is_err()
            {
                return Err(refuse(
                    Code::UNAVAILABLE,
                    format!("cannot end container {id}"),
                ));
            }
        }
        let exited = task.wait().await;
        // One of two deletes has it.
        match self.tasks().remove(id) {
            Some(Entry::Made(_)) => {}
            _ => return Err(status::not_found(format!("container {id} not created"))),
        }
        // Nothing may be asked of it any more, but its name is taken until all is gone.
        self.tasks().insert(id.to_owned(), Entry::Creating);
        if task.init().is_none() {
            self.set_pod(None);
        }
        task.release().await;
        self.tasks().remove(id);
        let mut event = TaskDelete::new();
        id.clone_into(&mut event.container_id);
        event.pid = task.pid();
        event.exit_status = exited.status;
        event.exited_at = MessageField::some(exited.at.into());
        self.publisher.publish(TASK_DELETE_EVENT_TOPIC, &event);
        self.publisher.flush(EVENTS_PATIENCE).await;
        Ok((task.pid(), exited))
    }

    /// The shim may go, unless it has tasks.
    pub fn dismiss(&self) {
        if self.tasks().is_empty() {
            self.dismissed.send_replace(true);
        }
    }

    /// The shim may go, whatever it has: its machine ends with it.
    pub fn dismiss_with_all(&self) {
        self.dismissed.send_replace(true);
    }

    /// Waits until it may go.
    pub async fn dismissed(&self) {
        let mut dismissed = self.dismissed.subscribe();
        // The sender is ours.
        let _always = dismissed.wait_for(|&dismissed| dismissed).await;
    }
}

/// A name that is taken. Dropping it frees the name unless the task was made.
pub struct Reserved {
    shim: Arc<Shim>,
    id: String,
}

impl Reserved {
    /// Gives the name to its task.
    pub fn make(self, task: Arc<Task>) {
        self.shim.tasks().insert(self.id.clone(), Entry::Made(task));
    }
}

impl Drop for Reserved {
    fn drop(&mut self) {
        let mut tasks = self.shim.tasks();
        if matches!(tasks.get(&self.id), Some(Entry::Creating)) {
            tasks.remove(&self.id);
        }
    }
}
