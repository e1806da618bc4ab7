//! Namespaces of a pod that its engine has made beforehand, and keeps by binding each to a file.
//!
//! CRI-O does so (`/run/ipcns/ID`, `/run/utsns/ID`). No process is in such a namespace: to us it is a name for one in the
//! guest, which the first of the pod's containers brings and the others share. One that processes of the host are in is
//! theirs, and cannot be had.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use oci_spec::runtime::{LinuxNamespaceType, Spec};
use rustix::fs::{Mode, OFlags, fstat, open};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

/// What tells one from another as long as both exist: device and inode.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pinned(u64, u64);

impl Pinned {
    /// The IPC or UTS namespace that is bound to a file; nothing when the file is something else, or a link, which leads
    /// to a process's.
    pub(super) fn at(kind: LinuxNamespaceType, path: &Path) -> Option<Self> {
        let wanted = match kind {
            LinuxNamespaceType::Ipc => LinkNameSpaceType::InterProcessCommunication,
            LinuxNamespaceType::Uts => LinkNameSpaceType::HostNameAndNISDomainName,
            _ => return None,
        };
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let file = open(path, flags, Mode::empty()).ok()?;
        // The only way to see that a file is one of this kind is to go there: a thread does, and ends.
        let is_one = std::thread::scope(|scope| {
            let visit = || move_into_link_name_space(std::os::fd::AsFd::as_fd(&file), Some(wanted));
            let thread = std::thread::Builder::new().spawn_scoped(scope, visit);
            thread.is_ok_and(|thread| matches!(thread.join(), Ok(Ok(()))))
        });
        let status = fstat(&file).ok().filter(|_| is_one)?;
        Some(Self(status.st_dev, status.st_ino))
    }

    /// Whether no process of the host is in it: neither the host's own processes nor another runtime's containers.
    pub(super) fn is_empty(self, kind: LinuxNamespaceType) -> bool {
        let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
        let mut namespaces = processes
            .filter(|process| {
                let name = process.file_name();
                name.as_encoded_bytes().iter().all(u8::is_ascii_digit)
            })
            // One that ends meanwhile is in none.
            .filter_map(|process| fs::metadata(process.path().join(format!("ns/{kind}"))).ok());
        !namespaces.any(|namespace| Self(namespace.dev(), namespace.ino()) == self)
    }
}

/// Those that a spec names.
#[must_use]
pub fn pinned(spec: &Spec) -> Vec<Pinned> {
    let namespaces = spec
        .linux()
        .as_ref()
        .and_then(|linux| linux.namespaces().as_deref())
        .unwrap_or_default();
    namespaces
        .iter()
        .filter_map(|namespace| Pinned::at(namespace.typ(), namespace.path().as_deref()?))
        .collect()
}
