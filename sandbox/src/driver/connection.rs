//! One command's connection to the driver.

use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;

use oci_spec::runtime::Process as ProcessSpec;

use crate::control::{
    AsyncChannel, Failure, FailureKind, HostStdio, ProcessEvent, ProcessRequest, Reply, Request,
};
use crate::driver::adopted::Driver;
use crate::driver::launch::{run_hooks, stdio, tell_exit};
use crate::driver::oci_state::oci_state;
use crate::error::SandboxError;
use crate::sandbox::Process;
use crate::spec;
use crate::state::{Status, Store};

/// SIGKILL.
const KILL: u8 = 9;

/// Answers one request.
pub(super) async fn serve(driver: &Driver, stream: UnixStream) -> Result<(), SandboxError> {
    let lost = |source| SandboxError::Channel {
        phase: "serving a command",
        source,
    };
    let mut channel = AsyncChannel::new(stream).map_err(SandboxError::system("watch a command"))?;
    let (request, descriptors) = channel.receive::<Request>().await.map_err(lost)?;
    if let Request::Exec { process, stdio } = request {
        exec(driver, channel, &process, &stdio, descriptors).await;
        return Ok(());
    }
    let reply = answer(driver, request)
        .await
        .unwrap_or_else(|error| Reply::Failed(error.failure()));
    channel.send(&reply).await.map_err(lost)
}

async fn answer(driver: &Driver, request: Request) -> Result<Reply, SandboxError> {
    let container = &driver.container;
    match request {
        Request::Status => return Ok(Reply::Status(container.status())),
        Request::Start => start(driver).await?,
        Request::Kill { signal, all } => container.kill(signal, all).await?,
        Request::Pause => container.pause().await?,
        Request::Resume => container.resume().await?,
        Request::Update { resources } => container.update(&resources).await?,
        Request::Stats => return Ok(Reply::Stats(container.stats().await?)),
        Request::Processes => return Ok(Reply::Processes(container.processes().await?)),
        Request::Exec { .. } => {
            return Ok(Reply::Failed(Failure {
                kind: FailureKind::Other,
                message: "exec is not answered here".to_owned(),
            }));
        }
    }
    Ok(Reply::Done)
}

async fn start(driver: &Driver) -> Result<(), SandboxError> {
    driver.container.start().await?;
    if let Some(hooks) = driver.launch.spec.hooks() {
        let record = Store::open(&driver.launch.root)?.load(&driver.launch.id)?;
        let state = serde_json::to_vec(&oci_state(&record, Status::Running)).unwrap_or_default();
        // runtime-spec 1.2: a poststart hook that fails is warned of, and the rest goes on.
        if let Err(error) = run_hooks("poststart", hooks.poststart().clone(), &state).await {
            tracing::warn!(error = crate::error::chain(&error), "poststart hook failed");
        }
    }
    Ok(())
}

async fn exec(
    driver: &Driver,
    mut channel: AsyncChannel,
    process: &ProcessSpec,
    kind: &HostStdio,
    descriptors: Vec<OwnedFd>,
) {
    let started = async {
        spec::check_process(process)?;
        let stdio = stdio(kind, descriptors)?;
        driver.container.exec(process, stdio).await
    };
    let process = match started.await {
        Ok(process) => process,
        Err(error) => {
            let told = channel.send(&ProcessEvent::Failed(error.failure())).await;
            tracing::debug!(%error, ?told, "exec failed");
            return;
        }
    };
    let told = channel.send(&ProcessEvent::Started).await;
    let exit = tokio::select! {
        exit = process.wait() => exit,
        () = async {
            if told.is_ok() {
                forward(&process, &mut channel).await;
            }
        } => {
            // Whoever stood for the process is gone, and the process goes with it.
            if let Err(error) = process.signal(KILL, false).await {
                tracing::debug!(%error, "nothing left to kill");
            }
            process.wait().await
        }
    };
    tell_exit(&channel, exit).await;
}

/// Passes signals and terminal sizes to a process until their sender is gone.
pub(super) async fn forward(process: &Process, channel: &mut AsyncChannel) {
    while let Ok((request, _)) = channel.receive::<ProcessRequest>().await {
        let done = match request {
            ProcessRequest::Signal(signal) => process.signal(signal, false).await,
            ProcessRequest::Resize { rows, columns } => process.resize(rows, columns).await,
        };
        if let Err(error) = done {
            tracing::debug!(%error, "not passed on");
        }
    }
}
