//! What a container uses.

use super::{ContainerError, Containers};
use crate::cgroup;

impl Containers {
    /// runc's `events --stats` data object as JSON.
    ///
    /// # Errors
    /// When there is no such container, or its cgroup cannot be read.
    pub fn stats(&self, id: &str) -> Result<Vec<u8>, ContainerError> {
        let container = self.get(id)?;
        let path = container.cgroup.path();
        let stats = cgroup::stats(&container.cgroup);
        let stats = stats.map_err(ContainerError::file("read", path))?;
        serde_json::to_vec(&stats).map_err(|source| ContainerError::Malformed {
            what: "the statistics",
            source,
        })
    }
}
