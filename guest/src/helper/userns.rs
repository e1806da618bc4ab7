//! The user namespace of a container.
//!
//! libcontainer can make one, but then insists on systemd for the cgroup. It joins one that has
//! a path without that, so the worker makes it and gives it a path.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::fd::{AsRawFd, OwnedFd};

use oci_spec::runtime::{LinuxIdMapping, LinuxNamespaceType, Spec};
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{Pid, WaitOptions, waitpid};

use crate::syscalls::{Fork, fork};

/// Makes the user namespace that `spec` wants, if it wants one, and writes its path into the
/// spec. The path is good in this process and its children for as long as the result lives.
pub(super) fn make(spec: &mut Spec) -> io::Result<Option<OwnedFd>> {
    let Some(mut linux) = spec.linux().clone() else {
        return Ok(None);
    };
    let mut namespaces = linux.namespaces().clone().unwrap_or_default();
    let wanted = namespaces
        .iter_mut()
        .find(|namespace| namespace.typ() == LinuxNamespaceType::User);
    let Some(namespace) = wanted else {
        return Ok(None);
    };
    let (uids, gids) = (linux.uid_mappings(), linux.gid_mappings());
    let (Some(uids), Some(gids)) = (uids, gids) else {
        return Err(io::Error::other(
            "a user namespace needs uidMappings and gidMappings",
        ));
    };
    let made = OwnedFd::from(with_mappings(&lines(uids), &lines(gids))?);
    namespace.set_path(Some(format!("/proc/self/fd/{}", made.as_raw_fd()).into()));
    linux.set_namespaces(Some(namespaces));
    spec.set_linux(Some(linux));
    Ok(Some(made))
}

/// Mappings as uid_map and gid_map take them.
fn lines(mappings: &[LinuxIdMapping]) -> String {
    mappings
        .iter()
        .map(|map| format!("{} {} {}\n", map.container_id(), map.host_id(), map.size()))
        .collect()
}

/// A namespace exists only with a process in it: a child enters one, waits to be mapped, and is
/// let go when somebody else holds the namespace.
fn with_mappings(uids: &str, gids: &str) -> io::Result<File> {
    let (entered, enter) = pipe_with(PipeFlags::CLOEXEC)?;
    let (wait, release) = pipe_with(PipeFlags::CLOEXEC)?;
    let child = match fork()? {
        Fork::Parent(child) => child,
        Fork::Child => {
            drop((entered, release));
            std::process::exit(stay(File::from(enter), File::from(wait)));
        }
    };
    drop((enter, wait));
    let mut word = Vec::new();
    File::from(entered).read_to_end(&mut word)?;
    let made = if word.is_empty() {
        Err(io::Error::other("the kernel gives no user namespace"))
    } else {
        fs::write(format!("/proc/{child}/uid_map"), uids)
            .and_then(|()| fs::write(format!("/proc/{child}/gid_map"), gids))
            .and_then(|()| File::open(format!("/proc/{child}/ns/user")))
    };
    drop(release);
    // It is this worker's own child, not the agent's.
    if let Some(child) = Pid::from_raw(child) {
        let _ = waitpid(Some(child), WaitOptions::empty());
    }
    made
}

fn stay(mut entered: File, mut wait: File) -> i32 {
    if crate::syscalls::new_user_namespace().is_err() || entered.write_all(b"1").is_err() {
        return 1;
    }
    drop(entered);
    // Ends when the other end is closed, for whatever reason.
    let _ = wait.read(&mut [0]);
    0
}
