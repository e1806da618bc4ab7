//! Shared memory (`/dev/shm`).
//!
//! Engines make a tmpfs on the host for each IPC namespace and have it bound into the containers that share it. Served to
//! the guest as a folder it would be a file system for each container, whose memory is not the others'; so the guest makes
//! the tmpfs, as large as the engine's.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use oci_spec::runtime::{Linux, LinuxNamespaceType, Mount};
use rustix::fs::statfs;

use crate::id::ContainerId;
use crate::spec::namespaces::{Neighbours, Owner};
use crate::spec::pinned::Pinned;

/// Where a container looks for it.
const PLACE: &str = "/dev/shm";

/// How engines call theirs, a mount point somewhere among a container's files.
const NAME: &str = "shm";

/// `TMPFS_MAGIC` of the kernel.
const TMPFS: i64 = 0x0102_1994;

/// What the guest's agent takes for the shared memory of an IPC namespace, if this mount is an engine's.
pub(super) fn source(
    mount: &Mount,
    source: &Path,
    (id, linux, neighbours): (&ContainerId, Option<&Linux>, &Neighbours),
) -> Option<PathBuf> {
    if mount.destination() != Path::new(PLACE) {
        return None;
    }
    let size = size_of_engines(source).or_else(|| unmade(mount, source, neighbours))?;
    let namespaces = linux?.namespaces().as_deref().unwrap_or_default();
    let ipc = namespaces
        .iter()
        .find(|namespace| namespace.typ() == LinuxNamespaceType::Ipc)?;
    let owner = match ipc.path() {
        None => id.as_str(),
        // The pod's, whoever of it brings what the namespace stands for.
        Some(path) if Pinned::at(LinuxNamespaceType::Ipc, path).is_some() => "",
        Some(path) => match neighbours.owner(LinuxNamespaceType::Ipc, path)? {
            Owner::Container(id) => id.as_str(),
            Owner::Sandbox => "",
        },
    };
    Some(format!("shm:{size}:{owner}").into())
}

/// Bytes of the shared memory that an engine names and has left to the sandbox to make; nothing: it is some other mount.
pub(super) fn unmade(mount: &Mount, source: &Path, neighbours: &Neighbours) -> Option<u64> {
    let size = neighbours.shared_memory()?;
    let is_meant = mount.destination() == Path::new(PLACE) && source.file_name()? == NAME;
    (is_meant && !source.exists()).then_some(size)
}

/// Bytes that an engine's shared memory has room for; 0: no limit. Nothing: it is some other folder, and the user wants
/// just that one.
fn size_of_engines(source: &Path) -> Option<u64> {
    if source.file_name()? != NAME || source == Path::new(PLACE) {
        return None;
    }
    let file_system = statfs(source).ok()?;
    let device = |path: &Path| fs::metadata(path).map(|folder| folder.dev()).ok();
    let is_mounted = device(source)? != device(source.parent()?)?;
    if file_system.f_type != TMPFS || !is_mounted {
        return None;
    }
    let block = u64::try_from(file_system.f_bsize).ok()?;
    Some(file_system.f_blocks.saturating_mul(block))
}
