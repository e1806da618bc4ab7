//! Waiting for the end of a process.

use cofferdam_protocol::WaitProcessResponse;

use super::{ContainerError, Containers};
use crate::cgroup::oom_kills;

/// What ends a process for want of memory.
const SIGKILL: u32 = 9;

impl Containers {
    /// Waits until the process has ended and what it wrote is with the host.
    ///
    /// # Errors
    /// When there is no such process.
    pub async fn wait(&self, id: &str, exec: &str) -> Result<WaitProcessResponse, ContainerError> {
        let container = self.get(id)?;
        let process = container.process(exec)?;
        let end = process.finished().await.ok_or(ContainerError::Ending)?;
        let mut oom_killed = false;
        if end.exit.signal == SIGKILL {
            // The kernel counts before it kills.
            let kills = oom_kills(&container.cgroup);
            let before = std::mem::replace(&mut container.inner().oom_kills, kills);
            oom_killed = kills > before;
        }
        Ok(WaitProcessResponse {
            exit_status: end.exit.status,
            signal: end.exit.signal,
            stdout_bytes: end.stdout,
            stderr_bytes: end.stderr,
            oom_killed,
            ..WaitProcessResponse::default()
        })
    }
}
