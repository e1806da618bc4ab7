//! containerd's sandbox service (its API "controller v1"): the pod's sandbox is made by itself, not as a task of a pause
//! image. containerd 2 calls it for a runtime that is configured with `sandboxer = "shim"`.
//!
//! A sandbox made this way is the same as one made by a task, and stands among the shim's tasks under its name.

mod config;
mod holder;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use containerd_shim_protos::protobuf::MessageField;
use containerd_shim_protos::sandbox_api as api;
use containerd_shim_protos::sandbox_async::Sandbox;
use containerd_shim_protos::ttrpc::asynchronous::TtrpcContext;
use containerd_shim_protos::ttrpc::{Code, Result};

pub use config::supply;

use crate::options;
use crate::record::Record;
use crate::status::{self, refuse};
use crate::task::{Shim, Task, finished, make_sandbox};

const KILL: u8 = 9;
const TERM: u8 = 15;

/// How long a sandbox may take to end when containerd does not say.
const STOP: Duration = Duration::from_secs(10);

/// How long the connection stays after the last answer: containerd's end, should it find both, may take notice of the
/// closed connection and not of the answer.
const LINGER: Duration = Duration::from_secs(1);

/// Where in the bundle the pod's files are.
const FILES: &str = "etc";

/// As Kubernetes calls the states of a sandbox.
const READY: &str = "SANDBOX_READY";
const NOT_READY: &str = "SANDBOX_NOTREADY";

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

async fn create(shim: &Arc<Shim>, request: api::CreateSandboxRequest) -> Result<()> {
    let invalid = |text: String| refuse(Code::INVALID_ARGUMENT, text);
    let config = config::Config::read(request.options.as_ref()).map_err(invalid)?;
    let bundle = PathBuf::from(&request.bundle_path);
    let files = bundle.join(FILES);
    let spec = config
        .spec(&request.sandbox_id, &request.netns_path)
        .map_err(|error| invalid(format!("sandbox options: {error}")))?;
    let written = config
        .write(&files)
        .and_then(|()| holder::write(&bundle.join(config::ROOT)));
    written.map_err(|error| {
        refuse(
            Code::UNKNOWN,
            format!("cannot write into {}: {error}", bundle.display()),
        )
    })?;
    let configuration = options::load(Record::read(&bundle).configuration.as_deref())?;
    make_sandbox(
        shim,
        &request.sandbox_id,
        bundle,
        (spec, files),
        configuration,
    )
    .await
}

/// Ends a sandbox, by force if it takes too long.
async fn stop(task: &Task, patience: Duration) -> Result<()> {
    for signal in [TERM, KILL] {
        if task.exit().is_some() {
            return Ok(());
        }
        // It may end by itself.
        let _gone = task.kill(signal, true).await;
        if tokio::time::timeout(patience, task.wait()).await.is_ok() {
            return Ok(());
        }
    }
    Err(refuse(
        Code::UNAVAILABLE,
        format!("cannot end sandbox {}", task.id()),
    ))
}

#[async_trait]
impl Sandbox for Service {
    async fn create_sandbox(
        &self,
        _: &TtrpcContext,
        request: api::CreateSandboxRequest,
    ) -> Result<api::CreateSandboxResponse> {
        let shim = Arc::clone(&self.shim);
        finished(async move { create(&shim, request).await }).await?;
        Ok(api::CreateSandboxResponse::new())
    }

    async fn start_sandbox(
        &self,
        _: &TtrpcContext,
        request: api::StartSandboxRequest,
    ) -> Result<api::StartSandboxResponse> {
        let task = self.shim.task(&request.sandbox_id)?;
        task.start(&self.shim.publisher).await?;
        let mut response = api::StartSandboxResponse::new();
        response.pid = task.pid();
        response.created_at = MessageField::some(task.created().into());
        Ok(response)
    }

