//! Namespaces that containers of one sandbox share.
//!
//! An engine names them by a process that is in them, `/proc/PID/ns/ipc`. The processes that engines know are those that
//! stand for containers on the host; the namespaces are the guest's. Or it names one that it has [pinned](super::pinned).

use std::collections::HashMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use oci_spec::runtime::{LinuxNamespaceType, Spec};

use crate::id::{ContainerId, IdError};
use crate::spec::pinned::Pinned;

/// Annotations that put a container into a sandbox: its type, the word for one that joins, and the sandbox's name.
const GROUPING: [(&str, &str, &str); 2] = [
    // containerd.
    (
        "io.kubernetes.cri.container-type",
        "container",
        "io.kubernetes.cri.sandbox-id",
    ),
    // CRI-O and Podman.
    (
        "io.kubernetes.cri-o.ContainerType",
        "container",
        "io.kubernetes.cri-o.SandboxID",
    ),
];

/// The word for what a pod begins with.
const SANDBOX: &str = "sandbox";

/// What the guest's agent replaces by a process of that container.
pub(super) const OF_CONTAINER: &str = "container:";

/// The name of the sandbox that a container is to join; nothing when it has one of its own.
///
/// # Errors
/// When the annotation is no name.
pub fn sandbox_of(spec: &Spec) -> Result<Option<ContainerId>, IdError> {
    let name = spec.annotations().as_ref().and_then(sandbox_named);
    name.map(ContainerId::new).transpose()
}

/// The sandbox's name in a container's annotations.
pub(crate) fn sandbox_named(annotations: &HashMap<String, String>) -> Option<&String> {
    GROUPING
        .iter()
        .find(|(kind, joins, _)| annotations.get(*kind).is_some_and(|kind| kind == joins))
        .and_then(|(_, _, sandbox)| annotations.get(*sandbox))
}

/// Whether a container is one of a pod: what that begins with, or one that joins it.
#[must_use]
pub fn is_of_pod(spec: &Spec) -> bool {
    let annotations = spec.annotations().as_ref();
    GROUPING.iter().any(|(kind, joins, _)| {
        let kind = annotations.and_then(|annotations| annotations.get(*kind));
        kind.is_some_and(|kind| kind == SANDBOX || kind == joins)
    })
}

/// Who has a namespace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Owner {
    /// The sandbox, whether it holds a container or not: the guest's own.
    Sandbox,
    /// A container whose first process is in it.
    Container(ContainerId),
}

/// Whose namespaces a container may share: those of the sandbox that it is made in.
#[derive(Debug, Clone, Default)]
pub struct Neighbours {
    owners: Vec<(i32, Owner)>,
    pinned: Vec<(Pinned, Owner)>,
    network: Option<PathBuf>,
    shared_memory: Option<u64>,
    joins: bool,
}

impl Neighbours {
    /// Those of a sandbox that exists already. `network` is the network namespace that an engine made for it.
    #[must_use]
    pub fn new(network: Option<PathBuf>) -> Self {
        Self {
            owners: Vec::new(),
            pinned: Vec::new(),
            network,
            shared_memory: None,
            joins: true,
        }
    }

    /// A process on the host that stands for this owner.
    pub fn add(&mut self, pid: i32, owner: Owner) {
        self.owners.push((pid, owner));
    }

    /// What these stand for has this owner.
    pub fn add_pinned(&mut self, pinned: &[Pinned], owner: &Owner) {
        let all = pinned.iter().map(|&pinned| (pinned, owner.clone()));
        self.pinned.extend(all);
    }

    /// Says that the engine leaves making the sandbox's `/dev/shm` to it: as many bytes; 0: no limit.
    pub fn make_shared_memory(&mut self, bytes: u64) {
        self.shared_memory = Some(bytes);
    }

    /// Bytes of the `/dev/shm` that the engine has not made.
    pub(super) fn shared_memory(&self) -> Option<u64> {
        self.shared_memory
    }

    /// Whether the container joins a sandbox that exists already.
    pub(super) fn is_joined(&self) -> bool {
        self.joins
    }

