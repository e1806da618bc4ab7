//! containerd's task service: what each call means.

use std::sync::{Arc, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use containerd_shim_protos::api;
use containerd_shim_protos::events::task::{TaskExecAdded, TaskPaused, TaskResumed};
use containerd_shim_protos::protobuf::{Message, MessageField};
use containerd_shim_protos::shim::oci::ProcessDetails;
use containerd_shim_protos::shim_async::Task as TaskService;
use containerd_shim_protos::topics::{
    TASK_EXEC_ADDED_EVENT_TOPIC, TASK_PAUSED_EVENT_TOPIC, TASK_RESUMED_EVENT_TOPIC,
};
use containerd_shim_protos::ttrpc::asynchronous::TtrpcContext;
use containerd_shim_protos::ttrpc::{Code, Result};
use tokio::sync::watch;

use crate::events::any;
use crate::status::{self, refuse};
use crate::stdio::Names;
use crate::task::{Exec, Exited, Shim, create};

/// The largest signal number of Linux.
const LAST_SIGNAL: u32 = 64;
/// How long an answer waits for the events before it.
const EVENTS_PATIENCE: Duration = Duration::from_secs(2);

/// The service of one shim.
#[derive(Debug)]
pub struct Service {
    shim: Arc<Shim>,
}

impl Service {
    /// Answers for this shim.
    pub fn new(shim: &Arc<Shim>) -> Self {
        Self {
            shim: Arc::clone(shim),
        }
    }
}

/// Finishes what was begun even if the caller's deadline passes or its connection breaks.
pub async fn finished<T: Send + 'static>(
    change: impl Future<Output = Result<T>> + Send + 'static,
) -> Result<T> {
    match tokio::spawn(change).await {
        Ok(result) => result,
        Err(error) => Err(refuse(
            Code::INTERNAL,
            format!("the call ended early: {error}"),
        )),
    }
}

/// Waits until a process has ended.
pub async fn ended(mut exit: watch::Receiver<Option<Exited>>) -> Exited {
    match exit.wait_for(Option::is_some).await {
        Ok(exited) if exited.is_some() => exited.unwrap_or_else(lost),
        _ => lost(),
    }
}

fn lost() -> Exited {
    Exited::now(sandbox::state::ExitStatus::LOST)
}

fn signal(number: u32) -> Result<u8> {
    u8::try_from(number)
        .ok()
        .filter(|&signal| (1..=LAST_SIGNAL).contains(&u32::from(signal)))
        .ok_or_else(|| refuse(Code::INVALID_ARGUMENT, format!("{number} is no signal")))
}

fn json<T: serde::de::DeserializeOwned>(what: &str, bytes: &[u8]) -> Result<T> {
    serde_json::from_slice(bytes)
        .map_err(|error| refuse(Code::INVALID_ARGUMENT, format!("{what}: {error}")))
}

#[async_trait]
impl TaskService for Service {
    async fn create(
        &self,
        _: &TtrpcContext,
        request: api::CreateTaskRequest,
    ) -> Result<api::CreateTaskResponse> {
        let shim = Arc::clone(&self.shim);
        let mut response = api::CreateTaskResponse::new();
        response.pid = finished(async move { create::create(&shim, request).await }).await?;
        Ok(response)
    }

    async fn start(
        &self,
        _: &TtrpcContext,
        request: api::StartRequest,
    ) -> Result<api::StartResponse> {
        let shim = Arc::clone(&self.shim);
        let mut response = api::StartResponse::new();
        response.pid = finished(async move {
            let task = shim.task(&request.id)?;
            if request.exec_id.is_empty() {
                task.start(&shim.publisher).await?;
            } else {
                let exec = task.exec(&request.exec_id)?;
                exec.start(&task, &shim.publisher, &shim.namespace).await?;
            }
            Ok(task.pid())
        })
        .await?;
        Ok(response)
    }

    async fn delete(
        &self,
        _: &TtrpcContext,
        request: api::DeleteRequest,
    ) -> Result<api::DeleteResponse> {
        let shim = Arc::clone(&self.shim);
        let (pid, exited) = finished(async move {
            if request.exec_id.is_empty() {
                return shim.delete(&request.id).await;
            }
            let task = shim.task(&request.id)?;
            let exec = task.exec(&request.exec_id)?;
            if exec.exit().is_none() && exec.process().is_some() {
                return Err(status::wrong_state(format!(
                    "cannot delete a running process: {}",
                    request.exec_id
                )));
            }
            exec.release().await;
            task.execs
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .remove(&request.exec_id);
            shim.publisher.flush(EVENTS_PATIENCE).await;
            // One that was never started has no end.
            Ok((
                task.pid(),
                exec.exit().unwrap_or(Exited {
                    status: 0,
                    at: std::time::SystemTime::now(),
                }),
            ))
        })
        .await?;
        let mut response = api::DeleteResponse::new();
        response.pid = pid;
        response.exit_status = exited.status;
        response.exited_at = MessageField::some(exited.at.into());
        Ok(response)
    }

