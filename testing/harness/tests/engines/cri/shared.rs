//! What containers of a pod share, and what each has for itself.

use cri::api;
use harness::wait_until;

use super::engine::{LIMIT, both};
use super::pods::{Pod, exec, exit_code, status};

#[test]
fn ipc_names_and_network_are_the_pods() {
    both(|node| {
        let pod = Pod::run(node, "shared");
        let one = pod.start("a", 0, "nc -l -p 7777 -e echo over loopback");
        let two = pod.start("b", 0, "sleep 1000");
        let listens = || exec(node, &two, "nc 127.0.0.1 7777 </dev/null").1 == "over loopback\n";
        assert!(wait_until(LIMIT, listens), "{:?}", status(node, &one));
        let namespaces = |container: &str, kinds: &str| {
            let script =
                format!("hostname; for kind in {kinds}; do readlink /proc/self/ns/$kind; done");
            exec(node, container, &script).1
        };
        let names = |container: &str| namespaces(container, "ipc uts net");
        let three = pod.start("c", 0, "sleep 1000");
        assert_eq!(names(&two), names(&three));
        assert!(names(&two).contains("net:["), "{}", names(&two));
        assert!(names(&two).starts_with("host-shared\n"), "{}", names(&two));
        let own = |container: &str| namespaces(container, "pid mnt");
        assert_ne!(own(&two), own(&three));
        assert_eq!(
            exec(node, &three, "cat /proc/1/cmdline | tr '\\0' ' '").1,
            "sleep 1000 "
        );
        pod.remove();
    });
}

#[test]
fn processes_are_shared_when_the_pod_says_so() {
    both(|node| {
        let pod = Pod::run_with(node, "processes", |config| {
            config.linux = Some(api::LinuxPodSandboxConfig {
                security_context: Some(api::LinuxSandboxSecurityContext {
                    namespace_options: Some(api::NamespaceOption::default()),
                    ..Default::default()
                }),
                ..Default::default()
            });
        });
        let _one = pod.start("a", 0, "exec sleep 7654");
        let two = pod.start("b", 0, "exec sleep 1000");
        let shown = exec(node, &two, "ps -o args; cat /proc/1/cmdline | tr '\\0' ' '").1;
        assert!(shown.contains("sleep 7654"), "{shown}");
        // The first process is the sandbox's.
        assert!(shown.ends_with("sleep 1000000 "), "{shown}");
        // It goes on when a container has ended, and takes others.
        let short = pod.start("c", 0, "exit 4");
        assert_eq!(exit_code(node, &short), 4);
        let shown = exec(node, &two, "ps -o args").1;
        assert!(shown.contains("sleep 7654"), "{shown}");
        pod.remove();
    });
}

#[test]
fn names_are_resolved_and_sysctls_set_as_the_pod_says() {
    both(|node| {
        let pod = Pod::run_with(node, "settings", |config| {
            config.dns_config = Some(api::DnsConfig {
                servers: vec!["192.0.2.53".to_owned()],
                searches: vec!["example.test".to_owned()],
                options: Vec::new(),
            });
            if let Some(linux) = &mut config.linux {
                let sysctls = [
                    ("kernel.shm_rmid_forced", "1"),
                    ("net.ipv4.ip_local_port_range", "2000 3000"),
                ];
                linux.sysctls = sysctls
                    .map(|(name, value)| (name.to_owned(), value.to_owned()))
                    .into();
            }
        });
        let container = pod.start("c", 0, "sleep 1000");
        let shown = exec(
            node,
            &container,
            "cat /etc/resolv.conf /proc/sys/kernel/shm_rmid_forced /proc/sys/net/ipv4/ip_local_port_range; cat /etc/hostname",
        );
        assert_eq!(
            shown.1,
            "search example.test\nnameserver 192.0.2.53\n1\n2000\t3000\nhost-settings\n"
        );
        pod.remove();
    });
}

#[test]
fn limits_can_be_changed_and_a_slow_exec_is_given_up() {
    both(|node| {
        let pod = Pod::run(node, "limits");
        let container = pod.start("c", 0, "sleep 1000");
        let request = api::UpdateContainerResourcesRequest {
            container_id: container.clone(),
            linux: Some(api::LinuxContainerResources {
                memory_limit_in_bytes: 48 << 20,
                ..Default::default()
            }),
            ..Default::default()
        };
        node.cri
            .call(async |mut cri| cri.update_container_resources(request).await)
            .expect("updated");
        let script =
            "cat /sys/fs/cgroup/memory.max /sys/fs/cgroup/memory/memory.limit_in_bytes 2>/dev/null";
        assert_eq!(exec(node, &container, script).1, format!("{}\n", 48 << 20));
        let request = api::ExecSyncRequest {
            container_id: container.clone(),
            cmd: ["sleep", "1000"].map(str::to_owned).to_vec(),
            timeout: 2,
        };
        let late = node.cri.call(async |mut cri| cri.exec_sync(request).await);
        assert_eq!(
            late.expect_err("too slow").code(),
            cri::Code::DeadlineExceeded
        );
        assert_eq!(exec(node, &container, "echo fine").1, "fine\n");
        pod.remove();
    });
}
