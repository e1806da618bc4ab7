//! Mounting an image's layers under a writable directory.

use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags, open};
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};

use crate::ImageError;

/// A mounted overlay; dropping it unmounts.
#[derive(Debug)]
pub struct Overlay {
    target: Option<PathBuf>,
}

impl Overlay {
    /// Unmounts and reports what went wrong.
    ///
    /// # Errors
    /// When the mount is busy.
    pub fn close(mut self) -> Result<(), ImageError> {
        match self.target.take() {
            Some(target) => unmount(&target, UnmountFlags::NOFOLLOW)
                .map_err(|errno| ImageError::io("unmount", target)(errno.into())),
            None => Ok(()),
        }
    }

    /// Leaves the mount in place: another process will unmount it.
    #[must_use = "the path is what must be unmounted"]
    pub fn keep(mut self) -> PathBuf {
        self.target.take().unwrap_or_default()
    }
}

impl Drop for Overlay {
    fn drop(&mut self) {
        if let Some(target) = self.target.take()
            && let Err(error) = unmount(&target, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW)
        {
            tracing::warn!(path = %target.display(), %error, "overlay stays mounted");
        }
    }
}

/// Mounts `layers` (bottom first, as [`Image::layers`](crate::Image::layers) has them) under the
/// writable directory `upper` on `target`. `work` is an empty directory on the file system of
/// `upper`. Device nodes do not work in the mount.
///
/// The layers are handed over as descriptors: mount options fit one page, which the long paths
/// of some forty layers would fill.
///
/// # Errors
/// When a directory cannot be opened or the mount is refused.
pub fn mount_overlay(
    layers: &[PathBuf],
    upper: &Path,
    work: &Path,
    target: &Path,
) -> Result<Overlay, ImageError> {
    let directory = |path: &Path| {
        open(
            path,
            OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC,
            Mode::empty(),
        )
        .map_err(|errno| ImageError::io("open", path)(errno.into()))
    };
    let lower = layers
        .iter()
        .rev()
        .map(|path| directory(path))
        .collect::<Result<Vec<OwnedFd>, _>>()?;
    let upper = directory(upper)?;
    let work = directory(work)?;
    let name = |fd: &OwnedFd| format!("/proc/self/fd/{}", fd.as_raw_fd());
    let options = format!(
        "lowerdir={},upperdir={},workdir={}",
        lower.iter().map(name).collect::<Vec<_>>().join(":"),
        name(&upper),
        name(&work)
    );
    let options = std::ffi::CString::new(options).map_err(|error| ImageError::Io {
        action: "mount",
        path: target.to_owned(),
        source: error.into(),
    })?;
    mount(
        "overlay",
        target,
        "overlay",
        MountFlags::NODEV,
        Some(options.as_c_str()),
    )
    .map_err(|errno| ImageError::io("mount an overlay on", target)(errno.into()))?;
    Ok(Overlay {
        target: Some(target.to_owned()),
    })
}