    /// Whose namespace this is.
    pub(super) fn owner(&self, kind: LinuxNamespaceType, path: &Path) -> Option<&Owner> {
        if let Some(pid) = process_of(kind, path) {
            let mut owners = self.owners.iter();
            return owners
                .find(|(process, _)| *process == pid)
                .map(|(_, owner)| owner);
        }
        let pinned = Pinned::at(kind, path)?;
        let mut owners = self.pinned.iter();
        owners
            .find(|(one, _)| *one == pinned)
            .map(|(_, owner)| owner)
    }

    /// Whether this is the network that all containers of the sandbox have.
    pub(super) fn has_network(&self, path: &Path) -> bool {
        if self.owner(LinuxNamespaceType::Network, path).is_some() {
            return true;
        }
        let identity = |path: &Path| fs::metadata(path).map(|file| (file.dev(), file.ino())).ok();
        self.network.as_deref().is_some_and(|network| {
            network == path || identity(network).is_some_and(|one| identity(path) == Some(one))
        })
    }
}

/// The network namespace that a spec names.
#[must_use]
pub fn network_path(spec: &Spec) -> Option<PathBuf> {
    let namespaces = spec.linux().as_ref()?.namespaces().as_ref()?;
    namespaces
        .iter()
        .find(|namespace| namespace.typ() == LinuxNamespaceType::Network)
        .and_then(|namespace| namespace.path().clone())
}

/// The process in `/proc/PID/ns/KIND`.
fn process_of(kind: LinuxNamespaceType, path: &Path) -> Option<i32> {
    let name = match kind {
        LinuxNamespaceType::Network => "net".to_owned(),
        other => other.to_string(),
    };
    let mut parts = path.strip_prefix("/proc").ok()?.components();
    let mut next = || parts.next()?.as_os_str().to_str();
    let pid = next()?.parse().ok()?;
    (next()? == "ns" && next()? == name && next().is_none()).then_some(pid)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn annotated(annotations: &[(&str, &str)]) -> Spec {
        let mut spec = Spec::default();
        let text = |(key, value): &(&str, &str)| ((*key).to_owned(), (*value).to_owned());
        spec.set_annotations(Some(annotations.iter().map(text).collect()));
        spec
    }

    #[test]
    fn engines_name_the_sandbox_of_a_container() {
        let id = |name: &str| Ok(Some(ContainerId::new(name).unwrap()));
        assert_eq!(sandbox_of(&Spec::default()), Ok(None));
        for (kind, sandbox) in [
            (
                "io.kubernetes.cri.container-type",
                "io.kubernetes.cri.sandbox-id",
            ),
            (
                "io.kubernetes.cri-o.ContainerType",
                "io.kubernetes.cri-o.SandboxID",
            ),
        ] {
            let joins = annotated(&[(kind, "container"), (sandbox, "s1")]);
            assert_eq!(sandbox_of(&joins), id("s1"));
            assert!(is_of_pod(&joins));
            let own = annotated(&[(kind, "sandbox"), (sandbox, "s1")]);
            assert_eq!(sandbox_of(&own), Ok(None));
            assert!(is_of_pod(&own));
            let neither = annotated(&[(kind, "other"), (sandbox, "s1")]);
            assert!(!is_of_pod(&neither));
            let wrong = annotated(&[(kind, "container"), (sandbox, "../s1")]);
            assert!(sandbox_of(&wrong).is_err());
        }
    }

    #[test]
    fn only_processes_of_the_sandbox_have_namespaces_to_share() {
        let mut neighbours = Neighbours::new(Some("/run/netns/pod".into()));
        let owner = Owner::Container(ContainerId::new("c1").unwrap());
        neighbours.add(17, owner.clone());
        let find = |path: &str| neighbours.owner(LinuxNamespaceType::Ipc, Path::new(path));
        assert_eq!(find("/proc/17/ns/ipc"), Some(&owner));
        for path in [
            "/proc/18/ns/ipc",
            "/proc/17/ns/uts",
            "/proc/17/ns/ipc/x",
            "/proc/17/../18/ns/ipc",
            "/proc/self/ns/ipc",
            "/run/ipcns/17",
            "proc/17/ns/ipc",
        ] {
            assert_eq!(find(path), None, "{path}");
        }
        for (path, is_its) in [
            ("/proc/17/ns/net", true),
            ("/run/netns/pod", true),
            ("/run/netns/other", false),
            ("/proc/18/ns/net", false),
        ] {
            assert_eq!(neighbours.has_network(Path::new(path)), is_its, "{path}");
        }
    }
}
