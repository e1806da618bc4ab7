//! The life of pods, by the calls that kubelet makes.

use std::fs;

use cri::api;
use harness::wait_until;

use super::engine::{Class, LIMIT, Node, both};

/// A pod and what it takes to make containers in it.
pub struct Pod<'a> {
    node: &'a Node,
    /// Its id.
    pub id: String,
    config: api::PodSandboxConfig,
}

impl<'a> Pod<'a> {
    /// Runs its sandbox.
    pub fn run(node: &'a Node, name: &str) -> Self {
        let logs = node.folder().join("logs").join(name);
        fs::create_dir_all(&logs).expect("a folder");
        let config = api::PodSandboxConfig {
            metadata: Some(api::PodSandboxMetadata {
                name: name.to_owned(),
                uid: format!("uid-{name}"),
                namespace: "default".to_owned(),
                attempt: 0,
            }),
            hostname: format!("host-{name}"),
            log_directory: logs.to_str().expect("text").to_owned(),
            linux: Some(api::LinuxPodSandboxConfig::default()),
            ..Default::default()
        };
        let request = api::RunPodSandboxRequest {
            config: Some(config.clone()),
            runtime_handler: node.class.handler().to_owned(),
        };
        let answer = node
            .cri
            .call(async |mut cri| cri.run_pod_sandbox(request).await);
        let id = answer
            .unwrap_or_else(|error| panic!("{error}\n{}", node.log()))
            .pod_sandbox_id;
        Self { node, id, config }
    }

    /// Makes a container that runs a script.
    pub fn create(&self, name: &str, attempt: u32, script: &str) -> String {
        let request = api::CreateContainerRequest {
            pod_sandbox_id: self.id.clone(),
            config: Some(api::ContainerConfig {
                metadata: Some(api::ContainerMetadata {
                    name: name.to_owned(),
                    attempt,
                }),
                image: Some(api::ImageSpec {
                    image: self.node.busybox.clone(),
                    ..Default::default()
                }),
                command: ["sh", "-c", script].map(str::to_owned).to_vec(),
                log_path: format!("{name}-{attempt}.log"),
                linux: Some(api::LinuxContainerConfig::default()),
                ..Default::default()
            }),
            sandbox_config: Some(self.config.clone()),
        };
        let answer = self
            .node
            .cri
            .call(async |mut cri| cri.create_container(request).await);
        answer
            .unwrap_or_else(|error| panic!("{error}\n{}", self.node.log()))
            .container_id
    }

    /// Makes and starts a container.
    pub fn start(&self, name: &str, attempt: u32, script: &str) -> String {
        let container_id = self.create(name, attempt, script);
        let request = api::StartContainerRequest {
            container_id: container_id.clone(),
        };
        let answer = self
            .node
            .cri
            .call(async |mut cri| cri.start_container(request).await);
        answer.unwrap_or_else(|error| panic!("{error}\n{}", self.node.log()));
        container_id
    }

    /// What a container has logged.
    pub fn log(&self, name: &str, attempt: u32) -> String {
        let path = format!("{}/{name}-{attempt}.log", self.config.log_directory);
        fs::read_to_string(path).unwrap_or_default()
    }

    /// The state that its status tells.
    pub fn state(&self) -> api::PodSandboxState {
        let request = api::PodSandboxStatusRequest {
            pod_sandbox_id: self.id.clone(),
            verbose: false,
        };
        let answer = self
            .node
            .cri
            .call(async |mut cri| cri.pod_sandbox_status(request).await);
        answer.expect("a status").status.expect("a status").state()
    }

    /// Stops and removes it, twice as kubelet may.
    pub fn remove(&self) {
        for _ in 0..2 {
            let request = api::StopPodSandboxRequest {
                pod_sandbox_id: self.id.clone(),
            };
            let stopped = self
                .node
                .cri
                .call(async |mut cri| cri.stop_pod_sandbox(request).await);
            stopped.unwrap_or_else(|error| panic!("{error}\n{}", self.node.log()));
        }
        assert_eq!(self.state(), api::PodSandboxState::SandboxNotready);
        let request = api::RemovePodSandboxRequest {
            pod_sandbox_id: self.id.clone(),
        };
        let removed = self
            .node
            .cri
            .call(async |mut cri| cri.remove_pod_sandbox(request).await);
        removed.unwrap_or_else(|error| panic!("{error}\n{}", self.node.log()));
    }
}

/// Runs a command in a container.
pub fn exec(node: &Node, container: &str, script: &str) -> (i32, String, String) {
    let request = api::ExecSyncRequest {
        container_id: container.to_owned(),
        cmd: ["sh", "-c", script].map(str::to_owned).to_vec(),
        timeout: 120,
    };
    let answer = node.cri.call(async |mut cri| cri.exec_sync(request).await);
    let answer = answer.unwrap_or_else(|error| panic!("{error}\n{}", node.log()));
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    (answer.exit_code, text(answer.stdout), text(answer.stderr))
}

/// The status of a container.
pub fn status(node: &Node, container: &str) -> api::ContainerStatus {
    let request = api::ContainerStatusRequest {
        container_id: container.to_owned(),
        verbose: false,
    };
    let answer = node
        .cri
        .call(async |mut cri| cri.container_status(request).await);
    answer.expect("a status").status.expect("a status")
}

