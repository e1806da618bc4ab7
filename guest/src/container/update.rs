//! Changing the limits of a container.

use libcgroups::common::{CgroupConfig, CgroupManager, ControllerOpt, create_cgroup_manager};
use oci_spec::runtime::LinuxResources;

use super::{ContainerError, Containers, State};

impl Containers {
    /// Puts `resources`, a runtime-spec `linux.resources` object as JSON, in force. What it does
    /// not mention stays.
    ///
    /// # Errors
    /// When the container has ended or the kernel refuses a limit.
    pub async fn update(&self, id: &str, resources: &[u8]) -> Result<(), ContainerError> {
        let container = self.get(id)?;
        let resources: LinuxResources =
            serde_json::from_slice(resources).map_err(|source| ContainerError::Malformed {
                what: "the resources",
                source,
            })?;
        let _busy = container.operation.lock().await;
        let alive = [State::Created, State::Running, State::Paused];
        container.require("update", &alive)?;
        let problem = |error: &dyn std::error::Error| ContainerError::Resources {
            id: id.to_owned(),
            problem: crate::helper::chain(error),
        };
        let manager = create_cgroup_manager(CgroupConfig {
            cgroup_path: container.cgroup.spec_path(),
            systemd_cgroup: false,
            container_name: id.to_owned(),
        })
        .map_err(|error| problem(&error))?;
        manager
            .apply(&ControllerOpt {
                resources: &resources,
                disable_oom_killer: false,
                oom_score_adj: None,
                freezer_state: None,
            })
            .map_err(|error| problem(&error))?;
        if let Some(rules) = resources.devices() {
            container.cgroup.allow_devices(rules)?;
        }
        Ok(())
    }
}
