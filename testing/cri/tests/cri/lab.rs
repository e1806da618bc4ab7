//! What a case is given, and what must not be left behind it.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use cri::v1::runtime_service_client::RuntimeServiceClient;
use cri::v1::{ContainerFilter, ListContainersRequest, ListPodSandboxRequest, PodSandboxFilter};
use harness::wait_until;
use rustix::process::{Pid, Signal, kill_process};
use tonic::transport::Channel;
use tonic::{Response, Status};

use crate::engine::Engine;

/// Whose pods are made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Handler {
    /// The reference.
    Runc,
    /// Ours, with a pause image.
    Cofferdam,
    /// Ours, whose shim makes sandboxes by itself.
    Sandboxer,
}

impl Handler {
    /// Those that an engine of this version has, the reference first.
    pub fn of(version: Option<(u32, u32)>) -> &'static [Self] {
        let all = &[Self::Runc, Self::Cofferdam, Self::Sandboxer];
        if version >= Some((2, 0)) {
            all
        } else {
            &all[..2]
        }
    }

    /// As containerd's configuration calls it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Runc => "runc",
            Self::Cofferdam => "cofferdam",
            Self::Sandboxer => "sandboxer",
        }
    }
}

/// One case's share of an engine.
#[derive(Debug)]
pub struct Lab<'a> {
    /// The engine.
    pub engine: &'a Engine,
    /// Whose pods.
    pub handler: Handler,
    /// The case's name.
    pub case: &'static str,
    folder: PathBuf,
}

impl<'a> Lab<'a> {
    /// For one case.
    pub fn new(engine: &'a Engine, handler: Handler, case: &'static str) -> Self {
        let folder = engine.cofferdam.folder().join("cases").join(format!(
            "{}-{}",
            file_name(case),
            handler.name()
        ));
        fs::create_dir_all(&folder).expect("a folder");
        Self {
            engine,
            handler,
            case,
            folder,
        }
    }

    /// A folder of the case's own.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// What all its pods and containers are labelled with.
    pub fn labels(&self) -> HashMap<String, String> {
        HashMap::from([("of".to_owned(), self.namespace())])
    }

    /// Whether the engine is at least of this version; says so when not.
    pub fn has(&self, version: (u32, u32)) -> bool {
        let has = self.engine.version >= version;
        if !has {
            let (major, minor) = version;
            eprintln!("SKIPPED {}: needs containerd {major}.{minor}", self.case);
        }
        has
    }

    /// The Kubernetes namespace of its pods.
    pub fn namespace(&self) -> String {
        format!("{}-{}", file_name(self.case), self.handler.name())
    }

    /// The control group of one of its pods, which the engine is told of.
    pub fn cgroup(&self, pod: &str) -> String {
        format!("{}/{pod}", self.cgroups())
    }

    /// Above the groups of all its pods: unique on this machine, which groups of control are shared by.
    fn cgroups(&self) -> String {
        let test = self.engine.cofferdam.folder();
        let test = test.file_name().expect("a name").to_string_lossy();
        format!("/{test}/{}", self.namespace())
    }

    /// Calls the runtime service.
    pub fn runtime<R>(
        &self,
        call: impl AsyncFnOnce(RuntimeServiceClient<Channel>) -> Result<Response<R>, Status>,
    ) -> Result<R, Status> {
        self.engine.client.runtime(call)
    }

    /// Whether ours is under test.
    pub fn is_machine(&self) -> bool {
        self.handler != Handler::Runc
    }

    /// No pod, container, process in a group, or group of this case is left.
    pub fn assert_nothing_left(&self) {
        let own = self.labels();
        let request = ListPodSandboxRequest {
            filter: Some(PodSandboxFilter {
                label_selector: own.clone(),
                ..PodSandboxFilter::default()
            }),
        };
        let pods = self
            .runtime(async |mut calls| calls.list_pod_sandbox(request).await)
            .expect("a list of pods")
            .items;
        assert!(pods.is_empty(), "pods are left: {pods:?}");
        let request = ListContainersRequest {
            filter: Some(ContainerFilter {
                label_selector: own,
                ..ContainerFilter::default()
            }),
        };
        let containers = self
            .runtime(async |mut calls| calls.list_containers(request).await)
            .expect("a list of containers")
            .containers;
        assert!(containers.is_empty(), "containers are left: {containers:?}");
        // From 2.0 on containerd does not let runc clean up behind its killed shim. Ours has to.
        if self.case == "faults::shim_killed" && !self.is_machine() {
            end_groups(&self.cgroups());
            return;
        }
        // Kubelet makes and removes a pod's group; what is below it is the runtime's.
        let mut below = Vec::new();
        let gone = wait_until(Duration::from_secs(30), || {
            below = groups_in_pods(&self.cgroups());
            below.is_empty()
        });
        assert!(gone, "groups of containers are left: {below:?}");
        // Groups go when the last process has.
        let mut busy = Vec::new();
        let gone = wait_until(Duration::from_secs(30), || {
            busy = remove_groups(&self.cgroups());
            busy.is_empty()
        });
        assert!(
            gone,
            "control groups are left with processes in them: {busy:?}"
        );
    }
}

/// Removes groups of this path from every hierarchy; answers those that do not go, because they have processes.
fn remove_groups(path: &str) -> Vec<PathBuf> {
    let root = Path::new("/sys/fs/cgroup");
    let mut hierarchies = vec![root.to_owned()];
    hierarchies.extend(folders(root));
    let mut busy = Vec::new();
    for hierarchy in hierarchies {
        remove_below(&hierarchy.join(path.trim_start_matches('/')), &mut busy);
    }
    busy
}

/// Kills what runs in groups of this path, and removes them.
pub fn end_groups(path: &str) {
    let gone = wait_until(Duration::from_secs(30), || {
        let busy = remove_groups(path);
        for group in &busy {
            let listed = fs::read_to_string(group.join("cgroup.procs")).unwrap_or_default();
            let pids = listed.lines().filter_map(|pid| pid.parse().ok());
            for pid in pids.filter_map(Pid::from_raw) {
                let _ended = kill_process(pid, Signal::KILL);
            }
        }
        busy.is_empty()
    });
    if !gone {
        eprintln!("control groups of {path} stay on this machine");
    }
}

/// Groups below those of pods, in every hierarchy.
fn groups_in_pods(path: &str) -> Vec<PathBuf> {
    let root = Path::new("/sys/fs/cgroup");
    let mut hierarchies = vec![root.to_owned()];
    hierarchies.extend(folders(root));
    let cases = hierarchies
        .iter()
        .map(|hierarchy| hierarchy.join(path.trim_start_matches('/')));
    cases
        .flat_map(|case| folders(&case))
        .flat_map(|pod| folders(&pod))
        .collect()
}

fn file_name(case: &str) -> String {
    case.replace("::", "-").replace('_', "-")
}

fn remove_below(group: &Path, busy: &mut Vec<PathBuf>) {
    for below in folders(group) {
        remove_below(&below, busy);
    }
    if group.exists() && fs::remove_dir(group).is_err() && group.exists() {
        busy.push(group.to_owned());
    }
}

fn folders(path: &Path) -> Vec<PathBuf> {
    fs::read_dir(path)
        .into_iter()
        .flatten()
        .flatten()
        .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
        .map(|entry| entry.path())
        .collect()
}
