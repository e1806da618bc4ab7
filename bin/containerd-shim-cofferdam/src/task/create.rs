//! Making a task: from a bundle to a container that waits to be started.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex};
use std::time::SystemTime;

use containerd_shim_protos::api::CreateTaskRequest;
use containerd_shim_protos::events::task::{TaskCreate, TaskIO};
use containerd_shim_protos::protobuf::MessageField;
use containerd_shim_protos::topics::TASK_CREATE_EVENT_TOPIC;
use containerd_shim_protos::ttrpc::{self, Code};
use oci_spec::runtime::Spec;
use sandbox::config::Config;
use sandbox::network::{Namespace, Tenant};
use sandbox::spec::{self, GuestSpec, Neighbours, NetworkOf, Size};
use sandbox::{Container, ContainerId, HostGroups, SandboxError, SandboxOptions};
use tokio::sync::watch;

use crate::options;
use crate::rootfs::{self, Mounted};
use crate::status::{self, refuse};
use crate::stdio::{Names, Owner};
use crate::task::container::{self, Body, Task};
use crate::task::machine::{Machine, Order};
use crate::task::pause::Pause;
use crate::task::pod::Pod;
use crate::task::shim::Reserved;
use crate::task::{Shim, hooks};

/// Annotations that tell a pod's sandbox from its containers: containerd's and CRI-O's.
const KINDS: [&str; 2] = [
    "io.kubernetes.cri.container-type",
    "io.kubernetes.cri-o.ContainerType",
];
/// The pod's limits, as containerd 1.7 and later tell its sandbox.
const POD_MEMORY: &str = "io.kubernetes.cri.sandbox-memory";
const POD_CPU_QUOTA: &str = "io.kubernetes.cri.sandbox-cpu-quota";
const POD_CPU_PERIOD: &str = "io.kubernetes.cri.sandbox-cpu-period";

/// A guest's host name may be so long.
const HOSTNAME: usize = 64;

/// What a container is to its machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// Has one of its own.
    Single,
    /// Is the machine.
    Sandbox,
    /// Joins its pod's.
    Member,
}

/// Makes it; answers with its pid.
pub async fn create(shim: &Arc<Shim>, request: CreateTaskRequest) -> ttrpc::Result<u32> {
    if !request.checkpoint.is_empty() {
        return Err(refuse(
            Code::UNIMPLEMENTED,
            "unsupported: restore: checkpoints do not exist yet",
        ));
    }
    let reserved = shim.reserve(&request.id)?;
    let config = options::config(request.options.as_ref())?;
    let new = New::read(shim, &request, config).await?;
    let task = Arc::new(new.make(shim, None).await?);
    let pid = task.pid();
    let mut event = TaskCreate::new();
    event.container_id = request.id;
    event.bundle = request.bundle;
    event.rootfs = request.rootfs;
    event.io = MessageField::some(TaskIO {
        stdin: request.stdin,
        stdout: request.stdout,
        stderr: request.stderr,
        terminal: request.terminal,
        ..TaskIO::default()
    });
    event.pid = pid;
    begin(shim, reserved, task, &event);
    Ok(pid)
}

/// Makes the sandbox of a pod by itself, without a container of an image. `files` are for the pod's containers.
pub async fn make_sandbox(
    shim: &Arc<Shim>,
    name: &str,
    bundle: PathBuf,
    (spec, files): (Spec, PathBuf),
    config: Config,
) -> ttrpc::Result<()> {
    let reserved = shim.reserve(name)?;
    let wrong = |error: SandboxError| status::failed("create", &error);
    let id = ContainerId::new(name).map_err(|error| wrong(error.into()))?;
    let neighbours = Neighbours::default();
    spec::check_with(&spec, &bundle, &neighbours).map_err(|error| wrong(error.into()))?;
    let mut event = TaskCreate::new();
    name.clone_into(&mut event.container_id);
    event.bundle = bundle.display().to_string();
    let new = New {
        id,
        bundle,
        kind: Kind::Sandbox,
        names: Names::default(),
        config,
        spec,
        rootfs: spec::Rootfs::Bundle,
        mounted: None,
        machine: None,
        neighbours,
    };
    let task = Arc::new(new.make(shim, Some(files)).await?);
    event.pid = task.pid();
    begin(shim, reserved, task, &event);
    Ok(())
}

/// From now on the task is there.
fn begin(shim: &Arc<Shim>, reserved: Reserved, task: Arc<Task>, event: &TaskCreate) {
    reserved.make(Arc::clone(&task));
    shim.publisher.publish(TASK_CREATE_EVENT_TOPIC, event);
    if task.owns_machine {
        shim.watch_memory(&task.machine);
    }
    tokio::spawn(task.watch(shim.publisher.clone()));
}

/// A container that is asked for and may be.
struct New {
    id: ContainerId,
    bundle: PathBuf,
    kind: Kind,
    names: Names,
    config: Config,
    spec: Spec,
    rootfs: spec::Rootfs,
    mounted: Option<Mounted>,
    /// The pod's, for a member.
    machine: Option<Arc<Machine>>,
    neighbours: Neighbours,
}

