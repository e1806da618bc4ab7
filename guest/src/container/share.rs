//! The container's part of the share.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use cofferdam_protocol::SHARE_MOUNT;
use oci_spec::runtime::Spec;
use rustix::fs::{AtFlags, CWD, StatxFlags, statx};
use rustix::mount::{MountFlags, UnmountFlags, mount_remount, unmount};
use tokio::time::timeout;

/// How long the host may take to write what it is given.
const PATIENCE: Duration = Duration::from_secs(30);

/// Gives back what a container has written, and has the kernel forget every file that it has seen of the container's
/// part of the share, so that the host can take it away and nothing of it stays busy.
///
/// Everything in here is a courtesy to the host, which takes it away whatever the guest does: what fails is not told.
pub(super) async fn let_go(id: &str) {
    let folder = Path::new(SHARE_MOUNT).join(id);
    let forgotten = tokio::task::spawn_blocking(move || forget(&folder));
    // A share that hangs must not keep the container's name.
    let _ = timeout(PATIENCE, forgotten).await;
}

/// Has the kernel ask the host again how long the files are that a container was given: what it has learned of a file it
/// believes for a second, and an engine may have written it again since the container was created.
pub(super) async fn look_again(spec: &Spec) {
    let mounts = spec.mounts().iter().flatten();
    let given: Vec<PathBuf> = mounts
        .filter_map(|mount| mount.source().clone())
        .filter(|source| source.starts_with(SHARE_MOUNT))
        .collect();
    if given.is_empty() {
        return;
    }
    let asked = tokio::task::spawn_blocking(move || {
        for path in given {
            // One that is not there any more is the container's to find out.
            let _ = statx(CWD, &path, AtFlags::STATX_FORCE_SYNC, StatxFlags::SIZE);
        }
    });
    // A share that hangs is noticed by who reads it.
    let _ = timeout(PATIENCE, asked).await;
}

fn forget(folder: &Path) {
    // Each file system of the host's is one of the guest's, mounted when it was first walked into.
    let table = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    for mount in mounts_below(&table, folder).iter().rev() {
        // Nothing of the container's runs: this was the last use, and what was written to mapped memory goes first.
        let _ = unmount(mount, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW);
    }
    // This drops what the kernel remembers of names in the share's own folders; nothing else does so at once.
    let _ = mount_remount(SHARE_MOUNT, MountFlags::empty(), "");
}

/// Mount points below a folder, parents first.
fn mounts_below(table: &str, folder: &Path) -> Vec<PathBuf> {
    table
        .lines()
        .filter_map(|line| line.split(' ').nth(4))
        .map(PathBuf::from)
        .filter(|point| point.starts_with(folder) && point != folder)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_the_mounts_of_one_container() {
        let table = "\
            20 1 0:20 / /run/cofferdam/share rw shared:1 - virtiofs cofferdam rw\n\
            21 20 0:21 / /run/cofferdam/share/c1/rootfs rw - virtiofs cofferdam rw\n\
            22 20 0:22 / /run/cofferdam/share/c11/rootfs rw - virtiofs cofferdam rw\n\
            23 20 0:23 / /run/cofferdam/share/c1/mounts/0 rw - virtiofs cofferdam rw\n\
            \n";
        let found = mounts_below(table, Path::new("/run/cofferdam/share/c1"));
        assert_eq!(
            found,
            [
                Path::new("/run/cofferdam/share/c1/rootfs"),
                Path::new("/run/cofferdam/share/c1/mounts/0")
            ]
        );
    }
}
