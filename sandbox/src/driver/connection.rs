//! One command's connection to the driver.

use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::sync::Arc;

use oci_spec::runtime::Process as ProcessSpec;

use crate::control::{
    AsyncChannel, Failure, FailureKind, HostStdio, ProcessEvent, ProcessRequest, Reply, Request,
};
use crate::driver::join;
use crate::driver::launch::{run_hooks, stdio, tell_exit};
use crate::driver::members::{Driver, Member};
use crate::driver::oci_state::oci_state;
use crate::error::SandboxError;
use crate::sandbox::Process;
use crate::spec;
use crate::state::{Status, Store};

/// SIGKILL.
const KILL: u8 = 9;

/// Answers one request.
pub(super) async fn serve(
    driver: &Arc<Driver>,
    member: &Member,
    stream: UnixStream,
) -> Result<(), SandboxError> {
    let lost = |source| SandboxError::Channel {
        phase: "serving a command",
        source,
    };
    let mut channel = AsyncChannel::new(stream).map_err(SandboxError::system("watch a command"))?;
    let (request, descriptors) = channel.receive::<Request>().await.map_err(lost)?;
    let request = match request {
        Request::Exec { process, stdio } => {
            exec(member, channel, &process, &stdio, descriptors).await;
            return Ok(());
        }
        Request::Join(launch) => return join::serve(driver, channel, *launch, descriptors).await,
        request => request,
    };
    let reply = answer(driver, member, request)
        .await
        .unwrap_or_else(|error| Reply::Failed(error.failure()));
    channel.send(&reply).await.map_err(lost)
}

async fn answer(driver: &Driver, member: &Member, request: Request) -> Result<Reply, SandboxError> {
    let container = &member.container;
    match request {
        Request::Status => return Ok(Reply::Status(container.status())),
        Request::Start => start(member).await?,
        Request::Delete => {
            container.delete().await?;
            member.discard();
            member.is_cleared().await;
        }
        Request::Kill { signal, all } => container.kill(signal, all).await?,
        Request::Pause => container.pause().await?,
        Request::Resume => container.resume().await?,
        Request::Update { resources } => container.update(&resources).await?,
        Request::Stats => return Ok(Reply::Stats(container.stats().await?)),
        Request::Processes => return Ok(Reply::Processes(container.processes().await?)),
        Request::Counters => return Ok(Reply::Counters(driver.sandbox.counters().await?)),
        Request::Exec { .. } | Request::Join(_) => {
            return Ok(Reply::Failed(Failure {
                kind: FailureKind::Other,
                message: "this is not answered here".to_owned(),
            }));
        }
    }
    Ok(Reply::Done)
}

async fn start(member: &Member) -> Result<(), SandboxError> {
    member.container.start().await?;
    if let Some(hooks) = member.launch.spec.hooks() {
        let record = Store::open(&member.launch.root)?.load(&member.launch.id)?;
        let state = serde_json::to_vec(&oci_state(&record, Status::Running)).unwrap_or_default();
        // runtime-spec 1.2: a poststart hook that fails is warned of, and the rest goes on.
        if let Err(error) = run_hooks("poststart", hooks.poststart().clone(), &state).await {
            tracing::warn!(error = crate::error::chain(&error), "poststart hook failed");
        }
    }
    Ok(())
}

async fn exec(
    member: &Member,
    mut channel: AsyncChannel,
    process: &ProcessSpec,
    kind: &HostStdio,
    descriptors: Vec<OwnedFd>,
) {
    let started = async {
        spec::check_process(process)?;
        let stdio = stdio(kind, descriptors)?;
        member.container.exec(process, stdio).await
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
