//! Removing a container.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::timeout;

use super::create::remove_folders;
use super::{ContainerError, Containers, share, shm};

/// How long the agent may take to see an end that the kernel has announced.
const PATIENCE: Duration = Duration::from_secs(10);

impl Containers {
    /// Kills what is left of the container and frees its name.
    ///
    /// # Errors
    /// When there is no such container, or processes of it cannot be killed.
    pub async fn delete(&self, id: &str) -> Result<(), ContainerError> {
        let container = self.get(id)?;
        let cgroup = &container.cgroup;
        // Before anything is waited for: an operation that hangs, hangs on one of these processes.
        let killed = cgroup.kill();
        killed.map_err(ContainerError::file("kill the processes in", cgroup.path()))?;
        let _busy = container.operation.lock().await;
        // The name may be another's by now, if somebody else has deleted this one meanwhile.
        if !Arc::ptr_eq(&container, &self.get(id)?) {
            return Err(ContainerError::NoContainer { id: id.to_owned() });
        }
        let removed = cgroup.remove().await;
        removed.map_err(ContainerError::file("remove cgroup", cgroup.path()))?;
        let processes: Vec<_> = {
            let inner = container.inner();
            let execs = inner.execs.values().flatten().cloned();
            execs.chain([inner.init.clone()]).collect()
        };
        for process in processes {
            // Whoever waits for one of them shall have the answer first.
            if timeout(PATIENCE, process.ended()).await.is_err() {
                return Err(ContainerError::Process {
                    id: id.to_owned(),
                    exec: String::new(),
                    problem: "does not end",
                });
            }
        }
        remove_folders(id);
        shm::remove(id);
        share::let_go(id).await;
        self.table().remove(id);
        Ok(())
    }

    /// Kills all processes of all containers and waits for their ends, not longer than `patience`. Their cgroups and
    /// folders stay, because the guest is about to end.
    pub async fn kill_all(&self, patience: Duration) {
        let containers: Vec<_> = self.table().values().flatten().cloned().collect();
        let mut processes = Vec::new();
        for container in &containers {
            // What cannot be killed ends with the machine.
            let _ = container.cgroup.kill();
            let inner = container.inner();
            processes.extend(inner.execs.values().flatten().cloned());
            processes.push(inner.init.clone());
        }
        // Whoever waits for one of them shall have the answer first.
        let ended = async {
            for process in processes {
                process.ended().await;
            }
        };
        let _ = timeout(patience, ended).await;
    }
}