/// Waits until a container has ended; answers its exit code.
pub fn exit_code(node: &Node, container: &str) -> i32 {
    let ended = || status(node, container).state() == api::ContainerState::ContainerExited;
    assert!(
        wait_until(LIMIT, ended),
        "{:?}\n{}",
        status(node, container),
        node.log()
    );
    status(node, container).exit_code
}

fn stop(node: &Node, container: &str, timeout: i64) {
    let request = api::StopContainerRequest {
        container_id: container.to_owned(),
        timeout,
    };
    let answer = node
        .cri
        .call(async |mut cri| cri.stop_container(request).await);
    answer.unwrap_or_else(|error| panic!("{error}\n{}", node.log()));
}

fn remove_container(node: &Node, container: &str) {
    let request = api::RemoveContainerRequest {
        container_id: container.to_owned(),
    };
    let answer = node
        .cri
        .call(async |mut cri| cri.remove_container(request).await);
    answer.unwrap_or_else(|error| panic!("{error}\n{}", node.log()));
}

fn boot_id(node: &Node, container: &str) -> String {
    exec(node, container, "cat /proc/sys/kernel/random/boot_id").1
}

#[test]
fn a_pod_without_containers() {
    both(|node| {
        let pod = Pod::run(node, "empty");
        assert_eq!(pod.state(), api::PodSandboxState::SandboxReady);
        assert_eq!(node.shims().len(), 1);
        pod.remove();
    });
}

#[test]
fn a_container_in_its_pod() {
    both(|node| {
        let pod = Pod::run(node, "one");
        let container = pod.start(
            "c",
            0,
            "echo begun; trap 'exit 7' TERM; while :; do sleep 0.1; done",
        );
        assert_eq!(
            status(node, &container).state(),
            api::ContainerState::ContainerRunning
        );
        let observed = exec(node, &container, "echo out; echo err >&2; hostname; exit 5");
        assert_eq!(
            observed,
            (5, "out\nhost-one\n".to_owned(), "err\n".to_owned())
        );
        let request = api::ContainerStatsRequest {
            container_id: container.clone(),
        };
        let stats = node
            .cri
            .call(async |mut cri| cri.container_stats(request).await);
        let stats = stats.expect("statistics").stats.expect("statistics");
        let memory = stats.memory.and_then(|memory| memory.working_set_bytes);
        assert!(
            memory.is_some_and(|bytes| (10_000..64 << 20).contains(&bytes.value)),
            "{memory:?}"
        );
        assert!(wait_until(LIMIT, || pod
            .log("c", 0)
            .contains("stdout F begun")));
        stop(node, &container, 60);
        let code = exit_code(node, &container);
        remove_container(node, &container);
        pod.remove();
        code
    });
}

#[test]
fn containers_of_a_pod_share_its_machine() {
    both(|node| {
        let pod = Pod::run(node, "two");
        let first = pod.start("a", 0, "echo one > /tmp/mine; sleep 1000");
        let second = pod.start("b", 0, "sleep 1000");
        assert_eq!(boot_id(node, &first), boot_id(node, &second));
        let host = fs::read_to_string("/proc/sys/kernel/random/boot_id").expect("an id");
        let is_host = boot_id(node, &first) == host;
        assert_eq!(is_host, node.class == Class::Runc);
        assert_eq!(node.shims().len(), 1);
        assert_eq!(
            exec(node, &second, "ls /tmp/mine").0,
            1,
            "each has its own files"
        );
        stop(node, &first, 0);
        assert_eq!(exit_code(node, &first), 137);
        assert_eq!(exec(node, &second, "echo alive").1, "alive\n");
        // The sandbox goes with a container in it.
        pod.remove();
    });
}

#[test]
fn a_container_is_restarted_in_its_pod() {
    both(|node| {
        let pod = Pod::run(node, "again");
        let other = pod.start("other", 0, "sleep 1000");
        let before = boot_id(node, &other);
        for attempt in 0..3 {
            let container = pod.start(
                "c",
                attempt,
                &format!("echo attempt {attempt}; exit {attempt}"),
            );
            assert_eq!(
                exit_code(node, &container),
                i32::try_from(attempt).expect("small")
            );
            let line = format!("stdout F attempt {attempt}");
            assert!(wait_until(LIMIT, || pod.log("c", attempt).contains(&line)));
            remove_container(node, &container);
        }
        assert_eq!(boot_id(node, &other), before);
        pod.remove();
    });
}

#[test]
fn a_container_that_cannot_run_is_refused_and_its_pod_goes_on() {
    both(|node| {
        let pod = Pod::run(node, "wrong");
        let container_id = {
            let id = pod.create("c", 0, "true");
            remove_container(node, &id);
            pod.create("c", 1, "exec /nonexistent")
        };
        let request = api::StartContainerRequest {
            container_id: container_id.clone(),
        };
        node.cri
            .call(async |mut cri| cri.start_container(request).await)
            .expect("its shell runs");
        assert_eq!(exit_code(node, &container_id), 127);
        remove_container(node, &container_id);
        let good = pod.start("c", 2, "exit 3");
        assert_eq!(exit_code(node, &good), 3);
        pod.remove();
    });
}
