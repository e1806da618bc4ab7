//! Namespaces that a container shares with others.

use std::path::{Path, PathBuf};

use oci_spec::runtime::{LinuxNamespaceType, Spec};

use super::{ContainerError, Containers};

/// How the host names a namespace of another container's.
const OF_CONTAINER: &str = "container:";

impl Containers {
    /// Replaces the names of other containers by their namespaces.
    pub(super) fn share_namespaces(&self, spec: &mut Spec) -> Result<(), ContainerError> {
        let Some(mut linux) = spec.linux().clone() else {
            return Ok(());
        };
        let Some(mut namespaces) = linux.namespaces().clone() else {
            return Ok(());
        };
        for namespace in &mut namespaces {
            let Some(owner) = namespace.path().as_deref().and_then(owner) else {
                continue;
            };
            let kind = namespace.typ();
            let path = self.namespace_of(owner, kind)?;
            namespace.set_path(Some(path));
        }
        linux.set_namespaces(Some(namespaces));
        spec.set_linux(Some(linux));
        Ok(())
    }

    fn namespace_of(&self, id: &str, kind: LinuxNamespaceType) -> Result<PathBuf, ContainerError> {
        let invalid =
            |problem: String| ContainerError::invalid(format!("linux.namespaces[{kind}]"), problem);
        let name = match kind {
            LinuxNamespaceType::Ipc => "ipc",
            LinuxNamespaceType::Pid => "pid",
            LinuxNamespaceType::Uts => "uts",
            _ => return Err(invalid("containers do not share it".to_owned())),
        };
        let init = self.get(id)?.process("")?;
        if init.has_ended() {
            return Err(invalid(format!("container {id} has ended")));
        }
        Ok(Path::new("/proc")
            .join(init.pid().to_string())
            .join("ns")
            .join(name))
    }
}

/// Whether this stands for another container's namespace.
pub(super) fn is_of_container(path: &Path) -> bool {
    owner(path).is_some()
}

fn owner(path: &Path) -> Option<&str> {
    path.to_str()?.strip_prefix(OF_CONTAINER)
}
