//! The sandbox that a new container joins.

use std::os::unix::net::UnixStream;
use std::path::PathBuf;

use oci_spec::runtime::Spec;

use crate::client::connect;
use crate::error::SandboxError;
use crate::id::ContainerId;
use crate::spec::{self, Neighbours, Owner, network_path, sandbox_named, sandbox_of};
use crate::state::{ProcessIdentity, Record, StateError, Store};

/// A running sandbox, found by the name of its first container, or by that of the pod.
#[derive(Debug)]
pub(super) struct Joined {
    id: ContainerId,
    /// Whose namespaces the new container may share.
    pub(super) neighbours: Neighbours,
    /// The groups that go with its last container.
    pub(super) machine_cgroups: Vec<PathBuf>,
}

impl Joined {
    /// The sandbox that a container's annotations name, if they do.
    pub(super) fn find(store: &Store, spec: &Spec) -> Result<Option<Self>, SandboxError> {
        let Some(id) = sandbox_of(spec)? else {
            return Ok(None);
        };
        let refused = |problem| SandboxError::Join {
            sandbox: id.clone(),
            problem,
        };
        let first = match store.load(&id) {
            // An engine that makes the namespaces by itself may leave a sandbox out that would only hold them: CRI-O's
            // `drop_infra_ctr`. Then the pod is there as long as some container of it is.
            Err(StateError::Missing(_)) if !spec::pinned(spec).is_empty() => {
                match store
                    .list()?
                    .into_iter()
                    .find(|one| is_running_in(one, &id))
                {
                    Some(member) => member,
                    None => return Ok(None),
                }
            }
            Err(StateError::Missing(_)) => return Err(refused("does not exist in this runtime")),
            loaded => loaded?,
        };
        let driver = running(&first).ok_or_else(|| refused("has ended"))?;
        // Its bundle may be gone; then the network's name is all that is missing.
        let network = spec::load(&first.bundle)
            .ok()
            .as_ref()
            .and_then(network_path);
        let mut neighbours = Neighbours::new(network);
        for record in store.list()? {
            let init = record.init.filter(|init| init.is_alive());
            if let Some(init) = init
                && record.driver == Some(driver)
                && record.exit.is_none()
            {
                neighbours.add(init.pid, Owner::Container(record.id));
            }
        }
        Ok(Some(Self {
            id: first.id,
            neighbours,
            machine_cgroups: first.machine_cgroups,
        }))
    }

    /// A connection to its driver.
    pub(super) fn connect(&self, store: &Store) -> Result<UnixStream, SandboxError> {
        connect(&store.folder(&self.id)).map_err(SandboxError::system(format!(
            "reach the driver of sandbox {}",
            self.id
        )))
    }
}

/// The driver of a container that has not ended.
fn running(record: &Record) -> Option<ProcessIdentity> {
    let driver = record.driver.filter(|_| record.exit.is_none());
    driver.filter(ProcessIdentity::is_alive)
}

/// Whether a container is one of this pod's, and runs.
fn is_running_in(record: &Record, sandbox: &ContainerId) -> bool {
    let name = sandbox_named(&record.annotations);
    name.is_some_and(|name| name == sandbox.as_str()) && running(record).is_some()
}
