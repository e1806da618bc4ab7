//! Waiting for the end of a process.

use cofferdam_protocol::WaitProcessResponse;

use super::{ContainerError, Containers};
impl Containers {
    /// Waits until the process has ended.
    ///
    /// # Errors
    /// When there is no such process.
    pub async fn wait(&self, id: &str, exec: &str) -> Result<WaitProcessResponse, ContainerError> {
        let container = self.get(id)?;
        let process = container.process(exec)?;
        let end = process.finished().await.ok_or(ContainerError::Ending)?;
        Ok(WaitProcessResponse {
            exit_status: end.exit.status,
            signal: end.exit.signal,
            stdout_bytes: end.stdout,
            stderr_bytes: end.stderr,
            oom_killed: end.oom_killed,
            ..WaitProcessResponse::default()
        })
    }
}