impl New {
    /// Reads the bundle and refuses what cannot be done.
    async fn read(shim: &Shim, request: &CreateTaskRequest, config: Config) -> ttrpc::Result<Self> {
        let wrong = |error: SandboxError| status::failed("create", &error);
        let id = ContainerId::new(&request.id).map_err(|error| wrong(error.into()))?;
        let bundle = PathBuf::from(&request.bundle);
        let mut spec = spec::load(&bundle).map_err(|error| wrong(error.into()))?;
        let kind = kind(spec.annotations().as_ref());
        let source = rootfs::prepare(&request.rootfs, &bundle)
            .map_err(|error| refuse(Code::INVALID_ARGUMENT, format!("{error:#}")))?;
        if let Some(path) = source.path {
            let mut root = spec.root().clone().unwrap_or_default();
            root.set_path(path);
            spec.set_root(Some(root));
        }
        if let Some(process) = spec.process_mut() {
            process.set_terminal(Some(request.terminal));
        }
        let (machine, neighbours) = match kind {
            Kind::Member => {
                let pod = shim.pod()?;
                pod.supply(&mut spec);
                let neighbours = pod.neighbours(&spec).await.map_err(wrong)?;
                (Some(Arc::clone(&pod.machine)), neighbours)
            }
            Kind::Single | Kind::Sandbox => (None, Neighbours::default()),
        };
        spec::check_with(&spec, &bundle, &neighbours).map_err(|error| wrong(error.into()))?;
        Ok(Self {
            id,
            bundle,
            kind,
            names: Names {
                stdin: request.stdin.clone(),
                stdout: request.stdout.clone(),
                stderr: request.stderr.clone(),
                terminal: request.terminal,
            },
            config,
            spec,
            rootfs: source.rootfs,
            mounted: source.mounted,
            machine,
            neighbours,
        })
    }

    async fn make(self, shim: &Arc<Shim>, files: Option<PathBuf>) -> ttrpc::Result<Task> {
        let (machine, body) = match self.kind {
            Kind::Sandbox => {
                let machine = Arc::new(self.boot(None).await?);
                let pod = Pod {
                    machine: Arc::clone(&machine),
                    id: self.id.clone(),
                    spec: self.spec.clone(),
                    bundle: self.bundle.clone(),
                    rootfs: self.rootfs.clone(),
                    files,
                    holder: tokio::sync::Mutex::new(None),
                };
                if let Err(error) = pod.prepare().await {
                    machine.end().await;
                    return Err(status::failed("create", &error));
                }
                shim.set_pod(Some(Arc::new(pod)));
                (machine, Body::Pause(Pause::default()))
            }
            Kind::Single | Kind::Member => {
                let (machine, container) = self.container(shim).await?;
                (machine, Body::Container(container))
            }
        };
        Ok(Task {
            id: self.id.to_string(),
            bundle: self.bundle,
            names: self.names,
            spec: self.spec,
            machine,
            created: SystemTime::now(),
            body,
            owns_machine: self.kind != Kind::Member,
            execs: Mutex::default(),
            exit: watch::Sender::new(None),
            ran_out: AtomicBool::new(false),
            order: tokio::sync::Mutex::new(()),
            mounted: Mutex::new(self.mounted),
        })
    }

    async fn container(&self, shim: &Shim) -> ttrpc::Result<(Arc<Machine>, Container)> {
        let failed = |error: SandboxError| status::failed("create", &error);
        let owner = Owner {
            namespace: &shim.namespace,
            container: self.id.as_str(),
        };
        // Before the machine: who waits for the other side of a FIFO need not wait for it.
        let stdio = self.names.open(owner).await;
        let stdio = stdio.map_err(|error| failed(container::stdio(error)))?;
        let (id, neighbours) = (&self.id, &self.neighbours);
        let guest = spec::rewrite_with(id, &self.spec, &self.bundle, &self.rootfs, neighbours)
            .map_err(|error| failed(error.into()))?;
        let machine = match &self.machine {
            Some(machine) => Arc::clone(machine),
            None => Arc::new(self.boot(Some(&guest)).await?),
        };
        let made = async {
            if self.kind == Kind::Member {
                // Its network is the pod's, which is there.
                self.run_hooks(machine.pid).await?;
            }
            machine.sandbox.create(&self.id, &guest, stdio).await
        };
        match made.await {
            Ok(container) => {
                if self.kind == Kind::Member {
                    machine.expose(&self.spec);
                }
                Ok((machine, container))
            }
            Err(error) => {
                if self.kind == Kind::Single {
                    machine.end().await;
                }
                Err(failed(error))
            }
        }
    }

    /// The hooks before a container is made. `pid` is what they find its network namespace by.
    async fn run_hooks(&self, pid: u32) -> Result<(), SandboxError> {
        let Some(all) = self.spec.hooks() else {
            return Ok(());
        };
        let state = || hooks::state(self.id.as_str(), "creating", pid, &self.bundle, &self.spec);
        // Deprecated, and still what engines set networks up with.
        hooks::run("prestart", all.prestart().as_ref(), state()).await?;
        hooks::run("createRuntime", all.create_runtime().as_ref(), state()).await
    }

