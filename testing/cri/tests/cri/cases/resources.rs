//! Limits.

use cri::v1::{LinuxContainerResources, UpdateContainerResourcesRequest};

use crate::lab::Lab;
use crate::pod::script;

/// The limit as a container sees it, whichever kind of control groups it has.
const MEMORY: &str =
    "cat /sys/fs/cgroup/memory.max 2>/dev/null || cat /sys/fs/cgroup/memory/memory.limit_in_bytes";
/// Quota and period, whichever kind.
const PROCESSORS: &str = "cat /sys/fs/cgroup/cpu.max 2>/dev/null || echo $(cat /sys/fs/cgroup/cpu/cpu.cfs_quota_us /sys/fs/cgroup/cpu/cpu.cfs_period_us)";

pub fn memory(lab: &Lab) {
    let pod = lab.pod();
    let mut config = script("main", MEMORY);
    config.linux.get_or_insert_default().resources = Some(LinuxContainerResources {
        memory_limit_in_bytes: 48 << 20,
        ..LinuxContainerResources::default()
    });
    assert_eq!(pod.finish(config), (0, format!("{}\n", 48 << 20)));
}

pub fn processors(lab: &Lab) {
    let pod = lab.pod();
    let mut config = script(
        "main",
        &format!("{PROCESSORS}; grep Cpus_allowed_list /proc/self/status | cut -f 2"),
    );
    config.linux.get_or_insert_default().resources = Some(LinuxContainerResources {
        cpu_quota: 50_000,
        cpu_period: 100_000,
        cpu_shares: 512,
        cpuset_cpus: "0".to_owned(),
        ..LinuxContainerResources::default()
    });
    assert_eq!(pod.finish(config), (0, "50000 100000\n0\n".to_owned()));
}

/// Vertical scaling without a restart.
pub fn updated(lab: &Lab) {
    let pod = lab.pod();
    let mut config = script("main", "sleep 1000");
    config.linux.get_or_insert_default().resources = Some(LinuxContainerResources {
        memory_limit_in_bytes: 48 << 20,
        ..LinuxContainerResources::default()
    });
    let container = pod.run(config);
    assert_eq!(container.exec(MEMORY).1, format!("{}\n", 48 << 20));
    let request = UpdateContainerResourcesRequest {
        container_id: container.id.clone(),
        linux: Some(LinuxContainerResources {
            memory_limit_in_bytes: 64 << 20,
            cpu_quota: 30_000,
            cpu_period: 100_000,
            ..LinuxContainerResources::default()
        }),
        ..UpdateContainerResourcesRequest::default()
    };
    lab.runtime(async |mut calls| calls.update_container_resources(request).await)
        .expect("an update");
    assert_eq!(container.exec(MEMORY).1, format!("{}\n", 64 << 20));
    assert_eq!(container.exec(PROCESSORS).1, "30000 100000\n");
}