    async fn platform(
        &self,
        _: &TtrpcContext,
        _: api::PlatformRequest,
    ) -> Result<api::PlatformResponse> {
        let mut response = api::PlatformResponse::new();
        let platform = response.platform.mut_or_insert_default();
        platform.os = "linux".to_owned();
        platform.architecture = "amd64".to_owned();
        Ok(response)
    }

    async fn stop_sandbox(
        &self,
        _: &TtrpcContext,
        request: api::StopSandboxRequest,
    ) -> Result<api::StopSandboxResponse> {
        let task = self.shim.task(&request.sandbox_id)?;
        let patience = match request.timeout_secs {
            0 => STOP,
            seconds => Duration::from_secs(seconds.into()),
        };
        finished(async move { stop(&task, patience).await }).await?;
        Ok(api::StopSandboxResponse::new())
    }

    async fn wait_sandbox(
        &self,
        _: &TtrpcContext,
        request: api::WaitSandboxRequest,
    ) -> Result<api::WaitSandboxResponse> {
        let exited = self.shim.task(&request.sandbox_id)?.wait().await;
        let mut response = api::WaitSandboxResponse::new();
        response.exit_status = exited.status;
        response.exited_at = MessageField::some(exited.at.into());
        Ok(response)
    }

    async fn sandbox_status(
        &self,
        _: &TtrpcContext,
        request: api::SandboxStatusRequest,
    ) -> Result<api::SandboxStatusResponse> {
        let task = self.shim.task(&request.sandbox_id)?;
        let mut response = api::SandboxStatusResponse::new();
        if request.verbose {
            // As containerd tells it of a sandbox with a pause image: tools read it.
            let info = serde_json::json!({
                "sandboxID": &request.sandbox_id,
                "pid": task.pid(),
                "runtimeSpec": task.spec(),
            });
            response.info.insert("info".to_owned(), info.to_string());
        }
        response.sandbox_id = request.sandbox_id;
        response.pid = task.pid();
        response.created_at = MessageField::some(task.created().into());
        let exit = task.exit();
        response.state = if exit.is_none() { READY } else { NOT_READY }.to_owned();
        if let Some(exited) = exit {
            response.exited_at = MessageField::some(exited.at.into());
        }
        Ok(response)
    }

    async fn ping_sandbox(
        &self,
        _: &TtrpcContext,
        request: api::PingRequest,
    ) -> Result<api::PingResponse> {
        match self.shim.task(&request.sandbox_id)?.exit() {
            None => Ok(api::PingResponse::new()),
            Some(_) => Err(status::wrong_state(format!(
                "sandbox {} has ended",
                request.sandbox_id
            ))),
        }
    }

    async fn shutdown_sandbox(
        &self,
        _: &TtrpcContext,
        request: api::ShutdownSandboxRequest,
    ) -> Result<api::ShutdownSandboxResponse> {
        let shim = Arc::clone(&self.shim);
        finished(async move {
            // One that could not be made is none.
            if let Ok(task) = shim.task(&request.sandbox_id) {
                stop(&task, STOP).await?;
                shim.delete(&request.sandbox_id).await?;
            }
            Ok(())
        })
        .await?;
        let shim = Arc::clone(&self.shim);
        tokio::spawn(async move {
            tokio::time::sleep(LINGER).await;
            shim.dismiss_with_all();
        });
        Ok(api::ShutdownSandboxResponse::new())
    }

    async fn sandbox_metrics(
        &self,
        _: &TtrpcContext,
        request: api::SandboxMetricsRequest,
    ) -> Result<api::SandboxMetricsResponse> {
        let task = self.shim.task(&request.sandbox_id)?;
        let data = task.statistics().await?;
        let mut response = api::SandboxMetricsResponse::new();
        let metric = response.metrics.mut_or_insert_default();
        metric.id = request.sandbox_id;
        metric.timestamp = MessageField::some(SystemTime::now().into());
        metric.data = MessageField::some(data);
        Ok(response)
    }
}
