//! A pod: what its containers share.
//!
//! The guest's own IPC and UTS namespaces are the pod's, its network is the machine's. Only a pod whose containers see
//! each other's processes needs a process that holds their pid namespace, and only a pod with sysctls namespaces of its
//! own that have them: then its sandbox container is run after all.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use oci_spec::runtime::{LinuxNamespaceType, Spec};
use sandbox::spec::{self, GuestSpec, Neighbours, Owner, Rootfs};
use sandbox::stdio::Stdio;
use sandbox::{Container, ContainerId, SandboxError};
use tokio::sync::Mutex;

use crate::pod_sandbox;
use crate::task::machine::Machine;

/// Bytes of `/dev/shm` that engines give a pod.
const SHARED_MEMORY: u64 = 64 << 20;

/// It.
#[derive(Debug)]
pub struct Pod {
    pub(super) machine: Arc<Machine>,
    /// Of its sandbox container, as the next three.
    pub(super) id: ContainerId,
    pub(super) spec: Spec,
    pub(super) bundle: PathBuf,
    pub(super) rootfs: Rootfs,
    /// Files for its containers, when the engine leaves making them to the sandbox.
    pub(super) files: Option<PathBuf>,
    /// The sandbox container, if it had to be run.
    pub(super) holder: Mutex<Option<Container>>,
}

impl Pod {
    /// Whose namespaces a container with this spec may share. Runs the sandbox container when it names its pid namespace.
    pub async fn neighbours(&self, spec: &Spec) -> Result<Neighbours, SandboxError> {
        let owner = if self.has_sysctls() || self.shares_processes(spec) {
            self.hold().await?;
            Owner::Container(self.id.clone())
        } else {
            Owner::Sandbox
        };
        let mut neighbours = Neighbours::new(spec::network_path(&self.spec));
        neighbours.add_pinned(&spec::pinned(&self.spec), &owner);
        neighbours.add(self.machine.pid.cast_signed(), owner);
        if self.files.is_some() {
            neighbours.make_shared_memory(SHARED_MEMORY);
        }
        Ok(neighbours)
    }

    /// Has a container's spec use what the pod's containers have in common.
    pub fn supply(&self, spec: &mut Spec) {
        if let Some(files) = &self.files {
            pod_sandbox::supply(spec, files);
        }
    }

    /// Makes what the pod needs before its first container: an error is the sandbox's.
    pub async fn prepare(&self) -> Result<(), SandboxError> {
        if self.has_sysctls() {
            self.hold().await?;
        }
        Ok(())
    }

    fn has_sysctls(&self) -> bool {
        let linux = self.spec.linux().as_ref();
        let sysctls = linux.and_then(|linux| linux.sysctl().as_ref());
        sysctls.is_some_and(|sysctls| !sysctls.is_empty())
    }

    fn shares_processes(&self, spec: &Spec) -> bool {
        let own = format!("/proc/{}/ns/pid", self.machine.pid);
        let namespaces = spec
            .linux()
            .as_ref()
            .and_then(|linux| linux.namespaces().as_deref())
            .unwrap_or_default();
        namespaces.iter().any(|namespace| {
            namespace.typ() == LinuxNamespaceType::Pid
                && namespace.path().as_deref() == Some(Path::new(&own))
        })
    }

    /// Runs the sandbox container, unless it runs.
    async fn hold(&self) -> Result<(), SandboxError> {
        let mut holder = self.holder.lock().await;
        if holder
            .as_ref()
            .is_some_and(|one| one.init().exit().is_none())
        {
            return Ok(());
        }
        if let Some(ended) = holder.take() {
            ended.delete().await?;
        }
        let mut guest = spec::rewrite(&self.id, &self.spec, &self.bundle, &self.rootfs)?;
        if !self.has_sysctls() {
            keep_processes_only(&mut guest);
        }
        let stdio = Stdio::Own {
            stdin: None,
            stdout: None,
            stderr: None,
        };
        let container = self.machine.sandbox.create(&self.id, &guest, stdio).await?;
        if let Err(error) = container.start().await {
            container.delete().await?;
            return Err(error);
        }
        *holder = Some(container);
        Ok(())
    }
}

/// Containers that were made before are in the guest's own namespaces: the others are there, too.
fn keep_processes_only(guest: &mut GuestSpec) {
    guest.spec.set_hostname(None);
    if let Some(namespaces) = guest
        .spec
        .linux_mut()
        .as_mut()
        .and_then(|linux| linux.namespaces_mut().as_mut())
    {
        namespaces.retain(|namespace| {
            !matches!(
                namespace.typ(),
                LinuxNamespaceType::Ipc | LinuxNamespaceType::Uts
            )
        });
    }
}
