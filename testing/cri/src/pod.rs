//! Pods and their containers by the calls that kubelet makes, for programs that want many of them and nothing special.

use std::path::Path;
use std::time::{Duration, Instant};

use k8s_cri::v1::{
    ContainerConfig, ContainerMetadata, ContainerState, ContainerStatusRequest,
    CreateContainerRequest, ExecSyncRequest, ImageSpec, LinuxContainerConfig,
    LinuxContainerSecurityContext, LinuxPodSandboxConfig, LinuxSandboxSecurityContext,
    NamespaceMode, NamespaceOption, PodSandboxConfig, PodSandboxMetadata, RemoveContainerRequest,
    RemovePodSandboxRequest, RunPodSandboxRequest, StartContainerRequest, StopPodSandboxRequest,
};
use tonic::Status;

use crate::client::Client;

/// How often an end is asked for.
const STEP: Duration = Duration::from_millis(10);

/// A pod that runs.
#[derive(Debug)]
pub struct Pod<'a> {
    client: &'a Client,
    config: PodSandboxConfig,
    id: String,
}

impl<'a> Pod<'a> {
    /// Runs one by this name with a handler of the engine's; `cgroup` is its control group, `logs` the folder of its
    /// containers' logs.
    ///
    /// # Errors
    /// The engine's.
    pub fn run(
        client: &'a Client,
        (handler, name): (&str, &str),
        cgroup: &str,
        logs: &Path,
    ) -> Result<Self, Status> {
        let config = PodSandboxConfig {
            metadata: Some(PodSandboxMetadata {
                name: name.to_owned(),
                uid: name.to_owned(),
                namespace: "default".to_owned(),
                attempt: 0,
            }),
            hostname: name.to_owned(),
            log_directory: logs.display().to_string(),
            linux: Some(LinuxPodSandboxConfig {
                cgroup_parent: cgroup.to_owned(),
                security_context: Some(LinuxSandboxSecurityContext {
                    namespace_options: Some(namespaces()),
                    ..LinuxSandboxSecurityContext::default()
                }),
                ..LinuxPodSandboxConfig::default()
            }),
            ..PodSandboxConfig::default()
        };
        let request = RunPodSandboxRequest {
            config: Some(config.clone()),
            runtime_handler: handler.to_owned(),
        };
        let id = client
            .runtime(async |mut calls| calls.run_pod_sandbox(request).await)?
            .pod_sandbox_id;
        Ok(Self { client, config, id })
    }

    /// The engine's name for it.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Makes and starts a container; answers the engine's name for it.
    ///
    /// # Errors
    /// The engine's.
    pub fn start(&self, name: &str, image: &str, command: &[&str]) -> Result<String, Status> {
        let config = ContainerConfig {
            metadata: Some(ContainerMetadata {
                name: name.to_owned(),
                attempt: 0,
            }),
            image: Some(ImageSpec {
                image: image.to_owned(),
                ..ImageSpec::default()
            }),
            command: command.iter().map(ToString::to_string).collect(),
            log_path: format!("{name}.log"),
            linux: Some(LinuxContainerConfig {
                resources: None,
                security_context: Some(LinuxContainerSecurityContext {
                    namespace_options: Some(namespaces()),
                    ..LinuxContainerSecurityContext::default()
                }),
            }),
            ..ContainerConfig::default()
        };
        let request = CreateContainerRequest {
            pod_sandbox_id: self.id.clone(),
            config: Some(config),
            sandbox_config: Some(self.config.clone()),
        };
        let id = self
            .client
            .runtime(async |mut calls| calls.create_container(request).await)?
            .container_id;
        let request = StartContainerRequest {
            container_id: id.clone(),
        };
        self.client
            .runtime(async |mut calls| calls.start_container(request).await)?;
        Ok(id)
    }

    /// Waits for a container's end; answers its exit code.
    ///
    /// # Errors
    /// The engine's, and `DeadlineExceeded` when it does not end within the limit.
    pub fn wait(&self, container: &str, limit: Duration) -> Result<i32, Status> {
        let deadline = Instant::now() + limit;
        loop {
            let request = ContainerStatusRequest {
                container_id: container.to_owned(),
                verbose: false,
            };
            let status = self
                .client
                .runtime(async |mut calls| calls.container_status(request).await)?
                .status
                .unwrap_or_default();
            if status.state() == ContainerState::ContainerExited {
                return Ok(status.exit_code);
            }
            if Instant::now() >= deadline {
                let text = format!("{container} does not end within {limit:?}");
                return Err(Status::deadline_exceeded(text));
            }
            std::thread::sleep(STEP);
        }
    }

    /// Runs a command in a container; answers exit code and stdout.
    ///
    /// # Errors
    /// The engine's.
    pub fn exec(&self, container: &str, command: &[&str]) -> Result<(i32, String), Status> {
        let request = ExecSyncRequest {
            container_id: container.to_owned(),
            cmd: command.iter().map(ToString::to_string).collect(),
            timeout: 120,
        };
        let done = self
            .client
            .runtime(async |mut calls| calls.exec_sync(request).await)?;
        let stdout = String::from_utf8_lossy(&done.stdout).into_owned();
        Ok((done.exit_code, stdout))
    }

    /// Removes a container, which need not have ended.
    ///
    /// # Errors
    /// The engine's.
    pub fn remove(&self, container: &str) -> Result<(), Status> {
        let request = RemoveContainerRequest {
            container_id: container.to_owned(),
        };
        self.client
            .runtime(async |mut calls| calls.remove_container(request).await)
            .map(drop)
    }

    /// Stops and removes the pod and what is in it.
    ///
    /// # Errors
    /// The engine's.
    pub fn end(self) -> Result<(), Status> {
        let request = StopPodSandboxRequest {
            pod_sandbox_id: self.id.clone(),
        };
        self.client
            .runtime(async |mut calls| calls.stop_pod_sandbox(request).await)?;
        let request = RemovePodSandboxRequest {
            pod_sandbox_id: self.id.clone(),
        };
        self.client
            .runtime(async |mut calls| calls.remove_pod_sandbox(request).await)
            .map(drop)
    }
}

/// Network, IPC and host name are the pod's, processes the container's.
fn namespaces() -> NamespaceOption {
    NamespaceOption {
        pid: NamespaceMode::Container.into(),
        ..NamespaceOption::default()
    }
}