    async fn state(
        &self,
        _: &TtrpcContext,
        request: api::StateRequest,
    ) -> Result<api::StateResponse> {
        let task = self.shim.task(&request.id)?;
        let mut response = api::StateResponse::new();
        let (names, status, exit) = if request.exec_id.is_empty() {
            response.id = request.id;
            (task.names().clone(), task.status(), task.exit())
        } else {
            let exec = task.exec(&request.exec_id)?;
            response.id.clone_from(&request.exec_id);
            response.exec_id = request.exec_id;
            (exec.names().clone(), exec.status(), exec.exit())
        };
        response.bundle = task.bundle().to_string_lossy().into_owned();
        response.pid = task.pid();
        response.status = status.into();
        response.stdin = names.stdin;
        response.stdout = names.stdout;
        response.stderr = names.stderr;
        response.terminal = names.terminal;
        if let Some(exited) = exit {
            response.exit_status = exited.status;
            response.exited_at = MessageField::some(exited.at.into());
        }
        Ok(response)
    }

    async fn pids(&self, _: &TtrpcContext, request: api::PidsRequest) -> Result<api::PidsResponse> {
        let task = self.shim.task(&request.id)?;
        let mut response = api::PidsResponse::new();
        // Pids of the guest are another kernel's: engines would look them up on the host. Every process of the sandbox is
        // its VMM there.
        let mut process = api::ProcessInfo::new();
        process.pid = task.pid();
        response.processes.push(process);
        for (id, exec) in task.execs() {
            if exec.status() != api::Status::RUNNING {
                continue;
            }
            let mut details = ProcessDetails::new();
            details.exec_id = id;
            let mut process = api::ProcessInfo::new();
            process.pid = task.pid();
            process.info = details
                .write_to_bytes()
                .ok()
                .map(any::<ProcessDetails>)
                .into();
            response.processes.push(process);
        }
        Ok(response)
    }

    async fn pause(&self, _: &TtrpcContext, request: api::PauseRequest) -> Result<api::Empty> {
        let shim = Arc::clone(&self.shim);
        finished(async move {
            let task = shim.task(&request.id)?;
            let container = task.container("pause")?;
            container
                .pause()
                .await
                .map_err(|error| status::of(&error))?;
            let mut event = TaskPaused::new();
            event.container_id = request.id;
            shim.publisher.publish(TASK_PAUSED_EVENT_TOPIC, &event);
            Ok(api::Empty::new())
        })
        .await
    }

    async fn resume(&self, _: &TtrpcContext, request: api::ResumeRequest) -> Result<api::Empty> {
        let shim = Arc::clone(&self.shim);
        finished(async move {
            let task = shim.task(&request.id)?;
            let container = task.container("resume")?;
            container
                .resume()
                .await
                .map_err(|error| status::of(&error))?;
            let mut event = TaskResumed::new();
            event.container_id = request.id;
            shim.publisher.publish(TASK_RESUMED_EVENT_TOPIC, &event);
            Ok(api::Empty::new())
        })
        .await
    }

    async fn checkpoint(
        &self,
        _: &TtrpcContext,
        request: api::CheckpointTaskRequest,
    ) -> Result<api::Empty> {
        self.shim.task(&request.id)?;
        Err(refuse(
            Code::UNIMPLEMENTED,
            "unsupported: checkpoint: the state of a virtual machine cannot be kept yet",
        ))
    }

    async fn kill(&self, _: &TtrpcContext, request: api::KillRequest) -> Result<api::Empty> {
        let task = self.shim.task(&request.id)?;
        let signal = signal(request.signal)?;
        if request.exec_id.is_empty() {
            task.kill(signal, request.all).await?;
        } else {
            task.exec(&request.exec_id)?
                .kill(signal, request.all)
                .await?;
        }
        Ok(api::Empty::new())
    }