    /// The network namespace of a machine of its own, filled by hooks as far as they do that, and whether it was made for
    /// the machine.
    async fn network(&self) -> Result<(Namespace, bool), SandboxError> {
        let (namespace, is_new) = match spec::network(&self.spec) {
            NetworkOf::Path(path) => (Namespace::open(&path)?, false),
            NetworkOf::New => (Namespace::new()?, true),
        };
        if self.spec.hooks().is_some() {
            // The machine has as many cards as there are interfaces when it starts, so hooks come first; what stands for
            // the container in `/proc` is not there yet.
            let tenant = Tenant::of(&namespace)?;
            self.run_hooks(tenant.pid()).await?;
        }
        Ok((namespace, is_new))
    }

    async fn boot(&self, first: Option<&GuestSpec>) -> ttrpc::Result<Machine> {
        let hostname = self.spec.hostname().clone();
        let hostname = hostname.unwrap_or_else(|| self.id.to_string());
        let size = match self.kind {
            Kind::Sandbox => pod_size(&self.spec, &self.config),
            Kind::Single | Kind::Member => spec::size(&self.spec, &self.config),
        };
        let failed = |error: SandboxError| status::failed("create", &error);
        let (network, is_new) = self.network().await.map_err(failed)?;
        // One without a path is gone with the machine, unless the engine keeps it; then the engine clears it.
        let path = (!is_new).then(|| network.path().to_owned());
        let rates = spec::rates(&self.spec, &self.config).map_err(|error| failed(error.into()))?;
        let options = SandboxOptions {
            name: self.id.to_string(),
            hostname: hostname.chars().take(HOSTNAME).collect(),
            size,
            entries: first.map_or_else(Vec::new, |guest| guest.entries.clone()),
            network: Some(network),
            // Engines look behind the task's pid, which is the VMM's.
            shows_network: is_new,
            // There the engine looks for ports that it forwards.
            loopback: self.kind == Kind::Sandbox,
            folder: Some(self.bundle.clone()),
            groups: HostGroups::default(),
            rates,
            timed: false,
        };
        let order = Order {
            bundle: &self.bundle,
            spec: &self.spec,
            network: path,
        };
        Machine::boot(&self.config, options, order).await
    }
}

fn kind(annotations: Option<&HashMap<String, String>>) -> Kind {
    let named = |name: &&str| annotations.and_then(|annotations| annotations.get(*name));
    match KINDS.iter().find_map(named).map(String::as_str) {
        Some("sandbox") => Kind::Sandbox,
        Some("container") => Kind::Member,
        _ => Kind::Single,
    }
}

/// The sandbox's spec has no limits of its own; annotations tell those of all its containers.
fn pod_size(spec: &Spec, config: &Config) -> Size {
    let told = |name: &str| {
        let annotations = spec.annotations().as_ref()?;
        annotations.get(name)?.parse::<i64>().ok()
    };
    let resources = serde_json::json!({
        "memory": { "limit": told(POD_MEMORY) },
        "cpu": { "quota": told(POD_CPU_QUOTA), "period": told(POD_CPU_PERIOD).filter(|&period| period > 0) },
    });
    let mut sized = Spec::default();
    if let (Some(linux), Ok(resources)) = (sized.linux_mut(), serde_json::from_value(resources)) {
        linux.set_resources(Some(resources));
    }
    spec::size(&sized, config)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(text: &str) -> Spec {
        serde_json::from_str(text).unwrap()
    }

    #[test]
    fn engines_tell_pods_apart() {
        for (annotations, expected) in [
            ("{}", Kind::Single),
            (
                r#"{"io.kubernetes.cri.container-type":"sandbox"}"#,
                Kind::Sandbox,
            ),
            (
                r#"{"io.kubernetes.cri-o.ContainerType":"container"}"#,
                Kind::Member,
            ),
        ] {
            let annotations = serde_json::from_str(annotations).unwrap();
            assert_eq!(kind(Some(&annotations)), expected);
        }
    }

    #[test]
    fn a_pod_is_as_large_as_its_containers() {
        let config = Config::default();
        let plain = pod_size(&spec(r#"{"ociVersion":"1.0.2"}"#), &config);
        assert_eq!(plain.vcpus, config.default_vcpus);
        assert_eq!(plain.memory, config.default_memory_mib << 20);
        let limited = spec(
            r#"{"ociVersion":"1.0.2","annotations":{"io.kubernetes.cri.sandbox-memory":"1073741824",
                "io.kubernetes.cri.sandbox-cpu-quota":"250000","io.kubernetes.cri.sandbox-cpu-period":"100000"}}"#,
        );
        let size = pod_size(&limited, &config);
        assert_eq!(size.vcpus, 3);
        assert_eq!(size.memory, (1024 + config.memory_overhead_mib) << 20);
    }
}
