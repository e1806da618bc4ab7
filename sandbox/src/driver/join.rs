//! One more container in a running sandbox.

use std::os::fd::OwnedFd;
use std::os::unix::net::UnixListener;
use std::sync::Arc;

use crate::control::{Adopted, AsyncChannel, ChannelError, Launch, Launched};
use crate::driver::adopted;
use crate::driver::launch::{self, account, make, proxy, setup_hooks, stdio};
use crate::driver::members::{Driver, Member};
use crate::error::SandboxError;
use crate::oom_score;
use crate::sandbox::Container;
use crate::spec;
use crate::state::{ProcessIdentity, Store};

/// Makes the container that a command asks for, and takes it up when the command has let go of it. The command is at
/// the other end of `command`; without it nothing of the container stays.
pub(super) async fn serve(
    driver: &Arc<Driver>,
    mut command: AsyncChannel,
    launch: Launch,
    mut descriptors: Vec<OwnedFd>,
) -> Result<(), SandboxError> {
    let lost = |source| SandboxError::Channel {
        phase: "joining a container to its sandbox",
        source,
    };
    let proxy = descriptors
        .pop()
        .ok_or_else(|| lost(ChannelError::Malformed("no proxy".to_owned())))?;
    let proxy = AsyncChannel::new(proxy.into()).map_err(SandboxError::system("watch the proxy"))?;
    let prepared = tokio::select! {
        prepared = prepare(driver, &launch, descriptors) => prepared,
        gone = command.receive::<Adopted>() => {
            tracing::info!(?gone, "the joining command is gone");
            return Ok(());
        }
    };
    let (container, listener) = match prepared {
        Ok(prepared) => prepared,
        Err(error) => {
            return command
                .send(&Launched::Failed(error.failure()))
                .await
                .map_err(lost);
        }
    };
    let member = Member::new(launch, container);
    let admitted = match launch::adopted(&mut command).await {
        Ok(()) => driver.admit(&member),
        Err(error) => {
            tracing::info!(%error, "the joining command is gone");
            false
        }
    };
    if !admitted {
        return member.container.delete().await;
    }
    adopted::start(Arc::clone(driver), member, listener, proxy);
    Ok(())
}

async fn prepare(
    driver: &Driver,
    launch: &Launch,
    descriptors: Vec<OwnedFd>,
) -> Result<(Container, UnixListener), SandboxError> {
    let store = Store::open(&launch.root)?;
    let record = store.update(&launch.id, |record| {
        record.driver = Some(ProcessIdentity::current());
        record.init = Some(launch.proxy);
        record.helpers = driver.helpers();
    })?;
    account(&record, launch)?;
    let stdio = stdio(&launch.stdio, descriptors)?;
    // As the command has checked it, with what has ended since.
    let neighbours = driver.neighbours();
    spec::check_with(&launch.spec, &record.bundle, &neighbours)?;
    let guest_spec = spec::rewrite_with(
        &launch.id,
        &launch.spec,
        &record.bundle,
        &launch.rootfs,
        &neighbours,
    )?;
    // Its network is the sandbox's, which is there.
    setup_hooks(launch, &record).await?;
    let made = make(&store, launch, &driver.sandbox, &guest_spec, stdio).await?;
    oom_score::begin(&launch.spec, proxy(&record, launch));
    oom_score::join(&launch.spec, driver.sandbox.processes().iter().copied());
    Ok(made)
}
