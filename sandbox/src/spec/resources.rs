//! Limits that a guest keeps, and those that it cannot.

use oci_spec::runtime::{Linux, LinuxMemory, LinuxPids, LinuxResources};

use super::check::{SpecError, invalid, unsupported};

/// Checks limits, of a spec or of an update.
///
/// # Errors
/// The first that the guest's kernel cannot keep.
pub fn check(resources: &LinuxResources) -> Result<(), SpecError> {
    if resources
        .memory()
        .as_ref()
        .and_then(LinuxMemory::disable_oom_killer)
        == Some(true)
    {
        return Err(unsupported(
            "linux.resources.memory.disableOOMKiller",
            "the guest has cgroup v2, where nothing switches the killer off; raise the memory limit",
        ));
    }
    if let Some(cpu) = resources.cpu()
        && (cpu.realtime_runtime().is_some_and(|time| time != 0)
            || cpu.realtime_period().is_some_and(|time| time != 0))
    {
        return Err(unsupported(
            "linux.resources.cpu.realtimeRuntime",
            "the guest has cgroup v2, which shares out no real time; limit it by quota and period",
        ));
    }
    if resources
        .rdma()
        .as_ref()
        .is_some_and(|rdma| !rdma.is_empty())
    {
        return Err(unsupported(
            "linux.resources.rdma",
            "the host's RDMA devices are not in the guest",
        ));
    }
    if let Some(network) = resources.network()
        && (network.class_id().is_some_and(|class| class != 0)
            || network.priorities().iter().flatten().count() > 0)
    {
        return Err(unsupported(
            "linux.resources.network",
            "the guest has cgroup v2, which marks no packets; mark those of its interface on the host",
        ));
    }
    if let Some(key) = resources
        .unified()
        .iter()
        .flatten()
        .map(|(key, _)| key)
        .find(|key| key.contains('/'))
    {
        return Err(invalid(format!(
            "linux.resources.unified {key:?} must be a file name (no slashes)"
        )));
    }
    let Some(io) = resources.block_io() else {
        return Ok(());
    };
    for (field, is_set) in [
        (
            "leafWeight",
            io.leaf_weight().is_some_and(|weight| weight != 0),
        ),
        (
            "weightDevice",
            io.weight_device().iter().flatten().count() > 0,
        ),
        (
            "throttleReadBpsDevice",
            io.throttle_read_bps_device().iter().flatten().count() > 0,
        ),
        (
            "throttleWriteBpsDevice",
            io.throttle_write_bps_device().iter().flatten().count() > 0,
        ),
        (
            "throttleReadIOPSDevice",
            io.throttle_read_iops_device().iter().flatten().count() > 0,
        ),
        (
            "throttleWriteIOPSDevice",
            io.throttle_write_iops_device().iter().flatten().count() > 0,
        ),
    ] {
        if is_set {
            return Err(unsupported(
                format!("linux.resources.blockIO.{field}"),
                "disks of the host are not in the guest, which has cgroup v2; limit processors and memory instead",
            ));
        }
    }
    Ok(())
}

/// As runc understands them: no processes at all means no limit.
pub(super) fn translate(linux: &mut Linux) {
    let Some(mut resources) = linux.resources().clone() else {
        return;
    };
    if resources.pids().as_ref().map(LinuxPids::limit) == Some(0) {
        resources.set_pids(None);
        linux.set_resources(Some(resources));
    }
}
