//! What kubelet's own measurements are made of.

use std::time::Duration;

use cri::v1::{
    ContainerStats, ContainerStatsFilter, ContainerStatsRequest, ListContainerStatsRequest,
    ListPodSandboxStatsRequest, PodSandboxStatsFilter, PodSandboxStatsRequest,
};
use harness::wait_until;

use crate::lab::Lab;
use crate::pod::{Container, command, script};

/// Holds 20 MiB and computes.
const BUSY: &str = "head -c 20000000 /dev/zero > /dev/shm/x; while :; do :; done";

fn of(lab: &Lab, container: &Container) -> ContainerStats {
    let request = ContainerStatsRequest {
        container_id: container.id.clone(),
    };
    lab.runtime(async |mut calls| calls.container_stats(request).await)
        .expect("statistics")
        .stats
        .unwrap_or_default()
}

/// Nanoseconds of processors, bytes of memory that are in use.
fn numbers(stats: &ContainerStats) -> (u64, u64) {
    let cpu = stats.cpu.unwrap_or_default();
    let memory = stats.memory.unwrap_or_default();
    (
        cpu.usage_core_nano_seconds.unwrap_or_default().value,
        memory.working_set_bytes.unwrap_or_default().value,
    )
}

pub fn of_a_container(lab: &Lab) {
    let pod = lab.pod();
    let busy = pod.run(script("busy", BUSY));
    let idle = pod.run(command("idle", &["sleep", "1000"]));
    let mut seen = (0, 0);
    let grows = wait_until(Duration::from_secs(90), || {
        seen = numbers(&of(lab, &busy));
        seen.0 > 1_000_000_000 && seen.1 > 20_000_000
    });
    assert!(grows, "{seen:?}");
    let stats = of(lab, &busy);
    let attributes = stats.attributes.expect("whose they are");
    assert_eq!(attributes.id, busy.id);
    assert_eq!(attributes.metadata.expect("a name").name, "busy");
    let (cpu, memory) = numbers(&of(lab, &idle));
    assert!(cpu < seen.0 && memory < 20_000_000, "{cpu} {memory}");
}

pub fn of_all_containers(lab: &Lab) {
    let pod = lab.pod();
    let running = ["one", "two"].map(|name| pod.run(command(name, &["sleep", "1000"])));
    let request = ListContainerStatsRequest {
        filter: Some(ContainerStatsFilter {
            pod_sandbox_id: pod.id.clone(),
            ..ContainerStatsFilter::default()
        }),
    };
    let list = || {
        let request = request.clone();
        lab.runtime(async |mut calls| calls.list_container_stats(request).await)
            .expect("statistics")
            .stats
    };
    let ids = || {
        let mut ids: Vec<_> = list()
            .into_iter()
            .filter_map(|stats| Some(stats.attributes?.id))
            .collect();
        ids.sort();
        ids
    };
    let mut wanted = running.each_ref().map(|container| container.id.clone());
    wanted.sort();
    assert_eq!(ids(), wanted);
    let has_memory = wait_until(Duration::from_secs(60), || {
        list().iter().all(|stats| numbers(stats).1 > 0)
    });
    assert!(has_memory, "{:?}", list());
}

pub fn of_a_pod(lab: &Lab) {
    let pod = lab.pod();
    let _busy = pod.run(script("busy", BUSY));
    let mut seen = None;
    let grows = wait_until(Duration::from_secs(90), || {
        let request = PodSandboxStatsRequest {
            pod_sandbox_id: pod.id.clone(),
        };
        let linux = lab
            .runtime(async |mut calls| calls.pod_sandbox_stats(request).await)
            .expect("statistics")
            .stats
            .and_then(|stats| stats.linux)
            .unwrap_or_default();
        let cpu = linux.cpu.unwrap_or_default();
        let memory = linux.memory.unwrap_or_default();
        let grows = cpu.usage_core_nano_seconds.unwrap_or_default().value > 1_000_000_000
            && memory.working_set_bytes.unwrap_or_default().value > 20_000_000;
        seen = Some(linux);
        grows
    });
    assert!(grows, "{seen:?}");
    let linux = seen.expect("statistics");
    assert_eq!(linux.containers.len(), 1, "{linux:?}");
    let network = linux.network.expect("a network");
    let interface = network.default_interface.expect("an interface");
    assert_eq!(interface.name, "eth0");
    let request = ListPodSandboxStatsRequest {
        filter: Some(PodSandboxStatsFilter {
            id: pod.id.clone(),
            ..PodSandboxStatsFilter::default()
        }),
    };
    let list = lab
        .runtime(async |mut calls| calls.list_pod_sandbox_stats(request).await)
        .expect("statistics");
    assert_eq!(list.stats.len(), 1, "{list:?}");
}
