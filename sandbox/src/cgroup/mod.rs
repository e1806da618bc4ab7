//! Control groups on the host.
//!
//! Limits are enforced by the guest's kernel, on the container itself. The host's groups are for whoever accounts there:
//! VMM, file server, driver and proxy are in those that the engine names for the sandbox's first container
//! (`linux.cgroupsPath`), each further container's proxy in those of its own. So an engine's statistics show what the virtual
//! machine costs the host, its kernel included. Where nobody names any, VMM and file server are in [some of their
//! own](Own). What a group of ours limits itself is the number of processes, should one of them be taken over.

mod membership;
mod mounts;
mod own;
pub mod want;

use std::fs;
use std::io::{self, ErrorKind};
use std::path::{Component, Path, PathBuf};
use std::time::{Duration, Instant};

use oci_spec::runtime::Spec;

pub use membership::{Groups, Visit};
pub use mounts::{Hierarchies, Version};
pub use own::{Own, own_folders};

/// How long the kernel may take to let go of processes that have ended, all groups together.
const PATIENCE: Duration = Duration::from_secs(5);

/// The most processes and threads in a group that we make. The largest machine has less than 200, each container of a pod a
/// proxy.
const PROCESSES: u32 = 1024;

/// Why there is no control group.
#[derive(Debug, thiserror::Error)]
pub enum CgroupError {
    /// The spec's path is none.
    #[error("linux.cgroupsPath {path:?}: {problem}")]
    Path {
        /// As the spec has it.
        path: PathBuf,
        /// What is wrong.
        problem: &'static str,
    },
    /// There is nothing to make one in.
    #[error("no control groups are mounted here: mount them, usually at /sys/fs/cgroup")]
    NotMounted,
    /// There is no writing where they are.
    #[error(
        "control group: {path} cannot be made on a mount that is read-only: mount the host's control groups so that they can be written"
    )]
    ReadOnly {
        /// Which was wanted.
        path: PathBuf,
    },
    /// The kernel refuses.
    #[error("control group: cannot {action} {path}")]
    System {
        /// What was tried.
        action: &'static str,
        /// Where.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
}

fn system(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> CgroupError {
    let path = path.to_owned();
    move |source| CgroupError::System {
        action,
        path,
        source,
    }
}

/// The folders of a container's groups, one in each hierarchy of the host; none when the spec names no group, or we are
/// not root and could make none.
///
/// # Errors
/// When the spec's path is none, or the host shows no control groups.
pub fn folders(spec: &Spec) -> Result<Vec<PathBuf>, CgroupError> {
    let path = spec
        .linux()
        .as_ref()
        .and_then(|linux| linux.cgroups_path().as_ref())
        .filter(|path| !path.as_os_str().is_empty());
    let Some(path) = path.filter(|_| rustix::process::geteuid().is_root()) else {
        return Ok(Vec::new());
    };
    let path = relative(path)?;
    Ok(Hierarchies::read()?.mounted()?.folders(&path))
}

/// A spec's path below the roots of hierarchies.
fn relative(path: &Path) -> Result<PathBuf, CgroupError> {
    let wrong = |problem| CgroupError::Path {
        path: path.to_owned(),
        problem,
    };
    let text = path.to_str().ok_or_else(|| wrong("is no text"))?;
    let plain = match text.split(':').collect::<Vec<_>>()[..] {
        [_] => path.to_owned(),
        // As systemd would name it: the group is made at the same place, without asking systemd.
        [slice, prefix, name] => unit(slice, prefix, name).ok_or_else(|| {
            wrong("has three parts, and they are not a slice, a prefix and a name of systemd's")
        })?,
        _ => return Err(wrong("is neither a path nor systemd's SLICE:PREFIX:NAME")),
    };
    let mut below = PathBuf::new();
    for part in plain.components() {
        match part {
            Component::Normal(part) => below.push(part),
            Component::RootDir | Component::CurDir => {}
            _ => return Err(wrong("leads upwards")),
        }
    }
    if below.as_os_str().is_empty() {
        return Err(wrong("is the root, which holds everything else too"));
    }
    Ok(below)
}

/// Where systemd keeps a scope: `a-b.slice:p:n` is `a.slice/a-b.slice/p-n.scope`.
fn unit(slice: &str, prefix: &str, name: &str) -> Option<PathBuf> {
    let is_plain = |part: &str| !part.is_empty() && !part.contains('/');
    if !is_plain(name) || prefix.contains('/') {
        return None;
    }
    let slice = if slice.is_empty() {
        "system.slice"
    } else {
        slice
    };
    let stem = slice.strip_suffix(".slice")?;
    let mut path = PathBuf::new();
    if stem != "-" {
        let mut unit = String::new();
        for part in stem.split('-') {
            if !is_plain(part) {
                return None;
            }
            if !unit.is_empty() {
                unit.push('-');
            }
            unit.push_str(part);
            path.push(format!("{unit}.slice"));
        }
    }
    path.push(match (name.ends_with(".slice"), prefix) {
        (true, _) => name.to_owned(),
        (false, "") => format!("{name}.scope"),
        (false, prefix) => format!("{prefix}-{name}.scope"),
    });
    Some(path)
}

/// Makes the groups, as far as they are not there. Those that it makes take a limited number of processes.
///
/// # Errors
/// When the kernel refuses.
pub fn make(folders: &[PathBuf]) -> Result<(), CgroupError> {
    let hierarchies = Hierarchies::read()?;
    let (mut is_new, mut is_limited) = (false, false);
    for folder in folders {
        let made = make_one(folder).map_err(|error| match error.kind() {
            ErrorKind::ReadOnlyFilesystem => CgroupError::ReadOnly {
                path: folder.clone(),
            },
            _ => system("make", folder)(error),
        })?;
        hierarchies.prepare(folder)?;
        is_new |= made;
        is_limited |= made && limit_processes(folder)?;
    }
    if is_new && !is_limited {
        tracing::warn!("the host has no controller that limits processes (pids) in control groups");
    }
    Ok(())
}

/// Makes a group; false when it is there.
fn make_one(folder: &Path) -> io::Result<bool> {
    if let Some(parent) = folder.parent() {
        fs::create_dir_all(parent)?;
    }
    match fs::create_dir(folder) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(false),
        Err(error) => Err(error),
    }
}

