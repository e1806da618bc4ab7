//! Owner, mode, times and extended attributes.

use std::ffi::OsStr;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;

use rustix::fs::{AtFlags, Gid, Mode, Timespec, Timestamps, Uid, XattrFlags};
use rustix::io::Errno;

use super::root::{Place, os};
use super::tar::Entry;
use crate::BadEntry;

/// The attribute that makes a directory hide everything below it.
const OPAQUE: &str = "trusted.overlay.opaque";

/// Sets everything on an open file or directory. The order matters: a change of owner drops
/// set-id bits and capabilities, and every change moves the times.
pub(super) fn apply(file: impl AsFd, entry: &Entry) -> Result<(), BadEntry> {
    let file = file.as_fd();
    let (uid, gid) = owner(entry)?;
    rustix::fs::fchown(file, Some(uid), Some(gid)).map_err(os("set the owner of"))?;
    rustix::fs::fchmod(file, Mode::from_raw_mode(entry.mode)).map_err(os("set the mode of"))?;
    for (name, value) in &entry.xattrs {
        if !wanted_xattr(name)? {
            continue;
        }
        rustix::fs::fsetxattr(file, OsStr::from_bytes(name), value, XattrFlags::empty()).map_err(
            |errno| BadEntry::Os {
                action: "set the extended attributes of",
                source: match errno {
                    Errno::NOTSUP => io::Error::other(
                        "the file system of the image store has no extended attributes of this kind",
                    ),
                    errno => errno.into(),
                },
            },
        )?;
    }
    rustix::fs::futimens(file, &times(entry)).map_err(os("set the time of"))
}

/// Sets what a link or a fifo can have; these are never opened.
pub(super) fn apply_at(place: &Place<'_>, entry: &Entry) -> Result<(), BadEntry> {
    for (name, _) in &entry.xattrs {
        // Linux keeps neither user attributes nor capabilities on these; refused ones are errors
        // all the same.
        wanted_xattr(name)?;
    }
    let (uid, gid) = owner(entry)?;
    let (parent, name) = (place.parent(), place.name());
    let nofollow = AtFlags::SYMLINK_NOFOLLOW;
    rustix::fs::chownat(parent, name, Some(uid), Some(gid), nofollow)
        .map_err(os("set the owner of"))?;
    rustix::fs::utimensat(parent, name, &times(entry), nofollow).map_err(os("set the time of"))
}

/// Marks a directory so that overlayfs shows nothing of the layers below it.
pub(super) fn set_opaque(directory: impl AsFd) -> Result<(), BadEntry> {
    rustix::fs::fsetxattr(directory, OPAQUE, b"y", XattrFlags::empty()).map_err(|errno| {
        BadEntry::Os {
            action: "mark as opaque",
            source: match errno {
                Errno::NOTSUP | Errno::PERM => io::Error::other(
                    "the file system of the image store has no trusted extended attributes, or this is not root",
                ),
                errno => errno.into(),
            },
        }
    })
}

/// True for attributes that belong to the image, false for those that belong to the host it was
/// made on (labels, access lists), an error for those that would steer overlayfs or the kernel.
fn wanted_xattr(name: &[u8]) -> Result<bool, BadEntry> {
    let shown = String::from_utf8_lossy(name);
    if name.len() > 255 || name.contains(&0) {
        return Err(BadEntry::Xattr(shown.chars().take(100).collect()));
    }
    if name.starts_with(b"trusted.") || name.starts_with(b"user.overlay.") {
        return Err(BadEntry::Xattr(shown.into_owned()));
    }
    if name == b"security.capability" || name.starts_with(b"user.") {
        return Ok(true);
    }
    tracing::debug!(name = %shown, "extended attribute of the image's build host left out");
    Ok(false)
}

fn owner(entry: &Entry) -> Result<(Uid, Gid), BadEntry> {
    // The highest number means "leave as it is" to the kernel.
    let id = |id: u64, what| match u32::try_from(id) {
        Ok(id) if id != u32::MAX => Ok(id),
        _ => Err(BadEntry::OutOfRange(what)),
    };
    let uid = id(entry.uid, "its user id")?;
    let gid = id(entry.gid, "its group id")?;
    Ok((Uid::from_raw(uid), Gid::from_raw(gid)))
}

fn times(entry: &Entry) -> Timestamps {
    let (seconds, nanoseconds) = entry.mtime;
    let time = Timespec {
        tv_sec: seconds,
        tv_nsec: nanoseconds.into(),
    };
    Timestamps {
        last_access: time,
        last_modification: time,
    }
}
