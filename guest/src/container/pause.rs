//! Stopping all processes of a container, and letting them go on.

use super::{ContainerError, Containers, State};

impl Containers {
    /// Stops every process of the container.
    ///
    /// # Errors
    /// When the container does not run.
    pub async fn pause(&self, id: &str) -> Result<(), ContainerError> {
        self.freeze("pause", id, State::Running, true).await
    }

    /// Lets every process go on.
    ///
    /// # Errors
    /// When the container is not paused.
    pub async fn resume(&self, id: &str) -> Result<(), ContainerError> {
        self.freeze("resume", id, State::Paused, false).await
    }

    async fn freeze(
        &self,
        operation: &'static str,
        id: &str,
        from: State,
        frozen: bool,
    ) -> Result<(), ContainerError> {
        let container = self.get(id)?;
        let _busy = container.operation.lock().await;
        container.require(operation, &[from])?;
        let cgroup = &container.cgroup;
        let done = cgroup.freeze(frozen).await;
        done.map_err(ContainerError::file(operation, cgroup.path()))?;
        container.inner().paused = frozen;
        Ok(())
    }
}
