//! Pods and containers as kubelet makes them. Dropping a pod stops and removes it.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use cri::v1::runtime_service_client::RuntimeServiceClient;
use cri::v1::{
    ContainerConfig, ContainerMetadata, ContainerState, ContainerStatus, CreateContainerRequest,
    ExecSyncRequest, ExecSyncResponse, ImageSpec, LinuxContainerConfig,
    LinuxContainerSecurityContext, LinuxPodSandboxConfig, LinuxSandboxSecurityContext,
    NamespaceMode, NamespaceOption, PodSandboxConfig, PodSandboxMetadata, PodSandboxStatus,
    RemoveContainerRequest, RemovePodSandboxRequest, RunPodSandboxRequest, StartContainerRequest,
    StopContainerRequest, StopPodSandboxRequest,
};
use cri::v1::{ContainerStatusRequest, PodSandboxStatusRequest};
use harness::wait_until;
use serde_json::Value;
use tonic::Status;
use tonic::transport::Channel;

use crate::lab::Lab;

/// What calls are made with.
type Runtime = RuntimeServiceClient<Channel>;

/// Longer than anything takes here.
const LIMIT: Duration = Duration::from_secs(180);

/// What a container of a pod is made with: a script for the shell.
pub fn script(name: &str, script: &str) -> ContainerConfig {
    command(name, &["sh", "-c", script])
}

/// What a container of a pod is made with: a command.
pub fn command(name: &str, command: &[&str]) -> ContainerConfig {
    ContainerConfig {
        metadata: Some(ContainerMetadata {
            name: name.to_owned(),
            attempt: 0,
        }),
        command: command.iter().map(ToString::to_string).collect(),
        log_path: format!("{name}.log"),
        linux: Some(LinuxContainerConfig {
            resources: None,
            security_context: Some(LinuxContainerSecurityContext {
                namespace_options: Some(NamespaceOption {
                    pid: NamespaceMode::Container.into(),
                    ..NamespaceOption::default()
                }),
                ..LinuxContainerSecurityContext::default()
            }),
        }),
        ..ContainerConfig::default()
    }
}

/// The security part of a container's configuration.
pub fn security(config: &mut ContainerConfig) -> &mut LinuxContainerSecurityContext {
    config
        .linux
        .get_or_insert_default()
        .security_context
        .get_or_insert_default()
}

/// The same of a pod's.
pub fn pod_security(config: &mut PodSandboxConfig) -> &mut LinuxSandboxSecurityContext {
    config
        .linux
        .get_or_insert_default()
        .security_context
        .get_or_insert_default()
}

/// A pod that runs.
#[derive(Debug)]
pub struct Pod<'a> {
    lab: &'a Lab<'a>,
    /// The engine's name for it.
    pub id: String,
    /// What it was made with.
    pub config: PodSandboxConfig,
}

impl<'a> Lab<'a> {
    /// What a pod of this case is made with.
    pub fn pod_config(&self, name: &str) -> PodSandboxConfig {
        let mut labels = self.labels();
        labels.insert("pod".to_owned(), name.to_owned());
        let logs = self.folder().join("logs").join(name);
        fs::create_dir_all(&logs).expect("a folder");
        PodSandboxConfig {
            metadata: Some(PodSandboxMetadata {
                name: name.to_owned(),
                uid: format!("{}-{name}", self.namespace()),
                namespace: self.namespace(),
                attempt: 0,
            }),
            hostname: name.to_owned(),
            log_directory: logs.to_str().expect("a path that is text").to_owned(),
            labels,
            annotations: HashMap::from([("note".to_owned(), "kept".to_owned())]),
            linux: Some(LinuxPodSandboxConfig {
                cgroup_parent: self.cgroup(name),
                security_context: Some(LinuxSandboxSecurityContext {
                    namespace_options: Some(NamespaceOption {
                        pid: NamespaceMode::Container.into(),
                        ..NamespaceOption::default()
                    }),
                    ..LinuxSandboxSecurityContext::default()
                }),
                ..LinuxPodSandboxConfig::default()
            }),
            ..PodSandboxConfig::default()
        }
    }

