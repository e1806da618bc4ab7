//! Serving the tree over vhost-user.

use std::os::unix::net::UnixListener;
use std::sync::Arc;
use std::time::Duration;

use anyhow::bail;
use sandbox_share::EntryError;
use vhost::vhost_user::Error::{Disconnected, PartialMessage};
use vhost_user_backend::Error::HandleRequest;
use vhost_user_backend::VhostUserDaemon;
use virtiofsd::passthrough::{
    CachePolicy, Config, InodeFileHandlesMode, NegotiationMode, PassthroughFs,
};
use virtiofsd::vhost_user::{VhostUserFsBackend, VhostUserFsBackendBuilder};
use vm_memory::{GuestMemoryAtomic, GuestMemoryMmap};

use crate::confine::FileLimit;
use crate::layout::Tree;

/// Descriptors that the guest's files must leave free: one for each piece of guest memory (at most 509), and the
/// server's own.
const RESERVED: u64 = 640;

/// How long the guest may believe what it knows of a file that the host could change.
const CACHE_TIMEOUT: Duration = Duration::from_secs(1);

/// A server that answers a guest.
pub struct Server(VhostUserDaemon<Arc<VhostUserFsBackend<PassthroughFs>>>);

/// Starts to serve the root directory.
pub fn start(
    tree: Tree,
    listener: UnixListener,
    threads: usize,
    limit: FileLimit,
) -> Result<Server, EntryError> {
    let config = Config {
        entry_timeout: CACHE_TIMEOUT,
        attr_timeout: CACHE_TIMEOUT,
        cache_policy: CachePolicy::Auto,
        root_dir: "/".to_owned(),
        xattr: true,
        // The server clears set-user-id bits on writes, instead of the guest asking for attributes before each.
        killpriv_v2: true,
        // Linux 6.12 gives a submount no access control lists, whatever was negotiated for the root.
        posix_acl: NegotiationMode::Never,
        proc_sfd_rawfd: Some(tree.own_fds),
        proc_mountinfo_rawfd: Some(tree.mount_table),
        // The same inode number on two file systems must not look like one file.
        announce_submounts: true,
        inode_file_handles: if limit.handles {
            InodeFileHandlesMode::Prefer
        } else {
            InodeFileHandlesMode::Never
        },
        guest_fd_limit: limit.descriptors.saturating_sub(RESERVED + threads as u64),
        ..Config::default()
    };
    let files = PassthroughFs::new(config).map_err(failed("cannot open the tree"))?;
    let backend = VhostUserFsBackendBuilder::default()
        .set_thread_pool_size(threads)
        .build(files)
        .map_err(failed("cannot start the request threads"))?;
    let memory = GuestMemoryAtomic::new(GuestMemoryMmap::new());
    let mut daemon = VhostUserDaemon::new("vhost-user".to_owned(), Arc::new(backend), memory)
        .map_err(failed("cannot start the queue threads"))?;
    daemon
        .start(&mut listener.into())
        .map_err(failed("cannot start to listen to the VMM"))?;
    Ok(Server(daemon))
}

impl Server {
    /// Waits until the VMM hangs up.
    pub fn wait(mut self) -> anyhow::Result<()> {
        match self.0.wait() {
            Ok(()) | Err(HandleRequest(Disconnected | PartialMessage)) => Ok(()),
            Err(error) => bail!("the VMM sent a request that can't be served: {error}"),
        }
    }
}

fn failed<E: std::fmt::Display>(step: &str) -> impl FnOnce(E) -> EntryError {
    move |error| EntryError::Confine {
        step: step.to_owned(),
        reason: error.to_string(),
    }
}
