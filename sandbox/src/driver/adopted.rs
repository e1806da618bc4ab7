//! A driver on its own: serves commands until its container has ended.

use std::os::unix::net::UnixListener;
use std::sync::Arc;
use std::time::SystemTime;

use crate::control::{AsyncChannel, Launch};
use crate::driver::connection;
use crate::driver::launch::tell_exit;
use crate::sandbox::{Container, Sandbox};
use crate::state::{ExitStatus, Store};
use crate::timeline;

/// SIGKILL.
const KILL: u8 = 9;
/// Commands served at the same time, at most: each exec in progress is one.
const CONNECTIONS: usize = 4096;

/// What a driver owns.
#[derive(Debug)]
pub(super) struct Driver {
    pub(super) launch: Launch,
    pub(super) sandbox: Sandbox,
    pub(super) container: Container,
}

/// Serves commands until the container has ended, then clears up.
pub(super) async fn serve(driver: Driver, listener: UnixListener, mut proxy: AsyncChannel) {
    let driver = Arc::new(driver);
    let exit = {
        let commands = accept(&driver, listener);
        let forwarding = forward(&driver, &mut proxy);
        tokio::select! {
            exit = driver.container.wait() => exit,
            never = commands => never,
            never = forwarding => never,
        }
    };
    tracing::info!(?exit, "container ended");
    if driver.container.init().is_drained() {
        // Before anybody hears of the end: the files that the container wrote are on the host then.
        driver.sandbox.stop().await;
        write_exit(&driver, exit);
        tell_exit(&proxy, exit).await;
    } else {
        // Its reader does not read, and may be waiting for the end: the rest stays with us until it does, as it would
        // in a pipe. `delete` ends the waiting.
        write_exit(&driver, exit);
        tell_exit(&proxy, exit).await;
        driver.container.init().drained().await;
        driver.sandbox.stop().await;
    }
}

fn write_exit(driver: &Driver, exit: ExitStatus) {
    let written = Store::open(&driver.launch.root).and_then(|store| {
        store.update(&driver.launch.id, |record| {
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
async fn accept(driver: &Arc<Driver>, listener: UnixListener) -> ExitStatus {
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
                let driver = Arc::clone(driver);
                tokio::spawn(async move {
                    let served = match stream.into_std() {
                        Ok(stream) => connection::serve(&driver, stream).await,
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
async fn forward(driver: &Arc<Driver>, proxy: &mut AsyncChannel) -> ExitStatus {
    connection::forward(driver.container.init(), proxy).await;
    if let Err(error) = driver.container.kill(KILL, false).await {
        tracing::debug!(%error, "nothing left to kill");
    }
    std::future::pending().await
}