    async fn exec(&self, _: &TtrpcContext, request: api::ExecProcessRequest) -> Result<api::Empty> {
        let task = self.shim.task(&request.id)?;
        task.container("exec into")?;
        match task.status() {
            api::Status::STOPPED => {
                return Err(status::wrong_state("cannot exec in a stopped state"));
            }
            api::Status::PAUSED => {
                return Err(status::wrong_state("cannot exec in a paused state"));
            }
            _ => {}
        }
        if request.exec_id.is_empty() || request.exec_id == request.id {
            return Err(refuse(
                Code::INVALID_ARGUMENT,
                format!("{:?} is no exec's id", request.exec_id),
            ));
        }
        let names = Names {
            stdin: request.stdin,
            stdout: request.stdout,
            stderr: request.stderr,
            terminal: request.terminal,
        };
        let spec = json("the exec's process", &request.spec.value)?;
        let exec = Arc::new(Exec::new(&request.exec_id, names, spec));
        {
            let mut execs = task.execs.lock().unwrap_or_else(PoisonError::into_inner);
            if execs.contains_key(&request.exec_id) {
                return Err(refuse(
                    Code::ALREADY_EXISTS,
                    format!("exec {} already exists", request.exec_id),
                ));
            }
            execs.insert(request.exec_id.clone(), exec);
        }
        let mut event = TaskExecAdded::new();
        event.container_id = request.id;
        event.exec_id = request.exec_id;
        let publisher = &self.shim.publisher;
        publisher.publish(TASK_EXEC_ADDED_EVENT_TOPIC, &event);
        Ok(api::Empty::new())
    }

    async fn resize_pty(
        &self,
        _: &TtrpcContext,
        request: api::ResizePtyRequest,
    ) -> Result<api::Empty> {
        let task = self.shim.task(&request.id)?;
        let (names, process) = if request.exec_id.is_empty() {
            (task.names().clone(), task.init().cloned())
        } else {
            let exec = task.exec(&request.exec_id)?;
            (exec.names().clone(), exec.process())
        };
        // As for the runc shim: without a terminal there is nothing to do.
        if let Some(process) = process.filter(|_| names.terminal) {
            let clamp = |size: u32| u16::try_from(size).unwrap_or(u16::MAX);
            process
                .resize(clamp(request.height), clamp(request.width))
                .await
                .map_err(|error| status::of(&error))?;
        }
        Ok(api::Empty::new())
    }

    async fn close_io(&self, _: &TtrpcContext, request: api::CloseIORequest) -> Result<api::Empty> {
        let task = self.shim.task(&request.id)?;
        let process = if request.exec_id.is_empty() {
            task.init().cloned()
        } else {
            task.exec(&request.exec_id)?.process()
        };
        if let Some(process) = process.filter(|_| request.stdin) {
            process.close_stdin();
        }
        Ok(api::Empty::new())
    }

    async fn update(
        &self,
        _: &TtrpcContext,
        request: api::UpdateTaskRequest,
    ) -> Result<api::Empty> {
        let task = self.shim.task(&request.id)?;
        let container = task.container("update")?;
        let resources = json("resources", &request.resources.value)?;
        container
            .update(&resources)
            .await
            .map_err(|error| status::of(&error))?;
        Ok(api::Empty::new())
    }

    async fn wait(&self, _: &TtrpcContext, request: api::WaitRequest) -> Result<api::WaitResponse> {
        let task = self.shim.task(&request.id)?;
        let exited = if request.exec_id.is_empty() {
            task.wait().await
        } else {
            task.exec(&request.exec_id)?.wait().await
        };
        let mut response = api::WaitResponse::new();
        response.exit_status = exited.status;
        response.exited_at = MessageField::some(exited.at.into());
        Ok(response)
    }

    async fn stats(
        &self,
        _: &TtrpcContext,
        request: api::StatsRequest,
    ) -> Result<api::StatsResponse> {
        let task = self.shim.task(&request.id)?;
        let mut response = api::StatsResponse::new();
        response.stats = MessageField::some(task.statistics().await?);
        Ok(response)
    }

    async fn connect(
        &self,
        _: &TtrpcContext,
        request: api::ConnectRequest,
    ) -> Result<api::ConnectResponse> {
        let mut response = api::ConnectResponse::new();
        response.shim_pid = std::process::id();
        response.task_pid = self.shim.task(&request.id).map_or(0, |task| task.pid());
        Ok(response)
    }

    async fn shutdown(&self, _: &TtrpcContext, _: api::ShutdownRequest) -> Result<api::Empty> {
        self.shim.dismiss();
        Ok(api::Empty::new())
    }
}