/// Limits the processes in a group; false in a hierarchy that does not.
fn limit_processes(folder: &Path) -> Result<bool, CgroupError> {
    let file = folder.join("pids.max");
    if !file.exists() {
        return Ok(false);
    }
    fs::write(&file, PROCESSES.to_string()).map_err(system("write", &file))?;
    Ok(true)
}

/// Puts a process into the groups; what it starts from then on is in them too.
///
/// # Errors
/// When the kernel refuses.
pub fn join(folders: &[PathBuf], pid: i32) -> Result<(), CgroupError> {
    for folder in folders {
        let file = folder.join("cgroup.procs");
        fs::write(&file, pid.to_string()).map_err(system("write", &file))?;
    }
    Ok(())
}

/// Takes the calling process out of every group, to the roots of the hierarchies.
///
/// # Errors
/// When the kernel refuses.
pub fn leave() -> Result<(), CgroupError> {
    let roots = Hierarchies::read()?.folders(Path::new(""));
    join(&roots, std::process::id().cast_signed())
}

/// Limits the memory of all in the groups together.
///
/// # Errors
/// When the kernel refuses.
pub fn limit_memory(folders: &[PathBuf], bytes: u64) -> Result<(), CgroupError> {
    for folder in folders {
        for name in ["memory.limit_in_bytes", "memory.max"] {
            let file = folder.join(name);
            if file.exists() {
                fs::write(&file, bytes.to_string()).map_err(system("write", &file))?;
            }
        }
    }
    Ok(())
}

/// Removes the groups of a container whose processes have ended. Groups that hold others' processes or groups stay.
///
/// # Errors
/// When the kernel refuses for another reason.
pub fn remove(folders: &[PathBuf]) -> Result<(), CgroupError> {
    let end = Instant::now() + PATIENCE;
    for folder in folders {
        loop {
            match fs::remove_dir(folder) {
                Ok(()) => break,
                // Where nothing can be written, the kernel does not say that there is nothing to remove.
                Err(_) if !folder.exists() => break,
                // Threads of a killed process may leave it after the process is seen as ended.
                Err(error) if error.kind() == ErrorKind::ResourceBusy && Instant::now() < end => {
                    std::thread::sleep(Duration::from_millis(2));
                }
                Err(error) if error.kind() == ErrorKind::ResourceBusy && is_used(folder) => {
                    tracing::info!(folder = %folder.display(), "control group is in use by others");
                    break;
                }
                Err(error) => return Err(system("remove", folder)(error)),
            }
        }
    }
    Ok(())
}

/// Whether a group holds processes or groups.
fn is_used(folder: &Path) -> bool {
    let processes = fs::read_to_string(folder.join("cgroup.procs")).unwrap_or_default();
    let has_groups = fs::read_dir(folder).is_ok_and(|entries| {
        entries
            .flatten()
            .any(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
    });
    !processes.trim().is_empty() || has_groups
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_of_engines_are_understood() {
        for (given, path) in [
            ("/docker/abc", "docker/abc"),
            ("k8s.io/abc", "k8s.io/abc"),
            ("//a/./b/", "a/b"),
            ("machine.slice:libpod:abc", "machine.slice/libpod-abc.scope"),
            (":docker:abc", "system.slice/docker-abc.scope"),
            (
                "kubepods-burstable-pod1.slice:cri-containerd:abc",
                "kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod1.slice/cri-containerd-abc.scope",
            ),
            ("-.slice::abc", "abc.scope"),
        ] {
            assert_eq!(relative(Path::new(given)).unwrap(), Path::new(path));
        }
        for wrong in [
            "/",
            "/a/../b",
            "..",
            "a:b",
            "a:b:c",
            "x.slice:p:",
            "x.slice:p:a/b",
            "a--b.slice:p:n",
        ] {
            assert!(relative(Path::new(wrong)).is_err(), "{wrong}");
        }
    }
}