    /// Runs a pod of the usual kind.
    pub fn pod(&'a self) -> Pod<'a> {
        self.run(self.pod_config("pod"))
    }

    /// Runs a pod.
    pub fn run(&'a self, config: PodSandboxConfig) -> Pod<'a> {
        self.try_run(config).unwrap_or_else(|error| {
            panic!("the pod does not start: {error}\n{}", self.engine.log())
        })
    }

    /// Runs a pod, or says why not.
    pub fn try_run(&'a self, config: PodSandboxConfig) -> Result<Pod<'a>, Status> {
        let request = RunPodSandboxRequest {
            config: Some(config.clone()),
            runtime_handler: self.handler.name().to_owned(),
        };
        let id = self
            .runtime(async |mut calls| calls.run_pod_sandbox(request).await)?
            .pod_sandbox_id;
        Ok(Pod {
            lab: self,
            id,
            config,
        })
    }
}

impl<'a> Pod<'a> {
    /// Its status.
    pub fn status(&self) -> Result<PodSandboxStatus, Status> {
        let request = PodSandboxStatusRequest {
            pod_sandbox_id: self.id.clone(),
            verbose: false,
        };
        self.lab
            .runtime(async |mut calls| calls.pod_sandbox_status(request).await)
            .map(|answer| answer.status.unwrap_or_default())
    }

    /// Its address.
    pub fn ip(&self) -> String {
        let status = self.status().expect("a pod");
        status.network.unwrap_or_default().ip
    }

    /// Runs something on a thread in its network namespace on the node.
    pub fn inside<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        let request = PodSandboxStatusRequest {
            pod_sandbox_id: self.id.clone(),
            verbose: true,
        };
        let status = async |mut calls: Runtime| calls.pod_sandbox_status(request).await;
        let info = self.lab.runtime(status).expect("a pod").info;
        let info: Value = serde_json::from_str(&info["info"]).expect("JSON");
        let namespaces = info["runtimeSpec"]["linux"]["namespaces"].as_array();
        let path = namespaces.into_iter().flatten().find_map(|namespace| {
            let is_network = namespace["type"] == "network";
            namespace["path"].as_str().filter(|_| is_network)
        });
        harness::inside(Path::new(path.expect("a network namespace")), work)
    }

    /// Makes a container.
    pub fn create(&self, mut config: ContainerConfig) -> Result<Container<'a>, Status> {
        config.image.get_or_insert_with(|| ImageSpec {
            image: self.lab.engine.image("busybox"),
            ..ImageSpec::default()
        });
        config.labels.extend(self.lab.labels());
        let request = CreateContainerRequest {
            pod_sandbox_id: self.id.clone(),
            config: Some(config.clone()),
            sandbox_config: Some(self.config.clone()),
        };
        let id = self
            .lab
            .runtime(async |mut calls| calls.create_container(request).await)?
            .container_id;
        let log = PathBuf::from(&self.config.log_directory).join(&config.log_path);
        Ok(Container {
            lab: self.lab,
            id,
            log,
        })
    }

    /// Makes and starts a container.
    pub fn run(&self, config: ContainerConfig) -> Container<'a> {
        let container = self
            .create(config)
            .unwrap_or_else(|error| panic!("no container: {error}\n{}", self.lab.engine.log()));
        container.start().unwrap_or_else(|error| {
            panic!("it does not start: {error}\n{}", self.lab.engine.log())
        });
        container
    }

    /// Runs a container to its end; answers exit code and stdout.
    pub fn finish(&self, config: ContainerConfig) -> (i32, String) {
        let container = self.run(config);
        let status = container.wait();
        (status.exit_code, container.stdout())
    }

    /// Stops it.
    pub fn stop(&self) -> Result<(), Status> {
        let request = StopPodSandboxRequest {
            pod_sandbox_id: self.id.clone(),
        };
        self.lab
            .runtime(async |mut calls| calls.stop_pod_sandbox(request).await)
            .map(drop)
    }

