//! A container that its creator has let go of: serves commands until it has ended, and clears up behind it.

use std::os::unix::net::UnixListener;
use std::sync::Arc;
use std::time::SystemTime;

use crate::control::AsyncChannel;
use crate::driver::connection;
use crate::driver::launch::tell_exit;
use crate::driver::members::{Driver, Member};
use crate::state::{ExitStatus, Store};
use crate::timeline;

/// SIGKILL.
const KILL: u8 = 9;
/// Commands served at the same time, at most: each exec in progress is one.
const CONNECTIONS: usize = 4096;

/// Serves commands until the container has ended, then clears up: with the last one the machine.
pub(super) async fn serve(
    driver: Arc<Driver>,
    member: Arc<Member>,
    listener: UnixListener,
    mut proxy: AsyncChannel,
) {
    let commands = accept(&driver, &member, listener);
    tokio::pin!(commands);
    let exit = tokio::select! {
        exit = member.container.wait() => exit,
        never = &mut commands => never,
        never = forward(&member, &mut proxy) => never,
    };
    tracing::info!(?exit, container = %member.launch.id, "container ended");
    if member.container.init().is_drained() {
        // Before anybody hears of the end: the files that the container wrote are on the host then.
        let is_over = clear(&driver, &member).await;
        write_exit(&driver, &member, exit);
        driver.announce_want(&member, exit, is_over).await;
        tell_exit(&proxy, exit).await;
    } else {
        // Its reader does not read, and may be waiting for the end: the rest stays with us until it does, as it would
        // in a pipe. `delete` ends the waiting.
        write_exit(&driver, &member, exit);
        tell_exit(&proxy, exit).await;
        tokio::select! {
            () = member.container.init().drained() => {}
            () = member.is_discarded() => {}
            _never = &mut commands => {}
        }
        clear(&driver, &member).await;
    }
    driver.cleared(&member);
}

/// As [`serve`], on its own.
pub(super) fn start(
    driver: Arc<Driver>,
    member: Arc<Member>,
    listener: UnixListener,
    proxy: AsyncChannel,
) {
    tokio::spawn(serve(driver, member, listener, proxy));
}

/// Takes the container out of the machine, or ends that with its last container; answers whether it has ended.
async fn clear(driver: &Driver, member: &Member) -> bool {
    let is_last = driver.leave(member);
    if is_last {
        driver.sandbox.stop().await;
    } else if let Err(error) = member.container.delete().await {
        tracing::warn!(error = crate::error::chain(&error), container = %member.launch.id, "not removed from the guest");
    }
    is_last
}

fn write_exit(driver: &Driver, member: &Member, exit: ExitStatus) {
    let written = Store::open(&driver.root).and_then(|store| {
        store.update(&member.launch.id, |record| {
            record.exit = Some(exit);
            record.finished = Some(humantime::format_rfc3339_nanos(SystemTime::now()).to_string());
        })
    });
    if let Err(error) = written {
        // Deleted by force meanwhile.
        tracing::warn!(%error, "exit status not written");
    }
    timeline::mark("the exit status is written", None);
}

/// Takes commands, one task each.
async fn accept(driver: &Arc<Driver>, member: &Arc<Member>, listener: UnixListener) -> ExitStatus {
    let listener = listener
        .set_nonblocking(true)
        .and_then(|()| tokio::net::UnixListener::from_std(listener));
    let listener = match listener {
        Ok(listener) => listener,
        Err(error) => {
            tracing::error!(%error, "cannot watch the control socket");
            return std::future::pending().await;
        }
    };
    let slots = Arc::new(tokio::sync::Semaphore::new(CONNECTIONS));
    loop {
        let Ok(slot) = Arc::clone(&slots).acquire_owned().await else {
            return std::future::pending().await;
        };
        match listener.accept().await {
            Ok((stream, _)) => {
                let (driver, member) = (Arc::clone(driver), Arc::clone(member));
                tokio::spawn(async move {
                    let served = match stream.into_std() {
                        Ok(stream) => connection::serve(&driver, &member, stream).await,
                        Err(error) => Err(crate::SandboxError::system("watch a command")(error)),
                    };
                    if let Err(error) = served {
                        tracing::debug!(%error, "command not served");
                    }
                    drop(slot);
                });
            }
            Err(error) => {
                // Out of descriptors, most likely: they come back when commands end.
                tracing::warn!(%error, "cannot accept a command");
                tokio::time::sleep(std::time::Duration::from_millis(100)).await;
            }
        }
    }
}

/// Passes on what the proxy of the first process hears. A proxy that was killed takes the process with it: its pid is
/// the process's, as far as the host knows.
async fn forward(member: &Member, proxy: &mut AsyncChannel) -> ExitStatus {
    connection::forward(member.container.init(), proxy).await;
    if let Err(error) = member.container.kill(KILL, false).await {
        tracing::debug!(%error, "nothing left to kill");
    }
    std::future::pending().await
}
