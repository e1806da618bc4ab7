//! Pods whose processes are killed.

use cri::api;
use harness::wait_until;

use super::engine::{LIMIT, both};
use super::pods::{Pod, exec, exit_code};

#[test]
fn a_restarted_containerd_keeps_its_pods() {
    both(|node| {
        let pod = Pod::run(node, "kept");
        let script = "n=0; while :; do n=$((n+1)); echo $n; sleep 0.1; done";
        let container = pod.start("c", 0, script);
        assert!(wait_until(LIMIT, || pod.log("c", 0).contains(" F 5\n")));
        node.restart();
        assert_eq!(pod.state(), api::PodSandboxState::SandboxReady);
        assert_eq!(exec(node, &container, "echo in").1, "in\n");
        let last =
            |log: &str| -> Option<u64> { log.lines().last()?.rsplit(' ').next()?.parse().ok() };
        let before = last(&pod.log("c", 0));
        assert!(
            wait_until(LIMIT, || last(&pod.log("c", 0)) > before),
            "its log has stopped"
        );
        pod.remove();
    });
}

#[test]
fn a_pod_whose_shim_is_killed_can_be_removed() {
    both(|node| {
        let pod = Pod::run(node, "killed");
        let container = pod.start("c", 0, "sleep 1000");
        for shim in node.shims() {
            node.kill9(shim);
        }
        let code = exit_code(node, &container);
        assert!(wait_until(LIMIT, || pod.state()
            == api::PodSandboxState::SandboxNotready));
        pod.remove();
        code
    });
}
