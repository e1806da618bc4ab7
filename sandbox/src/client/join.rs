//! The sandbox that a new container joins.

use std::os::unix::net::UnixStream;

use oci_spec::runtime::Spec;

use crate::client::connect;
use crate::error::SandboxError;
use crate::id::ContainerId;
use crate::spec::{self, Neighbours, Owner, network_path, sandbox_of};
use crate::state::{StateError, Store};

/// A running sandbox, found by the name of its first container.
#[derive(Debug)]
pub(super) struct Joined {
    id: ContainerId,
    /// Whose namespaces the new container may share.
    pub(super) neighbours: Neighbours,
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
            Err(StateError::Missing(_)) => return Err(refused("does not exist in this runtime")),
            loaded => loaded?,
        };
        let driver = first
            .driver
            .filter(|driver| first.exit.is_none() && driver.is_alive())
            .ok_or_else(|| refused("has ended"))?;
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
        Ok(Some(Self { id, neighbours }))
    }

    /// A connection to its driver.
    pub(super) fn connect(&self, store: &Store) -> Result<UnixStream, SandboxError> {
        connect(&store.folder(&self.id)).map_err(SandboxError::system(format!(
            "reach the driver of sandbox {}",
            self.id
        )))
    }
}