    /// Removes it.
    pub fn remove(&self) -> Result<(), Status> {
        let request = RemovePodSandboxRequest {
            pod_sandbox_id: self.id.clone(),
        };
        self.lab
            .runtime(async |mut calls| calls.remove_pod_sandbox(request).await)
            .map(drop)
    }
}

impl Drop for Pod<'_> {
    fn drop(&mut self) {
        // What does not work is seen by what is left behind a case, too.
        for done in [self.stop(), self.remove()] {
            if let Err(error) = done {
                eprintln!("{}: {error:?}", self.lab.case);
            }
        }
    }
}

/// A container of a pod; it goes with the pod.
#[derive(Debug)]
pub struct Container<'a> {
    lab: &'a Lab<'a>,
    /// The engine's name for it.
    pub id: String,
    /// Its log's file.
    pub log: PathBuf,
}

impl Container<'_> {
    /// Starts it.
    pub fn start(&self) -> Result<(), Status> {
        let request = StartContainerRequest {
            container_id: self.id.clone(),
        };
        self.lab
            .runtime(async |mut calls| calls.start_container(request).await)
            .map(drop)
    }

    /// Its status.
    pub fn status(&self) -> Result<ContainerStatus, Status> {
        let request = ContainerStatusRequest {
            container_id: self.id.clone(),
            verbose: false,
        };
        self.lab
            .runtime(async |mut calls| calls.container_status(request).await)
            .map(|answer| answer.status.unwrap_or_default())
    }

    /// Waits for its end.
    pub fn wait(&self) -> ContainerStatus {
        let mut status = ContainerStatus::default();
        let ended = wait_until(LIMIT, || {
            status = self.status().expect("a container");
            status.state() == ContainerState::ContainerExited
        });
        assert!(ended, "it does not end: {status:?}\n{}", self.text());
        status
    }

    /// Stops it: seconds between the signal and the end by force.
    pub fn stop(&self, timeout: i64) -> Result<(), Status> {
        let request = StopContainerRequest {
            container_id: self.id.clone(),
            timeout,
        };
        self.lab
            .runtime(async |mut calls| calls.stop_container(request).await)
            .map(drop)
    }

    /// Removes it.
    pub fn remove(&self) -> Result<(), Status> {
        let request = RemoveContainerRequest {
            container_id: self.id.clone(),
        };
        self.lab
            .runtime(async |mut calls| calls.remove_container(request).await)
            .map(drop)
    }

    /// Its log as it stands on disk.
    pub fn text(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// What it has written to stdout.
    pub fn stdout(&self) -> String {
        self.written("stdout")
    }

    /// What it has written to one of its outputs.
    pub fn written(&self, stream: &str) -> String {
        let mut all = String::new();
        for line in cri::parse(&self.text()).expect("a log") {
            if line.stream == stream {
                all.push_str(&line.text);
                if !line.partial {
                    all.push('\n');
                }
            }
        }
        all
    }

    /// Waits until it has written this.
    pub fn wait_for(&self, text: &str) {
        let came = wait_until(LIMIT, || self.text().contains(text));
        assert!(
            came,
            "no {text:?} in {:?}: {:?}",
            self.text(),
            self.status()
        );
    }

    /// Runs a command in it.
    pub fn try_exec(&self, command: &[&str], timeout: i64) -> Result<ExecSyncResponse, Status> {
        let request = ExecSyncRequest {
            container_id: self.id.clone(),
            cmd: command.iter().map(ToString::to_string).collect(),
            timeout,
        };
        self.lab
            .runtime(async |mut calls| calls.exec_sync(request).await)
    }

    /// Runs a script in it; answers exit code and stdout.
    pub fn exec(&self, script: &str) -> (i32, String) {
        let done = self
            .try_exec(&["sh", "-c", script], 120)
            .unwrap_or_else(|error| panic!("{script}: {error}\n{}", self.lab.engine.log()));
        let stderr = String::from_utf8_lossy(&done.stderr);
        assert!(stderr.is_empty(), "{script}: {stderr}");
        (
            done.exit_code,
            String::from_utf8_lossy(&done.stdout).into_owned(),
        )
    }
}
