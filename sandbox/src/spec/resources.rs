//! Limits that a guest keeps, and those that it cannot.

use oci_spec::runtime::{LinuxMemory, LinuxResources};

use super::check::{SpecError, unsupported};

/// Refuses limits that the guest's kernel cannot keep.
pub(super) fn check(resources: &LinuxResources) -> Result<(), SpecError> {
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
    let Some(io) = resources.block_io() else {
        return Ok(());
    };
    for (field, is_set) in [
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
                "disks of the host are not in the guest; limit processors and memory instead",
            ));
        }
    }
    Ok(())
}
