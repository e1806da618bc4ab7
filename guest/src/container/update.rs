//! Changing the limits of a container.

use libcgroups::common::{CgroupConfig, CgroupManager, ControllerOpt, create_cgroup_manager};
use oci_spec::runtime::{LinuxCpu, LinuxMemory, LinuxResources};

use super::{ContainerError, Containers, State};

impl Containers {
    /// Puts `resources`, a runtime-spec `linux.resources` object as JSON, in force. What it does
    /// not mention stays.
    ///
    /// # Errors
    /// When the container has ended or the kernel refuses a limit.
    pub async fn update(&self, id: &str, resources: &[u8]) -> Result<(), ContainerError> {
        let container = self.get(id)?;
        let mut resources: LinuxResources =
            serde_json::from_slice(resources).map_err(|source| ContainerError::Malformed {
                what: "the resources",
                source,
            })?;
        drop_zeros(&mut resources);
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

/// Engines fill every field of an update, with a zero or nothing in those that nobody named; runc leaves those alone.
fn drop_zeros(resources: &mut LinuxResources) {
    if let Some(cpu) = resources.cpu().clone() {
        resources.set_cpu(Some(cpu_named(cpu)));
    }
    if let Some(memory) = *resources.memory() {
        resources.set_memory(Some(memory_named(memory)));
    }
    if resources
        .pids()
        .as_ref()
        .is_some_and(|pids| pids.limit() == 0)
    {
        resources.set_pids(None);
    }
    if let Some(mut io) = resources.block_io().clone() {
        let weight = io.weight().filter(|weight| *weight != 0);
        io.set_weight(weight);
        resources.set_block_io(Some(io));
    }
}

fn cpu_named(mut cpu: LinuxCpu) -> LinuxCpu {
    let (shares, quota, period) = (cpu.shares(), cpu.quota(), cpu.period());
    let (cpus, mems) = (cpu.cpus().clone(), cpu.mems().clone());
    cpu.set_shares(shares.filter(|shares| *shares != 0))
        .set_quota(quota.filter(|quota| *quota != 0))
        .set_period(period.filter(|period| *period != 0))
        .set_cpus(cpus.filter(|list| !list.is_empty()))
        .set_mems(mems.filter(|list| !list.is_empty()));
    cpu
}

fn memory_named(mut memory: LinuxMemory) -> LinuxMemory {
    let (limit, swap, reservation) = (memory.limit(), memory.swap(), memory.reservation());
    memory
        .set_limit(limit.filter(|limit| *limit != 0))
        .set_swap(swap.filter(|swap| *swap != 0))
        .set_reservation(reservation.filter(|reservation| *reservation != 0));
    memory
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_nobody_named_is_left_alone() {
        // As Docker fills it for `docker update --memory 96m --memory-swap 96m`.
        let text = r#"{"memory": {"limit": 100663296, "reservation": 0, "swap": 100663296, "kernel": 0},
            "cpu": {"shares": 0, "quota": 0, "period": 0, "cpus": "", "mems": ""},
            "pids": {"limit": 0}, "blockIO": {"weight": 0}}"#;
        let mut resources: LinuxResources = serde_json::from_str(text).unwrap();
        drop_zeros(&mut resources);
        let memory = resources.memory().unwrap();
        assert_eq!(
            (memory.limit(), memory.swap(), memory.reservation()),
            (Some(100_663_296), Some(100_663_296), None)
        );
        assert_eq!(resources.cpu(), &Some(LinuxCpu::default()));
        assert!(resources.pids().is_none());
        assert_eq!(resources.block_io().as_ref().unwrap().weight(), None);
    }
}
