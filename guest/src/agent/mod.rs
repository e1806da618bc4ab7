//! The agent: serves the host over the link.

mod port;
mod service;
mod status;

use std::process::ExitCode;
use std::sync::Arc;

use cofferdam_protocol::link::{self, StreamKind};
use cofferdam_protocol::serve_agent;
use tokio::sync::mpsc;

use crate::container::Containers;
use crate::helper::{self, Helper};
use crate::network;
use crate::process::{Reaper, Streams};
use crate::sandbox::{Events, Sandbox};

/// Threads for the few calls that may block: mounting the share, syncing.
const BLOCKING_THREADS: usize = 4;

/// Events that wait for the host.
const EVENTS: usize = 64;

/// Why the agent ended.
#[derive(Debug, thiserror::Error)]
enum AgentError {
    #[error("cannot start: {0}")]
    Start(#[source] std::io::Error),
    #[error("the port of the link: {0}")]
    Port(#[from] port::PortError),
    #[error("{0}")]
    Link(#[from] link::LinkError),
    #[error("the host closed the link")]
    Closed,
    #[error("cannot wait for processes: {0}")]
    Reaper(#[source] std::io::Error),
    #[error("the container helper ended with status {0}")]
    Helper(u32),
}

/// The agent's life. PID 1 was entered at `entered` nanoseconds after boot.
#[must_use]
pub fn main(entered: u64) -> ExitCode {
    let error = match start(entered) {
        Ok(never) => match never {},
        Err(error) => error,
    };
    eprintln!("cofferdam-agent: {error}");
    ExitCode::FAILURE
}

fn start(entered: u64) -> Result<std::convert::Infallible, AgentError> {
    // First of all: the helper must be forked while there is one thread.
    let (helper, helper_pid) = helper::start().map_err(AgentError::Start)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(BLOCKING_THREADS)
        .build()
        .map_err(AgentError::Start)?;
    runtime.block_on(run(entered, helper, helper_pid))
}

async fn run(
    entered: u64,
    helper: Helper,
    helper_pid: i32,
) -> Result<std::convert::Infallible, AgentError> {
    let reaper = Arc::new(Reaper::default());
    let streams = Arc::new(Streams::default());
    let (oom, events) = mpsc::channel(EVENTS);
    let containers = Containers::new(helper, Arc::clone(&reaper), Arc::clone(&streams), oom);
    let sandbox = Arc::new(Sandbox::new(Arc::new(containers), Events::new(events)));
    let service = Arc::new(service::Service::new(Arc::clone(&sandbox), entered));
    let served = async {
        loop {
            let ended = serve(port::open().await?, &service, &streams).await;
            // One that has become a sandbox ends with its host. Before, the host has only looked whether it is well, to
            // keep it as a template: the next host is that of a copy.
            if sandbox.is_configured() {
                return Err(ended);
            }
        }
    };
    tokio::select! {
        ended = served => ended,
        ended = reaper.run(helper_pid) => match ended {
            Ok(exit) => Err(AgentError::Helper(exit.status)),
            Err(error) => Err(AgentError::Reaper(error)),
        },
    }
}

/// Serves one host until the link to it ends, and tells how.
async fn serve(port: port::Port, service: &Arc<service::Service>, streams: &Streams) -> AgentError {
    let (mut incoming, link) = link::guest(port);
    let accept = async {
        while let Some((kind, stream)) = incoming.next().await {
            match kind {
                StreamKind::Stdio { token } => streams.arrived(token, stream),
                StreamKind::Connect { port } => {
                    tokio::spawn(network::connect(port, stream));
                }
                StreamKind::Resolver => {
                    tokio::spawn(network::serve_names(stream));
                }
                StreamKind::Control => {
                    let service = Arc::clone(service);
                    tokio::spawn(async move {
                        if let Err(error) = serve_agent(stream, service).await {
                            eprintln!("cofferdam-agent: control stream: {error}");
                        }
                    });
                }
            }
        }
    };
    tokio::select! {
        ended = link => match ended {
            Ok(()) => AgentError::Closed,
            Err(error) => error.into(),
        },
        () = accept => AgentError::Closed,
    }
}
