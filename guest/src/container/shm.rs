//! Shared memory (`/dev/shm`) of containers that share an IPC namespace.

use std::fs;
use std::path::{Path, PathBuf};

use oci_spec::runtime::Spec;
use rustix::io::Errno;
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};

use super::{ContainerError, FOLDER};

/// How the host names it as the source of a mount: `shm:SIZE:CONTAINER`. Without a container it is the sandbox's.
const SOURCE: &str = "shm:";

/// Makes the file systems that mounts of a spec name, unless they are there, and puts their paths into it.
pub(super) fn make(spec: &mut Spec) -> Result<(), ContainerError> {
    let Some(mut mounts) = spec.mounts().clone() else {
        return Ok(());
    };
    for mount in &mut mounts {
        let text = mount.source().as_deref().and_then(Path::to_str);
        let wanted = text.and_then(|text| text.strip_prefix(SOURCE));
        let Some(wanted) = wanted.filter(|_| mount.typ().as_deref() == Some("bind")) else {
            continue;
        };
        let (size, owner) = parse(wanted).ok_or_else(|| {
            ContainerError::invalid("mounts.source", format!("{wanted:?} is no shared memory"))
        })?;
        let folder = folder(owner);
        tmpfs(&folder, size).map_err(ContainerError::file("mount a tmpfs on", &folder))?;
        mount.set_source(Some(folder));
    }
    spec.set_mounts(Some(mounts));
    Ok(())
}

/// Lets go of a container's. Those who use it keep it.
pub(super) fn remove(owner: &str) {
    let folder = folder(owner);
    // Most containers have none.
    let _ = unmount(&folder, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW);
    let _ = fs::remove_dir(folder);
}

/// Size in bytes (0: unlimited), and the container that has it.
fn parse(wanted: &str) -> Option<(u64, &str)> {
    let (size, owner) = wanted.split_once(':')?;
    let is_plain = owner != "." && owner != ".." && !owner.contains('/');
    Some((size.parse().ok()?, owner)).filter(|_| is_plain)
}

fn folder(owner: &str) -> PathBuf {
    let all = Path::new(FOLDER).join("shm");
    match owner {
        "" => all.join("sandbox"),
        owner => all.join("containers").join(owner),
    }
}

fn tmpfs(folder: &Path, size: u64) -> std::io::Result<()> {
    let parent = folder.parent().unwrap_or(folder);
    fs::create_dir_all(parent)?;
    match fs::create_dir(folder) {
        // Somebody who shares it came first.
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => return Ok(()),
        made => made?,
    }
    let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    let options = match size {
        0 => "mode=1777".to_owned(),
        size => format!("mode=1777,size={size}"),
    };
    let options = std::ffi::CString::new(options)?;
    mount("shm", folder, "tmpfs", flags, Some(options.as_c_str())).map_err(|error: Errno| {
        let _ = fs::remove_dir(folder);
        error.into()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_stay_in_their_folder() {
        assert_eq!(parse("65536:c1"), Some((65536, "c1")));
        assert_eq!(parse("0:"), Some((0, "")));
        for wrong in ["", "1", "x:c1", "-1:c1", "1:..", "1:a/b", "1:/etc"] {
            assert_eq!(parse(wrong), None, "{wrong}");
        }
        assert_ne!(folder(""), folder("sandbox"));
    }
}
