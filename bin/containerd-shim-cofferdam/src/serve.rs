//! The shim itself: one thread that answers containerd and owns the sandbox.

use std::os::fd::AsFd;
use std::os::unix::net::UnixListener;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result};
use containerd_shim_protos::sandbox_async::create_sandbox;
use containerd_shim_protos::shim_async::create_task;
use containerd_shim_protos::ttrpc::asynchronous::Server;
use containerd_shim_protos::ttrpc::asynchronous::transport::Listener;

use crate::bootstrap::TTRPC_ADDRESS;
use crate::events::Publisher;
use crate::flags::Flags;
use crate::task::{Service, Shim};
use crate::{log, pod_sandbox, start};

/// The task service as the generated code names it, and as containerd before 2.0 does. The messages are the same.
const NAMES: [&str; 2] = ["containerd.task.v3.Task", "containerd.task.v2.Task"];

/// How long the last answers and events may take when the shim ends.
const FAREWELL: Duration = Duration::from_secs(3);

/// Runs until containerd says that it is not needed any more.
pub fn run(flags: &Flags) -> Result<()> {
    let bundle = start::bundle(flags)?;
    let listener = inherited()?;
    // Signals of containerd's terminal are none of ours.
    rustix::process::setsid().context("cannot leave the session")?;
    std::env::set_current_dir("/").context("cannot change to /")?;
    log::begin(&bundle, &flags.id, flags.debug);
    let events = std::env::var(TTRPC_ADDRESS).context("no address for events")?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start the runtime")?;
    let done = runtime.block_on(serve(flags, listener, &events));
    // What is still blocked in there (a hook that was given up) must not keep the shim.
    runtime.shutdown_background();
    if let Err(error) = &done {
        tracing::error!("shim failed: {error:#}");
    }
    done
}

async fn serve(flags: &Flags, listener: UnixListener, events: &str) -> Result<()> {
    let publisher = Publisher::new(&flags.namespace, events);
    let shim = Arc::new(Shim::new(&flags.namespace, publisher.clone()));
    let path = listener
        .local_addr()
        .ok()
        .and_then(|address| Some(address.as_pathname()?.to_owned()));
    let listener = Listener::try_from(listener).context("cannot watch the socket")?;
    let mut server = Server::new().add_listener(listener);
    for name in NAMES {
        let mut services = create_task(Arc::new(Service::new(&shim)));
        let service = services
            .remove(NAMES[0])
            .context("the task service has another name")?;
        server = server.register_service([(name.to_owned(), service)].into());
    }
    server = server.register_service(create_sandbox(Arc::new(pod_sandbox::Service::new(&shim))));
    server.start().await.context("cannot serve")?;
    tracing::info!(version = env!("CARGO_PKG_VERSION"), "shim started");
    shim.dismissed().await;
    publisher.flush(FAREWELL).await;
    if let Some(path) = path {
        let _gone = std::fs::remove_file(path);
    }
    // Only now: the last answer goes out while connections are closed.
    let _late = tokio::time::timeout(FAREWELL, server.shutdown()).await;
    tracing::info!("shim ends");
    Ok(())
}

/// The socket that `start` listens on is our stdin.
fn inherited() -> Result<UnixListener> {
    let listener: UnixListener = std::io::stdin()
        .as_fd()
        .try_clone_to_owned()
        .context("cannot take the socket")?
        .into();
    listener
        .local_addr()
        .context("stdin is no socket: `start` starts the shim")?;
    listener
        .set_nonblocking(true)
        .context("cannot watch the socket")?;
    let null = std::fs::File::options()
        .read(true)
        .write(true)
        .open("/dev/null")
        .context("cannot open /dev/null")?;
    rustix::stdio::dup2_stdin(&null).context("cannot release stdin")?;
    Ok(listener)
}
