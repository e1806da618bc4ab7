//! The root file system that containerd describes by mounts.
//!
//! An overlay becomes an entry of the sandbox's file share, and a writable bind mount its source: neither is ever
//! mounted on the host. Anything else is mounted in the bundle, as containerd's runc shim does with all of them.

use std::ffi::CString;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use containerd_shim_protos::api::Mount;
use rustix::io::Errno;
use rustix::mount::{MountFlags, UnmountFlags, mount, mount_remount, unmount};
use sandbox::spec::Rootfs;

/// Options of an overlay that change nothing for a single mount of it.
const HARMLESS: [&str; 2] = ["index=off", "rw"];

/// Where the guest's root file system is to come from.
#[derive(Debug)]
pub struct Source {
    /// For the spec's rewriting.
    pub rootfs: Rootfs,
    /// Instead of the path that the spec names.
    pub path: Option<PathBuf>,
    /// What was mounted for it.
    pub mounted: Option<Mounted>,
}

/// Mounts on the bundle's `rootfs`. Dropping it unmounts them.
#[derive(Debug)]
pub struct Mounted(PathBuf);

impl Drop for Mounted {
    fn drop(&mut self) {
        if let Err(error) = unmount_all(&self.0) {
            tracing::error!("{error:#}");
        }
    }
}

/// Makes it ready.
pub fn prepare(mounts: &[Mount], bundle: &Path) -> Result<Source> {
    let source = |rootfs, path, mounted| Source {
        rootfs,
        path,
        mounted,
    };
    match mounts {
        [] => return Ok(source(Rootfs::Bundle, None, None)),
        [one] => {
            if let Some(layers) = layers(one) {
                return Ok(source(layers, None, None));
            }
            if let Some(path) = writable_bind(one) {
                return Ok(source(Rootfs::Bundle, Some(path), None));
            }
        }
        _ => {}
    }
    let target = bundle.join("rootfs");
    let mounted = Mounted(bundle.to_owned());
    for one in mounts {
        mount_one(one, &target).with_context(|| {
            format!(
                "cannot mount {} ({}) as root file system",
                one.source, one.type_
            )
        })?;
    }
    Ok(source(Rootfs::Bundle, None, Some(mounted)))
}

/// Unmounts whatever is on the bundle's `rootfs`.
pub fn unmount_all(bundle: &Path) -> Result<()> {
    let target = bundle.join("rootfs");
    // A guest cannot add mounts: there are as many as were made.
    for _ in 0..64 {
        match unmount(&target, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW) {
            Ok(()) => {}
            Err(Errno::INVAL | Errno::NOENT) => return Ok(()),
            Err(error) => {
                return Err(error).with_context(|| format!("cannot unmount {}", target.display()));
            }
        }
    }
    bail!("too many mounts on {}", target.display())
}

fn layers(mount: &Mount) -> Option<Rootfs> {
    if mount.type_ != "overlay" {
        return None;
    }
    let (mut lower, mut upper, mut work) = (None, None, None);
    for option in &mount.options {
        match option.split_once('=') {
            Some(("lowerdir", value)) => lower = Some(value),
            Some(("upperdir", value)) => upper = Some(value),
            Some(("workdir", value)) => work = Some(value),
            _ if HARMLESS.contains(&option.as_str()) => {}
            _ => return None,
        }
    }
    let (lower, upper, work) = (lower?, upper?, work?);
    let mut layers: Vec<_> = lower.split(':').map(PathBuf::from).collect();
    // The topmost comes first in the option.
    layers.reverse();
    let plain = |path: &Path| path.is_absolute() && !path.to_string_lossy().contains('\\');
    let (upper, work) = (PathBuf::from(upper), PathBuf::from(work));
    let all_plain = layers.iter().chain([&upper, &work]).all(|path| plain(path));
    all_plain.then_some(Rootfs::Layers {
        layers,
        upper,
        work,
    })
}

fn writable_bind(mount: &Mount) -> Option<PathBuf> {
    let plain = |option: &String| ["bind", "rbind", "rw"].contains(&option.as_str());
    let path = PathBuf::from(&mount.source);
    (mount.type_ == "bind" && mount.options.iter().all(plain) && path.is_absolute()).then_some(path)
}

fn mount_one(request: &Mount, target: &Path) -> Result<()> {
    let mut flags = MountFlags::empty();
    let mut data = Vec::new();
    for option in &request.options {
        match option.as_str() {
            "rw" | "defaults" | "suid" | "dev" | "exec" => {}
            "ro" => flags |= MountFlags::RDONLY,
            "bind" => flags |= MountFlags::BIND,
            "rbind" => flags |= MountFlags::BIND | MountFlags::REC,
            "nosuid" => flags |= MountFlags::NOSUID,
            "nodev" => flags |= MountFlags::NODEV,
            "noexec" => flags |= MountFlags::NOEXEC,
            "noatime" => flags |= MountFlags::NOATIME,
            "nodiratime" => flags |= MountFlags::NODIRATIME,
            "relatime" => flags |= MountFlags::RELATIME,
            "strictatime" => flags |= MountFlags::STRICTATIME,
            "sync" => flags |= MountFlags::SYNCHRONOUS,
            "dirsync" => flags |= MountFlags::DIRSYNC,
            "loop" => bail!("unsupported: option loop: attach the image to a block device first"),
            other => data.push(other),
        }
    }
    let data = CString::new(data.join(",")).context("an option with a zero byte")?;
    mount(
        request.source.as_str(),
        target,
        request.type_.as_str(),
        flags,
        Some(data.as_c_str()),
    )?;
    // A bind mount takes its other flags only afterwards.
    if flags.contains(MountFlags::BIND | MountFlags::RDONLY) {
        mount_remount(target, flags.difference(MountFlags::REC), c"")?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mount(kind: &str, source: &str, options: &[&str]) -> Mount {
        let mut mount = Mount::new();
        kind.clone_into(&mut mount.type_);
        source.clone_into(&mut mount.source);
        mount.options = options.iter().map(|&option| option.to_owned()).collect();
        mount
    }

    #[test]
    fn overlays_and_binds_need_no_mount() {
        let bundle = Path::new("/nonexistent");
        let overlay = mount(
            "overlay",
            "overlay",
            &["index=off", "workdir=/w", "upperdir=/u", "lowerdir=/b:/a"],
        );
        let source = prepare(&[overlay], bundle).unwrap();
        let layers = Rootfs::Layers {
            layers: vec!["/a".into(), "/b".into()],
            upper: "/u".into(),
            work: "/w".into(),
        };
        assert_eq!(source.rootfs, layers);
        assert!(source.mounted.is_none());
        let bind = mount("bind", "/snapshot", &["rbind", "rw"]);
        let source = prepare(&[bind], bundle).unwrap();
        assert_eq!(source.path, Some("/snapshot".into()));
        assert!(source.mounted.is_none());
    }

    #[test]
    fn anything_else_is_mounted_or_refused_by_name() {
        let bundle = Path::new("/nonexistent");
        for other in [
            mount("overlay", "overlay", &["lowerdir=/a:/b"]),
            mount(
                "overlay",
                "overlay",
                &["lowerdir=a", "upperdir=/u", "workdir=/w"],
            ),
            mount("bind", "/snapshot", &["rbind", "ro"]),
            mount("ext4", "/dev/nonexistent", &["loop"]),
        ] {
            let error = prepare(std::slice::from_ref(&other), bundle).unwrap_err();
            assert!(error.to_string().contains(&other.source), "{error}");
        }
    }
}
