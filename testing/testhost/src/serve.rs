//! A file server of a test host: this machine's files, or the results.

use std::io;
use std::os::fd::AsFd;
use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use rustix::fs::Mode;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit, umask};
use vhost::vhost_user::Error::{Disconnected, PartialMessage};
use vhost_user_backend::Error::HandleRequest;
use vhost_user_backend::VhostUserDaemon;
use virtiofsd::filesystem::{FileSystem, SerializableFileSystem};
use virtiofsd::passthrough::read_only::PassthroughFsRo;
use virtiofsd::passthrough::{CachePolicy, Config, InodeFileHandlesMode, PassthroughFs};
use virtiofsd::vhost_user::VhostUserFsBackendBuilder;
use vm_memory::{GuestMemoryAtomic, GuestMemoryMmap};

/// Descriptors that the guest's files must leave free.
const RESERVED: u64 = 640;

/// How long the test host may believe what it knows of this machine's files: longer than it lives.
const FOREVER: Duration = Duration::from_secs(86_400);

/// What a file server serves.
#[derive(Debug, Clone)]
pub enum Served {
    /// This machine's files, read only. What changes while the test host runs may not be seen there.
    Root,
    /// A folder, writable. What one side writes the other sees at once.
    Folder(PathBuf),
}

/// Serves the one connection that waits in the socket at standard input, until QEMU hangs up.
///
/// # Errors
/// What made it end earlier.
pub fn serve(served: Served) -> Result<()> {
    let listener = UnixListener::from(
        io::stdin()
            .as_fd()
            .try_clone_to_owned()
            .context("take the socket")?,
    );
    // The test host has applied its own.
    umask(Mode::empty());
    let limit = getrlimit(Resource::Nofile).maximum;
    let all = Rlimit {
        current: limit,
        maximum: limit,
    };
    setrlimit(Resource::Nofile, all).context("raise the number of open files")?;
    let common = Config {
        xattr: true,
        // One descriptor for each file that the test host knows would soon be too many.
        inode_file_handles: InodeFileHandlesMode::Prefer,
        guest_fd_limit: limit.unwrap_or(u64::MAX).saturating_sub(RESERVED),
        ..Config::default()
    };
    match served {
        Served::Root => {
            let files = PassthroughFsRo::new(Config {
                root_dir: "/".to_owned(),
                cache_policy: CachePolicy::Always,
                entry_timeout: FOREVER,
                attr_timeout: FOREVER,
                ..common
            });
            run(files.context("open /")?, listener)
        }
        Served::Folder(folder) => {
            let root_dir = folder.into_os_string().into_string();
            let root_dir = root_dir.map_err(|folder| {
                anyhow::anyhow!("{} is not UTF-8", PathBuf::from(folder).display())
            })?;
            let files = PassthroughFs::new(Config {
                cache_policy: CachePolicy::Never,
                entry_timeout: Duration::ZERO,
                attr_timeout: Duration::ZERO,
                root_dir: root_dir.clone(),
                ..common
            });
            run(files.with_context(|| format!("open {root_dir}"))?, listener)
        }
    }
}

fn run<F: FileSystem + SerializableFileSystem + Send + Sync + 'static>(
    files: F,
    listener: UnixListener,
) -> Result<()> {
    let backend = VhostUserFsBackendBuilder::default()
        .set_thread_pool_size(0)
        .build(files)
        .map_err(|error| anyhow::anyhow!("serve: {error}"))?;
    let memory = GuestMemoryAtomic::new(GuestMemoryMmap::new());
    let mut daemon = VhostUserDaemon::new("vhost-user".to_owned(), Arc::new(backend), memory)
        .map_err(|error| anyhow::anyhow!("serve: {error}"))?;
    daemon
        .start(&mut listener.into())
        .map_err(|error| anyhow::anyhow!("listen to QEMU: {error}"))?;
    match daemon.wait() {
        Ok(()) | Err(HandleRequest(Disconnected | PartialMessage)) => Ok(()),
        Err(error) => Err(anyhow::anyhow!("serve QEMU: {error}")),
    }
}
