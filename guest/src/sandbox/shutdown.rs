//! The end of the guest.

use std::time::Duration;

use rustix::system::{RebootCommand, reboot};
use tokio::time::{sleep, timeout};

use super::Sandbox;

/// How long containers may take to die: the guest ends all the same.
const PATIENCE: Duration = Duration::from_secs(5);

/// Time for the answer to reach the host, which usually ends the guest before it is over.
const FAREWELL: Duration = Duration::from_millis(20);

impl Sandbox {
    /// Kills all containers, writes what is to be written and, shortly after returning, restarts
    /// the machine, which ends it.
    pub async fn shutdown(&self) {
        self.containers.kill_all(PATIENCE).await;
        let synced = tokio::task::spawn_blocking(rustix::fs::sync);
        // A share that hangs must not keep the guest.
        let _ = timeout(PATIENCE, synced).await;
        tokio::spawn(async {
            sleep(FAREWELL).await;
            if let Err(error) = reboot(RebootCommand::Restart) {
                eprintln!("cofferdam-agent: cannot restart the machine: {error}");
                // PID 1 restarts it when the agent ends.
                std::process::exit(1);
            }
        });
    }
}
